"""The signer's own part in a rotation of its key: it makes the next one, by its own rules.

TR-24. What the service does at each step is in test_rotation.py.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sealcast.authority.issuance import CA_FILE, CA_KEY_FILE, LEDGER_FILE, certificates
from sealcast.authority.signer_keys import SignerKeys
from sealcast.authority.site import ROOT_FILE, ROOT_KEY_FILE
from sealcast.ca import FileSigner, KeySigner, Limits, PassphraseSource, Permit, Root, create_root
from sealcast.ca.keyfile import is_encrypted
from sealcast.ca.ledger import KeyState, Ledger
from sealcast.ca.remote import key_hash
from sealcast.ca.root import import_root
from sealcast.ca.signer import public_key_of
from sealcast.ca.site_request import SiteRequest
from sealcast.errors import CertificateError, ConflictError, StorageError, UsageError
from sealcast.pki.certificates import (
    certificates_pem,
    issuer_key,
    key_identifier,
    parse_certificate,
)
from sealcast.pki.crl import CrlFacts, Revocation, split_crls
from sealcast.pki.times import system_time
from tests.authority.conftest import HOUR, make_site
from tests.authority.test_passphrases import CHEAP

WORD = "the signer alone knows"
SOURCE = PassphraseSource(environment={"SEALCAST_CA_PASSPHRASE": WORD}, prompt=None, cost=CHEAP)


@dataclass
class Apart:
    """The folder of a signer, and the root that is elsewhere."""

    folder: Path
    root: Root
    now: int = field(default_factory=system_time)
    passphrases: PassphraseSource = SOURCE
    limits: Limits = field(default_factory=Limits)

    def open(self) -> SignerKeys:
        """As a start of the process does."""
        return SignerKeys(self.folder, self.passphrases, limits=self.limits, clock=lambda: self.now)

    def certify(self, request: bytes, root: Root | None = None) -> bytes:
        return SiteRequest.parse(request).certify(root or self.root, self.now)

    @property
    def listed(self) -> list[bytes]:
        return certificates(self.folder / CA_FILE)

    def keys(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("ca*.key"))

    def states(self) -> list[KeyState]:
        return [known.state for known in Ledger(self.folder / LEDGER_FILE).site_keys()]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_site(tmp_path_factory.mktemp("template") / "authority", new_passphrases=SOURCE)
    apart = folder.parent / "signer"
    apart.mkdir(0o700)
    for name in (CA_KEY_FILE, LEDGER_FILE, CA_FILE, ROOT_FILE):
        shutil.copy(folder / name, apart / name)
    return folder.parent


@pytest.fixture
def apart(template: Path, tmp_path: Path) -> Apart:
    shutil.copytree(template, tmp_path / "copy")
    whole = tmp_path / "copy" / "authority"
    root = import_root(
        certificate_pem=(whole / ROOT_FILE).read_bytes(),
        key_pem=(whole / ROOT_KEY_FILE).read_bytes(),
        now=system_time(),
    )
    return Apart(tmp_path / "copy" / "signer", root)


def hash_of(certificate: bytes) -> bytes:
    return key_hash(public_key_of(certificate))


def csr(name: str) -> bytes:
    return KeySigner.generate().make_csr(name)


def issued_by(keys: SignerKeys, certificate: bytes, name: str = "monitor-1") -> bool:
    """Whether a device is certified under a key."""
    issued = keys.issuer(hash_of(certificate)).issue_device(csr(name), name, 0)
    return issuer_key(parse_certificate(issued.der)) == key_identifier(certificate)


def test_the_key_is_replaced_and_everything_else_stays(apart: Apart) -> None:
    (old,) = apart.listed
    keys = apart.open()
    keys.first.permit(Permit.ADMIN, "alice", 0)
    revoked = keys.issuer(hash_of(old)).issue_device(csr("monitor-2"), "monitor-2", 0).serial
    keys.lister([hash_of(old)]).issue_crl(
        number=7, revocations=[Revocation(serial=revoked, time=apart.now)], now=0
    )
    keys.first.remove("monitor-2", 0)

    request = keys.prepare(2)
    assert SiteRequest.parse(keys.prepare(2)).public_key == SiteRequest.parse(request).public_key
    new = apart.certify(request)
    with pytest.raises(CertificateError, match="at the state made"):
        keys.issuer(hash_of(new))
    for _ in range(2):
        keys.take_certificate(new)
    assert apart.listed == [old, new]
    assert issued_by(keys, old)
    # The service's switch signs with the new one before it is stored, and is told of after that.
    assert issued_by(keys, new)
    for _ in range(2):
        keys.switch(hash_of(new))
    assert apart.listed == [new, old]
    with pytest.raises(CertificateError, match="at the state lists"):
        keys.issuer(hash_of(old))
    own, other = split_crls(
        keys.lister([hash_of(new), hash_of(old)]).issue_crl(number=1, revocations=[], now=0)
    )
    assert [CrlFacts.parse(crl).number for crl in (own, other)] == [8, 8]
    assert CrlFacts.parse(own).serials == CrlFacts.parse(other).serials == {revoked}
    for _ in range(2):
        keys.retire(hash_of(old))
    assert apart.listed == [new]
    assert apart.keys() == [CA_KEY_FILE]
    with pytest.raises(CertificateError, match="does not hold the key"):
        keys.issuer(hash_of(old))
    with pytest.raises(CertificateError, match="does not hold the key"):
        keys.lister([hash_of(old)])

    for held in (keys, apart.open()):
        assert issued_by(held, new)
        assert held.first.permitted(Permit.ADMIN) == {"alice"}
        with pytest.raises(CertificateError, match="is revoked"):
            held.issuer(hash_of(new)).issue_device(csr("monitor-2"), "monitor-2", 0)
    # What was issued before is counted on, and so are the keys.
    third = apart.certify(apart.open().prepare(3))
    assert SiteRequest.of_certificate(third).number == 3


def test_the_next_key_is_protected_as_the_present_one(apart: Apart) -> None:
    asked: list[str] = []

    def prompt(text: str) -> str:
        asked.append(text)
        return WORD

    apart.passphrases = PassphraseSource(environment={}, prompt=prompt, cost=CHEAP)
    keys = apart.open()
    asked.clear()
    with pytest.raises(CertificateError, match="there is no passphrase for the new one") as caught:
        keys.prepare(2)
    assert "--passphrase-file" in caught.value.cure
    assert not asked, "nobody sits at a signer that has been started"
    apart.passphrases = SOURCE
    apart.open().prepare(2)
    (key,) = apart.folder.glob("ca-*.key")
    assert is_encrypted(key.read_bytes())
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_systemd_credential_protects_it_too(apart: Apart, tmp_path: Path) -> None:
    (tmp_path / "sealcast-ca").write_text(f"{WORD}\n")
    apart.passphrases = PassphraseSource(
        environment={"CREDENTIALS_DIRECTORY": str(tmp_path)}, prompt=None, cost=CHEAP
    )
    request = SiteRequest.parse(apart.open().prepare(2))
    (key,) = apart.folder.glob("ca-*.key")
    assert FileSigner.open(key, name="ca", passphrases=SOURCE).public_key == request.public_key


class TestBrokenService:
    """What somebody can have who speaks to the socket as he likes; see SECURITY.md."""

    def test_a_certificate_that_no_root_of_the_operators_has_signed(self, apart: Apart) -> None:
        keys = apart.open()
        request = keys.prepare(2)
        own = create_root(site_name="Ward", signer=KeySigner.generate(), now=apart.now)
        with pytest.raises(CertificateError, match="no root in the signer's") as caught:
            keys.take_certificate(apart.certify(request, own))
        assert "root sign-site" in caught.value.cure
        # By the present key, as if it were a root.
        present = FileSigner.open(apart.folder / CA_KEY_FILE, name="ca", passphrases=SOURCE)
        (der,) = apart.listed
        below = Root(certificate=parse_certificate(der), signer=present)
        with pytest.raises(CertificateError, match="no root in the signer's"):
            keys.take_certificate(apart.certify(request, below))
        (apart.folder / ROOT_FILE).unlink()
        with pytest.raises(CertificateError, match="there is no root here") as caught:
            keys.take_certificate(apart.certify(request))
        assert "operator" in caught.value.cure
        assert apart.states() == [KeyState.MADE]

    def test_a_certificate_of_another_key_site_or_name(self, apart: Apart) -> None:
        keys = apart.open()
        (old,) = apart.listed
        request = SiteRequest.parse(keys.prepare(2))
        for wrong, message in (
            (replace(request, public_key=KeySigner.generate().public_key), "does not hold the key"),
            (replace(request, site_id=bytes(16)), "not of site"),
            (replace(request, site_name="Other"), "for a site named 'Other'"),
            (replace(request, number=1), "has the name 'CN=Ward CA,O=Ward'"),
        ):
            with pytest.raises(CertificateError, match=message):
                keys.take_certificate(wrong.certify(apart.root, apart.now))
        good = apart.certify(keys.prepare(2))
        apart.now += 40 * 365 * 24 * HOUR
        with pytest.raises(CertificateError, match="expired"):
            keys.take_certificate(good)
        assert apart.listed == [old]

    def test_no_key_goes_before_another_one_is_certified(self, apart: Apart) -> None:
        keys = apart.open()
        (old,) = apart.listed
        for destroy in (keys.retire, keys.abandon):
            with pytest.raises(CertificateError, match="at the state issues"):
                destroy(hash_of(old))
        new = apart.certify(keys.prepare(2))
        for refused in (keys.switch, keys.retire):
            with pytest.raises(CertificateError, match="at the state made"):
                refused(hash_of(new))
        keys.take_certificate(new)
        with pytest.raises(CertificateError, match="at the state issues"):
            keys.retire(hash_of(old))
        with pytest.raises(CertificateError, match="at the state certified"):
            keys.retire(hash_of(new))
        keys.switch(hash_of(new))
        # There is no way back.
        with pytest.raises(CertificateError, match="at the state lists"):
            keys.switch(hash_of(old))
        for destroy in (keys.retire, keys.abandon):
            with pytest.raises(CertificateError, match="at the state issues"):
                destroy(hash_of(new))
        assert apart.listed == [new, old]

    def test_keys_are_made_one_at_a_time_and_so_many_an_hour(self, apart: Apart) -> None:
        apart.limits = Limits(key=3)
        keys = apart.open()
        for _ in range(3):
            new = apart.certify(keys.prepare(2))
            keys.abandon(hash_of(new))
        assert apart.keys() == [CA_KEY_FILE]
        with pytest.raises(StorageError, match="3 signatures of the kind 'key'"):
            keys.prepare(2)
        apart.now += HOUR
        new = apart.certify(keys.prepare(2))
        keys.take_certificate(new)
        with pytest.raises(ConflictError, match="holds another key"):
            keys.prepare(3)
        keys.switch(hash_of(new))
        with pytest.raises(ConflictError, match="holds another key"):
            keys.prepare(3)
        for number in (0, 1, 2, 10**6):
            with pytest.raises(UsageError, match=f"the number {number}"):
                keys.prepare(number)

    def test_limits_are_those_of_all_keys_together(self, apart: Apart) -> None:
        apart.limits = Limits(crl=2)
        keys = apart.open()
        (old,) = apart.listed
        new = apart.certify(keys.prepare(2))
        keys.take_certificate(new)
        for certificate in (old, new):
            keys.lister([hash_of(certificate)]).issue_crl(number=1, revocations=[], now=0)
        with pytest.raises(StorageError, match="within an hour"):
            keys.lister([hash_of(new), hash_of(old)]).issue_crl(number=1, revocations=[], now=0)


class TestRestarts:
    """Killed between the ledger and a file: the next start finishes, whatever was the last thing done."""

    @staticmethod
    def steps(apart: Apart) -> Iterator[tuple[str, Callable[[SignerKeys], object]]]:
        """Each step of a rotation, the certificate being made from the request on the way."""
        (old,) = apart.listed
        made: list[bytes] = []
        yield "prepare", lambda keys: made.append(apart.certify(keys.prepare(2)))
        yield "certify", lambda keys: keys.take_certificate(made[-1])
        yield "switch", lambda keys: keys.switch(hash_of(made[-1]))
        yield "retire", lambda keys: keys.retire(hash_of(old))

    def test_fault_18_each_step_is_gone_on_with_after_a_crash_at_the_ledger_or_at_a_file(
        self, apart: Apart, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A failed write stands for the kill: the same is on the disk, and the keys are opened anew."""
        (old,) = apart.listed
        died = 0
        for name, step in self.steps(apart):
            for place in ("enter", "settle"):
                before = apart.open()

                def die(*_: object) -> None:
                    raise StorageError("disk", "died here")

                with monkeypatch.context() as patch:
                    if place == "enter":
                        patch.setattr(Ledger, "enter_site_keys", die)
                    else:
                        patch.setattr(SignerKeys, "_settle", die)
                    try:
                        step(before)
                    except StorageError:
                        died += 1
                assert len(apart.open().first.held()) in (1, 2), (name, place)
            step(apart.open())
            step(apart.open())
        # A key that was made is found again, so that nothing is left to be written the second time.
        assert died == 7
        (new,) = apart.listed
        assert new != old
        assert apart.keys() == [CA_KEY_FILE]
        assert issued_by(apart.open(), new)

    def test_a_key_that_is_lost_is_missed(self, apart: Apart) -> None:
        keys = apart.open()
        keys.prepare(2)
        (made,) = apart.folder.glob("ca-*.key")
        made.unlink()
        # Nobody has certified it: another one is made.
        keys = apart.open()
        keys.take_certificate(apart.certify(keys.prepare(2)))
        (made,) = apart.folder.glob("ca-*.key")
        made.unlink()
        with pytest.raises(StorageError, match="is missing, which the ledger says certified") as caught:
            apart.open()
        assert "backup" in caught.value.cure

    def test_a_folder_that_was_put_together_from_two_backups(self, apart: Apart) -> None:
        old = {name: (apart.folder / name).read_bytes() for name in (CA_FILE, CA_KEY_FILE)}
        for _, step in self.steps(apart):
            step(apart.open())
        for name, content in old.items():
            (apart.folder / name).write_bytes(content)
        with pytest.raises(CertificateError, match="is of a key that was retired") as caught:
            apart.open()
        assert "one backup" in caught.value.cure

    def test_a_root_that_has_certified_the_key_anew(self, apart: Apart) -> None:
        """The operator gives the signer another ca.pem, as docs/rotation.md says; the later one counts."""
        for _, step in self.steps(apart):
            step(apart.open())
        (present,) = apart.listed
        apart.now += 2_000_000
        other = create_root(site_name="Owner", signer=KeySigner.generate(), now=apart.now)
        anew = SiteRequest.of_certificate(present).certify(other, apart.now)
        (apart.folder / CA_FILE).write_bytes(certificates_pem([anew]))
        assert apart.open().first.certificate == anew
        assert apart.open().issuer(hash_of(present)).certificate == anew
        assert apart.listed == [anew]
