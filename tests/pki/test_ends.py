"""What ends soon is told of the whole chain: the famous outages were of CAs and roots, not of leaves."""

from cryptography import x509

from sealcast.ca import KeySigner
from sealcast.pki.certificates import certificate_der
from sealcast.pki.ends import End, chain_ends, warnings
from sealcast.pki.profiles import CertificateIssuer, device_builder, root_builder, site_ca_builder
from sealcast.testing import START, Site

DAY = 86_400_000_000
YEAR = 365 * DAY


def test_f16_each_certificate_of_a_chain_is_told_of_before_it_ends() -> None:
    site = Site(seed=1)
    device = site.issue_device("bed12", START)
    ends = chain_ends(device.certificate, device.chain[1:], [site.root])
    assert [end.what for end in ends] == [
        "certificate of device 'bed12'",
        "site CA 'Simulated site CA'",
        "root 'Simulated site root'",
    ]
    assert [round((end.ends - START) / DAY) for end in ends] == [90, 730, 7300]
    # The leaf renews at two thirds of its life: a warning means that it did not.
    assert [round((end.near_from - START) / DAY) for end in ends] == [67, 547, 6935]
    assert not warnings(ends, START + 60 * DAY)
    assert warnings(ends, START + 80 * DAY) == (
        "certificate of device 'bed12' ends in 10 days: 2026-04-01T00:00:00Z",
    )
    renewed = site.issue_device("bed12", START + 600 * DAY)
    told = warnings(chain_ends(renewed.certificate, renewed.chain[1:], [site.root]), START + 601 * DAY)
    assert [line.split(" ends ")[0] for line in told] == ["site CA 'Simulated site CA'"]


def test_a_line_says_how_long_is_left_or_that_it_is_over() -> None:
    end = End(what="CRL 7", begins=START, ends=START + 4 * DAY)
    assert end.near_from == START + 3 * DAY
    assert end.warning(START + 3 * DAY) == "CRL 7 ends in 24 hours: 2026-01-05T00:00:00Z"
    assert end.warning(START + 4 * DAY) == "CRL 7 has ended: 2026-01-05T00:00:00Z"
    assert End(what="r", begins=START, ends=START + 20 * YEAR).near_from == START + 19 * YEAR


def test_of_several_paths_the_one_that_lasts_longest_counts() -> None:
    """An old root that ends is no alarm where a verifier finds a path to a later one."""
    old, new, ca = (KeySigner.generate() for _ in range(3))

    def root(signer: KeySigner, name: str, now: int) -> x509.Certificate:
        return signer.sign_certificate(
            root_builder(site_name=name, public_key=signer.public_key, serial=now, now=now)
        )

    def site_ca(root: x509.Certificate, signer: KeySigner) -> x509.Certificate:
        issuer = CertificateIssuer.of(root, signer.public_key)
        return signer.sign_certificate(
            site_ca_builder(
                site_name="Ward",
                site_id=bytes(16),
                public_key=ca.public_key,
                issuer=issuer,
                serial=7,
                now=START,
            )
        )

    ancient, recent = root(old, "Ancient", START - 19 * YEAR), root(new, "Recent", START)
    below = site_ca(ancient, old), site_ca(recent, new)
    leaf = certificate_der(
        ca.sign_certificate(
            device_builder(
                name="bed12",
                site_name="Ward",
                site_id=bytes(16),
                public_key=new.public_key,
                issuer=CertificateIssuer.of(below[0], ca.public_key),
                serial=8,
                now=START,
            )
        )
    )
    by_ancient, by_recent = map(certificate_der, below)
    roots = [certificate_der(ancient), certificate_der(recent)]
    assert chain_ends(leaf, [by_ancient], roots[:1])[-1].what == "root 'Ancient root'"
    assert chain_ends(leaf, [by_ancient, by_recent], roots)[-1].what == "root 'Recent root'"
    assert len(chain_ends(leaf, [], roots)) == 1
