"""SIGKILL at the system calls of every change that an operator makes, and at those of the recovery.

After it a clean start finds the old state or the new one; the same command finishes the work or finds it
done; the audit log is whole, and no certificate is out that nobody knows of (F14). Rows are counted, table by
table: a change is one transaction.
"""

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from sealcast import cli
from sealcast.authority import audit
from sealcast.authority.app import running
from sealcast.authority.issuance import CA_KEY_FILE, certificate_row
from sealcast.authority.models import CertificateRow
from sealcast.authority.service import Authority, Changes
from sealcast.authority.site import Site as StoredSite
from sealcast.authority.site import exclusive, is_pending
from sealcast.ca import IssuedCertificate
from sealcast.device import DeviceIdentity
from sealcast.device.documents import Documents
from sealcast.device.floors import read_crl_numbers, read_floors
from sealcast.device.folder import current_bundle
from sealcast.errors import EnrolmentError, StorageError
from sealcast.pki.certificates import certificates_pem
from sealcast.pki.names import channel_id
from sealcast.pki.times import system_time
from tests.authority.bundles import next_bundle
from tests.authority.conftest import DAY, LOOPBACK, Clock, Site, make_site
from tests.authority.test_crash import check_no_serial_is_lost
from tests.crash import SOAK, Act, Transition, Warm, batches_of, command, survive, warm

pytestmark = [pytest.mark.needs_program("strace"), pytest.mark.timeout(14400 if SOAK else 900)]

SOURCE = """
[channel."ward/ecg"]
group = "239.192.0.1"
port = 5000
publish = ["monitor-*"]
subscribe = ["display-*"]

[channel."ward/new"]
group = "239.192.0.9"
port = 5009
publish = ["monitor-*"]
subscribe = ["display-*"]
"""


@dataclass(frozen=True)
class Template:
    """An authority with a channel and a request that waits, and what is to be imported there."""

    folder: Path
    bundle: Path
    policy: Path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    parent = tmp_path_factory.mktemp("template")
    found = Template(make_site(parent / "authority"), parent / "bundle", parent / "policy.toml")
    found.policy.write_text(SOURCE)

    async def fill() -> None:
        async with AsyncExitStack() as stack:
            stack.enter_context(exclusive(found.folder))
            authority, listening = await stack.enter_async_context(running(found.folder, listen=LOOPBACK))
            site = Site(found.folder, parent / "devices", authority, listening, Clock(), stack)
            await site.add_channel("ward/ecg", publish=("monitor-*",), subscribe=("display-*",))
            await site.member("display-1", "ward/ecg")
            await site.set_enrolment(approve_tokens=True)
            with pytest.raises(EnrolmentError, match="not decided yet"):
                await site.enrol("monitor-1")
            found.bundle.write_bytes(next_bundle(site))

    asyncio.run(fill())
    return found


STEPS: dict[str, tuple[Callable[[Template], Sequence[str]], frozenset[int]]] = {
    "token": (lambda _: ("token", "{}", "--device", "monitor-9"), frozenset({0})),
    "registrar": (lambda _: ("token", "{}", "--device", "gateway", "--registrar"), frozenset({0})),
    "channel add": (
        lambda _: (
            *("channel", "add", "{}", "ward/new", "--group", "239.192.0.9", "--port", "5009"),
            *("--publish", "monitor-*", "--subscribe", "display-*"),
        ),
        frozenset({6}),
    ),
    "bundle import": (lambda template: ("bundle", "import", "{}", str(template.bundle)), frozenset({5})),
    "approval approve": (lambda _: ("approval", "approve", "{}", "1"), frozenset({2})),
    "approval deny": (lambda _: ("approval", "deny", "{}", "1"), frozenset({2})),
    "admin add": (lambda _: ("admin", "add", "{}", "alice", "--role", "viewer"), frozenset({2})),
    "policy apply": (lambda template: ("apply", "{}", str(template.policy)), frozenset({0})),
}
"""The command, with {} for the folder, and how it may end where its work has been done."""

ALIKE = {"registrar", "approval deny"}
"""Hardly different from another one; killed in a soak only."""

REPEATED = {"token", "registrar"}
"""Each time it makes another one."""


@pytest.mark.parametrize(
    "names", batches_of([name for name in STEPS if SOAK or name not in ALIKE]), ids="+".join
)
async def test_operators_changes(template: Template, tmp_path: Path, names: list[str]) -> None:
    async with commands() as warmed:
        for name in names:
            outcomes = await survive(warmed, step_of(name, template), scratch_of(tmp_path, name))
            assert outcomes["before"], (name, outcomes)


def step_of(name: str, template: Template) -> Transition:
    words_of, refused = STEPS[name]
    group = "policy" if name == "policy apply" else "authority"
    before = rows(template.folder)
    after: list[dict[str, object]] = []

    async def prepare(folder: Path) -> None:
        await asyncio.to_thread(shutil.copytree, template.folder, folder)

    def words(folder: Path) -> list[str]:
        return [group, *(str(folder) if word == "{}" else word for word in words_of(template))]

    def look(folder: Path) -> str:
        found = rows(folder)
        if found == before:
            return "before"
        if not after:
            after.append(found)
        assert found in after or name in REPEATED, (name, found)
        site = StoredSite.open(folder)
        with site.storage.snapshot() as session:
            assert audit.verify(session).first_bad is None
        return "after"

    return Transition(
        name=f"authority: {name}",
        prepare=prepare,
        act=command(words),
        look=look,
        refused=refused,
        settle=clean_start,
    )


def scratch_of(parent: Path, name: str) -> Path:
    path = parent / name.replace(" ", "-")
    path.mkdir()
    return path


def rows(folder: Path) -> dict[str, object]:
    """How many rows each table has, and what is decided of the request that waits."""
    with contextlib.closing(sqlite3.connect(folder / "authority.db")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
        found: dict[str, object] = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in tables
            # A command that finds its work done is refused, and that is written down.
            if table != "audit"
        }
        found["decided"] = connection.execute("SELECT state FROM approvals").fetchall()
    return found


async def clean_start(folder: Path) -> None:
    """What a start of the service does with the folder; the listeners know nothing of it."""
    site = StoredSite.open(folder)
    authority = Authority(site)
    await authority.start()
    await authority.stop()
    check_no_serial_is_lost(site)


def commands() -> contextlib.AbstractAsyncContextManager[Warm]:
    return warm(
        "sealcast.cli.authority",
        "sealcast.cli.policy",
        "sealcast.authority.control",
        "sealcast.authority.founding",
    )


@pytest.mark.parametrize("names", batches_of(["init", "csr-out", "certificate"]), ids="+".join)
async def test_from_nothing_to_an_authority(tmp_path: Path, names: list[str]) -> None:
    """At once; and with a root elsewhere, in two steps."""
    made = scratch_of(tmp_path, "made")
    await asyncio.to_thread(ceremony, made)

    async def nothing(folder: Path) -> None:
        await asyncio.to_thread(folder.mkdir)

    async def pending(folder: Path) -> None:
        await asyncio.to_thread(shutil.copytree, made / "site", folder)

    def init(*options: str) -> Act:
        return command(
            lambda folder: [
                *("authority", "init", str(folder / "authority")),
                *(option.replace("{}", str(folder)) for option in options),
            ]
        )

    steps = {
        "init": Transition(
            name="authority: init",
            prepare=nothing,
            act=init("--site", "Ward"),
            look=look_for_site,
            refused=frozenset({8}),
            settle=settle,
        ),
        "csr-out": Transition(
            name="authority: init --csr-out",
            prepare=nothing,
            act=init("--site", "Ward", "--csr-out", "{}/csr"),
            look=look_for_request,
            settle=settle,
        ),
        "certificate": Transition(
            name="authority: init --certificate",
            prepare=pending,
            act=init(
                *("--certificate", f"{made}/ca.pem", "--root-cert", f"{made}/root.pem"),
                *("--bundle", f"{made}/bundle"),
            ),
            look=look_for_site,
            settle=settle,
        ),
    }
    async with commands() as warmed:
        for name in names:
            outcomes = await survive(warmed, steps[name], scratch_of(tmp_path, name))
            assert outcomes["before"], outcomes


async def test_what_an_agent_does(tmp_path: Path) -> None:
    """It takes the trust bundle, CRL and policy, and recovers a certificate that has expired."""
    folder = make_site(tmp_path / "authority", now=system_time() - 95 * DAY)
    async with AsyncExitStack() as stack:
        stack.enter_context(exclusive(folder))
        authority, listening = await stack.enter_async_context(running(folder, listen=LOOPBACK))
        site = Site(folder, tmp_path, authority, listening, Clock(), stack)
        device = await site.enrol("monitor-1")
        await site.add_channel("ward/ecg")
        expired: dict[str, int] = {}
        run = command(lambda place: ["device", "run", str(place), "--once"])

        async def enrolled(place: Path) -> None:
            await asyncio.to_thread(shutil.copytree, device.path, place)

        def is_fresh(place: Path) -> str:
            found = DeviceIdentity.open(place)
            assert found.serial == device.serial
            held = Documents.read(place, found.site_id)
            assert all(policy.version == 1 for policy in held.policies)
            # Numbers are known before what they are of is in its place.
            known = read_floors(place, channel_id(found.site_id, "ward/ecg")).policy_version
            assert known >= len(held.policies)
            assert (held.crl is None) or list(read_crl_numbers(place).values()) == [held.crl.number]
            is_whole = current_bundle(place) is not None and held.crl is not None and held.policies
            return "after" if is_whole else "before"

        async def sleeper(place: Path) -> None:
            """A device of its own each time: of one that has recovered no copy does (SC-22)."""
            found = await site.enrol(f"sleeper-{place.name}")
            await asyncio.to_thread(found.path.rename, place)
            expired[found.name] = await expire(site, DeviceIdentity.open(place))

        def is_recovered(place: Path) -> str:
            found = DeviceIdentity.open(place)
            return "before" if found.serial == expired[found.name] else "after"

        fresh = Transition(
            name="device: bundle, CRL and policy",
            prepare=enrolled,
            act=run,
            look=is_fresh,
            settle=nothing_is_left,
        )
        recover = replace(fresh, name="device: recover", prepare=sleeper, look=is_recovered, copies=False)
        async with warm("sealcast.cli.device", "sealcast.cli.data", "sealcast.device.agent") as warmed:
            for each in (fresh, recover):
                outcomes = await survive(warmed, each, scratch_of(tmp_path, each.name.rpartition(" ")[2]))
                assert outcomes["before"], outcomes
    check_no_serial_is_lost(StoredSite.open(folder))


async def nothing_is_left(place: Path) -> None:
    left = await asyncio.to_thread(lambda: list(place.rglob("*.tmp")))
    assert not left, "what a crash has left is cleared away"
    assert not (place / "pending").exists()


async def expire(site: Site, device: DeviceIdentity) -> int:
    """Put a certificate in the device's folder that ended some days ago; return its serial number."""
    then = system_time() - 95 * DAY

    def job(session: Session) -> tuple[IssuedCertificate, Changes]:
        csr = device.signer.make_csr(device.name)
        issued = site.authority.site.issuer.issue_device(csr, device.name, then)
        row = certificate_row(issued)
        # The one that it was enrolled with counts as an earlier one.
        session.get_one(CertificateRow, f"{device.serial:x}").not_before = row.not_before - 1
        session.add(row)
        return issued, Changes()

    issued = await site.authority.apply(job)
    device.certificate_file.write_bytes(certificates_pem([issued.der, *device.chain[1:]]))
    return int(issued.serial)


def ceremony(made: Path) -> None:
    """A folder that waits for its certificate, and what comes back from where the root is."""
    root = ("--root-cert", f"{made}/root.pem", "--root-key", f"{made}/root.key")
    signing = ("--output", f"{made}/ca.pem", "--bundle", f"{made}/bundle")
    for words in (
        ("root", "new", f"{made}/root.pem", f"{made}/root.key", "--name", "Owner"),
        ("authority", "init", f"{made}/site/authority", "--site", "Ward", "--csr-out", f"{made}/csr"),
        ("root", "sign-site", f"{made}/csr", *root, *signing),
    ):
        assert cli.main(words) == 0


def look_for_site(folder: Path) -> str:
    try:
        StoredSite.open(folder / "authority")
    except StorageError:
        return "before"
    return "after"


def look_for_request(folder: Path) -> str:
    if not (folder / "authority").exists():
        return "before"
    assert is_pending(folder / "authority")
    assert (folder / "authority" / CA_KEY_FILE).exists()
    return "after" if (folder / "csr").exists() else "before"


async def settle(folder: Path) -> None:
    left = await asyncio.to_thread(lambda: list(folder.glob(".authority*")))
    assert not left, "what a crash has left beside is cleared away"
    if not is_pending(folder / "authority"):
        await clean_start(folder / "authority")
