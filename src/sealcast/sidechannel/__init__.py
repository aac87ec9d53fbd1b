"""The side channel: HTTPS with mutual TLS 1.3 and CBOR bodies, between members, peers and key server.

`messages` are the bodies (`fields` reads them); `tls` judges who the other side is; `client` asks,
over a `connection`; `server` answers peers; `refusals` is the table of errors. The key server's routes are
the authority's.
"""

from sealcast.sidechannel.client import KeyServerClient, PeerClient
from sealcast.sidechannel.connection import RefusalError
from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.messages import (
    CrlAnswer,
    JoinAnswer,
    KeysAnswer,
    MemberEntry,
    PolicyAnswer,
    RepairAnswer,
    RepairRequest,
    StreamEntry,
    StreamUpdate,
)
from sealcast.sidechannel.server import PeerServer

__all__ = [
    "CrlAnswer",
    "JoinAnswer",
    "KeyServerClient",
    "KeysAnswer",
    "MalformedMessageError",
    "MemberEntry",
    "PeerClient",
    "PeerServer",
    "PolicyAnswer",
    "RefusalError",
    "RepairAnswer",
    "RepairRequest",
    "StreamEntry",
    "StreamUpdate",
]
