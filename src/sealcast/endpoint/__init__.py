"""What an application imports: devices, publishers, subscribers.

`device` opens both ends; `publisher` and `subscriber` are the ends; `session` is the I/O around an engine;
`site` says whose channel it is; `routing` says where packets go; `events` says what happens; `transfer`
carries files; `limits` are the ranges of options.
"""

from sealcast._core import Message
from sealcast.endpoint.device import Device
from sealcast.endpoint.publisher import Publisher
from sealcast.endpoint.routing import RoutingOverrides
from sealcast.endpoint.site import ChannelSite
from sealcast.endpoint.subscriber import Subscriber

__all__ = ["ChannelSite", "Device", "Message", "Publisher", "RoutingOverrides", "Subscriber"]
