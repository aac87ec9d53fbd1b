"""A channel in the running service: what is stored of it, its control stream, and those who wait for news.

Lives on the event loop. A change is stored first (channels.py), then installed here without a pause in
between, so that an answer is made either wholly before it or wholly after it.
"""

import asyncio
import hashlib
import logging
import math
import os
import time
from collections import Counter

from sealcast import _core
from sealcast.authority.directory import SILENT, StoredStream
from sealcast.authority.policy_versions import StoredPolicy
from sealcast.authority.revocation import CurrentCrl
from sealcast.authority.site import KeyServerIdentity
from sealcast.authority.stored_channel import StoredChannel
from sealcast.keys import (
    COUNTER_RESERVE,
    BeaconCounter,
    ChannelKeys,
    GatesReply,
    KeyServer,
    KeysReply,
    MemberRole,
    ObjectVersion,
    SealedBeacon,
    SignedVersions,
)
from sealcast.pki.bundle import VerifiedBundle
from sealcast.pki.credential import StreamCredential, make_bundle
from sealcast.pki.profiles import CLOCK_ALLOWANCE
from sealcast.pki.times import microseconds
from sealcast.sidechannel.follow_messages import directory_digest
from sealcast.sidechannel.messages import MAX_REPAIR_NODES, RepairNodeEntry, StreamEntry
from sealcast.sidechannel.refusals import Refusal, RefusedError

_log = logging.getLogger("sealcast.authority")

MAX_POLLS_PER_DEVICE = 16
"""On one channel: a device has one or two processes on it; more would only hold memory."""

MAX_LISTED = 4096
"""Entries of a directory in one answer (SC-5)."""

_DIRECTORY_SECONDS = 1.0
"""Between two times at which those who follow the directory are told."""

JOIN_BURST = 32
JOINS_PER_SECOND = 2.0
"""For one device on one channel. Each join costs a step, and every 256th a generation that all must fetch."""


class LiveChannel:
    """One channel of the key server."""

    def __init__(
        self,
        stored: StoredChannel,
        crl: CurrentCrl,
        identity: KeyServerIdentity,
        site_id: bytes,
        name: str,
        now: int,
        bundle: VerifiedBundle | None = None,
    ) -> None:
        """Serve a channel whose beacon counters have just been reserved.

        Args:
            stored: the channel.
            crl: in force.
            identity: the key server's certificate and key.
            site_id: 16 bytes.
            name: of the key server.
            now: microseconds.
            bundle: the latest trust bundle, if there is one.
        """
        self._stored = stored
        self._trust = bundle
        self._site_id = site_id
        self._name = name
        # DP-2: a key made at this start, never stored.
        self._start_nonce = os.urandom(16)
        self._control = _core.ControlStream(
            os.urandom(32), self._start_nonce, stored.channel_id, stored.suite
        )
        self._bundle = b""
        self.certify(identity, now)
        self._server = KeyServer(
            stored.keys,
            _versions(stored.policy, crl, bundle),
            self._control,
            BeaconCounter(stored.beacon_limit - COUNTER_RESERVE, stored.beacon_limit),
            lambda: os.urandom(16),
        )
        self._streams: dict[bytes, StoredStream] = {entry.stream: entry for entry in stored.streams}
        self._news = asyncio.Event()
        # Those who want to be told of another directory too (SC-45), and how soon they may be.
        self._directory_news = asyncio.Event()
        self._directory: bytes | None = None
        self._directory_polls = 0
        self._directory_told = -math.inf
        self._directory_timer: asyncio.TimerHandle | None = None
        self._polls: Counter[str] = Counter()
        self._told_lost = False
        self._join_budgets: dict[str, tuple[float, int]] = {}
        # In memory: each says so every few seconds, also after a restart of ours.
        self._repair_nodes: dict[str, tuple[tuple[str, int], int]] = {}

    @property
    def name(self) -> str:
        """Channel name."""
        return self._stored.name

    @property
    def channel_id(self) -> bytes:
        """32 bytes."""
        return self._stored.channel_id

    @property
    def suite(self) -> int:
        """Code of registry.md."""
        return self._stored.suite

    @property
    def policy(self) -> StoredPolicy:
        """In force."""
        return self._stored.policy

    @property
    def keys(self) -> ChannelKeys:
        """In force."""
        return self._server.keys

    @property
    def bundle(self) -> bytes:
        """Credential bundle of the control stream."""
        return self._bundle

    @property
    def counter_runs_low(self) -> bool:
        """Whether beacon counters have to be reserved."""
        return self._server.counter.runs_low

    def streams(self) -> list[StoredStream]:
        """The directory, oldest first, those that may not publish any more left out.

        More than MAX_LISTED a member would not take: then streams that have ended are the first to go.
        """
        listed = [
            entry for entry in self._streams.values() if self.policy.allows(entry.device, MemberRole.PUBLISH)
        ]
        if len(listed) <= MAX_LISTED:
            return listed
        by_use = [entry for entry in listed if entry.final] + [entry for entry in listed if not entry.final]
        kept = {entry.stream for entry in by_use[-MAX_LISTED:]}
        return [entry for entry in listed if entry.stream in kept]

    def install(self, stored: StoredChannel, crl: CurrentCrl, now: int) -> None:
        """Put in force what has been stored, and answer the polls that wait if members have to be told."""
        self._stored = stored
        self._streams = {entry.stream: entry for entry in stored.streams}
        self._server.counter.extend(stored.beacon_limit)
        self._install(crl, now)
        self._note_directory(now)

    def install_trust(self, crl: CurrentCrl, bundle: VerifiedBundle | None, now: int) -> None:
        """Name another CRL or trust bundle in beacons."""
        self._trust = bundle
        self._install(crl, now)

    def _install(self, crl: CurrentCrl, now: int) -> None:
        versions = _versions(self._stored.policy, crl, self._trust)
        if self._server.install(self._stored.keys, versions, now):
            self._wake()

    def certify(self, identity: KeyServerIdentity, now: int) -> None:
        """Certify the control stream by the key server's present certificate (TR-11)."""
        credential = StreamCredential(
            spki=self._control.spki,
            channel_id=self._stored.channel_id,
            suite=self._stored.suite,
            site_id=self._site_id,
            device=self._name,
            certificate_hash=hashlib.sha256(identity.chain[0]).digest(),
            not_before=max(identity.not_before, now - microseconds(CLOCK_ALLOWANCE)),
            not_after=identity.not_after,
            start_nonce=self._start_nonce,
            instance="",
            succeeds=None,
        )
        self._bundle = make_bundle(credential, identity.signer, identity.chain)

    def put_repair_node(self, device: str, endpoint: tuple[str, int] | None, now: int) -> None:
        """Note where a repair node listens (SC-40); None: it serves no more."""
        self._repair_nodes.pop(device, None)
        if endpoint is not None:
            self._repair_nodes[device] = endpoint, now
        self._note_directory(now)

    def repair_nodes(self, now: int) -> list[tuple[str, tuple[str, int]]]:
        """Device and endpoint of the repair nodes that are there, by name."""
        live = {
            device: (endpoint, at)
            for device, (endpoint, at) in self._repair_nodes.items()
            if now - at <= SILENT and self.keys.membership.is_repair_node(device)
        }
        self._repair_nodes = live
        listed = sorted(device for device in live if self.policy.allows(device, MemberRole.REPAIR))
        return [(device, live[device][0]) for device in listed[:MAX_REPAIR_NODES]]

    def gates_reply(self, now: int) -> GatesReply:
        """Keys for a repair node that has just been authorised."""
        return self._server.gates_reply(now, self.suite)

    def keys_reply(self, now: int, device: str, joining: MemberRole | None = None) -> KeysReply:
        """Secrets for a member that has just been authorised, and that is `joining`, perhaps again."""
        return self._server.keys_reply(now, device, joining)

    def entries(self) -> tuple[StreamEntry, ...]:
        """The directory, as members are told."""
        return tuple(
            StreamEntry(
                stream=entry.stream,
                device=entry.device,
                instance=entry.instance,
                credential=entry.credential,
                head=entry.head,
                endpoint=entry.endpoint,
            )
            for entry in self.streams()
        )

    def node_entries(self, now: int) -> tuple[RepairNodeEntry, ...]:
        """The repair nodes, as members are told."""
        return tuple(
            RepairNodeEntry(device=device, endpoint=endpoint) for device, endpoint in self.repair_nodes(now)
        )

    def directory(self, now: int) -> bytes:
        """What the directory is known by (SC-45), 32 bytes."""
        if self._directory is None:
            self._directory = directory_digest(self.entries(), self.node_entries(now))
        return self._directory

    async def news(
        self, device: str, counter: int, seconds: float, now: int, directory: bytes | None = None
    ) -> SealedBeacon | None:
        """Wait until there is a beacon that a member with `counter` has to have; or, if it says what it knows
        the directory by, until that is another one.

        Returns:
            That beacon, or None after `seconds` or for the directory; then give a fresh one (`beacon`).

        Raises:
            RefusedError: the device waits too often at once.
        """
        if (beacon := self._server.poll_answer(counter, now)) is not None:
            return beacon
        if directory is not None and directory != self.directory(now):
            return None
        if self._polls[device] >= MAX_POLLS_PER_DEVICE:
            raise RefusedError(Refusal.TOO_MANY_REQUESTS, f"{MAX_POLLS_PER_DEVICE} polls wait already")
        self._polls[device] += 1
        self._directory_polls += directory is not None
        try:
            async with asyncio.timeout(seconds):
                await (self._news if directory is None else self._directory_news).wait()
        except TimeoutError:
            return None
        finally:
            self._directory_polls -= directory is not None
            self._polls[device] -= 1
            if not self._polls[device]:
                del self._polls[device]
        return self._server.poll_answer(counter, now)

    def note_counter(self, device: str, counter: int) -> None:
        """Say once if a member has had beacons that this key server has not made yet, as it must not have.

        A member can lie, so that nothing but a line in the log comes of it.
        """
        if counter >= self._stored.beacon_limit and not self._told_lost:
            self._told_lost = True
            _log.error(
                "channel %s: %s knows a later beacon than this database, which seems to come from a backup; "
                "stop the service, then: sealcast authority restored DIR",
                self.name,
                device,
            )

    def beacon(self, now: int) -> SealedBeacon:
        """A fresh beacon."""
        return self._server.beacon(now)

    def charge_join(self, device: str, now: int) -> None:
        """Charge a join to the device's budget.

        Raises:
            RefusedError: it is spent.
        """
        left, at = self._join_budgets.get(device, (float(JOIN_BURST), now))
        left = min(JOIN_BURST, left + max(0, now - at) / 1e6 * JOINS_PER_SECOND)
        if left < 1:
            raise RefusedError(Refusal.TOO_MANY_REQUESTS, "this device joins too often")
        self._join_budgets[device] = (left - 1, now)

    def end_polls(self) -> None:
        """Answer every poll that waits; at the end of the service."""
        self._wake()

    def _wake(self) -> None:
        # Those that wait hold the old event; whoever polls from now on waits for the next change.
        news, self._news = self._news, asyncio.Event()
        news.set()
        self._tell_directory()

    def _note_directory(self, now: int) -> None:
        """Tell those who wait if there is another directory, no more often than once a second."""
        before, self._directory = self._directory, None
        if not self._directory_polls or before == self.directory(now) or self._directory_timer is not None:
            return
        wait = max(0.0, self._directory_told + _DIRECTORY_SECONDS - time.monotonic())
        self._directory_timer = asyncio.get_running_loop().call_later(wait, self._tell_directory)

    def _tell_directory(self) -> None:
        if self._directory_timer is not None:
            self._directory_timer.cancel()
            self._directory_timer = None
        self._directory_told = time.monotonic()
        news, self._directory_news = self._directory_news, asyncio.Event()
        news.set()


def _versions(policy: StoredPolicy, crl: CurrentCrl, bundle: VerifiedBundle | None) -> SignedVersions:
    return SignedVersions(
        policy=policy.version,
        crl=ObjectVersion(version=crl.number, digest=crl.digest),
        bundle=ObjectVersion()
        if bundle is None
        else ObjectVersion(version=bundle.version, digest=bundle.hash),
    )
