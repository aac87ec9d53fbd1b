"""Fetching the CRLs of other sites from their authorities, as often as a removal there should count here.

A list is believed by its signature (other_sites.py). The authority that hands it out has to be one of that
site all the same, so that a stranger cannot make us wait for nothing.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Sequence

import aiohttp

from sealcast.authority.service import Authority
from sealcast.errors import CertificateError, NetworkError, SealcastError, UnreachableError
from sealcast.est.revocation_list import CRL_PATH
from sealcast.pki.crl import MAX_CRL_BYTES
from sealcast.pki.names import Role
from sealcast.pki.tls import trust
from sealcast.pki.validator import VerifiedPeer
from sealcast.sidechannel.tls import judging_context, verdict_of

_log = logging.getLogger("sealcast.authority")

FETCH_SECONDS = 10.0
"""Between two looks at one authority, jittered; one that has nothing new answers in a few hundred bytes."""

_MOST_SECONDS = 300.0
"""After failures in a row."""

_ANSWER_SECONDS = 20.0


class CrlFetcher:
    """Looks at every source in turn. One of an authority's."""

    def __init__(self, authority: Authority) -> None:
        """Fetch for `authority`."""
        self._authority = authority
        self._tags: dict[bytes, str] = {}
        self._failing: dict[bytes, int] = {}

    async def run(self) -> None:
        """Look again and again until cancelled; what fails is logged once, and tried less often."""
        due: dict[bytes, float] = {}
        clock = asyncio.get_running_loop().time
        while True:
            try:
                sources = await self._authority.crl_sources()
                for site_id, url in sources.items():
                    if due.get(site_id, 0.0) <= clock():
                        await self._look(site_id, url)
                        due[site_id] = clock() + self._pause(site_id)
            except Exception:  # noqa: BLE001 - this has to go on whatever else is wrong
                _log.exception("the CRLs of other sites could not be looked at")
            await asyncio.sleep(FETCH_SECONDS / 10)

    async def fetch(self, site_id: bytes, url: str) -> bool:
        """Fetch and import one site's list; returns whether there was one to import.

        Raises: UnreachableError, NetworkError; CertificateError: the authority or its list is refused.
        """
        tag = self._tags.get(site_id)
        status, answer, new_tag = await self._get(site_id, url, tag)
        if status == 304 and tag is not None:
            return False
        if status != 200:
            raise NetworkError(f"{url} answers {status} to a request for its CRL", cure="check the URL")
        await self._authority.import_crl(answer)
        if new_tag is not None:
            self._tags[site_id] = new_tag
        return True

    async def _look(self, site_id: bytes, url: str) -> None:
        try:
            await self.fetch(site_id, url)
        except SealcastError as error:
            # A tag of what could not be imported must not hide it.
            self._tags.pop(site_id, None)
            failures = self._failing.get(site_id, 0)
            if not failures:
                _log.warning("the CRL of site %s is not to be had: %s", site_id.hex(), error)
            self._failing[site_id] = failures + 1
        else:
            if self._failing.pop(site_id, 0):
                _log.info("the CRL of site %s is to be had again", site_id.hex())

    def _pause(self, site_id: bytes) -> float:
        failures = min(self._failing.get(site_id, 0), 8)
        seconds: float = min(FETCH_SECONDS * 2**failures, _MOST_SECONDS)
        return seconds * random.uniform(0.75, 1.0)  # noqa: S311

    async def _get(self, site_id: bytes, url: str, tag: str | None) -> tuple[int, bytes, str | None]:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        connector = aiohttp.TCPConnector(ssl=self._context(site_id, url), force_close=True)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get(
                    url.rstrip("/") + CRL_PATH,
                    headers={} if tag is None else {"If-None-Match": tag},
                    allow_redirects=False,
                ) as response,
            ):
                answer = bytearray()
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > MAX_CRL_BYTES:
                        raise NetworkError(f"{url}: its CRL has more than {MAX_CRL_BYTES} bytes")
                return response.status, bytes(answer), response.headers.get("ETag")
        except TimeoutError as error:
            raise UnreachableError(url, "no answer in time") from error
        except (aiohttp.ClientError, ValueError) as error:
            if (verdict := verdict_of(error)) is not None:
                raise verdict from error
            raise UnreachableError(url, str(error) or type(error).__name__) from error

    def _context(self, site_id: bytes, url: str) -> ssl.SSLContext:
        authority = self._authority
        validator, now = authority.validator, authority.clock()

        def judge(chain: Sequence[bytes]) -> VerifiedPeer:
            # Without a CRL: the one to judge by is the one that is fetched.
            peer = validator.verify_peer(chain, Role.KEY_SERVER, now)
            if peer.site_id != site_id:
                raise CertificateError(
                    f"{url} is {peer.identity.uri}, not of site {site_id.hex()}", reason="wrong-identity"
                )
            return peer

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        trust(context, authority.tls_authorities())
        return judging_context(context, judge)
