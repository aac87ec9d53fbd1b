"""The certification authority: signers, roots, the site CA.

`signer` holds keys, `root` makes or imports a root and certifies site CAs, `issuer` is the site CA at work.
No database and no HTTP: the authority records, est transports.
"""

from sealcast.ca.issuer import IssuedCertificate, Issuer
from sealcast.ca.root import Root, create_root, import_root
from sealcast.ca.signer import FileSigner, KeyKind, KeySigner, Signer

__all__ = [
    "FileSigner",
    "IssuedCertificate",
    "Issuer",
    "KeyKind",
    "KeySigner",
    "Root",
    "Signer",
    "create_root",
    "import_root",
]
