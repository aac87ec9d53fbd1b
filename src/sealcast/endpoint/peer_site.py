"""What a device knows of its peers: who they are by the policies of a site, and where by its directory.

All ends of a device share one for each site, so that one request waits for news, however many peers there
are. It judges by what lies in the device's folder (TR-29, TR-30), fetches what is new as soon as the key
server tells of it (SC-33), and goes on by what it has while the key server is away.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sealcast.device.documents import Documents, sync_documents
from sealcast.device.floors import read_signed_time
from sealcast.device.folder import CRLS, POLICIES, stamp
from sealcast.device.identity import DeviceIdentity
from sealcast.device.mailbox import Mailbox
from sealcast.endpoint.site import ChannelSite
from sealcast.errors import CertificateError, NetworkError, SealcastError, UnreachableError, UsageError
from sealcast.pki.files import storage_errors
from sealcast.pki.names import member_name, parse_member
from sealcast.pki.policy import Policy
from sealcast.pki.times import system_time
from sealcast.pki.validator import VerifiedPeer
from sealcast.sidechannel.client import KeyServerClient

log = logging.getLogger(__name__)

Result = TypeVar("Result")

FOLDER_INTERVAL_SECONDS = 1.0
"""How often the device's folder is looked at, where an agent or a renewal may have put something new."""

_MOST_SECONDS = 15.0
"""Between two tries at a key server that is away."""

_NO_ANSWER = bytes(32)


def back_off(failures: int, most: float) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, jittered, about `most` at last."""
    return min(0.1 * 2.0 ** min(failures - 1, 16), most) * random.uniform(0.5, 1.5)  # noqa: S311


class PeerSite:
    """One site as the peers of a device see it; open while somebody uses it."""

    def __init__(self, identity: DeviceIdentity, site: ChannelSite) -> None:
        """Take the device, and the site whose policies say who its peers are."""
        self.identity = identity
        self.site = site
        # Called when policies or CRL have changed, and when the key server is there again.
        self.on_change: set[Callable[[], None]] = set()
        self.on_contact: set[Callable[[], None]] = set()
        self.on_renewal: set[Callable[[DeviceIdentity], None]] = set()
        self._users = 0
        self._opening = asyncio.Lock()
        self._documents = Documents(crl=None, policies=())
        self._policies: list[tuple[int, Policy]] = []
        self._seen: tuple[int, ...] = ()
        self._signed_time = 0
        self._key_server: KeyServerClient | None = None
        self._mailbox: Mailbox | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # -- life ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin to use it; each call needs a `close`.

        Raises: CertificateError: the site refuses the device, or is not believed; UnreachableError: nothing
        is in the folder to go by, and the key server is away; NetworkError; StorageError.
        """
        async with self._opening:
            if not self._users:
                try:
                    await self._start()
                except BaseException:
                    await self._stop()
                    raise
            self._users += 1

    async def close(self) -> None:
        """End to use it."""
        async with self._opening:
            self._users -= 1
            if not self._users:
                await self._stop()

    async def _start(self) -> None:
        self.identity = DeviceIdentity.open(self.identity.path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sealcast-mailbox")
        self._mailbox = await asyncio.get_running_loop().run_in_executor(
            self._thread, Mailbox, self.identity.path
        )
        await self._read_documents()
        self._check_own()
        self._key_server = KeyServerClient(
            self.identity, url=self.site.keys_url, site_id=self.site.site_id, crl=self.crl, clock=self.date
        )
        try:
            known = await self._fetch(_NO_ANSWER)
        except UnreachableError as error:
            if self.crl() is None:
                raise
            log.info("%s: going on by what is held: %s", self.identity.path, error)
            known = _NO_ANSWER
        self._tasks = [asyncio.create_task(work) for work in (self._follow_news(known), self._watch_folder())]

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._key_server is not None:
            await self._key_server.close()
        if self._mailbox is not None:
            await self.on_disk(Mailbox.close)
        if self._thread is not None:
            self._thread.shutdown()
        self._key_server = self._mailbox = self._thread = None

    # -- who and where ---------------------------------------------------------------------------------------

    @property
    def own_name(self) -> str:
        """This device as the site's policies write it."""
        return member_name(self.site.site_id, self.identity.site_id, self.identity.name)

    def member(self, peer: VerifiedPeer) -> str:
        """A peer as the site's policies write it."""
        return member_name(self.site.site_id, peer.site_id, peer.name)

    def full_name(self, member: str) -> str:
        """`<site id>:<name>` of a peer that is written as the site's policies do. Raises: UsageError."""
        site_id, name = parse_member(self.site.site_id, member)
        return f"{site_id.hex()}:{name}"

    def short_name(self, full: str) -> str:
        """A peer as the site's policies write it, of `<site id>:<name>`."""
        site, _, name = full.partition(":")
        return member_name(self.site.site_id, bytes.fromhex(site), name)

    def is_paired(self, member: str) -> bool:
        """Whether one policy in force lists a peer and this device (TR-30)."""
        own, now = self.own_name, self.date()
        return any(
            now < next_update and _mentions(policy, own) and _mentions(policy, member)
            for next_update, policy in self._policies
        )

    def crl(self) -> bytes | None:
        """The CRLs of this moment."""
        return None if self._documents.crl is None else self._documents.crl.document

    def date(self) -> int:
        """What validity goes by (TR-27)."""
        return max(system_time(), self._signed_time)

    async def find(self, member: str) -> tuple[str, int] | None:
        """Where a peer takes messages; by what is remembered where the key server is away. None: nowhere.

        Raises: PeerError, CertificateError, NetworkError, StorageError.
        """
        full = self.full_name(member)
        try:
            place = await self.key_server.endpoint(member)
        except UnreachableError:
            return await self.on_disk(Mailbox.place, full)
        if place is not None:
            await self.on_disk(Mailbox.note_place, full, place)
        return place

    @property
    def key_server(self) -> KeyServerClient:
        """For further requests. Raises: UsageError: it is not open."""
        if self._key_server is None:
            raise UsageError("it is not open", cure="enter it with: async with")
        return self._key_server

    async def on_disk(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run a method of the mailbox in its thread; to its end, also where nobody waits for it any more."""
        if self._mailbox is None or self._thread is None:
            raise UsageError("it is not open", cure="enter it with: async with")
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, work, self._mailbox, *arguments))

    # -- inside ----------------------------------------------------------------------------------------------

    def _check_own(self) -> None:
        self.identity.check_roots(self.date())
        if self.date() >= self.identity.not_after:
            # TLS tells too late for a client to see why it is refused.
            raise CertificateError(
                f"the certificate of device {self.identity.name!r} has expired",
                reason="expired",
                cure="enrol it again with a new token: sealcast device enroll",
            )

    async def _follow_news(self, known: bytes) -> None:
        failures = 0
        while True:
            try:
                known = await self._fetch(known)
            except SealcastError as error:
                # So that the next answer comes at once, whether there is news or not.
                failures, known = failures + 1, _NO_ANSWER
                level = logging.DEBUG if isinstance(error, NetworkError) else logging.WARNING
                log.log(level, "%s: no news of policies and CRLs: %s", self.identity.path, error)
                await asyncio.sleep(back_off(failures, _MOST_SECONDS))
            else:
                if failures:
                    failures = 0
                    _call(self.on_contact)

    async def _fetch(self, known: bytes) -> bytes:
        """Wait for news, and put them in the folder and in force; returns the hash of what is known now."""
        _, digest = await self.key_server.await_channels(known)
        if digest != known:
            await sync_documents(
                self.identity.path,
                self.key_server,
                self.identity,
                now=self.date(),
                wall=system_time(),
                site_id=self.site.site_id,
            )
            await self._read_documents()
        return digest

    async def _read_documents(self) -> None:
        seen = await asyncio.to_thread(_stamps, self.identity.path)
        documents, policies, signed_time = await asyncio.to_thread(self._read, self.identity.path)
        self._seen, self._signed_time = seen, signed_time
        if documents != self._documents:
            self._documents, self._policies = documents, policies
            _call(self.on_change)

    def _read(self, path: Path) -> tuple[Documents, list[tuple[int, Policy]], int]:
        documents = Documents.read(path, self.site.site_id)
        policies = []
        for held in documents.policies:
            try:
                policies.append((held.next_update, Policy.parse(held.signed, None)))
            except CertificateError as error:
                log.warning("the policy of channel %s pairs nobody: %s", held.channel, error)
        return documents, policies, read_signed_time(path)

    async def _watch_folder(self) -> None:
        while True:
            await asyncio.sleep(FOLDER_INTERVAL_SECONDS)
            try:
                if await asyncio.to_thread(_stamps, self.identity.path) != self._seen:
                    await self._read_documents()
                if await asyncio.to_thread(stamp, self.identity.path) != self.identity.stamp:
                    self._renew(await asyncio.to_thread(DeviceIdentity.open, self.identity.path))
            except SealcastError as error:
                log.warning("the device's folder cannot be read, going on with what is known: %s", error)

    def _renew(self, identity: DeviceIdentity) -> None:
        self.identity = identity
        self.key_server.reload(identity)
        for told in tuple(self.on_renewal):
            told(identity)


def _mentions(policy: Policy, member: str) -> bool:
    return member in policy.publishers or member in policy.subscribers


def _stamps(path: Path) -> tuple[int, ...]:
    """Changes with each policy and CRL that is put in the folder: each is renamed into its place."""
    folders = (path / POLICIES, path / CRLS)
    with storage_errors(path):
        return tuple(folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in folders)


def _call(told: set[Callable[[], None]]) -> None:
    for each in tuple(told):
        each()
