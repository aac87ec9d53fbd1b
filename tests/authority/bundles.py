"""Versions of a running authority's trust bundle, signed by its root, whose key lies in the folder."""

from sealcast.authority.bundles import draft_bundle
from sealcast.authority.site import ROOT_FILE, ROOT_KEY_FILE
from sealcast.ca import KeySigner, Root, create_root, import_root
from sealcast.pki.bundle import Anchor, Purpose, SignedBundle, VerifiedBundle
from sealcast.pki.certificates import certificate_der
from sealcast.pki.times import system_time
from tests.authority.conftest import Site


def own_root(site: Site) -> Root:
    return import_root(
        certificate_pem=(site.folder / ROOT_FILE).read_bytes(),
        key_pem=(site.folder / ROOT_KEY_FILE).read_bytes(),
        now=site.clock(),
    )


def new_root() -> Root:
    return create_root(site_name="Owner", signer=KeySigner.generate(), now=system_time())


def owner(root: Root) -> Anchor:
    return Anchor(certificate=certificate_der(root.certificate), purpose=Purpose.OWNER, since=0)


def held(site: Site) -> VerifiedBundle:
    bundle = site.authority.bundle
    assert bundle is not None
    return bundle


def next_bundle(site: Site, **changes: object) -> bytes:
    """The next version, with another root unless `changes` say otherwise."""
    values = changes or {"anchors": (*held(site).bundle.anchors, owner(new_root()))}
    root = own_root(site)
    bundle = draft_bundle(held(site), site.clock(), **values)
    return SignedBundle.unsigned(bundle).sign(certificate_der(root.certificate), root.signer).serialize()


async def add_version(site: Site, **changes: object) -> bytes:
    """Import the next version."""
    signed = next_bundle(site, **changes)
    await site.authority.import_bundle(signed)
    return signed
