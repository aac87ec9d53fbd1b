"""The refusals of the side channel: codes and statuses of registry.md, and how both sides carry them."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Self

from aiohttp import web

from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.fields import Fields, MalformedMessageError
from sealcast.sidechannel.messages import CONTENT_TYPE

_log = logging.getLogger("sealcast.sidechannel")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refusal(Enum):
    """Spec: registry.md, errors of the side channel."""

    MALFORMED_REQUEST = ("malformed-request", 400)
    NOT_AUTHENTICATED = ("not-authenticated", 401)
    NOT_ALLOWED = ("not-allowed", 403)
    REVOKED = ("revoked", 403)
    UNKNOWN_CHANNEL = ("unknown-channel", 404)
    UNKNOWN_STREAM = ("unknown-stream", 404)
    UNKNOWN_VERSION = ("unknown-version", 404)
    TOO_LARGE = ("too-large", 413)
    TOO_MANY_REQUESTS = ("too-many-requests", 429)
    INTERNAL = ("internal", 500)
    INBOX_FULL = ("inbox-full", 507)

    @property
    def code(self) -> str:
        """What stands in the body."""
        return self.value[0]

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.value[1]


_TOLD = {Refusal.NOT_ALLOWED, Refusal.REVOKED}
"""What somebody asks for who was let in, and has no right to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """The body of an answer with a 4xx or 5xx status."""

    error: str
    """A code of registry.md."""
    detail: str
    retry_after: int | None = None
    """Seconds after which the peer may ask again, where that is known (SC-43)."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        fields: dict[str, object] = {"error": self.error, "detail": self.detail}
        return encode_cbor(fields if self.retry_after is None else fields | {"retry-after": self.retry_after})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "error reply")
        return cls(
            error=fields.text("error", most=64),
            detail=fields.text("detail", most=4096),
            retry_after=fields.uint("retry-after") if "retry-after" in fields else None,
        )


class RefusedError(Exception):
    """A request that gets a refusal instead of an answer.

    `detail` is one line for whoever runs the peer; it holds nothing that the peer may not know.
    """

    def __init__(self, refusal: Refusal, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(refusal.code, detail)
        self.refusal = refusal
        self.detail = detail
        self.retry_after = retry_after
        """Seconds after which the peer may ask again, where that is known."""

    def answer(self) -> ErrorAnswer:
        """What the peer is told."""
        return ErrorAnswer(error=self.refusal.code, detail=self.detail, retry_after=self.retry_after)


@web.middleware
async def answer_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error of a handler into a body that the spec knows."""
    try:
        return await handler(request)
    except RefusedError as error:
        if error.refusal in _TOLD:
            # As information: whoever is refused may ask without end, and must not fill a disk.
            _log.info("refused: %s %s of %s: %s", request.method, request.path, request.remote, error.detail)
        return refuse(error)
    except MalformedMessageError as error:
        return refuse(RefusedError(Refusal.MALFORMED_REQUEST, str(error)))
    except web.HTTPRequestEntityTooLarge:
        return refuse(RefusedError(Refusal.TOO_LARGE, "the body is too large"))
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        # SC-17
        return refuse(RefusedError(Refusal.MALFORMED_REQUEST, f"no such request: {request.method}"))
    except ConnectionError:
        # Whoever asked has gone before its request was whole; a crowd of those must not fill a disk either.
        return refuse(RefusedError(Refusal.MALFORMED_REQUEST, "the request was broken off"))
    except Exception:  # noqa: BLE001  # logged whole here; a peer is told nothing of it
        _log.exception("a request to %s failed", request.path)
        return refuse(RefusedError(Refusal.INTERNAL, "internal error"))


def refuse(error: RefusedError) -> web.Response:
    """The response that carries a refusal."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return web.Response(
        status=error.refusal.status,
        body=error.answer().serialize(),
        content_type=CONTENT_TYPE,
        headers=headers,
    )
