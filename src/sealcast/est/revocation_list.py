"""The site's CRL for whoever asks: beside EST on its listener, as all may read what is signed (SC-31)."""

import hashlib
from collections.abc import Callable

from aiohttp import web

CRL_PATH = "/.well-known/sealcast/crl"
CRL_TYPE = "application/pkix-crl"


def add_revocation_list(application: web.Application, current: Callable[[], bytes]) -> None:
    """Add the request to an EST listener's application. `current`: the DER CRL of this moment."""

    async def crl(request: web.Request) -> web.Response:
        der = current()
        tag = f'"{hashlib.sha256(der).hexdigest()}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=der, content_type=CRL_TYPE, headers=headers)

    application.router.add_get(CRL_PATH, crl)
