"""SIGKILL at system calls of a service while a device asks, and of a removal; and at those of the next start.

After it a clean start finds the old state or the new one, whole, and the same work can be done then; no
certificate is out that nobody knows of (F14). One call of each kind; with SEALCAST_SOAK=1 every call.
"""

import asyncio
import contextlib
import re
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import select

from sealcast.authority.app import running
from sealcast.authority.keystore import load_keys
from sealcast.authority.models import CertificateRow, ChannelRow, DeviceRow, TokenRow
from sealcast.authority.policy_versions import load_policy
from sealcast.authority.revocation import load_crl
from sealcast.authority.service import Authority
from sealcast.authority.site import ROOT_FILE, Site, exclusive
from sealcast.device import DeviceIdentity, enroll_async, renew_async
from sealcast.device.folder import current_credentials
from sealcast.errors import SealcastError, TokenError
from sealcast.keys import MemberRole
from sealcast.pki.certificates import parse_pem_certificates
from sealcast.pki.crl import CrlFacts
from sealcast.sidechannel import KeyServerClient
from tests.authority.conftest import DAY, LOOPBACK, make_site, settings
from tests.crash import SOAK, Act, Transition, Warm, batches_of, command, survive, warm

pytestmark = [pytest.mark.needs_program("strace"), pytest.mark.timeout(14400 if SOAK else 600)]

ECG = "ward/ecg"
MEMBER, STRANGER, NEWCOMER = "display-1", "display-2", "monitor-1"
TOKENS = 4
"""One may be used up by a certificate that was lost on its way, at each of two kills."""


@dataclass(frozen=True)
class State:
    """What the folder says of one device, read without changing anything."""

    enrolled: bool
    revoked: bool
    serials_revoked: int
    certificates: int
    token_used: bool
    in_policy: bool
    policy_version: int
    crl_number: int
    position: tuple[int, int]
    is_member: bool


def read_state(folder: Path, name: str) -> State:
    return state_of(Site.open(folder), name)


def state_of(site: Site, name: str) -> State:
    with site.storage.snapshot() as session:
        device = session.get(DeviceRow, name)
        row = session.scalars(select(ChannelRow)).one()
        policy, keys = load_policy(session, row.name), load_keys(session, row, site.vault)
        crl = load_crl(session)
        certificates = session.scalars(select(CertificateRow).where(CertificateRow.name == name)).all()
        tokens = session.scalars(select(TokenRow).where(TokenRow.device == name)).all()
        on_crl = CrlFacts.parse(crl.der).serials
        return State(
            enrolled=device is not None,
            revoked=device is not None and device.revoked is not None,
            serials_revoked=sum(int(certificate.serial, 16) in on_crl for certificate in certificates),
            certificates=len(certificates),
            token_used=any(token.used is not None for token in tokens),
            in_policy=policy.mentions(name),
            policy_version=policy.version.version,
            crl_number=crl.number,
            position=keys.generation.position,
            is_member=keys.membership.is_present(name),
        )


@dataclass(frozen=True)
class Template:
    """A folder `authority` with a channel, beside it those of two devices, one of them a member."""

    folder: Path
    tokens: tuple[str, ...]
    """For a newcomer."""

    async def copy(self, folder: Path) -> None:
        await asyncio.to_thread(shutil.copytree, self.folder, folder)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    parent = tmp_path_factory.mktemp("template")
    folder = make_site(parent / "authority")

    async def fill() -> tuple[str, ...]:
        async with AsyncExitStack() as stack:
            stack.enter_context(exclusive(folder))
            authority, listening = await stack.enter_async_context(running(folder, listen=LOOPBACK))
            await authority.add_channel(settings(ECG))
            for name in (MEMBER, STRANGER):
                token = await authority.create_token(name, DAY)
                await enrol(parent, listening.authority, name, token)
            await authority.join(ECG, MEMBER, MemberRole.SUBSCRIBE)
            return tuple([await authority.create_token(NEWCOMER, DAY) for _ in range(TOKENS)])

    return Template(parent, asyncio.run(fill()))


async def enrol(folder: Path, url: str, name: str, token: str) -> None:
    roots = parse_pem_certificates((folder / "authority" / ROOT_FILE).read_bytes())
    await enroll_async(folder / name, authority_url=url, roots=roots, name=name, token=token)


def has_reached(found: State, new: State) -> bool:
    """A crash may spend a policy version and a CRL number: what was about to be signed is not repeated."""
    aside = replace(found, policy_version=new.policy_version, crl_number=new.crl_number)
    return aside == new and found.policy_version >= new.policy_version and found.crl_number >= new.crl_number


def check_no_serial_is_lost(site: Site) -> None:
    """F14: what the site CA may have signed is in the register, or revoked."""
    with site.storage.snapshot() as session:
        recorded = {int(serial, 16) for serial in session.scalars(select(CertificateRow.serial))}
        on_crl = CrlFacts.parse(load_crl(session).der).serials
    for entry in site.issuer.issued_after(0, 1000):
        assert entry.is_void or entry.serial in recorded | on_crl, f"{entry.serial:x} is nowhere"


async def clean_start(folder: Path) -> None:
    """What a start does with the database; the listeners know nothing of the state."""
    site = Site.open(folder / "authority")
    authority = Authority(site)
    await authority.start()
    await authority.stop()
    check_no_serial_is_lost(site)


def served(talk: Callable[[Path, dict[str, str]], Awaitable[None]] | None = None) -> Act:
    """The service starts, is talked to, and ends; who talks is given where it listens."""

    async def act(commands: Warm, folder: Path, options: Sequence[str]) -> int:
        async def ready(line: str) -> None:
            if talk is not None:
                # That it is killed meanwhile is what this is about.
                with contextlib.suppress(SealcastError):
                    await talk(folder, dict(re.findall(r"(\w+) (https:\S+)", line)))

        words = ["authority", "serve", str(folder / "authority"), "--listen", "127.0.0.1:0"]
        return await commands.run(words, options, talk=ready)

    return act


def commands() -> contextlib.AbstractAsyncContextManager[Warm]:
    return warm("sealcast.cli.authority", "sealcast.authority.control", "sealcast.authority.app")


async def test_a_removal_killed_at_any_call_is_whole_or_absent(template: Template, tmp_path: Path) -> None:
    old = read_state(template.folder / "authority", MEMBER)
    assert (old.enrolled, old.revoked, old.in_policy, old.is_member) == (True, False, True, True)
    new = State(
        enrolled=True,
        revoked=True,
        serials_revoked=1,
        certificates=1,
        token_used=True,
        in_policy=False,
        policy_version=old.policy_version + 1,
        crl_number=old.crl_number + 1,
        position=(old.position[0] + 1, 0),
        is_member=False,
    )

    def look(folder: Path) -> str:
        site = Site.open(folder / "authority")
        found = state_of(site, MEMBER)
        if has_reached(found, new):
            return "after"
        assert has_reached(found, old), found
        return "before"

    step = Transition(
        name="authority: device revoke",
        prepare=template.copy,
        act=command(lambda folder: ["authority", "device", "revoke", str(folder / "authority"), MEMBER]),
        # Once the site CA knows of a removal, the next start finishes it.
        recover=served(),
        look=look,
        settle=clean_start,
    )
    async with commands() as warmed:
        outcomes = await survive(warmed, step, tmp_path)
    assert outcomes["before"], outcomes
    assert outcomes["after"], outcomes


@pytest.mark.parametrize("names", batches_of(["enrol", "renew", "join"]), ids="+".join)
async def test_what_a_device_asks_of_a_service_killed_at_any_call_is_whole_or_absent(
    template: Template, tmp_path: Path, names: list[str]
) -> None:
    """Its first certificate, its next one, and a channel's keys."""
    fresh = read_state(template.folder / "authority", NEWCOMER)
    assert (fresh.enrolled, fresh.token_used, fresh.in_policy) == (False, False, False)
    enrolled = replace(fresh, enrolled=True, token_used=True, in_policy=True)
    serial = DeviceIdentity.open(template.folder / STRANGER).serial

    async def enrols(folder: Path, urls: dict[str, str]) -> None:
        for token in template.tokens:
            if current_credentials(folder / NEWCOMER) is None:
                # Used up: the certificate was made, and lost on its way.
                with contextlib.suppress(TokenError):
                    await enrol(folder, urls["authority"], NEWCOMER, token)

    async def renews(folder: Path, urls: dict[str, str]) -> None:
        device = find(folder, urls)
        if device.serial == serial:
            await renew_async(device.path)

    async def joins(folder: Path, urls: dict[str, str]) -> None:
        async with KeyServerClient(find(folder, urls)) as client:
            await client.join(ECG, MemberRole.SUBSCRIBE)

    def is_enrolled(folder: Path) -> str:
        found = read_state(folder / "authority", NEWCOMER)
        assert found.crl_number >= fresh.crl_number, "what was signed and lost is revoked"
        aside = replace(
            found, certificates=0, policy_version=fresh.policy_version, crl_number=fresh.crl_number
        )
        if aside == fresh:
            assert found.certificates == 0
        else:
            assert aside == enrolled
            assert found.certificates >= 1
            assert found.policy_version > fresh.policy_version
        if current_credentials(folder / NEWCOMER) is None:
            return "before"
        assert aside == enrolled, "a certificate that the register does not know is out"
        return "after"

    def is_renewed(folder: Path) -> str:
        found = DeviceIdentity.open(folder / STRANGER).serial
        with Site.open(folder / "authority").storage.snapshot() as session:
            assert session.get(CertificateRow, f"{found:x}") is not None
        return "before" if found == serial else "after"

    def has_joined(folder: Path) -> str:
        return "after" if read_state(folder / "authority", STRANGER).is_member else "before"

    steps = {
        "enrol": (enrols, is_enrolled),
        "renew": (renews, is_renewed),
        "join": (joins, has_joined),
    }
    async with commands() as warmed:
        for name in names:
            talk, look = steps[name]
            (tmp_path / name).mkdir()
            step = Transition(
                name=f"authority: {name}",
                prepare=template.copy,
                act=served(talk),
                look=look,
                settle=clean_start,
            )
            outcomes = await survive(warmed, step, tmp_path / name)
            assert outcomes["before"], outcomes
            assert outcomes["after"], outcomes


def find(folder: Path, urls: dict[str, str]) -> DeviceIdentity:
    """The stranger, told where the service listens this time."""
    device = DeviceIdentity.open(folder / STRANGER)
    file = device.credentials / "device.toml"
    text = file.read_text()
    for key in ("authority", "keys"):
        text = re.sub(rf'^{key} = ".*"$', f'{key} = "{urls[key]}"', text, flags=re.MULTILINE)
    file.write_text(text)
    return DeviceIdentity.open(folder / STRANGER)
