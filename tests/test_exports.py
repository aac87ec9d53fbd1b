"""The public face of the package: a change here is a change for users."""

import sealcast
from sealcast import endpoint, sync
from sealcast.endpoint import events

FACE = [
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


def test_the_package_shows_its_face() -> None:
    assert sealcast.__all__ == [*FACE, "__version__"]
    assert endpoint.__all__ == FACE
    assert all(getattr(sealcast, name) is getattr(endpoint, name) for name in FACE)


def test_blocking_names_are_the_asynchronous_ones() -> None:
    for name in ("Device", "Publisher", "Subscriber", "Peer", "Inbox"):
        blocking = {word for word in vars(getattr(sync, name)) if not word.startswith("_")}
        asynchronous = {word for word in vars(getattr(endpoint, name)) if not word.startswith("_")}
        assert blocking <= asynchronous, f"{name}: {blocking - asynchronous}"


def test_every_event_of_the_engine_has_a_type() -> None:
    for name, kind in events._KINDS.items():
        words = "".join(word.capitalize() for word in name.split("-"))
        assert kind.__name__ == words
