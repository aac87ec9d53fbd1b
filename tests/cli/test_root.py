"""`sealcast root`: the ceremonies of a root, from files to files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealcast import cli
from sealcast.ca import KeySigner
from sealcast.ca.site_request import SiteRequest, check_site_certificate, make_site_request
from sealcast.errors import CertificateError, CsrError
from sealcast.pki.bundle import Anchor, BundleSite, Purpose, SignedBundle, TrustBundle, accept, pin
from sealcast.pki.certificates import parse_pem_certificates
from sealcast.pki.files import write_atomically
from sealcast.pki.times import system_time

SITE = bytes(range(16))

Run = Callable[..., int]


@pytest.fixture
def run() -> Run:
    return lambda *words: cli.main(["root", *(str(word) for word in words)])


class Ceremony:
    """A folder with a root, and a site's request to it."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder = folder
        self.run = run
        self.certificate, self.key = folder / "root.pem", folder / "root.key"
        assert run("new", self.certificate, self.key, "--name", "Owner", "--kind", "P-256") == 0
        self.root = parse_pem_certificates(self.certificate.read_bytes())[0]
        self.signer = KeySigner.generate()

    def request(self) -> Path:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        der = make_site_request(self.signer, "Ward", SITE)
        path = self.folder / "site.csr"
        path.write_bytes(x509.load_der_x509_csr(der).public_bytes(Encoding.PEM))
        return path

    def site_certificate(self) -> bytes:
        output = self.folder / "ca.pem"
        output.unlink(missing_ok=True)
        assert self.run("sign-site", self.request(), *self.as_root(), "--output", output) == 0
        return parse_pem_certificates(output.read_bytes())[0]

    def as_root(self) -> tuple[object, ...]:
        return ("--root-cert", self.certificate, "--root-key", self.key)

    def draft(self, **changes: object) -> Path:
        values: dict[str, object] = {
            "version": 1,
            "predecessor": None,
            "issued": system_time(),
            "threshold": 1,
            "anchors": (Anchor(certificate=self.root, purpose=Purpose.OWNER, since=0),),
            "sites": (
                BundleSite(
                    site_id=SITE, name="Ward", delegated=False, authorities=(self.site_certificate(),)
                ),
            ),
            **changes,
        }
        path = self.folder / f"bundle-{values['version']}"
        write_atomically(path, SignedBundle.unsigned(TrustBundle(**values)).serialize())  # type: ignore[arg-type]
        return path


@pytest.fixture
def ceremony(tmp_path: Path, run: Run) -> Ceremony:
    return Ceremony(tmp_path, run)


def test_new_overwrites_nothing(ceremony: Ceremony, capsys: pytest.CaptureFixture[str]) -> None:
    before = ceremony.certificate.read_bytes(), ceremony.key.read_bytes()
    assert ceremony.key.stat().st_mode & 0o777 == 0o600
    assert ceremony.run("new", ceremony.certificate, ceremony.folder / "other.key", "--name", "Other") == 8
    assert ceremony.run("new", ceremony.folder / "other.pem", ceremony.key, "--name", "Other") == 8
    assert (
        ceremony.run("new", ceremony.folder / "x", ceremony.folder / "y", "--name", "O", "--kind", "RSA") == 2
    )
    assert before == (ceremony.certificate.read_bytes(), ceremony.key.read_bytes())
    assert "RSA" in capsys.readouterr().err


def test_new_leaves_no_key_without_its_certificate(
    ceremony: Ceremony, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, key = ceremony.folder / "no" / "such" / "folder", ceremony.folder / "orphan.key"
    assert ceremony.run("new", folder / "root.pem", key, "--name", "Other") == 8
    assert str(folder) in capsys.readouterr().err
    assert ceremony.run("new", ceremony.folder / "orphan.pem", folder / "root.key", "--name", "Other") == 8
    assert ceremony.run("new", key, key, "--name", "Other") == 2
    assert "both the certificate and the key" in capsys.readouterr().err
    assert not list(ceremony.folder.glob("orphan*"))
    assert ceremony.run("new", ceremony.folder / "orphan.pem", key, "--name", "Other") == 0


def test_no_ceremony_overwrites_a_file(ceremony: Ceremony, capsys: pytest.CaptureFixture[str]) -> None:
    key, request, free = ceremony.key.read_bytes(), ceremony.request(), ceremony.folder / "free"
    other = ceremony.folder / "other.pem", ceremony.folder / "other.key"
    assert ceremony.run("new", *other, "--name", "Other", "--kind", "P-256") == 0
    old = "--old-cert", ceremony.certificate, "--old-key", ceremony.key
    pairs = (*old, "--new-cert", other[0], "--new-key", other[1])
    for words in (
        ("sign-site", request, *ceremony.as_root(), "--output", ceremony.key),
        ("sign-site", request, *ceremony.as_root(), "--output", free, "--bundle", ceremony.key),
        ("cross-sign", *pairs, "--output", ceremony.key),
    ):
        assert ceremony.run(*words) == 8
        refused = capsys.readouterr().err
        assert "root.key: exists already" in refused
        assert "name another file, or remove it" in refused
    assert ceremony.key.read_bytes() == key
    assert not free.exists()


def test_of_several_roots_in_a_file_the_one_of_the_key_signs(
    ceremony: Ceremony, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ceremony.draft()
    other, both = (ceremony.folder / "other.pem", ceremony.folder / "other.key"), ceremony.folder / "both.pem"
    assert ceremony.run("new", *other, "--name", "Other", "--kind", "P-256") == 0
    both.write_bytes(other[0].read_bytes() + ceremony.certificate.read_bytes())
    assert ceremony.run("sign-bundle", first, "--root-cert", both, "--root-key", ceremony.key) == 0
    assert ceremony.run("sign-bundle", first, "--root-cert", other[0], "--root-key", ceremony.key) == 5
    assert f"{ceremony.key}: is not the key of any root in {other[0]}" in capsys.readouterr().err
    both.write_bytes(ceremony.certificate.read_bytes() * 2)
    assert ceremony.run("sign-bundle", first, "--root-cert", both, "--root-key", ceremony.key) == 5
    assert f"{both}: the root file holds 2 certificates" in capsys.readouterr().err


def test_a_site_ca_is_certified_for_its_own_site(ceremony: Ceremony) -> None:
    certificate = ceremony.site_certificate()
    good: dict[str, Any] = {
        "public_key": ceremony.signer.public_key,
        "site_id": SITE,
        "site_name": "Ward",
        "root": ceremony.root,
    }
    check_site_certificate(certificate, **good)
    for change, message in (
        ({"public_key": KeySigner.generate().public_key}, "this site CA's key"),
        ({"site_id": bytes(16)}, "sealcast:site"),
        ({"site_name": "Other"}, "named 'Ward'"),
        ({"root": certificate}, "not signed by that root"),
    ):
        with pytest.raises(CertificateError, match=message):
            check_site_certificate(certificate, **{**good, **change})


def test_a_request_that_is_none_of_a_site(ceremony: Ceremony, capsys: pytest.CaptureFixture[str]) -> None:
    request = ceremony.folder / "site.csr"
    request.write_text("junk")
    output = ceremony.folder / "ca.pem"
    assert ceremony.run("sign-site", request, *ceremony.as_root(), "--output", output) == 2
    assert "site.csr holds no certificate request" in capsys.readouterr().err
    assert not output.exists()
    with pytest.raises(CsrError, match="names no site"):
        SiteRequest.parse(KeySigner.generate().make_csr("device"))
    good = make_site_request(ceremony.signer, "Ward", SITE)
    with pytest.raises(CsrError, match="signature"):
        SiteRequest.parse(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CsrError, match="not a certificate request"):
        SiteRequest.parse(good[:40])


def test_a_bundle_is_signed_in_place_and_followed_by_the_next(
    ceremony: Ceremony, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ceremony.draft()
    assert ceremony.run("sign-bundle", first, *ceremony.as_root()) == 0
    held = pin(first.read_bytes(), SignedBundle.parse(first.read_bytes()).hash)
    second = ceremony.draft(version=2, predecessor=held.hash)
    assert ceremony.run("sign-bundle", second, *ceremony.as_root()) == 2
    assert "--predecessor" in capsys.readouterr().err
    assert ceremony.run("sign-bundle", second, *ceremony.as_root(), "--predecessor", first) == 0
    assert capsys.readouterr().out == "version 2: 1 of 1 signatures\n"
    assert accept(held, second.read_bytes()).version == 2
    assert ceremony.run("show-bundle", second, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["version"], shown["predecessor"], shown["signatures"]) == (2, held.hash.hex(), 1)


def test_a_file_that_is_no_bundle_is_named(ceremony: Ceremony, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ("show-bundle", ceremony.certificate),
        ("sign-bundle", ceremony.certificate, *ceremony.as_root()),
    ):
        assert ceremony.run(*words) == 5
        said = capsys.readouterr().err
        assert f"{ceremony.certificate}: is no trust bundle" in said
        assert "sign-bundle" in said


def test_a_bundle_that_would_lock_the_fleet_out_is_not_signed(
    ceremony: Ceremony, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ceremony.draft()
    assert ceremony.run("sign-bundle", first, *ceremony.as_root()) == 0
    (tmp_path / "other").mkdir()
    other = Ceremony(tmp_path / "other", run)
    replaced = other.draft(version=2, predecessor=SignedBundle.parse(first.read_bytes()).hash)
    before = replaced.read_bytes()
    assert run("sign-bundle", replaced, *ceremony.as_root(), "--predecessor", first) == 5
    assert "lock out" in capsys.readouterr().err
    # Nor by a root whose signature counts for nothing.
    assert run("sign-bundle", first, *other.as_root()) == 5
    assert "would count for nothing" in capsys.readouterr().err
    assert replaced.read_bytes() == before


def test_a_bundle_that_drops_a_site_is_signed_only_where_that_is_said(
    ceremony: Ceremony, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ceremony.draft()
    assert ceremony.run("sign-bundle", first, *ceremony.as_root()) == 0
    predecessor = SignedBundle.parse(first.read_bytes()).hash
    own = SignedBundle.parse(first.read_bytes()).read().sites[0]
    ceremony.signer = KeySigner.generate()
    for sites in ((), (replace(own, authorities=(ceremony.site_certificate(),)),)):
        second = ceremony.draft(version=2, predecessor=predecessor, sites=sites)
        before = second.read_bytes()
        words = ("sign-bundle", second, *ceremony.as_root(), "--predecessor", first)
        assert ceremony.run(*words) == 5
        refused = capsys.readouterr().err
        assert f"of the site Ward ({SITE.hex()}): all its devices would be locked out" in refused
        assert f"--drop-site {SITE.hex()}" in refused
        assert second.read_bytes() == before
        assert ceremony.run(*words, "--drop-site", "00" * 16) == 2
        assert "lists no such site" in capsys.readouterr().err
        assert ceremony.run(*words, "--drop-site", SITE.hex()) == 0
