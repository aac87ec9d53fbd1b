"""The certification authority: signers, roots, the site CA.

`signer` holds keys, `root` makes or imports a root and certifies site CAs. `issuer` is what the authority
asks of its site CA, and the bare site CA; `local` puts its `ledger` and its rules before every signature,
`remote` asks a process that does so. `passphrase` and `keyfile` are keys at rest.
No HTTP: the authority records, est transports.
"""

from sealcast.ca.issuer import DeviceRequest, Intent, Issuance, IssuedCertificate, Issuer, Permit, SiteCa
from sealcast.ca.ledger import Ledger, LedgerSettings
from sealcast.ca.local import Limits, LocalIssuer
from sealcast.ca.observation import observing
from sealcast.ca.passphrase import Passphrase, PassphraseSource, ScryptCost
from sealcast.ca.remote import RemoteIssuer
from sealcast.ca.root import CrossCertificates, Root, create_root, cross_certify, import_root
from sealcast.ca.signer import FileSigner, KeyKind, KeySigner, Signer

__all__ = [
    "CrossCertificates",
    "DeviceRequest",
    "FileSigner",
    "Intent",
    "Issuance",
    "IssuedCertificate",
    "Issuer",
    "KeyKind",
    "KeySigner",
    "Ledger",
    "LedgerSettings",
    "Limits",
    "LocalIssuer",
    "Passphrase",
    "PassphraseSource",
    "Permit",
    "RemoteIssuer",
    "Root",
    "ScryptCost",
    "Signer",
    "SiteCa",
    "create_root",
    "cross_certify",
    "import_root",
    "observing",
]
