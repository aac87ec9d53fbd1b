"""A site whose root is on another machine: the request goes out, the certificate comes in, from the command
line.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import select

from sealcast import cli
from sealcast.authority import site as module
from sealcast.authority.app import running
from sealcast.authority.founding import REQUEST_FILE
from sealcast.authority.issuance import CA_FILE, CA_KEY_FILE, reconcile
from sealcast.authority.models import UnrecordedRow
from sealcast.authority.site import PENDING_FILE, Site, exclusive, is_pending
from sealcast.ca import KeySigner
from sealcast.device import DeviceIdentity, enroll_async
from sealcast.pki.certificates import (
    certificate_der,
    certificates_pem,
    parse_certificate,
    parse_pem_certificates,
)
from sealcast.pki.profiles import CertificateIssuer, admin_builder
from sealcast.pki.times import system_time
from tests.authority.conftest import HOUR, LOOPBACK
from tests.programs import run_program

Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command; return what it wrote, after a look at its exit code."""

    def run(*words: object, code: int = 0) -> str:
        capsys.readouterr()
        found = cli.main([str(word) for word in words])
        written = capsys.readouterr()
        assert found == code, written
        return written.out + written.err

    return run


class Ceremony:
    """The other machine: a root, and what it answers."""

    def __init__(self, folder: Path, say: Say) -> None:
        folder.mkdir()
        self.root, self.key = folder / "root.pem", folder / "root.key"
        self.certificate, self.bundle = folder / "ca.pem", folder / "trust.bundle"
        self.say = say
        say("root", "new", self.root, self.key, "--name", "Owner")

    def sign(self, request: Path) -> None:
        given = ("--root-cert", self.root, "--root-key", self.key)
        for old in (self.certificate, self.bundle):
            old.unlink(missing_ok=True)
        self.say("root", "sign-site", request, *given, "--output", self.certificate, "--bundle", self.bundle)

    @property
    def answer(self) -> tuple[object, ...]:
        return ("--certificate", self.certificate, "--root-cert", self.root)


@pytest.fixture
def owner(tmp_path: Path, say: Say) -> Ceremony:
    return Ceremony(tmp_path / "elsewhere", say)


@pytest.fixture
def request_file(tmp_path: Path, say: Say) -> Path:
    """A folder that waits, and its request."""
    said = say(
        "authority", "init", tmp_path / "authority", "--site", "Ward", "--csr-out", tmp_path / "ward.csr",
        "--host-name", "keys.example",
    )  # fmt: skip
    assert "sealcast root sign-site ward.csr" in said
    assert "authority --certificate ca.pem" in said
    return tmp_path / "ward.csr"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def enrol(folder: Path, device: Path, roots: list[bytes]) -> DeviceIdentity:
    async with AsyncExitStack() as stack:
        stack.enter_context(exclusive(folder))
        authority, listening = await stack.enter_async_context(running(folder, listen=LOOPBACK))
        return await enroll_async(
            device,
            authority_url=listening.authority,
            roots=roots,
            name="monitor-1",
            token=await authority.create_token("monitor-1", HOUR),
            now=system_time(),
        )


@pytest.mark.needs_program("openssl")
def test_a_site_under_a_root_elsewhere_enrols_devices(
    tmp_path: Path, owner: Ceremony, request_file: Path, say: Say
) -> None:
    folder = tmp_path / "authority"
    owner.sign(request_file)
    said = say("authority", "init", folder, *owner.answer, "--bundle", owner.bundle)
    assert said == f"site Ward is ready; its root is {folder / 'root.pem'}\n"
    assert {"root.key", REQUEST_FILE, PENDING_FILE} & set(contents(folder)) == set()
    assert "keys.example" in Site.open(folder).hosts
    device = asyncio.run(enrol(folder, tmp_path / "device", parse_pem_certificates(owner.root.read_bytes())))
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(certificates_pem(device.chain[:1]))
    strict = ("openssl", "verify", "-x509_strict", "-CAfile", str(owner.root))
    asyncio.run(run_program(*strict, "-untrusted", str(folder / CA_FILE), str(leaf), folder=tmp_path))
    listed = say("authority", "bundle", "list", folder)
    assert listed.split()[0] == "1"
    # Once more is no harm, another certificate is.
    say("authority", "init", folder, *owner.answer)
    owner.sign(request_file)
    assert "authority already" in say("authority", "init", folder, *owner.answer, code=8)


def test_the_first_bundle_can_follow_later(
    tmp_path: Path, owner: Ceremony, request_file: Path, say: Say
) -> None:
    folder, draft = tmp_path / "authority", tmp_path / "draft"
    owner.sign(request_file)
    assert "no trust bundle yet" in say("authority", "init", folder, *owner.answer)
    refused = say("authority", "bundle", "draft", folder, "--output", draft, "--threshold", "2", code=2)
    assert "version 1 takes no options" in refused
    for words in (("progress", folder), ("export", folder, "--output", draft)):
        assert "the site has no trust bundle yet" in say("authority", "bundle", *words, code=2)
    foreign = say("authority", "bundle", "import", folder, owner.root, code=5)
    assert f"{owner.root}: is no trust bundle" in foreign
    say("authority", "bundle", "draft", folder, "--output", draft)
    say("root", "sign-bundle", draft, "--root-cert", owner.root, "--root-key", owner.key)
    assert say("authority", "bundle", "import", folder, draft) == "version 1 is in force\n"


def test_what_waits_is_told_as_such_by_every_other_command(
    tmp_path: Path, request_file: Path, say: Say
) -> None:
    folder = tmp_path / "authority"
    before = contents(folder)
    for words in (
        ("init", folder, "--site", "Ward"),
        ("serve", folder, "--listen", "127.0.0.1:0"),
        ("serve", folder, "--roles", "signer"),
        ("token", folder, "--device", "monitor-1"),
        ("status", folder),
        ("device", "list", folder),
        ("bundle", "list", folder),
        ("audit", "verify", folder),
        ("key", "passwd", folder, "--remove"),
        ("profile", folder),
        ("readmit", folder, "monitor-1"),
    ):
        said = say("authority", *words, code=8)
        assert "waits for a certificate" in said, words
        assert "--certificate FILE --root-cert FILE" in said
    assert contents(folder) == before


def test_asking_again_writes_the_same_request(tmp_path: Path, request_file: Path, say: Say) -> None:
    folder, first = tmp_path / "authority", request_file.read_bytes()
    before = contents(folder)
    request_file.unlink()
    again = ("authority", "init", folder, "--csr-out", request_file, "--site")
    for _ in range(2):
        say(*again, "Ward", "--host-name", "keys.example")
        assert request_file.read_bytes() == first
    assert "site 'Ward', under other options" in say(*again, "Ward", code=2)
    assert "site 'Ward', under other options" in say(*again, "Other", "--host-name", "keys.example", code=2)
    assert contents(folder) == before


def test_a_request_overwrites_no_other_file(tmp_path: Path, owner: Ceremony, say: Say) -> None:
    folder, before = tmp_path / "authority", owner.key.read_bytes()
    said = say("authority", "init", folder, "--site", "Ward", "--csr-out", owner.key, code=8)
    assert "root.key: exists already" in said
    assert owner.key.read_bytes() == before
    assert not folder.exists()


def test_a_wrong_answer_is_refused_and_the_right_one_taken_after_it(
    tmp_path: Path, owner: Ceremony, request_file: Path, say: Say
) -> None:
    folder = tmp_path / "authority"
    other_request = tmp_path / "other.csr"
    say("authority", "init", tmp_path / "other", "--site", "Other", "--csr-out", other_request)
    stranger = Ceremony(tmp_path / "stranger", say)
    stranger.sign(request_file)
    foreign = stranger.certificate
    owner.sign(other_request)
    of_another_key = tmp_path / "other.pem"
    owner.certificate.rename(of_another_key)
    other_bundle = tmp_path / "other.bundle"
    owner.bundle.rename(other_bundle)
    owner.sign(request_file)
    key = parse_key(folder)
    before = contents(folder)
    init = ("authority", "init", folder)
    for certificate, root, message, code in (
        (of_another_key, owner.root, "other.pem: the certificate is not for this site CA's key", 5),
        (foreign, owner.root, "ca.pem: the certificate was not signed by that root", 5),
        (owner.certificate, stranger.root, "give the root that signed it with --root-cert", 5),
        (owner.certificate, owner.certificate, "is not self-signed", 5),
        (owner.root, owner.root, "root.pem: the certificate is not for this site CA's key", 5),
        (request_file, owner.root, "ward.csr: holds no PEM certificate", 5),
        (owner.certificate, owner.key, "root.key: holds no PEM certificate", 5),
        (tmp_path / "absent", owner.root, "absent", 8),
    ):
        said = say(*init, "--certificate", certificate, "--root-cert", root, code=code)
        assert message in said, said
    answer = not_a_ca(owner, key, tmp_path)
    said = say(*init, "--certificate", answer, "--root-cert", owner.root, code=5)
    assert "sealcast:admin:" in said
    assert "needs the root" in say(*init, "--certificate", owner.certificate, code=2)
    assert "excludes --site" in say(*init, *owner.answer, "--site", "Ward", code=2)
    assert {**before, "lock": b""} == contents(folder)
    # What fails late leaves it waiting too.
    said = say(*init, *owner.answer, "--bundle", other_bundle, code=5)
    assert "trust bundle" in said
    assert is_pending(folder)
    say(*init, *owner.answer, "--bundle", owner.bundle)
    assert Site.open(folder).name == "Ward"


def test_what_a_crash_left_is_made_anew_and_its_certificate_revoked(
    tmp_path: Path, owner: Ceremony, request_file: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "authority"
    owner.sign(request_file)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "issue_crl", interrupt)
        say("authority", "init", folder, *owner.answer, code=130)
    assert is_pending(folder)
    say("authority", "init", folder, *owner.answer)
    site = Site.open(folder)
    ours = parse_serial(site)
    entries = site.issuer.issued_after(0, 10)
    assert len(entries) == 2
    with site.storage.transaction() as session:
        assert reconcile(session, site.issuer, system_time(), in_use={})
    with site.storage.snapshot() as session:
        lost = session.scalars(select(UnrecordedRow.serial)).all()
    assert lost == [f"{entry.serial:x}" for entry in entries if entry.serial != ours]


def test_keys_are_encrypted_under_the_passphrase_of_both_steps(
    tmp_path: Path, owner: Ceremony, say: Say
) -> None:
    folder, csr, secret = tmp_path / "authority", tmp_path / "csr", tmp_path / "passphrase"
    secret.write_text("a secret of the ward\n")
    secret.chmod(0o600)
    given = ("--passphrase-file", secret)
    say("authority", "init", folder, "--site", "Ward", "--csr-out", csr, *given)
    assert b"ENCRYPTED" in (folder / CA_KEY_FILE).read_bytes()
    owner.sign(csr)
    assert "there is no passphrase" in say("authority", "init", folder, *owner.answer, code=5)
    assert is_pending(folder)
    say("authority", "init", folder, *owner.answer, *given)
    assert (folder / "storage.key").read_bytes().startswith(b"sealcast storage key, scrypt ")


def parse_key(folder: Path) -> KeySigner:
    return KeySigner.from_pem((folder / CA_KEY_FILE).read_bytes(), "ca.key")


def parse_serial(site: Site) -> int:
    return parse_certificate(site.key_server().chain[0]).serial_number


def not_a_ca(owner: Ceremony, key: KeySigner, folder: Path) -> Path:
    """For the right key and by the right root, but an admin's certificate."""
    root = parse_certificate(parse_pem_certificates(owner.root.read_bytes())[0])
    signer = KeySigner.from_pem(owner.key.read_bytes(), "root.key")
    builder = admin_builder(
        name="alice",
        site_name="Ward",
        site_id=bytes(16),
        public_key=key.public_key,
        issuer=CertificateIssuer.of(root, signer.public_key),
        serial=7,
        now=system_time(),
    )
    path = folder / "admin.pem"
    path.write_bytes(certificates_pem([certificate_der(signer.sign_certificate(builder))]))
    return path
