"""The signer apart: it holds the key alone, issues by its own rules, and the service does without it."""

import asyncio
import base64
import contextlib
import ctypes
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from sealcast import system
from sealcast.authority import app
from sealcast.authority.app import running
from sealcast.authority.control import FolderManagement
from sealcast.authority.issuance import CA_FILE, CA_KEY_FILE, LEDGER_FILE, certificates, remote_issuer
from sealcast.authority.roles import ALL, SERVICE, SIGNER, parse_roles
from sealcast.authority.signer_batch import DeviceBatches
from sealcast.authority.signer_keys import SignerKeys
from sealcast.authority.signer_process import SIGNER_SOCKET_FILE, SignerSocket
from sealcast.authority.site import SOCKET_FILE, exclusive
from sealcast.authority.site import Site as StoredSite
from sealcast.ca import (
    DeviceRequest,
    FileSigner,
    Intent,
    IssuedCertificate,
    KeyKind,
    KeySigner,
    Ledger,
    Limits,
    PassphraseSource,
    Permit,
    RemoteIssuer,
    ScryptCost,
)
from sealcast.ca.remote import key_hash
from sealcast.ca.signer import public_key_of
from sealcast.cli import main
from sealcast.device import enroll_async, renew_async
from sealcast.errors import CertificateError, ConfigError, CsrError, SealcastError, StorageError, UsageError
from sealcast.keys import MemberRole
from sealcast.pki.certificates import has_usage, parse_certificate, spki
from sealcast.pki.crl import CrlFacts, Revocation
from sealcast.pki.csr import CertificateRequest
from sealcast.pki.hardware import HardwareIdentity
from sealcast.pki.names import Role
from sealcast.pki.policy import Policy
from sealcast.pki.profiles import REGISTRATION_AUTHORITY
from sealcast.pki.signed import decode_cbor, encode_cbor
from sealcast.pki.times import system_time
from tests.authority.conftest import LOOPBACK, Clock, Site, make_site
from tests.authority.test_crash import check_no_serial_is_lost
from tests.ca.test_local import make_policy
from tests.crash import attached, calls_that_matter, chosen, tracing
from tests.forks import Forked

RUN = "import sys; from sealcast.cli import main; sys.exit(main())"
ECG = "ward/ecg"
PASSWORD = "the signer alone knows"
NOBODY = 65534
_LENGTH = struct.Struct(">I")


@contextlib.contextmanager
def signer(
    folder: Path, *options: str, under: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str] | Forked]:
    """A signer process that listens."""
    words = ("authority", "serve", str(folder), "--roles", "signer", *options)
    environment = {**os.environ, "SEALCAST_PASSPHRASE": PASSWORD}
    process = (
        subprocess.Popen(
            [*under, sys.executable, "-c", RUN, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        if under
        else Forked(words, environment=environment, text=True)
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line == f"ready: signer {folder / SIGNER_SOCKET_FILE}\n", process.stderr.read()
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def split(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of a service and of its signer; the key is encrypted, and not with the service at all."""
    return split_folder(tmp_path)


def split_folder(parent: Path, *, encrypted: bool = True) -> tuple[Path, Path]:
    cheap = ScryptCost(n=2**4, r=8, p=1)
    environment = {"SEALCAST_CA_PASSPHRASE": PASSWORD} if encrypted else {}
    source = PassphraseSource(environment=environment, prompt=None, cost=cheap)
    folder, apart = make_site(parent / "authority", new_passphrases=source), parent / "signer"
    apart.mkdir(0o711)
    for name in (CA_KEY_FILE, LEDGER_FILE):
        (folder / name).rename(apart / name)
    shutil.copyfile(folder / CA_FILE, apart / CA_FILE)
    (folder / SIGNER_SOCKET_FILE).symlink_to(apart / SIGNER_SOCKET_FILE)
    return folder, apart


@contextlib.asynccontextmanager
async def service(folder: Path, devices: Path) -> AsyncIterator[Site]:
    clock = Clock()
    async with AsyncExitStack() as stack:
        stack.enter_context(exclusive(folder))
        authority, listening = await stack.enter_async_context(
            running(folder, listen=LOOPBACK, clock=clock, issuer=remote_issuer(folder))
        )
        yield Site(folder, devices, authority, listening, clock, stack)


def ask(path: Path, *request: object) -> object:
    """One request, as whoever broke into the service could write it; the raw answer."""
    return exchange(path, encode_cbor(list(request)))


def exchange(path: Path, data: bytes, length: int | None = None) -> object:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(_LENGTH.pack(len(data) if length is None else length) + data)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return decode_cbor(answer[4:]) if answer else None


async def test_a_service_without_a_key_does_all_its_work(split: tuple[Path, Path], tmp_path: Path) -> None:
    folder, apart = split
    with signer(apart):
        async with service(folder, tmp_path / "devices") as site:
            await site.add_channel()
            identity = await site.enrol("display-1")
            member = await site.client(identity)
            await member.join(ECG, MemberRole.SUBSCRIBE)
            await renew_async(site.devices / "display-1", now=site.clock())
            await site.authority.renew_certificate()
            assert await site.authority.revoke_device("display-1")
            assert identity.serial in CrlFacts.parse(site.authority.crl.der).serials
            await site.enrol("display-2")
            # The token readmits: here signer and service are one user's.
            token = await site.token("display-1")
            shutil.rmtree(site.devices / "display-1")
            await site.enrol("display-1", token)
        # Commands without a service ask the signer too.
        assert main(["authority", "device", "revoke", str(folder), "display-2"]) == 0
        check_no_serial_is_lost(StoredSite.open(folder))
    assert not (apart / SIGNER_SOCKET_FILE).exists()


async def test_a_signer_that_is_away_costs_a_retry_and_nothing_else(
    split: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, apart = split
    with signer(apart) as process:
        stack = AsyncExitStack()
        site = await stack.enter_async_context(service(folder, tmp_path / "devices"))
        await site.add_channel()
        await site.enrol("display-1")
        token = await site.token("monitor-1")
        process.kill()
        process.wait()
    async with stack:
        status, retry = await raw_enrolment(site, "monitor-1", token)
        assert status == 503
        assert retry is not None
        assert int(retry) > 0
        with pytest.raises(StorageError, match="the signer does not answer") as caught:
            await site.authority.revoke_device("display-1")
        assert "--roles signer" in caught.value.cure
        channel = site.authority.channel(ECG)
        assert channel is not None
        assert channel.policy.mentions("display-1")
        # Keys go on: slots turn, members are told, counters are reserved.
        site.clock.ahead += 3600 * 1_000_000
        await site.authority.turn_slots()
        assert channel.keys.slots.present == 2
        with pytest.raises(StorageError, match="the signer does not answer"):
            await site.authority.renew_objects()
        site.clock.ahead = 0
        with signer(apart):
            status, _ = await raw_enrolment(site, "monitor-1", token)
            assert status == 200
            assert await site.authority.revoke_device("display-1")
            assert not channel.policy.mentions("display-1")
    said = [record.getMessage() for record in caplog.records if record.name == "sealcast.signer"]
    assert len(said) == 2, "an outage is told of once, and its end"
    assert "the signer does not answer" in said[0]
    assert "--roles signer" in said[0]
    assert "answers again" in said[1]


async def raw_enrolment(site: Site, name: str, token: str) -> tuple[int, str | None]:
    """What an EST client of somebody else would see."""
    context = ssl.create_default_context(cafile=str(site.folder / "root.pem"))
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{site.listening.authority}/.well-known/est/simpleenroll",
            data=base64.b64encode(KeySigner.generate().make_csr(name)),
            headers={
                "Content-Type": "application/pkcs10",
                "Authorization": aiohttp.encode_basic_auth(name, token),
            },
            ssl=context,
        ) as response,
    ):
        return response.status, response.headers.get("Retry-After")


class TestBrokenService:
    """Whoever broke into the service speaks to the socket as he likes."""

    @pytest.fixture
    def socket_file(self, split: tuple[Path, Path]) -> Iterator[Path]:
        with signer(split[1], "--limit", "device=3", "--limit", "key-server=2"):
            yield split[1] / SIGNER_SOCKET_FILE

    @pytest.fixture
    def issuer(self, socket_file: Path) -> RemoteIssuer:
        return RemoteIssuer(certificates(socket_file.with_name(CA_FILE))[0], socket_file)

    def test_there_is_no_raw_signature(self, socket_file: Path) -> None:
        own = key_hash(public_key_of(certificates(socket_file.with_name(CA_FILE))[0]))
        for request in (
            ["sign", b"anything"],
            ["sign", own, b"anything"],
            ["issue-site", own, spki(KeySigner.generate().public_key)],
            ["issue-devices", own, [[b"", 7, None, None, None, False]]],
            ["issue-devices", own, [[b"", "monitor-1", None, None, None, False]] * 257],
            ["issue-devices", b"another key", [[b"", "monitor-1", None, None, None, False]]],
            ["issue-crl", [own], 1, [[b"x" * 21, 0]]],
            ["issue-crl", [own], 1, [[b"", 0]]],
            ["issue-crl", [], 1, []],
            ["issue-crl", [1], 1, []],
            ["sign-policies", own, [b"not a policy"]],
            ["sign-policies", own, [1]],
            ["issue-key-server", own, b"no key", "key-server", []],
            ["prepare-key", 1],
            ["prepare-key", 0],
            ["prepare-key", "2"],
            ["take-certificate", b"no certificate"],
            ["switch-key", b"x" * 32],
            ["retire-key", own],
            ["abandon-key", own],
            ["issued-after", 255, 10**9],
            [],
            ["remove", "../x"],
        ):
            answer = ask(socket_file, *request)
            if request and request[0] == "issued-after":
                assert answer == [0, []]
            else:
                assert isinstance(answer, list)
                assert answer[0] == 1, request
        not_read = ask(socket_file, "issue-devices", own, [[b"not a request", "m", None, None, None, False]])
        assert isinstance(not_read, list)
        assert (not_read[0], not_read[1][0][0]) == (0, 1)
        for junk in (b"", b"\xff" * 40, encode_cbor({"word": "x"})):
            answer = exchange(socket_file, junk)
            assert isinstance(answer, list)
            assert answer[0] == 1
        assert exchange(socket_file, b"", length=2**32 - 1) is not None
        assert exchange(socket_file, b"half", length=100) is None

    def test_one_that_says_nothing_holds_nobody_up(self, socket_file: Path, issuer: RemoteIssuer) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                idle = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                idle.connect(str(socket_file))
            assert issuer.last_position() == 1

    def test_no_certificate_beyond_the_rules(self, issuer: RemoteIssuer) -> None:
        key = KeySigner.generate().public_key
        with pytest.raises(UsageError, match=r"evil\.example"):
            issuer.issue_key_server(public_key=key, name="key-server", hosts=["evil.example"], now=0)
        with pytest.raises(UsageError, match="of the name"):
            issuer.issue_key_server(public_key=key, name="authority", hosts=["localhost"], now=0)
        with pytest.raises(CsrError) as caught:
            issuer.issue_device(KeySigner.generate().make_csr("monitor-2"), "monitor-1", 0)
        assert caught.value.fault == "name"
        issuer.remove("monitor-1", 0)
        with pytest.raises(CertificateError, match="is revoked"):
            issuer.issue_device(KeySigner.generate().make_csr("monitor-1"), "monitor-1", 0)
        for _ in range(3):
            issuer.issue_device(KeySigner.generate().make_csr("monitor-2"), "monitor-2", 0)
        with pytest.raises(StorageError, match="within an hour"):
            issuer.issue_device(KeySigner.generate().make_csr("monitor-2"), "monitor-2", 0)

    def test_the_time_is_the_signers(self, issuer: RemoteIssuer) -> None:
        request = KeySigner.generate().make_csr("monitor-1")
        issued = issuer.issue_device(request, "monitor-1", 4_000_000_000_000_000)
        assert abs(issued.not_before - system_time()) < 180_000_000

    def test_no_list_and_no_policy_from_yesterday(self, issuer: RemoteIssuer) -> None:
        now = system_time()
        first = issuer.issue_crl(number=5, revocations=[Revocation(serial=77, time=now)], now=0)
        second = CrlFacts.parse(issuer.issue_crl(number=1, revocations=[], now=0))
        assert (CrlFacts.parse(first).number, second.number) == (5, 6)
        assert second.serials == {77}
        policy = make_policy(site_id=issuer.site_id, version=4, issued=now, next_update=now + 3_600_000_000)
        versions = [Policy.parse(issuer.sign_policy(policy), issuer.public_key).version for _ in range(2)]
        assert versions == [4, 5]

    def test_hardware_and_admins_pass_through(self, issuer: RemoteIssuer) -> None:
        hardware = HardwareIdentity(serial_number="SN 1", module=("1.3.6.1.4.1.99999.1", b"\x01\x02"))
        issued = issuer.issue_device(KeySigner.generate().make_csr("m"), "m", 0, hardware=hardware)
        assert b"SN 1" in issued.der
        issuer.permit(Permit.ADMIN, "alice", 0)
        admin = issuer.issue_admin(KeySigner.generate().make_csr("alice"), "alice", 0)
        assert admin.identity.role is Role.ADMIN

    def test_keys_made_here_and_registration_authorities_pass_through(self, issuer: RemoteIssuer) -> None:
        generated = KeySigner.generate().public_key
        asked = KeySigner.generate().make_csr("m")
        issuer.permit(Permit.REGISTRATION_AUTHORITY, "m", 0)
        assert issuer.permitted(Permit.REGISTRATION_AUTHORITY) == {"m"}
        issued = parse_certificate(
            issuer.issue_device(asked, "m", 0, generated=generated, registers=True).der
        )
        assert issued.public_key() == generated
        assert has_usage(issued, REGISTRATION_AUTHORITY)
        with pytest.raises(CsrError, match="P-256"):
            issuer.issue_device(asked, "m", 0, generated=KeySigner.generate(KeyKind.P384).public_key)
        issuer.withdraw(Permit.REGISTRATION_AUTHORITY, "m", 0)
        with pytest.raises(CertificateError, match="may not certify 'm' as registrar"):
            issuer.issue_device(asked, "m", 0, registers=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
class TestTwoUsers:
    @pytest.fixture
    def apart(self) -> Iterator[Path]:
        # pytest's own folders are closed to other users.
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o711)
            yield split_folder(Path(name))[1]

    @staticmethod
    def as_nobody(code: str, apart: Path) -> subprocess.CompletedProcess[str]:
        """Run a program as another user; `issuer` is the remote one."""
        certificate = (apart / CA_FILE).read_bytes()
        script = f"""
import os, sys
from pathlib import Path
from sealcast.authority.issuance import permit
from sealcast.ca import KeySigner, Permit, RemoteIssuer
from sealcast.pki.certificates import parse_pem_certificates
os.setuid({NOBODY})
issuer = RemoteIssuer(parse_pem_certificates({certificate!r})[0], Path({str(apart / SIGNER_SOCKET_FILE)!r}))
{code}
"""
        return subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
        )

    def test_a_stranger_is_refused(self, apart: Path) -> None:
        with signer(apart):
            result = self.as_nobody("issuer.last_position()", apart)
            assert "the signer does not answer: Permission denied" in result.stderr
        with signer(apart, "--service-user", "1"):
            result = self.as_nobody("issuer.last_position()", apart)
            assert "the signer does not answer" in result.stderr

    def test_the_services_user_is_no_operator(self, apart: Path) -> None:
        with signer(apart, "--service-user", "nobody"):
            result = self.as_nobody(
                "issuer.issue_device(KeySigner.generate().make_csr('m'), 'm', 0); issuer.remove('m', 0);"
                "print('fine'); issuer.readmit('m', 0)",
                apart,
            )
            assert result.stdout == "fine\n", result.stderr
            assert "readmit is for the operator of the signer alone" in result.stderr
            assert main(["authority", "readmit", str(apart), "m"]) == 0
            assert main(["authority", "readmit", str(apart), "m"]) == 2

    def test_who_is_an_admin_or_registers_others_is_the_operators_word(
        self, apart: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        admin = "issuer.issue_admin(KeySigner.generate().make_csr('alice'), 'alice', 0)"
        registrar = "issuer.issue_device(KeySigner.generate().make_csr('g'), 'g', 0, registers=True)"
        added = "permit(None, issuer, Permit.ADMIN, 'alice', 0)"
        with signer(apart, "--service-user", "nobody"):
            for code, message in (
                (admin, "may not certify 'alice' as admin"),
                (registrar, "may not certify 'g' as registrar"),
                ("issuer.permit(Permit.ADMIN, 'alice', 0)", "permit is for the operator of the signer alone"),
                # What a request of the management API says to whoever adds an admin.
                (added, "the signer's operator has not permitted 'alice' to be admin"),
            ):
                assert message in self.as_nobody(code, apart).stderr
            permit = ["authority", "permit", str(apart)]
            assert main([*permit, "alice", "--admin"]) == 0
            assert main([*permit, "g", "--registrar"]) == 0
            assert main(permit) == 0
            assert "admin  alice\nregistrar  g\n" in capsys.readouterr().out
            result = self.as_nobody(f"{added}; {admin}; {registrar}; print('fine')", apart)
            assert result.stdout == "fine\n", result.stderr
            # To take it away, everybody may ask.
            result = self.as_nobody("issuer.withdraw(Permit.ADMIN, 'alice', 0)\n" + admin, apart)
            assert "may not certify 'alice' as admin" in result.stderr
            for wrong in ([*permit, "alice"], [*permit, "--admin"], [*permit, "../x", "--admin"]):
                assert main(wrong) == 2

    def test_a_user_that_does_not_exist(self) -> None:
        with pytest.raises(ConfigError, match="no-such-user"):
            system.user_id("no-such-user")


def test_its_memory_is_closed_to_others_of_its_user() -> None:
    code = (
        "import ctypes; from sealcast.system import forbid_inspection; forbid_inspection();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "0\n"
    assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 1


class TestRoles:
    def test_what_can_be_one_process(self) -> None:
        assert parse_roles("est,keys,directory") == SERVICE
        assert parse_roles(" signer ") == SIGNER
        assert parse_roles("signer,est,directory,keys") == ALL

    @pytest.mark.parametrize("text", ["est", "keys,directory", "est,signer", "", "est,keys,directory,ca"])
    def test_what_cannot(self, text: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_roles(text)
        assert caught.value.cure

    def test_the_key_is_not_served_twice(
        self,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with signer(folder):
            assert main(["authority", "serve", str(folder)]) == 3
            assert "a signer process has the site CA's key" in capsys.readouterr().err
            assert main(["authority", "serve", str(folder), "--roles", "signer"]) == 8
            assert "another signer listens" in capsys.readouterr().err
        monkeypatch.setattr(app, "SIGNER_START_SECONDS", 0.0)
        assert main(["authority", "serve", str(folder), "--roles", "est,keys,directory"]) == 8
        assert f"waiting for the signer to listen on {folder / SIGNER_SOCKET_FILE}" in caplog.text
        assert "--roles signer" in capsys.readouterr().err

    @pytest.mark.parametrize("limit", ["device", "device=0", "ca=1", "crl=-1", "crl=1e3"])
    def test_a_limit_that_is_none(self, folder: Path, capsys: pytest.CaptureFixture[str], limit: str) -> None:
        assert main(["authority", "serve", str(folder), "--roles", "signer", "--limit", limit]) == 2
        assert limit in capsys.readouterr().err

    @pytest.mark.parametrize("words", ["est", "keys", "directory", "est,signer"])
    def test_what_cannot_is_refused_before_anything_is_opened(
        self, folder: Path, capsys: pytest.CaptureFixture[str], words: str
    ) -> None:
        """The three that write one database are one process; each with a signer, or all four."""
        assert main(["authority", "serve", str(folder), "--roles", words]) == 3
        refused = capsys.readouterr().err
        assert f"the roles {words} cannot be a process" in refused
        assert "use est,keys,directory" in refused

    async def test_each_process_starts_serves_and_ends_cleanly(
        self, split: tuple[Path, Path], tmp_path: Path
    ) -> None:
        """The service first, which waits; the signer ends first, too, and the service stays."""
        folder, apart = split
        words = "serve", str(folder), "--roles", "est,keys,directory", "--json"
        free = "--listen", "127.0.0.1:0", "--keys", "127.0.0.1:0", "--manage", "none"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RUN, "authority", *words, *free),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.timeout(60):
            assert b"waiting for the signer to listen" in await process.stderr.readline()
            with signer(apart) as held:
                ready = json.loads(await process.stdout.readline())
                made = await asyncio.to_thread(
                    FolderManagement(folder).call, "POST", "/v1/tokens", body={"device": "monitor-1"}
                )
                roots = certificates(folder / "root.pem")
                identity = await enroll_async(
                    tmp_path / "monitor-1",
                    authority_url=ready["authority"],
                    roots=roots,
                    name="monitor-1",
                    token=made["token"],
                )
                assert identity.name == "monitor-1"
                held.terminate()
                assert await asyncio.to_thread(held.wait, 20) == 0
            assert not (apart / SIGNER_SOCKET_FILE).exists()
            listed = await asyncio.to_thread(
                FolderManagement(folder).call, "GET", "/v1/devices", query={"limit": 10}
            )
            assert [device["name"] for device in listed["items"]] == ["monitor-1"]
            process.terminate()
            assert await process.wait() == 0
            assert b"Traceback" not in await process.stderr.read()
        assert not (folder / SOCKET_FILE).exists()

    @pytest.mark.parametrize(
        ("damage", "code", "problem", "cure"),
        [
            ("swapped", 5, "ca.key: is not the key of", "one backup"),
            ("garbage", 5, "ca.key: holds no PEM private key", "BEGIN PRIVATE KEY"),
            ("another passphrase", 5, "ca.key: the passphrase is wrong, or the file is damaged", "backup"),
            ("no passphrase", 5, "ca.key: the key is encrypted, and there is no passphrase", "sealcast-ca"),
            ("open to others", 8, "ca.key: a private key that others may read (mode 0644)", "chmod 600"),
            ("gone", 8, "ca.key: No such file", ""),
            ("no ledger", 8, "ledger.db: the ledger of the site CA is missing", "backup"),
            ("ledger of another site", 8, "ledger.db: the ledger is of another site CA", "one backup"),
            ("no certificate", 5, "ca.pem: holds no PEM certificate", "BEGIN CERTIFICATE"),
        ],
    )
    def test_bad_input_a_key_file_that_is_swapped_unreadable_or_damaged(
        self,
        split: tuple[Path, Path],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        damage: str,
        code: int,
        problem: str,
        cure: str,
    ) -> None:
        apart = split[1]
        # It is for the process, and this one goes on.
        monkeypatch.setattr(system, "forbid_inspection", lambda: None)
        monkeypatch.setenv("SEALCAST_PASSPHRASE", PASSWORD)
        key, ledger = apart / CA_KEY_FILE, apart / LEDGER_FILE
        match damage:
            case "swapped":
                key.unlink()
                FileSigner.create(key)
            case "garbage":
                key.write_bytes(b"no key")
            case "another passphrase":
                monkeypatch.setenv("SEALCAST_PASSPHRASE", "another one")
            case "no passphrase":
                monkeypatch.delenv("SEALCAST_PASSPHRASE")
            case "open to others":
                key.chmod(0o644)
            case "gone":
                key.unlink()
            case "no ledger":
                ledger.unlink()
            case "ledger of another site":
                shutil.copyfile(make_site(tmp_path / "other") / LEDGER_FILE, ledger)
            case "no certificate":
                (apart / CA_FILE).write_bytes(b"")
        assert main(["authority", "serve", str(apart), "--roles", "signer"]) == code
        told = capsys.readouterr().err
        assert problem in told
        assert cure in told
        assert not (apart / SIGNER_SOCKET_FILE).exists()

    def test_a_signer_for_another_site_is_found_out(self, split: tuple[Path, Path], tmp_path: Path) -> None:
        other = make_site(tmp_path / "other")
        with signer(split[1]):
            impostor = RemoteIssuer(certificates(other / CA_FILE)[0], split[1] / SIGNER_SOCKET_FILE)
            with pytest.raises(CertificateError, match="does not hold the key of this site's CA"):
                impostor.issue_device(KeySigner.generate().make_csr("m"), "m", 0)


@contextlib.asynccontextmanager
async def listening(folder: Path, limits: Limits | None = None) -> AsyncIterator[RemoteIssuer]:
    """A signer in this process."""
    listener = SignerSocket(folder / SIGNER_SOCKET_FILE)
    await listener.start(SignerKeys(folder, PassphraseSource(), limits=limits or Limits(), clock=system_time))
    try:
        yield remote_issuer(folder)
    finally:
        await listener.close()


async def test_who_asks_at_the_same_time_shares_a_write_of_the_ledger(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And holds nobody up who asks for something else."""
    count = 20
    writes: list[int] = []
    go_on, all_here, asked = threading.Event(), asyncio.Event(), 0
    reserve, ask = Ledger.reserve_all, DeviceBatches.ask

    def slow(ledger: Ledger, intents: Sequence[Intent]) -> list[int]:
        assert go_on.wait(30)
        writes.append(len(intents))
        return reserve(ledger, intents)

    async def counted(batches: DeviceBatches, requests: Sequence[DeviceRequest]) -> object:
        nonlocal asked
        asked += 1
        if asked == count:
            all_here.set()
        return await ask(batches, requests)

    monkeypatch.setattr(Ledger, "reserve_all", slow)
    monkeypatch.setattr(DeviceBatches, "ask", counted)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(count + 1) as devices:
        async with listening(folder, Limits(device=count - 1)) as issuer:

            def enrol(number: int) -> IssuedCertificate | SealcastError:
                name = f"monitor-{number}"
                try:
                    return issuer.issue_device(KeySigner.generate().make_csr(name), name, 0)
                except SealcastError as error:
                    return error

            enrolments = [loop.run_in_executor(devices, enrol, number) for number in range(count)]
            async with asyncio.timeout(30):
                await all_here.wait()
                assert await loop.run_in_executor(devices, issuer.last_position) == 1
                go_on.set()
                outcomes = await asyncio.gather(*enrolments)
            entries = await loop.run_in_executor(devices, issuer.issued_after, 1, 100)
    assert len(writes) <= 2
    assert sum(writes) == count - 1
    issued = [outcome for outcome in outcomes if isinstance(outcome, IssuedCertificate)]
    assert {entry.serial for entry in entries} == {one.serial for one in issued}
    # Each has the answer to its own question, the one too many the refusal.
    assert [one.identity.name for one in issued] == [
        f"monitor-{number}" for number in range(count) if isinstance(outcomes[number], IssuedCertificate)
    ]
    (refused,) = (outcome for outcome in outcomes if isinstance(outcome, SealcastError))
    assert "within an hour" in str(refused)


async def test_devices_and_policies_are_asked_for_together(folder: Path) -> None:
    """Each is judged by itself; policies are all signed, or none."""
    async with listening(folder) as issuer:

        def ask_together() -> None:
            issuer.remove("m2", 0)
            requests = [
                DeviceRequest(csr=CertificateRequest.parse(KeySigner.generate().make_csr(name)), name=name)
                for name in ("m1", "m2", "m3")
            ]
            first, refused, third = issuer.issue_devices(requests, 0)
            assert isinstance(first, IssuedCertificate)
            assert isinstance(third, IssuedCertificate)
            assert isinstance(refused, CertificateError)
            assert refused.reason == "revoked"
            again = DeviceRequest(
                csr=CertificateRequest.parse(
                    KeySigner.generate().make_csr("m1", current=parse_certificate(first.der))
                ),
                current=first.der,
            )
            (renewed,) = issuer.issue_devices([again], 0)
            assert isinstance(renewed, IssuedCertificate)
            assert (renewed.identity.name, renewed.serial != first.serial) == ("m1", True)
            assert issuer.issue_devices([], 0) == []
            now = system_time()
            policies = [
                make_policy(site_id=issuer.site_id, version=1, issued=now, next_update=now + 10**9)
                for _ in range(300)
            ]
            signed = [Policy.parse(each, issuer.public_key) for each in issuer.sign_policies(policies)]
            assert [policy.version for policy in signed] == list(range(1, 301))
            with pytest.raises(UsageError, match="times"):
                issuer.sign_policies([policies[0], replace(policies[1], issued=0)])
            assert Policy.parse(issuer.sign_policy(policies[0]), None).version == 301

        await asyncio.to_thread(ask_together)


async def test_a_long_folder_name_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    make_site(folder)
    async with listening(folder) as remote:
        assert await asyncio.to_thread(remote.last_position) == 1


@pytest.mark.needs_program("strace")
@pytest.mark.timeout(900)
async def test_f14_a_signer_killed_at_any_call_loses_no_serial(tmp_path: Path) -> None:
    """F14: SIGKILL at the calls that an enrolment makes in the signer; then it starts again."""
    template = tmp_path / "template"
    template.mkdir()
    split_folder(template)

    def move(to: str) -> tuple[Path, Path]:
        shutil.copytree(template, tmp_path / to, symlinks=True)
        folder, apart = tmp_path / to / "authority", tmp_path / to / "signer"
        (folder / SIGNER_SOCKET_FILE).unlink()
        (folder / SIGNER_SOCKET_FILE).symlink_to(apart / SIGNER_SOCKET_FILE)
        return folder, apart

    async def enrolment(folder: Path, apart: Path, options: list[str]) -> bool:
        """One enrolment with a signer under strace; whether it succeeded."""
        done = False
        with signer(apart) as process:
            async with service(folder, tmp_path / "devices" / folder.parent.name) as site:
                token = await site.token("monitor-1")
                async with attached(process.pid, options):
                    with contextlib.suppress(SealcastError):
                        await site.enrol("monitor-1", token)
                        done = True
                    process.kill()
                    process.wait()
                with signer(apart):
                    await site.authority.renew_objects()
                    check_no_serial_is_lost(StoredSite.open(folder))
                    if not done:
                        shutil.rmtree(site.devices / "monitor-1", ignore_errors=True)
                        await site.enrol("monitor-1", token)
        return done

    folder, apart = move("whole")
    log = tmp_path / "log"
    assert await enrolment(folder, apart, tracing(log))
    calls = calls_that_matter(log.read_text(), apart)
    assert len(calls) > 5, "the trace does not show the work"
    failed = 0
    for call in chosen(calls, 8):
        folder, apart = move(f"{call.name}-{call.number}")
        options = [*tracing(tmp_path / "killed.log"), *call.killing(apart)]
        failed += not await enrolment(folder, apart, options)
    assert failed
