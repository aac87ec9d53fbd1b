"""A root is replaced while half of 200 devices sleep through the whole overlap (fault 22).

The authority's own database holds every version of the trust bundle; the devices walk them in folders of
their own, with the code of the agent. Nothing crosses a network, and time is what the test says.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from sealcast.authority.bundles import (
    bundle_bytes,
    draft_bundle,
    first_bundle,
    latest_version,
    load_bundle,
    store_bundle,
)
from sealcast.authority.storage import DATABASE_FILE, Storage
from sealcast.ca import KeySigner, Root, create_root
from sealcast.device import DeviceIdentity
from sealcast.device.folder import KEY_FILE, DeviceFolder
from sealcast.device.identity import (
    CERTIFICATE_FILE,
    ISSUERS_FILE,
    ROOTS_FILE,
    SETTINGS_FILE,
    DeviceSettings,
)
from sealcast.device.trust import sync_trust
from sealcast.errors import CertificateError
from sealcast.pki.bundle import Anchor, BundleSite, Purpose, SignedBundle
from sealcast.pki.certificates import certificate_der, certificates_pem, parse_certificate
from sealcast.pki.files import PRIVATE
from sealcast.pki.names import Role
from sealcast.pki.profiles import CertificateIssuer, device_builder
from sealcast.sidechannel.client import UnknownVersionError
from sealcast.sidechannel.messages import BundleAnswer
from sealcast.testing import START

DEVICES = 200
DAY = 86_400_000_000
YEAR = 365 * DAY
SITE = bytes(range(16))
OLD_ROOT_ENDS = START + 20 * YEAR
OVERLAP = OLD_ROOT_ENDS - 2 * YEAR
ADDED = OVERLAP + 40 * DAY
"""When the new root is added; the old one is dropped a year before it ends."""


@dataclass(frozen=True)
class SiteCa:
    """A site CA under one root."""

    certificate: bytes
    signer: KeySigner

    def device(self, name: str, key: KeySigner, now: int) -> bytes:
        """Certify a device."""
        issuer = CertificateIssuer.of(parse_certificate(self.certificate), self.signer.public_key)
        builder = device_builder(
            name=name,
            site_name="Ward",
            site_id=SITE,
            public_key=key.public_key,
            issuer=issuer,
            serial=int.from_bytes(name.encode()) + now,
            now=now,
        )
        return certificate_der(self.signer.sign_certificate(builder))


def site_ca(root: Root, signer: KeySigner, now: int) -> SiteCa:
    certificate = root.issue_site_ca(site_name="Ward", site_id=SITE, public_key=signer.public_key, now=now)
    return SiteCa(certificate_der(certificate), signer)


def owner(root: Root, since: int = 0) -> Anchor:
    return Anchor(certificate=certificate_der(root.certificate), purpose=Purpose.OWNER, since=since)


def ward(*authorities: SiteCa) -> BundleSite:
    return BundleSite(
        site_id=SITE, name="Ward", delegated=False, authorities=tuple(ca.certificate for ca in authorities)
    )


class Estate:
    """The authority's side: its database, and the keys of the owner's roots."""

    def __init__(self, folder: Path) -> None:
        self.storage = Storage.create(folder / DATABASE_FILE)
        self.old = create_root(site_name="Old", signer=KeySigner.generate(), now=START)
        self.new = create_root(site_name="New", signer=KeySigner.generate(), now=OVERLAP)
        self.now = OVERLAP
        signer = KeySigner.generate()
        self.under_old = site_ca(self.old, signer, OVERLAP)
        # It lives for two years: past the end of the old root.
        self.under_new = site_ca(self.new, signer, OVERLAP + 30 * DAY)
        self.issuer, self.server_key = self.under_old, KeySigner.generate()
        self.retired: tuple[bytes, ...] = ()
        """Certificates of the issuer's key by a root that is being retired."""
        self.answers: dict[int, tuple[bytes | None, int]] = {}
        """Read from the database once a version: 200 devices ask for the same."""
        self.servers: dict[tuple[bytes, int], bytes] = {}
        with self.storage.transaction() as session:
            bundle = first_bundle(
                root=certificate_der(self.old.certificate),
                site_id=SITE,
                site_name="Ward",
                authority=self.issuer.certificate,
                now=self.now,
            )
            self._store(session, SignedBundle.unsigned(bundle), self.old)

    def next_version(self, now: int, *signers: Root, **changes: object) -> None:
        """What the owner's ceremony and `authority bundle import` do."""
        self.now = now
        self.answers.clear()
        with self.storage.transaction() as session:
            held = load_bundle(session)
            assert held is not None
            self._store(session, SignedBundle.unsigned(draft_bundle(held, now, **changes)), *signers)

    def _store(self, session: Session, draft: SignedBundle, *signers: Root) -> None:
        for root in signers:
            draft = draft.sign(certificate_der(root.certificate), root.signer)
        store_bundle(
            session,
            draft.serialize(),
            site_id=SITE,
            issuer=self.issuer.certificate,
            roots=[certificate_der(self.old.certificate)],
            now=self.now,
        )

    async def bundle(self, version: int) -> BundleAnswer:
        """As the key server answers (SC-19)."""
        if version not in self.answers:
            with self.storage.snapshot() as session:
                self.answers[version] = bundle_bytes(session, version), latest_version(session)
        data, latest = self.answers[version]
        if data is None:
            raise UnknownVersionError("there is no such version of the trust bundle")
        return BundleAnswer(bundle=data, latest=latest)


@pytest.fixture(scope="module")
def key() -> KeySigner:
    """Of all devices: what a key is worth is no matter here, and 200 of them take time."""
    return KeySigner.generate()


@pytest.fixture(autouse=True)
def no_power_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files need not reach a disk here; tests/device/test_crash.py is about that."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    estate = Estate(tmp_path)
    yield estate
    estate.storage.release()


def enrol(folder: Path, estate: Estate, name: str, key: KeySigner, roots: tuple[bytes, ...]) -> None:
    """Put credentials of the present issuer into a device's folder."""
    certificate = estate.issuer.device(name, key, estate.now)
    settings = DeviceSettings(
        name=name, site_id=SITE, authority_url="https://authority:8443", keys_url="https://authority:8444"
    )
    with DeviceFolder.open_for_writing(folder) as held, held.stage() as stage:
        held.supersede_bundle(roots)
        stage.write(KEY_FILE, key.to_pem(), PRIVATE)
        stage.write(CERTIFICATE_FILE, certificates_pem([certificate, estate.issuer.certificate]))
        stage.write(ISSUERS_FILE, certificates_pem([estate.issuer.certificate]))
        stage.write(ROOTS_FILE, certificates_pem(roots))
        stage.write(SETTINGS_FILE, settings.serialize())
        stage.commit()


def serve(estate: Estate) -> list[bytes]:
    """What a listener shows: its certificate, and every one of the CA that issued it (TR-25)."""
    at = estate.issuer.certificate, estate.now
    if at not in estate.servers:
        estate.servers[at] = estate.issuer.device("server", estate.server_key, estate.now)
    return [estate.servers[at], estate.issuer.certificate, *estate.retired]


def look(folder: Path, estate: Estate) -> str:
    """What an agent does with its trust: judge the server that is there now, then walk.

    Returns: `recovered`, or the reason of the refusal.
    """
    identity = DeviceIdentity.open(folder)
    try:
        identity.check_roots(estate.now)
        identity.validator().verify_peer(serve(estate), Role.DEVICE, estate.now)
        asyncio.run(sync_trust(folder, estate, wall=estate.now))
    except CertificateError as error:
        return error.reason
    return "recovered"


def test_fault_22_all_come_back_before_the_old_root_ends_and_after_it_they_are_told_how(
    tmp_path: Path, estate: Estate, key: KeySigner
) -> None:
    old = certificate_der(estate.old.certificate)
    folders = [tmp_path / f"bed-{number}" for number in range(DEVICES)]
    for number, folder in enumerate(folders):
        enrol(folder, estate, f"bed-{number}", key, (old,))
    assert Counter(look(folder, estate) for folder in folders) == {"recovered": DEVICES}
    awake, early, late = folders[: DEVICES // 2], folders[DEVICES // 2 : 150], folders[150:]

    # The overlap: both roots, the site CA's certificates by both; then the old root goes (TR-24).
    both = (owner(estate.old), owner(estate.new))
    estate.next_version(ADDED, estate.old, anchors=both, sites=(ward(estate.under_old, estate.under_new),))
    assert Counter(look(folder, estate) for folder in awake) == {"recovered": DEVICES // 2}
    estate.issuer, estate.retired = estate.under_new, (estate.under_old.certificate,)
    estate.next_version(OVERLAP + YEAR, estate.new, anchors=both[1:], sites=(ward(estate.under_new),))
    assert Counter(look(folder, estate) for folder in awake) == {"recovered": DEVICES // 2}

    # A quarter has slept through all of it, and comes back the day before the old root ends.
    estate.now = OLD_ROOT_ENDS - DAY
    assert Counter(look(folder, estate) for folder in early) == {"recovered": len(early)}
    # Another quarter is a day late: refused, with the way back, and nothing of it is lost.
    estate.now = OLD_ROOT_ENDS + DAY
    assert Counter(look(folder, estate) for folder in late) == {"roots-ended": len(late)}
    with pytest.raises(CertificateError) as refusal:
        DeviceIdentity.open(late[0]).check_roots(estate.now)
    assert "sealcast device enroll DIR --root NEW --token TOKEN" in refusal.value.cure
    assert Counter(look(folder, estate) for folder in [*awake, *early]) == {"recovered": 150}

    # The new root, given out of band, signed a later version than the one they had: from there they go on.
    new = certificate_der(estate.new.certificate)
    for number, folder in enumerate(late, 150):
        enrol(folder, estate, f"bed-{number}", key, (new,))
    assert Counter(look(folder, estate) for folder in late) == {"recovered": len(late)}
    held = [DeviceIdentity.open(folder) for folder in folders]
    assert Counter(identity.bundle.version for identity in held if identity.bundle) == {3: DEVICES}
    assert all(identity.roots == (new,) for identity in held)


def test_an_enrolment_with_a_root_that_was_dropped_puts_no_later_version_aside(
    tmp_path: Path, estate: Estate, key: KeySigner
) -> None:
    """Versions never go back (invariant 8), whatever the operator gives at an enrolment."""
    old, folder = certificate_der(estate.old.certificate), tmp_path / "bed-1"
    enrol(folder, estate, "bed-1", key, (old,))
    assert look(folder, estate) == "recovered"
    both = (owner(estate.old), owner(estate.new))
    estate.next_version(ADDED, estate.old, anchors=both, sites=(ward(estate.under_old, estate.under_new),))
    estate.issuer, estate.retired = estate.under_new, (estate.under_old.certificate,)
    estate.next_version(ADDED + DAY, estate.new, anchors=both[1:], sites=(ward(estate.under_new),))
    assert look(folder, estate) == "recovered"
    enrol(folder, estate, "bed-1", key, (old,))
    assert DeviceIdentity.open(folder).roots == (old,)
    assert look(folder, estate) == "recovered"
    identity = DeviceIdentity.open(folder)
    assert (identity.bundle and identity.bundle.version, len(identity.roots)) == (3, 1)
    assert identity.roots != (old,)
