"""The management API of an authority in this process: requests as commands make them."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from sealcast.authority.api.callers import local_caller
from sealcast.authority.api.handling import Reply, Running, prepare
from sealcast.authority.api.problems import RefusedError, refusal_of
from sealcast.authority.api.table import TABLE
from sealcast.authority.control import Json, make_request, parse_answer
from sealcast.authority.service import Authority, Changes
from sealcast.errors import SealcastError

RUNNING = Running(started=0, listening={}, members=lambda _channel: 0)


async def manage(
    authority: Authority,
    method: str,
    path: str,
    body: Json | None = None,
    *,
    query: Mapping[str, Any] | None = None,
) -> Json:
    """Make a request by the product's handlers, as the folder's owner.

    Raises: SealcastError: as the handler raised it.
    """
    now = authority.clock()
    try:
        prepared = prepare(TABLE, make_request(method, path, query, body), local_caller(0))

        def job(session: Session) -> tuple[Reply, Changes]:
            return prepared.run(session, authority.site, now, RUNNING)

        if prepared.route.changes:
            return parse_answer(await authority.apply(job))
        reply, _ = await authority.read(job)
        return parse_answer(reply)
    except (SealcastError, RefusedError) as error:
        raise refusal_of(error).error from None
