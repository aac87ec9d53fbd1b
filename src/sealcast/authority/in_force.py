"""What is in force in a running authority: held in memory, and asked by every listener.

Lives on the event loop. What a transaction has stored is installed here in one go, so that an answer is made
either wholly before a change or wholly after it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from sealcast import _core
from sealcast.authority.admins import AdminRole
from sealcast.authority.changes import Changes
from sealcast.authority.live import LiveChannel
from sealcast.authority.news import DocumentNews
from sealcast.authority.policy_versions import StoredPolicy
from sealcast.authority.revocation import CurrentCrl
from sealcast.authority.site import KeyServerIdentity, Site
from sealcast.errors import CertificateError
from sealcast.keys import GatesReply, KeysReply, MemberRole
from sealcast.pki.bundle import TrustBundle, VerifiedBundle
from sealcast.pki.validator import Validator, VerifiedPeer


class InForce:
    """Channels, trust, CRL and register of a site, as far as they are asked for all the time."""

    def __init__(self, site: Site, clock: Callable[[], int]) -> None:
        """Begin with what the folder says; the first `install` brings the rest.

        Args:
            site: its folder.
            clock: microseconds since the epoch.
        """
        self.site = site
        self.clock = clock
        self.validator = site.validator()
        self.credentials = _core.Validator(list(site.roots), list(site.issuers))
        self.identity: KeyServerIdentity = site.key_server()
        self._crl: CurrentCrl | None = None
        self._bundle: VerifiedBundle | None = None
        self._revoked: set[str] = set()
        self._admins: Mapping[str, AdminRole] = {}
        self._channels: dict[str, LiveChannel] = {}
        self.stopping = False
        self.news = DocumentNews()
        # Called when the key server has a new certificate; the listeners load it into their contexts.
        self.on_certificate: list[Callable[[], None]] = []
        # Told of the certificates (DER) that peers may stand under, when a new trust bundle is in force.
        self.on_trust: list[Callable[[Sequence[bytes]], None]] = []
        # Set when slots may have to turn earlier than was thought.
        self.channels_changed = asyncio.Event()

    @property
    def crl(self) -> CurrentCrl:
        """The CRL in force."""
        if self._crl is None:
            raise RuntimeError("the authority has not been started")
        return self._crl

    def tls_authorities(self) -> tuple[bytes, ...]:
        """DER: under which certificates of peers may stand; who they are is judged after the handshake."""
        if self._bundle is None:
            return (*self.site.roots, *self.site.issuers)
        bundle = self._bundle.bundle
        return (*(anchor for anchor, _ in bundle.trusted(self.clock())), *bundle.authorities())

    @property
    def bundle(self) -> VerifiedBundle | None:
        """The latest trust bundle, if the site has one."""
        return self._bundle

    def judge(self, peer: VerifiedPeer) -> VerifiedPeer:
        """Refuse a peer that the register says is removed, whatever the CRL says; returns it otherwise.

        Raises:
            CertificateError: reason `revoked`.
        """
        if peer.site_id == self.site.site_id and peer.name in self._revoked:
            raise CertificateError(f"device {peer.name!r} is revoked", reason="revoked")
        return peer

    def admin_role(self, name: str) -> AdminRole | None:
        """What an admin may do at this moment; None if it is unknown or revoked."""
        return self._admins.get(name)

    def channel(self, name: str) -> LiveChannel | None:
        """The channel of that name."""
        return self._channels.get(name)

    def all_channels(self) -> list[LiveChannel]:
        """Every channel."""
        return list(self._channels.values())

    def channels_of(self, device: str) -> tuple[tuple[str, int], ...]:
        """Name and policy's version of each channel that lists a device, which is written as TR-13 says."""
        return tuple(
            sorted(
                (channel.name, channel.policy.version.version)
                for channel in self.all_channels()
                if channel.policy.mentions(device)
            )
        )

    def pairs(self, device: str, other: str) -> bool:
        """Whether two devices, written as TR-13 says, may exchange messages (TR-30)."""
        return any(
            channel.policy.mentions(device) and channel.policy.mentions(other)
            for channel in self.all_channels()
        )

    def keys_reply(self, channel: LiveChannel, device: str, joining: MemberRole | None = None) -> KeysReply:
        """Secrets for a member that has just been authorised, and that is `joining`, perhaps again."""
        return channel.keys_reply(self.clock(), device, joining)

    def gates_reply(self, channel: LiveChannel) -> GatesReply:
        """Keys for a repair node that has just been authorised."""
        return channel.gates_reply(self.clock())

    def end_polls(self) -> None:
        """Answer everyone who waits, and let nobody wait any more."""
        self.stopping = True
        self.news.end()
        for channel in self._channels.values():
            channel.end_polls()

    def install(self, changes: Changes) -> None:
        """Put in force what a transaction has stored."""
        now = self.clock()
        if changes.revoked is not None:
            self._revoked = set(changes.revoked)
        self._revoked |= changes.removed
        self._revoked -= changes.readmitted
        if changes.admins is not None:
            self._admins = changes.admins
        if changes.crl is not None:
            self._crl = changes.crl
        if changes.bundle is not None:
            self._bundle = changes.bundle
            self._trust(changes.bundle.bundle, now)
        if changes.identity is not None:
            # Before channels are made, as at a start.
            self.identity = changes.identity
            for served in self._channels.values():
                served.certify(self.identity, now)
            for loaded in self.on_certificate:
                loaded()
        policies: list[StoredPolicy] = []
        for stored in changes.channels:
            channel = self._channels.get(stored.name)
            if channel is None or channel.policy.version != stored.policy.version:
                policies += [stored.policy, *([] if channel is None else [channel.policy])]
            if channel is not None:
                channel.install(stored, self.crl, now)
            else:
                self._channels[stored.name] = LiveChannel(
                    stored,
                    self.crl,
                    self.identity,
                    self.site.site_id,
                    self.site.key_server_name,
                    now,
                    self._bundle,
                )
                self.channels_changed.set()
        if changes.crl is not None or changes.bundle is not None:
            for served in self._channels.values():
                served.install_trust(self.crl, self._bundle, now)
        if changes.crl is not None:
            self.news.tell()
        elif policies:
            self.news.tell(lambda device: any(policy.mentions(device) for policy in policies))

    def _trust(self, bundle: TrustBundle, now: int) -> None:
        """Judge peers, of other sites too, by what the trust bundle says (TR-21)."""
        self.validator = Validator(bundle.trusted(now), bundle.authorities())
        self.credentials = _core.Validator(bundle.trusted(now), bundle.authorities())
        for loaded in self.on_trust:
            loaded(self.tls_authorities())
