"""Renewal after the certificate's end: a signed proof instead of a TLS client certificate (SC-22).

Beside EST on its listener, since only there a client without a valid certificate is admitted.
"""

import asyncio
from typing import Protocol

from aiohttp import web

from sealcast.est.messages import (
    CERTIFICATE_TYPE,
    MAX_BODY_BYTES,
    TRANSFER_ENCODING_HEADER,
    encode_certificates,
)
from sealcast.est.problems import Problem, RefusedError
from sealcast.pki.renewal_proof import RenewalProof

RECOVERY_PATH = "/.well-known/sealcast/recover"
PROOF_TYPE = "application/cbor"

_BODY_SECONDS = 20.0


class RecoveryService(Protocol):
    """What stands behind the request: the authority, or a test."""

    async def recover(self, proof: RenewalProof) -> bytes:
        """Return a DER certificate for the holder of an expired one.

        The proof's signature holds. Whether its certificate is of this site, not revoked, and within the
        grace is for the service to judge: a wrong yes brings a stolen device back, a wrong no costs an
        operator a token.
        Raises: CertificateError, CsrError, StorageError.
        """


def add_recovery(application: web.Application, service: RecoveryService) -> None:
    """Add the request to an EST listener's application."""

    async def recover(request: web.Request) -> web.Response:
        if request.content_type != PROOF_TYPE:
            raise RefusedError(Problem.WRONG_PROOF_TYPE)
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await request.read()
        except TimeoutError:
            raise RefusedError(Problem.TIMEOUT) from None
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError(Problem.TOO_LARGE)
        certificate = await service.recover(RenewalProof.parse(body))
        answer = encode_certificates([certificate], in_lines=True)
        return web.Response(
            body=answer, headers={"Content-Type": CERTIFICATE_TYPE, **TRANSFER_ENCODING_HEADER}
        )

    application.router.add_post(RECOVERY_PATH, recover)
