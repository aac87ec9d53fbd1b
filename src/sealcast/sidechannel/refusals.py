"""The refusals of the side channel: codes and statuses of registry.md, and how both sides carry them."""

import logging
from collections.abc import Awaitable, Callable
from enum import Enum

from aiohttp import web

from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.messages import CONTENT_TYPE, ErrorAnswer

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


class RefusedError(Exception):
    """A request that gets a refusal instead of an answer.

    `detail` is one line for whoever runs the peer; it holds nothing that the peer may not know.
    """

    def __init__(self, refusal: Refusal, detail: str) -> None:
        super().__init__(refusal.code, detail)
        self.refusal = refusal
        self.detail = detail


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
    except Exception:  # noqa: BLE001  # logged whole here; a peer is told nothing of it
        _log.exception("a request to %s failed", request.path)
        return refuse(RefusedError(Refusal.INTERNAL, "internal error"))


def refuse(error: RefusedError) -> web.Response:
    """The response that carries a refusal."""
    body = ErrorAnswer(error=error.refusal.code, detail=error.detail).serialize()
    return web.Response(status=error.refusal.status, body=body, content_type=CONTENT_TYPE)
