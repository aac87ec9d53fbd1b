"""A root is rotated while half of 200 devices are away for all of it (TR-24, TR-25).

The devices are folders as enrolment makes them; what crosses the network elsewhere is handed over here:
versions of the bundle, certificates that a handshake shows, reports.
"""

from pathlib import Path
from typing import Any

import pytest

from sealcast.authority import bundles, rotation
from sealcast.authority.issuance import certificate_row
from sealcast.authority.models import DeviceRow
from sealcast.authority.rotation_steps import Step
from sealcast.authority.service import Authority, Changes
from sealcast.ca import KeySigner
from sealcast.ca.site_request import SiteRequest
from sealcast.device import DeviceIdentity
from sealcast.device.folder import KEY_FILE, DeviceFolder
from sealcast.device.identity import (
    CERTIFICATE_FILE,
    ISSUERS_FILE,
    ROOTS_FILE,
    SETTINGS_FILE,
    DeviceSettings,
)
from sealcast.device.trust import report_of, sync_trust
from sealcast.pki.certificates import certificate_der, certificates_pem
from sealcast.pki.names import Role
from sealcast.sidechannel.client import UnknownVersionError
from sealcast.sidechannel.messages import BundleAnswer
from tests.authority.bundles import new_root, own_root
from tests.authority.conftest import Site
from tests.authority.test_rotation import advance, certify, sign, step

DEVICES = 200


class Versions:
    """What the key server answers about the trust bundle."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    async def bundle(self, version: int) -> BundleAnswer:
        data, latest = await self._authority.bundle_bytes(version), self._authority.bundle
        if data is None or latest is None:
            raise UnknownVersionError("there is no such version")
        return BundleAnswer(bundle=data, latest=latest.version)


async def enrolled(site: Site, names: list[str]) -> list[Path]:
    """The folders of devices with certificates that the register knows."""
    signers = {name: KeySigner.generate() for name in names}
    now, authority = site.clock(), site.authority

    def job(session: Any) -> tuple[dict[str, bytes], Changes]:
        made = {}
        for name, signer in signers.items():
            issued = authority.site.issuer.issue_device(signer.make_csr(name), name, now)
            session.add_all(
                [certificate_row(issued), DeviceRow(name=name, enrolled=now, roles=[], ends=issued.not_after)]
            )
            made[name] = issued.der
        return made, Changes()

    for name, der in (await authority.apply(job)).items():
        settings = DeviceSettings(
            name=name,
            site_id=authority.site.site_id,
            authority_url=site.listening.authority,
            keys_url=site.listening.keys,
        )
        issuers = authority.site.issuers
        with DeviceFolder.open_for_writing(site.devices / name) as folder, folder.stage() as stage:
            stage.write(KEY_FILE, signers[name].to_pem(), 0o600)
            stage.write(CERTIFICATE_FILE, certificates_pem([der, *issuers]))
            stage.write(ISSUERS_FILE, certificates_pem(issuers))
            stage.write(ROOTS_FILE, certificates_pem(authority.site.roots))
            stage.write(SETTINGS_FILE, settings.serialize())
            stage.commit()
    return [site.devices / name for name in names]


async def look(site: Site, folders: list[Path]) -> list[DeviceIdentity]:
    """What an agent does: judge the key server by what it shows, be judged, walk the bundle, report."""
    now, authority, seen = site.clock(), site.authority, []
    for folder in folders:
        identity = DeviceIdentity.open(folder)
        identity.validator().verify_peer(authority.identity.chain, Role.KEY_SERVER, now)
        peer = authority.validator.verify_peer(identity.chain, Role.DEVICE, now, authority.crl.der)
        assert peer.name == folder.name
        identity = await sync_trust(folder, Versions(authority))
        assert identity.bundle == authority.bundle
        seen.append(identity)

    def job(session: Any) -> tuple[None, Changes]:
        for identity in seen:
            report = report_of(identity)
            bundles.record_report(
                session,
                identity.name,
                version=report.bundle_version,
                digest=report.bundle_hash,
                serial=report.serial,
                now=now,
            )
        return None, Changes()

    await authority.apply(job)
    return seen


# Two hundred devices are what it is about; each look of each is some milliseconds.
@pytest.mark.timeout(180)
async def test_half_of_200_devices_sleep_through_the_rotation_of_a_root(site: Site) -> None:
    """All recover untouched, as they are back before the old root ends."""
    folders = await enrolled(site, [f"monitor-{number}" for number in range(DEVICES)])
    awake, asleep = folders[::2], folders[1::2]
    before = {identity.name: identity.serial for identity in await look(site, folders)}

    old, new = own_root(site), new_root()
    row = await step(site, rotation.start_root, certificates_pem([certificate_der(new.certificate)]))
    asked = SiteRequest.of_certificate(site.authority.site.issuer.certificate)
    await certify(site, row.id, asked.certify(new, site.clock()))
    await sign(site, row.id, old)
    await look(site, awake)
    assert await advance(site, row.id, force=True) == Step.RETIRE
    await sign(site, row.id, new)
    assert site.roots == [certificate_der(new.certificate)]

    for identity in (*await look(site, awake), *await look(site, asleep)):
        assert identity.roots == (certificate_der(new.certificate),)
        assert identity.serial == before[identity.name], "nobody was enrolled anew"
    await look(site, await enrolled(site, ["late"]))
