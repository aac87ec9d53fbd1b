"""The issuer with a ledger: intent before signature, and the rules that hold whoever asks."""

import contextlib
import hashlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from sealcast.ca import (
    DeviceRequest,
    FileSigner,
    IssuedCertificate,
    KeySigner,
    Ledger,
    LedgerSettings,
    Limits,
    LocalIssuer,
    Permit,
    Signer,
    create_root,
)
from sealcast.ca.ledger import KeyState, SiteKey
from sealcast.errors import CertificateError, CsrError, StorageError, UsageError
from sealcast.pki.certificates import certificate_der, has_usage, parse_certificate
from sealcast.pki.crl import CrlFacts, Revocation, crl_number
from sealcast.pki.csr import CertificateRequest
from sealcast.pki.names import Role, new_site_id
from sealcast.pki.policy import Policy, SlotClock
from sealcast.pki.policy_names import Names
from sealcast.pki.profiles import DEVICE, REGISTRATION_AUTHORITY
from sealcast.pki.times import microseconds

NOW = 1_800_000_000_000_000
MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
HOSTS = ("localhost", "127.0.0.1")


class Ca:
    """A site CA's certificate, key and ledger, and issuers that share them."""

    def __init__(
        self, folder: Path, device_usages: tuple[str, ...] = (), site_id: bytes | None = None
    ) -> None:
        self.site_id = site_id or new_site_id()
        self.signer = KeySigner.generate()
        root = create_root(site_name="Ward", signer=KeySigner.generate(), now=NOW)
        self.certificate = certificate_der(
            root.issue_site_ca(
                site_name="Ward", site_id=self.site_id, public_key=self.signer.public_key, now=NOW
            )
        )
        self.ledger = Ledger.create(
            folder / "ledger.db",
            LedgerSettings(
                site_id=self.site_id.hex(), key_server_name="keys", hosts=HOSTS, device_usages=device_usages
            ),
        )

    def issuer(self, limits: Limits | None = None, signer: Signer | None = None) -> LocalIssuer:
        """A fresh one, as after a restart."""
        return LocalIssuer(
            self.certificate,
            signer or self.signer,
            Ledger(self.ledger.path),
            limits=limits or Limits(),
            clock=None,
        )

    def policy(self, version: int, **changes: object) -> Policy:
        return make_policy(**{"site_id": self.site_id, "version": version, **changes})


def make_policy(**changes: object) -> Policy:
    """A policy; `changes` has site id and version at least."""
    values: dict[str, object] = {
        "channel": "ward/ecg",
        "issued": NOW,
        "next_update": NOW + 4 * DAY,
        "suite": 1,
        "group": "239.192.0.1",
        "port": 5000,
        "interface": None,
        "rate": 1,
        "slots": SlotClock(origin_time=0, origin_number=1, length=HOUR),
        "retention": HOUR,
        "retention_bytes": 1,
        "publisher_limit": 0,
        "fec": "off",
        "publishers": Names.of(["monitor-1"]),
        "subscribers": Names(),
        **changes,
    }
    return Policy(**values)  # type: ignore[arg-type]


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca(tmp_path)


def csr(name: str = "monitor-1") -> bytes:
    return KeySigner.generate().make_csr(name)


class RecordingSigner(KeySigner):
    """Looks into the ledger at the moment of each signature, through a connection of its own."""

    def __init__(self, signer: KeySigner, path: Path) -> None:
        super().__init__(signer._key)
        self._path = path
        self.seen: list[int] = []
        self.fails = False

    def sign_certificate(self, builder):  # type: ignore[no-untyped-def]
        connection = sqlite3.connect(self._path)
        try:
            (serial,) = connection.execute(
                "SELECT serial FROM issuances ORDER BY position DESC LIMIT 1"
            ).fetchone()
            self.seen.append(int(serial, 16))
        finally:
            connection.close()
        if self.fails:
            raise CertificateError("the token was pulled out")
        return super().sign_certificate(builder)


def test_serial_and_intent_are_durable_before_the_signature(ca: Ca) -> None:
    signer = RecordingSigner(ca.signer, ca.ledger.path)
    issuer = ca.issuer(signer=signer)
    request = csr()
    issued = issuer.issue_device(request, "monitor-1", NOW)
    assert signer.seen == [issued.serial]
    (entry,) = issuer.issued_after(0, 10)
    assert entry.serial == issued.serial
    assert entry.intent.identity == issued.identity
    assert entry.intent.request == hashlib.sha256(request).digest()
    assert entry.intent.ends >= issued.not_after
    assert entry.certificate == hashlib.sha256(issued.der).digest()
    assert (entry.is_void, entry.position, issuer.last_position()) == (False, 1, 1)


def test_what_was_not_signed_is_void(ca: Ca) -> None:
    signer = RecordingSigner(ca.signer, ca.ledger.path)
    signer.fails = True
    issuer = ca.issuer(signer=signer)
    with pytest.raises(CertificateError, match="pulled out"):
        issuer.issue_device(csr(), "monitor-1", NOW)
    (entry,) = issuer.issued_after(0, 10)
    assert (entry.is_void, entry.certificate) == (True, None)


class TestMany:
    def wanted(self, *names: str) -> list[DeviceRequest]:
        return [DeviceRequest(csr=CertificateRequest.parse(csr(name)), name=name) for name in names]

    def test_they_are_durable_together_before_the_first_signature(self, ca: Ca) -> None:
        signer = RecordingSigner(ca.signer, ca.ledger.path)
        issuer = ca.issuer(signer=signer)
        issued = issuer.issue_devices(self.wanted("a", "b", "c"), NOW)
        entries = issuer.issued_after(0, 10)
        assert [entry.intent.identity.name for entry in entries] == ["a", "b", "c"]
        # Each signature found the last of them in the ledger.
        assert signer.seen == [entries[-1].serial] * 3
        for entry, each in zip(entries, issued, strict=True):
            assert isinstance(each, IssuedCertificate)
            assert (entry.serial, entry.certificate) == (each.serial, hashlib.sha256(each.der).digest())

    def test_what_is_refused_stands_in_its_place(self, ca: Ca) -> None:
        issuer = ca.issuer(Limits(device=4))
        first = issuer.issue_device(csr("a"), "a", NOW)
        issuer.remove("gone", NOW)
        key = KeySigner.generate()
        renewal = CertificateRequest.parse(key.make_csr("", current=parse_certificate(first.der)))
        wanted = [
            *self.wanted("b", "gone"),
            DeviceRequest(csr=CertificateRequest.parse(csr("x")), name="c"),
            DeviceRequest(csr=renewal, current=first.der),
            DeviceRequest(csr=CertificateRequest.parse(csr("a")), current=first.der),
            *self.wanted("d", "e"),
        ]
        kinds = [type(outcome) for outcome in issuer.issue_devices(wanted, NOW)]
        assert kinds == [
            IssuedCertificate, CertificateError, CsrError, IssuedCertificate, CsrError,
            IssuedCertificate, StorageError,
        ]  # fmt: skip
        assert [entry.intent.identity.name for entry in issuer.issued_after(1, 10)] == ["b", "a", "d"]

    def test_none_left_the_issuer_if_one_cannot_be_signed(self, ca: Ca) -> None:
        signer = RecordingSigner(ca.signer, ca.ledger.path)
        signer.fails = True
        issuer = ca.issuer(signer=signer)
        with pytest.raises(CertificateError, match="pulled out"):
            issuer.issue_devices(self.wanted("a", "b"), NOW)
        assert [entry.is_void for entry in issuer.issued_after(0, 10)] == [True, True]


def test_a_bad_request_leaves_no_trace(ca: Ca) -> None:
    issuer = ca.issuer()
    with pytest.raises(CsrError):
        issuer.issue_device(csr("monitor-2"), "monitor-1", NOW)
    with pytest.raises(CertificateError):
        issuer.issue_device(csr(), "monitor-1", NOW + 3 * 365 * DAY)
    assert issuer.last_position() == 0


def test_the_ledger_is_append_only_and_knows_its_site(ca: Ca, tmp_path: Path) -> None:
    issuer = ca.issuer()
    serial = issuer.issue_device(csr(), "monitor-1", NOW).serial
    issuer.issue_crl(number=1, revocations=[Revocation(serial=serial, time=NOW)], now=NOW)
    issuer.sign_policy(ca.policy(1))
    issuer.remove("monitor-1", NOW)
    issuer.permit(Permit.ADMIN, "alice", NOW)
    ca.ledger.enter_site_keys([SiteKey(key=b"k", state=KeyState.MADE)], NOW)
    connection = sqlite3.connect(ca.ledger.path)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    own = [table for table in tables if not table.startswith("sqlite_")]
    assert len(own) == 9
    for table in own:
        column = connection.execute(f"SELECT * FROM {table}").description[0][0]  # noqa: S608
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"):  # noqa: S608
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
    connection.close()
    (tmp_path / "other").mkdir()
    other = Ca(tmp_path / "other")
    other.ledger = ca.ledger
    with pytest.raises(StorageError, match="another site CA"):
        other.issuer().issue_device(csr(), "monitor-1", NOW)


class TestRules:
    """A caller that somebody has broken into."""

    def test_no_key_server_but_its_own(self, ca: Ca) -> None:
        issuer, key = ca.issuer(), KeySigner.generate().public_key
        issuer.issue_key_server(public_key=key, name="keys", hosts=HOSTS, now=NOW)
        for name, hosts in (("keys", ["evil.example"]), ("keys", [*HOSTS, "10.0.0.1"]), ("other", HOSTS)):
            with pytest.raises(UsageError):
                issuer.issue_key_server(public_key=key, name=name, hosts=hosts, now=NOW)
        assert issuer.last_position() == 1

    def test_no_crl_that_takes_a_revocation_back(self, ca: Ca) -> None:
        issuer = ca.issuer()
        serial = issuer.issue_device(csr(), "monitor-1", NOW).serial
        issuer.issue_crl(number=1, revocations=[Revocation(serial=serial, time=NOW)], now=NOW)
        facts = CrlFacts.parse(ca.issuer().issue_crl(number=2, revocations=[], now=NOW + DAY))
        assert facts.serials == {serial}
        end = NOW + microseconds(DEVICE.life)
        assert not CrlFacts.parse(ca.issuer().issue_crl(number=3, revocations=[], now=end)).serials

    def test_numbers_never_go_back(self, ca: Ca) -> None:
        assert crl_number(ca.issuer().issue_crl(number=7, revocations=[], now=NOW)) == 7
        assert crl_number(ca.issuer().issue_crl(number=3, revocations=[], now=NOW)) == 8
        versions = [
            Policy.parse(ca.issuer().sign_policy(ca.policy(version)), ca.signer.public_key).version
            for version in (5, 5, 1, 9)
        ]
        assert versions == [5, 6, 7, 9]
        other = ca.policy(1, channel="ward/spo2")
        assert Policy.parse(ca.issuer().sign_policy(other), None).version == 1

    def test_nothing_to_the_name_of_a_removed_device(self, ca: Ca) -> None:
        issued = ca.issuer().issue_device(csr(), "monitor-1", NOW)
        ca.issuer().remove("monitor-1", NOW)
        issuer = ca.issuer()
        assert issuer.removed_names() == {"monitor-1"}
        with pytest.raises(CertificateError, match="is revoked") as caught:
            issuer.issue_device(csr(), "monitor-1", NOW)
        assert "readmit" in caught.value.cure
        with pytest.raises(CertificateError, match="is revoked"):
            issuer.renew_device(issued.der, csr(), NOW)
        with pytest.raises(UsageError, match="lists a removed device"):
            issuer.sign_policy(ca.policy(1))
        issuer.readmit("monitor-1", NOW)
        issuer.issue_device(csr(), "monitor-1", NOW)
        assert issuer.removed_names() == frozenset()

    def test_no_removed_device_in_a_channel_that_lists_what_another_does(self, ca: Ca) -> None:
        """What is known of one is known of the other, and who was removed since is looked for in both."""
        issuer, other = ca.issuer(), ca.policy(1, channel="ward/spo2")
        issuer.sign_policy(ca.policy(1))
        issuer.sign_policy(other)
        issuer.remove("monitor-1", NOW)
        for policy in (replace(other, version=2), replace(other, channel="ward/resp")):
            with pytest.raises(UsageError, match="lists a removed device"):
                issuer.sign_policy(policy)
        without = replace(other, channel="ward/resp", publishers=Names(), subscribers=Names())
        issuer.sign_policy(without)
        with pytest.raises(UsageError, match="lists a removed device"):
            issuer.sign_policy(replace(without, channel="ward/temp", subscribers=Names.of(["monitor-1"])))

    def test_no_renewal_of_what_is_revoked(self, ca: Ca) -> None:
        issuer = ca.issuer()
        issued = issuer.issue_device(csr(), "monitor-1", NOW)
        request = KeySigner.generate().make_csr("monitor-1", current=parse_certificate(issued.der))
        issuer.renew_device(issued.der, request, NOW)
        issuer.issue_crl(number=1, revocations=[Revocation(serial=issued.serial, time=NOW)], now=NOW)
        with pytest.raises(CertificateError, match="is revoked"):
            issuer.renew_device(issued.der, request, NOW)

    def test_no_policy_of_another_site_or_time(self, ca: Ca) -> None:
        issuer = ca.issuer()
        with pytest.raises(CertificateError, match="of site"):
            issuer.sign_policy(ca.policy(1, site_id=new_site_id()))
        with pytest.raises(UsageError, match="make no sense"):
            issuer.sign_policy(ca.policy(1, next_update=NOW + 400 * DAY))

    def test_no_more_than_so_many_in_an_hour(self, ca: Ca) -> None:
        limits = Limits(device=2, crl=1)
        issuer = ca.issuer(limits)
        issuer.issue_device(csr(), "monitor-1", NOW)
        # A restart does not forget.
        issuer = ca.issuer(limits)
        issuer.issue_device(csr(), "monitor-1", NOW + MINUTE)
        with pytest.raises(StorageError, match="within an hour"):
            issuer.issue_device(csr(), "monitor-1", NOW + 2 * MINUTE)
        assert issuer.last_position() == 2
        issuer.issue_device(csr(), "monitor-1", NOW + HOUR + 1)
        issuer.permit(Permit.ADMIN, "alice", NOW)
        issuer.issue_admin(csr("alice"), "alice", NOW)
        issuer.issue_crl(number=1, revocations=[], now=NOW)
        with pytest.raises(StorageError, match="within an hour"):
            issuer.issue_crl(number=2, revocations=[], now=NOW)

    def test_the_own_clock_counts(self, ca: Ca) -> None:
        issuer = LocalIssuer(ca.certificate, ca.signer, ca.ledger, clock=lambda: NOW)
        issued = issuer.issue_device(csr(), "monitor-1", NOW + 300 * DAY)
        assert issued.not_after == NOW + microseconds(DEVICE.life)
        with pytest.raises(UsageError, match="make no sense"):
            issuer.sign_policy(ca.policy(1, issued=NOW + HOUR, next_update=NOW + 4 * DAY))
        revocation = Revocation(serial=1, time=NOW + DAY)
        with pytest.raises(UsageError, match="from the future"):
            issuer.issue_crl(number=1, revocations=[revocation], now=NOW + DAY)


def test_settings_are_checked_and_the_last_count(ca: Ca) -> None:
    sdc = "1.2.840.10004.20701.1.1"
    with pytest.raises(UsageError, match="answers about revocation"):
        replace(ca.ledger.settings(), device_usages=("1.3.6.1.5.5.7.3.9",))
    ca.ledger.change_settings(replace(ca.ledger.settings(), device_usages=(sdc,)))
    issued = ca.issuer().issue_device(csr(), "monitor-1", NOW)
    assert sdc.encode() not in issued.der
    assert sdc in str(parse_certificate(issued.der).extensions)


def test_a_missing_or_damaged_ledger_is_named(ca: Ca, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing"):
        Ledger(tmp_path / "none.db").last_position()
    with pytest.raises(StorageError, match="already"):
        Ledger.create(ca.ledger.path, ca.ledger.settings())
    (tmp_path / "junk.db").write_bytes(b"junk" * 2000)
    with pytest.raises(StorageError, match=r"junk\.db"):
        Ledger(tmp_path / "junk.db").last_position()


class TestPermits:
    """An admin and a registration authority are made by the operator of the site CA, and by nobody else."""

    def test_an_admin(self, ca: Ca) -> None:
        issuer = ca.issuer()
        with pytest.raises(CertificateError, match="may not certify 'alice' as admin") as caught:
            issuer.issue_admin(csr("alice"), "alice", NOW)
        assert "authority permit DIR NAME --admin" in caught.value.cure
        issuer.permit(Permit.ADMIN, "alice", NOW)
        issued = ca.issuer().issue_admin(csr("alice"), "alice", NOW)
        assert issued.identity.role is Role.ADMIN
        assert issued.identity.uri == f"sealcast:admin:{ca.site_id.hex()}:alice"
        with pytest.raises(CertificateError, match="'bob'"):
            issuer.issue_admin(csr("bob"), "bob", NOW)
        issuer.withdraw(Permit.ADMIN, "alice", NOW)
        with pytest.raises(CertificateError, match="'alice'"):
            issuer.issue_admin(csr("alice"), "alice", NOW)
        assert issuer.last_position() == 1, "a refusal spends no serial number"

    def test_a_registration_authority(self, ca: Ca) -> None:
        issuer = ca.issuer()
        signer = KeySigner.generate()
        request = signer.make_csr("gateway")
        with pytest.raises(CertificateError, match="'gateway' as registrar"):
            issuer.issue_device(request, "gateway", NOW, registers=True)
        issuer.permit(Permit.REGISTRATION_AUTHORITY, "gateway", NOW)
        first = issuer.issue_device(request, "gateway", NOW, registers=True)
        held = parse_certificate(first.der)
        assert has_usage(held, REGISTRATION_AUTHORITY)
        again = signer.make_csr("gateway", current=held)
        renewed = issuer.renew_device(first.der, again, NOW)
        assert has_usage(parse_certificate(renewed.der), REGISTRATION_AUTHORITY)
        # Whoever asks does not have to own the certificate that he shows, nor need it be one of ours.
        issuer.withdraw(Permit.REGISTRATION_AUTHORITY, "gateway", NOW)
        with pytest.raises(CertificateError, match="'gateway' as registrar"):
            issuer.renew_device(first.der, again, NOW)
        asked = CertificateRequest.parse(request)
        refused = issuer.issue_devices(
            [
                DeviceRequest(csr=asked, name="gateway", registers=True),
                DeviceRequest(csr=CertificateRequest.parse(again), current=first.der),
            ],
            NOW,
        )
        assert [getattr(error, "reason", "") for error in refused] == ["not-allowed"] * 2
        issuer.issue_device(request, "gateway", NOW)

    def test_one_that_was_removed_comes_back_as_a_mere_device(self, ca: Ca) -> None:
        issuer = ca.issuer()
        issuer.permit(Permit.REGISTRATION_AUTHORITY, "gateway", NOW)
        issuer.remove("gateway", NOW)
        issuer.readmit("gateway", NOW)
        issuer.issue_device(csr("gateway"), "gateway", NOW)
        with pytest.raises(CertificateError, match="as registrar"):
            issuer.issue_device(csr("gateway"), "gateway", NOW, registers=True)

    def test_they_are_kept_apart_and_listed(self, ca: Ca) -> None:
        issuer = ca.issuer()
        for name in ("bob", "alice", "bob"):
            issuer.permit(Permit.ADMIN, name, NOW)
        issuer.permit(Permit.REGISTRATION_AUTHORITY, "gateway", NOW)
        issuer.permit(Permit.ADMIN, "carol", NOW)
        issuer.withdraw(Permit.ADMIN, "carol", NOW)
        issuer.withdraw(Permit.ADMIN, "nobody", NOW)
        assert issuer.permitted(Permit.ADMIN) == {"alice", "bob"}
        assert issuer.permitted(Permit.REGISTRATION_AUTHORITY) == {"gateway"}
        with pytest.raises(UsageError, match=r"'\.\./x'"):
            issuer.permit(Permit.ADMIN, "../x", NOW)

    def test_a_ledger_from_before_there_were_any(self, ca: Ca) -> None:
        """Whoever is an admin stays one; nothing else is permitted."""
        issuer = ca.issuer()
        issuer.permit(Permit.ADMIN, "alice", NOW)
        issuer.issue_admin(csr("alice"), "alice", NOW)
        issuer.issue_device(csr("gateway"), "gateway", NOW)
        ca.ledger.close()
        with contextlib.closing(sqlite3.connect(ca.ledger.path)) as connection:
            connection.executescript("DROP TABLE permits; DROP TABLE site_keys; PRAGMA user_version=1;")
        for issuer in (ca.issuer(), ca.issuer()):
            assert issuer.permitted(Permit.ADMIN) == {"alice"}
            assert issuer.permitted(Permit.REGISTRATION_AUTHORITY) == set()
        issuer.issue_admin(csr("alice"), "alice", NOW)
        with (
            contextlib.closing(sqlite3.connect(ca.ledger.path)) as connection,
            pytest.raises(sqlite3.IntegrityError, match="append-only"),
        ):
            connection.execute("DELETE FROM permits")

    def test_a_ledger_from_before_a_signer_made_keys(self, ca: Ca) -> None:
        ca.issuer().permit(Permit.ADMIN, "alice", NOW)
        ca.ledger.close()
        with contextlib.closing(sqlite3.connect(ca.ledger.path)) as connection:
            connection.executescript("DROP TABLE site_keys; PRAGMA user_version=2;")
        assert ca.issuer().permitted(Permit.ADMIN) == {"alice"}
        made, other = (SiteKey(key=name, state=KeyState.MADE) for name in (b"1", b"2"))
        certified = replace(made, state=KeyState.CERTIFIED, certificate=b"der")
        ca.ledger.enter_site_keys([made, other, certified], NOW)
        assert ca.ledger.site_keys() == [certified, other]
        with (
            contextlib.closing(sqlite3.connect(ca.ledger.path)) as connection,
            pytest.raises(sqlite3.IntegrityError, match="append-only"),
        ):
            connection.execute("UPDATE site_keys SET state = 'made'")


def test_a_key_of_another_certificate(ca: Ca, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="do not match"):
        ca.issuer(signer=FileSigner.create(tmp_path / "other.key"))
