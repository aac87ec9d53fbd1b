"""What an application imports: devices, publishers, subscribers.

`device` opens both ends; `publisher` and `subscriber` are the ends; `session` is the I/O around an engine,
and `engine_start` what it begins with; `certification` vouches for a publisher's stream, `send_path` carries
it, and `stream_server` answers for it; `site` says whose channel it is; `routing` says where packets go;
`events` says what happens; `limits` are the ranges of options. `file_sender` and `file_receiver` carry files:
`listing` says which, `transfer` has their messages, `partial` the half-written ones, which `piece_writer`
fills; `destination` is where they go. `peer` sends messages to one device, `inbox` takes those of all;
`peer_site` says who and where they are.
"""

from sealcast._core import Message
from sealcast.endpoint.device import Device
from sealcast.endpoint.inbox import Inbox, PeerMessage
from sealcast.endpoint.peer import Peer
from sealcast.endpoint.publisher import Publisher
from sealcast.endpoint.routing import RoutingOverrides
from sealcast.endpoint.site import ChannelSite
from sealcast.endpoint.subscriber import Subscriber

__all__ = [
    "ChannelSite",
    "Device",
    "Inbox",
    "Message",
    "Peer",
    "PeerMessage",
    "Publisher",
    "RoutingOverrides",
    "Subscriber",
]
