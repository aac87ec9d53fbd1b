"""Every exception that Sealcast raises on purpose.

    SealcastError                      exit code
    ├── UsageError                     2   a name, an option or a call that makes no sense
    │   ├── UnknownNameError           2   nothing of that name is there
    │   └── ConflictError              2   it does not fit what is there by now
    ├── ConfigError                    3   settings, addresses, interfaces
    ├── EnrolmentError                 4   enrolment or renewal refused, or to be tried later
    │   ├── TokenError                 4   the one-time token is unknown, used, expired or of another device
    │   └── CsrError                   4   the certificate request itself is not acceptable
    ├── CertificateError               5   a certificate, a chain, a signature or a signed object
    ├── ChannelError                   6   a channel
    │   ├── UnknownChannelError        6   nobody knows it
    │   └── NotAllowedError            6   its policy does not list the device
    ├── PeerError                      6   no channel's policy lists a peer and this device together
    ├── RoleError                      6   the admin's role does not allow it
    ├── NetworkError                   7   the network, or an answer that makes no sense
    │   └── UnreachableError           7   nobody answers at that address
    ├── StorageError                   8   a file, a folder, a disk, a database
    │   └── OutboxFullError            8   too much waits for a peer
    ├── IncompleteError                9   something was not delivered, or not acknowledged
    └── InternalError                  1   a fault of Sealcast

The branches go by what the caller can do. Exit codes of the command line, never reused: 0 done, 1 internal, 2
usage, 3 configuration or interface, 4 enrolment or token, 5 certificate or trust, 6 channel unknown or not
allowed, 7 network or unreachable, 8 storage, file or disk, 9 incomplete (loss, or a missing acknowledgement),
10 no error, but a difference (`policy diff`), 130 interrupted by the user.

`str(error)` says what is wrong and names the value, lower-case, in one line, without secrets. `error.cure`
says what to do about it; the command line prints both.
"""

from typing import ClassVar


class SealcastError(Exception):
    """Root of all errors of Sealcast."""

    exit_code: ClassVar[int] = 1
    default_cure: ClassVar[str] = ""

    def __init__(self, problem: str, *, cure: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.cure = cure or self.default_cure

    def __str__(self) -> str:
        return self.problem


class UsageError(SealcastError):
    """A value or an order of calls that makes no sense, whatever the state of the system."""

    exit_code = 2
    default_cure = "see --help"


class UnknownNameError(UsageError):
    """Nothing of that name, or of that number, is there."""

    default_cure = "see the list"


class ConflictError(UsageError):
    """What is asked for does not fit what is there by now: it exists already, or somebody was faster."""

    default_cure = "read it again, then decide"


class ConfigError(SealcastError):
    """Settings that do not fit this machine or this site: a URL, an address, an interface."""

    exit_code = 3
    default_cure = "correct the setting"


class EnrolmentError(SealcastError):
    """Enrolment or renewal was refused, or is not decided yet.

    `retry_after`: seconds after which to ask again; None if asking again is of no use.
    """

    exit_code = 4
    default_cure = "ask the authority's operator"

    def __init__(self, problem: str, *, retry_after: int | None = None, cure: str = "") -> None:
        super().__init__(problem, cure=cure)
        self.retry_after = retry_after


class TokenError(EnrolmentError):
    """The one-time token does not admit this device. The text never holds the token."""

    default_cure = "get a new one with: sealcast authority token DIR --device NAME"


class CsrError(EnrolmentError):
    """A certificate request (RFC 2986) that is not acceptable.

    `fault`: one of `encoding`, `size`, `signature`, `key`, `attribute`, `name`; `name` means that it asks for
    the identity of someone else.
    """

    default_cure = "make a new request"

    def __init__(self, problem: str, *, fault: str, cure: str = "") -> None:
        super().__init__(problem, cure=cure)
        self.fault = fault


class CertificateError(SealcastError):
    """A certificate, a chain, a CRL, a signature or a signed object that does not hold.

    `reason`: the short code of the verdict, as the engine's validator gives it, or empty.
    """

    exit_code = 5
    default_cure = "check the roots, the clock and the certificate"

    def __init__(self, problem: str, *, reason: str = "", cure: str = "") -> None:
        super().__init__(problem, cure=cure)
        self.reason = reason


class ChannelError(SealcastError):
    """Something about one channel. `channel`: its name."""

    exit_code = 6
    default_cure = "see: sealcast authority channel --help"

    def __init__(self, problem: str, *, channel: str, cure: str = "") -> None:
        super().__init__(problem, cure=cure)
        self.channel = channel


class UnknownChannelError(ChannelError):
    """No channel of this name exists at the site."""

    default_cure = "check the name, or add it with: sealcast authority channel add"

    def __init__(self, channel: str, *, cure: str = "") -> None:
        super().__init__(f"unknown channel {channel!r}", channel=channel, cure=cure)


class NotAllowedError(ChannelError):
    """The channel's policy does not allow it. `action`: `publish`, `subscribe` or `keep packets`."""

    default_cure = "have the operator list the device in the channel's policy"

    def __init__(self, channel: str, *, device: str, action: str, cure: str = "") -> None:
        super().__init__(
            f"device {device!r} may not {action} on channel {channel!r}", channel=channel, cure=cure
        )
        self.device = device
        self.action = action


class PeerError(SealcastError):
    """No channel's policy lists both this device and the peer, so that they exchange no messages. `peer`."""

    exit_code = 6
    default_cure = "check the name, or have the operator list both devices in the policy of one channel"

    def __init__(self, peer: str, *, cure: str = "") -> None:
        super().__init__(f"no channel's policy lists both this device and {peer!r}", cure=cure)
        self.peer = peer


class RoleError(SealcastError):
    """The admin's role does not allow the request. `role`: the one that it needs."""

    exit_code = 6
    default_cure = "ask a security officer"

    def __init__(self, problem: str, *, role: str, cure: str = "") -> None:
        super().__init__(problem, cure=cure)
        self.role = role


class NetworkError(SealcastError):
    """The network, or a peer whose answer makes no sense."""

    exit_code = 7
    default_cure = "check the network and the address"


class UnreachableError(NetworkError):
    """Nobody answers.

    `address`: the URL or `host:port` that was tried. `is_busy`: it may do so yet, as it has not refused the
    connection and may only have too many.
    """

    default_cure = "check that it runs and that the address is right"

    def __init__(self, address: str, detail: str, *, cure: str = "", is_busy: bool = False) -> None:
        super().__init__(f"cannot reach {address}: {detail}", cure=cure)
        self.address = address
        self.detail = detail
        self.is_busy = is_busy


class StorageError(SealcastError):
    """A file, a folder, a disk or a database. `path`.

    What it is about, as given by the user where possible.
    """

    exit_code = 8
    default_cure = "check that the path exists, that it may be read and written, and that the disk has room"

    def __init__(self, path: str, detail: str, *, cure: str = "") -> None:
        super().__init__(f"{path}: {detail}", cure=cure)
        self.path = path
        self.detail = detail


class OutboxFullError(StorageError):
    """So much waits to be delivered to peers that nothing more is taken. Nothing of the call was queued."""

    default_cure = "wait until the peer has taken some of it, or see why it does not"


class IncompleteError(SealcastError):
    """Part of the work is missing: messages lost for good, or subscribers that have not acknowledged."""

    exit_code = 9
    default_cure = "send it again"


class InternalError(SealcastError):
    """A state that must not occur."""

    exit_code = 1
    default_cure = "run again with --debug and report the traceback"
