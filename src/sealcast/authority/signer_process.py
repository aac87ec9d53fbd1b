"""`authority serve --roles signer`: the process that holds the site CA's key, and nothing else.

It opens neither the database nor the network, and makes the next key itself (signer_keys.py). Whoever may
connect to its socket is asked for no password: the kernel says which user's process it is (SO_PEERCRED), and
what is issued is decided by the rules of `sealcast.ca.local` and its ledger, by this process's own clock. Two
requests are for the operator only, the user that this process runs as, or root: to let a removed device come
back, and to permit a name to be an administrator or a registration authority.
"""

import asyncio
import contextlib
import logging
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sealcast import system
from sealcast.authority.issuance import SIGNER_SOCKET_FILE as SIGNER_SOCKET_FILE
from sealcast.authority.signer_batch import DeviceBatches
from sealcast.authority.signer_keys import SignerKeys
from sealcast.ca import DeviceRequest, IssuedCertificate, LocalIssuer, Permit
from sealcast.ca.remote import (
    MAX_FRAME_BYTES,
    MAX_TOGETHER,
    pack_error,
    pack_issuance,
    unpack_hardware,
    unpack_public_key,
)
from sealcast.errors import (
    CertificateError,
    InternalError,
    SealcastError,
    StorageError,
    UsageError,
)
from sealcast.pki.crl import Revocation
from sealcast.pki.csr import CertificateRequest
from sealcast.pki.files import storage_errors
from sealcast.pki.policy import Policy
from sealcast.pki.signed import decode_cbor, encode_cbor

MAX_CONNECTIONS = 64
"""The service asks for one thing at a time; commands beside it are few."""

_THREADS = 4
"""That wait for the disk beside each other; signatures themselves hold the interpreter."""

REQUEST_SECONDS = 5.0
"""For a request to come in whole; the caller is on the same machine."""

_MAX_PAGE = 1000
_LENGTH = struct.Struct(">I")
_CREDENTIALS = struct.Struct("3i")
_PR_SET_DUMPABLE = 4

_OPERATOR_ONLY = frozenset({"readmit", "permit"})

_SIGNING = frozenset({"issue-key-server", "issue-admin", "sign-policies"})
"""Words before the key to sign with."""

_UNKNOWN = "the signer does not do that"

_PERMITS = frozenset(map(str, Permit))

_log = logging.getLogger("sealcast.signer")


class SignerSocket:
    """The signer's end of the socket."""

    def __init__(self, path: Path, *, service_user: int | None = None) -> None:
        """Bind the socket. One that is there is a leftover, unless somebody listens on it.

        Args:
            path: of the socket.
            service_user: the user that the service runs as, if that is not the user of this process.

        Raises:
            StorageError: the socket cannot be made, or another signer listens on it.
        """
        self._path = path
        self._service_user = service_user
        self._keys: SignerKeys | None = None
        self._server: asyncio.Server | None = None
        self._connections = 0
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="signer")
        self._batches: dict[bytes, DeviceBatches] = {}
        self._answering: set[asyncio.Task[None]] = set()
        with storage_errors(path), contextlib.ExitStack() as stack:
            if _is_listening(path):
                raise StorageError(
                    str(path), "another signer listens here already", cure="end that one first"
                )
            path.unlink(missing_ok=True)
            self._socket = system.local_socket(path)
            stack.callback(self._socket.close)
            # Connecting needs the right to write.
            with system.for_owner_alone(), system.short_path(path) as name:
                self._socket.bind(name)
            if service_user is not None:
                # Who may connect is judged by SO_PEERCRED below, and by the folder that the socket lies in.
                path.chmod(0o666)
            stack.pop_all()

    async def start(self, keys: SignerKeys) -> None:
        """Listen, and have signed with `keys` what is asked for."""
        self._keys = keys
        self._server = await system.serve_locally(self._serve, self._socket)

    async def close(self) -> None:
        """Stop listening, and answer who has asked."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._answering:
            await asyncio.wait(self._answering, timeout=REQUEST_SECONDS)
        self._pool.shutdown()
        self._socket.close()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            user = system.peer_user(writer.get_extra_info("socket"))
            if self._connections > MAX_CONNECTIONS or user not in system.operators() | {self._service_user}:
                _log.warning("a connection of user %d is refused", user)
                return
            async with asyncio.timeout(REQUEST_SECONDS):
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                request = await reader.readexactly(length) if length <= MAX_FRAME_BYTES else b""
            task = asyncio.current_task()
            if task is not None:
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            answer = await self._answer(request, is_operator=user in system.operators())
            writer.write(_LENGTH.pack(len(answer)) + answer)
            async with asyncio.timeout(REQUEST_SECONDS):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            _log.debug("a connection ended early: %s", error)
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, request: bytes, *, is_operator: bool) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            # Whoever waits for the disk, or for a long list, holds nobody else up.
            done = await loop.run_in_executor(self._pool, self._perform, request, is_operator)
            if isinstance(done, _Devices):
                outcomes = await self._batch(done.key).ask(list(done.good()))
                done = done.answers(outcomes)
            return await loop.run_in_executor(self._pool, encode_cbor, [0, done])
        except SealcastError as error:
            # A full disk is worth a line of its own here; a refusal too, as it may be somebody who tries.
            _log.warning("refused: %s", error)
            return encode_cbor([1, pack_error(error)])
        except Exception:  # noqa: BLE001  # nothing of it may reach the caller; it is logged whole
            _log.exception("a request failed")
            return encode_cbor([1, pack_error(InternalError("the signer failed; see its log"))])

    def _batch(self, key: bytes) -> DeviceBatches:
        keys = self._keys
        if keys is None:
            raise InternalError("the signer has not been started")
        if key not in self._batches:
            self._batches[key] = DeviceBatches(lambda: keys.issuer(key), self._pool)
        return self._batches[key]

    def _perform(self, request: bytes, is_operator: bool) -> Any:  # called by an executor
        """Do what is asked for, in a thread; devices are parsed here, and signed with those of others."""
        keys = self._keys
        if keys is None:
            raise InternalError("the signer has not been started")
        asked = decode_cbor(request)
        match asked:
            case [str(word), *_] if word in _OPERATOR_ONLY and not is_operator:
                raise CertificateError(
                    f"{word} is for the operator of the signer alone",
                    reason="not-allowed",
                    cure="run the command as the user that the signer runs as",
                )
            case ["issue-crl", [*under], int(number), [*entries]] if all(map(_is_bytes, under)):
                lister = keys.lister(under)
                return lister.issue_crl(number=number, revocations=map(_revocation, entries), now=0)
            case ["issue-devices", bytes(under), [*requests]] if len(requests) <= MAX_TOGETHER:
                keys.issuer(under)
                return _Devices(under, [_device(each) for each in requests])
            case [str(word), bytes(under), *arguments] if word in _SIGNING:
                return _sign(keys.issuer(under), word, arguments)
            case ["prepare-key", int(number)]:
                return keys.prepare(number)
            case ["take-certificate", bytes(certificate)]:
                return keys.take_certificate(certificate)
            case ["switch-key", bytes(key)]:
                return keys.switch(key)
            case ["retire-key", bytes(key)]:
                return keys.retire(key)
            case ["abandon-key", bytes(key)]:
                return keys.abandon(key)
            case [*_]:
                return _note(keys.first, asked)
        raise UsageError(_UNKNOWN)


class _Devices:
    """Devices that are asked for: what can be judged under the ledger, or why it cannot be read."""

    def __init__(self, key: bytes, requests: Sequence[DeviceRequest | SealcastError]) -> None:
        self.key = key
        self._requests = requests

    def good(self) -> Iterator[DeviceRequest]:
        return (each for each in self._requests if isinstance(each, DeviceRequest))

    def answers(self, outcomes: Sequence[IssuedCertificate | SealcastError]) -> list[list[object]]:
        """The answer for each, in the order of the request."""
        judged = iter(outcomes)
        answers: list[list[object]] = []
        for each in self._requests:
            outcome = next(judged) if isinstance(each, DeviceRequest) else each
            if isinstance(outcome, SealcastError):
                _log.warning("refused: %s", outcome)
                answers.append([1, pack_error(outcome)])
            else:
                answers.append([0, outcome.der])
        return answers


def _device(packed: object) -> DeviceRequest | SealcastError:
    match packed:
        case [bytes(csr), str(name), bytes() | None as current, hardware, bytes() | None as key, bool(also)]:
            try:
                return DeviceRequest(
                    csr=CertificateRequest.parse(csr, own_key=key is None),
                    name=name,
                    current=current,
                    hardware=unpack_hardware(hardware),
                    generated=None if key is None else unpack_public_key(key),
                    registers=also,
                )
            except SealcastError as error:
                return error
    raise UsageError(_UNKNOWN)


def _sign(issuer: LocalIssuer, word: str, arguments: list[Any]) -> Any:
    """What is signed under one key."""
    match [word, *arguments]:
        case ["issue-key-server", bytes(key), str(name), [*hosts]] if all(map(_is_text, hosts)):
            return issuer.issue_key_server(
                public_key=unpack_public_key(key), name=name, hosts=hosts, now=0
            ).der
        case ["issue-admin", bytes(csr), str(name)]:
            return issuer.issue_admin(csr, name, 0).der
        case ["sign-policies", [*encoded]] if len(encoded) <= MAX_TOGETHER and all(map(_is_bytes, encoded)):
            return issuer.sign_policies([Policy.decode(tbs) for tbs in encoded])
    raise UsageError(_UNKNOWN)


def _note(issuer: LocalIssuer, asked: list[Any]) -> Any:
    """What is written into the ledger, or read there, whichever key issues."""
    match asked:
        case ["remove", str(name)]:
            return issuer.remove(name, 0)
        case ["readmit", str(name)]:
            return issuer.readmit(name, 0)
        case ["permit", str(what), str(name)] if what in _PERMITS:
            return issuer.permit(Permit(what), name, 0)
        case ["withdraw", str(what), str(name)] if what in _PERMITS:
            return issuer.withdraw(Permit(what), name, 0)
        case ["permitted", str(what)] if what in _PERMITS:
            return sorted(issuer.permitted(Permit(what)))
        case ["removed-names"]:
            return sorted(issuer.removed_names())
        case ["issued-after", int(position), int(limit)]:
            found = issuer.issued_after(position, min(limit, _MAX_PAGE))
            return [pack_issuance(entry) for entry in found]
        case ["last-position"]:
            return issuer.last_position()
    raise UsageError(_UNKNOWN)


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _revocation(entry: object) -> Revocation:
    match entry:
        case [bytes(serial), int(time)] if 1 <= len(serial) <= 20:
            return Revocation(serial=int.from_bytes(serial, "big"), time=time)
    raise UsageError("not a revocation")


def _is_listening(path: Path) -> bool:
    with (
        contextlib.closing(system.local_socket(path)) as probe,
        system.short_path(path) as name,
    ):
        try:
            probe.connect(name)
        except OSError:
            return False
        return True
