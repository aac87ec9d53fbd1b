"""Names, certificates, requests, CRLs and signed objects: no HTTP, no database.

Bottom up: `names`, `times` and `files` stand alone; `signed` is deterministic CBOR and the signed object;
`profiles`, `csr` and
`crl` are X.509 (builders without a key: `sealcast.ca` signs); `policy` and `credential` are what peers read;
`policy_rules`, `channel_settings` and `policy_source` are what an operator writes;
`validator` is the face of the engine's one path validator; `tls` makes contexts for the side channel.
"""

from sealcast.pki.credential import CredentialBundle, StreamCredential, make_bundle, stream_id
from sealcast.pki.csr import CertificateRequest, make_csr
from sealcast.pki.names import Identity, Role, channel_id
from sealcast.pki.policy import Policy, SlotClock
from sealcast.pki.signed import Algorithm, Context, SignedObject, Signer
from sealcast.pki.validator import Validator, VerifiedPeer

__all__ = [
    "Algorithm",
    "CertificateRequest",
    "Context",
    "CredentialBundle",
    "Identity",
    "Policy",
    "Role",
    "SignedObject",
    "Signer",
    "SlotClock",
    "StreamCredential",
    "Validator",
    "VerifiedPeer",
    "channel_id",
    "make_bundle",
    "make_csr",
    "stream_id",
]
