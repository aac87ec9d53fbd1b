"""A control stream that only notes what it was asked to seal, and secrets that can be told apart."""

from dataclasses import dataclass, field

from sealcast.keys import Secret


@dataclass
class NotingSealer:
    """Stands in for `sealcast._core.ControlStream`."""

    sealed: list[dict[str, object]] = field(default_factory=list)

    @property
    def stream_id(self) -> bytes:
        return bytes(16)

    def seal_beacon(self, **fields: object) -> bytes:
        self.sealed.append(fields)
        return f"beacon {fields['counter']}".encode()


class Draw:
    """Draws secrets 1, 2, 3, …: two equal ones can only be the same draw."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self) -> Secret:
        self.drawn += 1
        return Secret(self.drawn.to_bytes(32, "big"))
