"""What a subscriber in this process is told, messages and events, in order."""

from __future__ import annotations

from sealcast.endpoint import Message, Subscriber
from sealcast.endpoint.events import Event, StreamStarted


class Story:
    """What a subscriber of this process has been told, in order."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.items: list[Message | Event] = []
        self._subscriber = subscriber

    async def until_event(self, kind: type[Event]) -> None:
        """Follow until the next event of this kind."""
        async for item in self._subscriber.items():
            self.items.append(item)
            if isinstance(item, kind):
                return

    async def until_messages(self, count: int) -> None:
        """Follow until there are that many more messages."""
        goal = len(self.messages()) + count
        async for item in self._subscriber.items():
            self.items.append(item)
            if len(self.messages()) >= goal:
                return

    async def until(self, text: bytes) -> None:
        """Follow until a message of this text."""
        async for item in self._subscriber.items():
            self.items.append(item)
            if isinstance(item, Message) and item.data == text:
                return

    def messages(self) -> list[Message]:
        return [item for item in self.items if isinstance(item, Message)]

    def started(self) -> list[StreamStarted]:
        return [item for item in self.items if isinstance(item, StreamStarted)]
