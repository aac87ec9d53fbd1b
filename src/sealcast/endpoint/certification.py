"""The device's word for the key of its stream: given at the start, and anew before it ends.

Spec: spec/trust.md TR-11.
"""

from __future__ import annotations

import asyncio
import hashlib

from sealcast import _core
from sealcast.endpoint.session import MICROSECONDS, Session
from sealcast.errors import ConfigError, InternalError
from sealcast.pki.signed import Context, SignedObject

CREDENTIAL_LIFE_SECONDS = 24 * 3600
"""A stream credential ends with the device certificate, or a day after it was made."""

_RENEW_SECONDS = CREDENTIAL_LIFE_SECONDS // 2
_SKEW_SECONDS = 60
_TERM_LOOK_SECONDS = 30


class Certification:
    """Lets the device key vouch for one stream's key, for at most a day at a time."""

    def __init__(self, engine: _core.SendEngine, session: Session) -> None:
        """Take an engine that has joined; nothing is signed before `certify`."""
        self._engine = engine
        self._session = session
        self._succeeds = engine.predecessor()
        # From when to when the credential is in force.
        self._term = (0, 0)

    def certify(self) -> None:
        """Sign a credential with what the device holds now; the stream announces it.

        Raises: ConfigError: it leaves packets no room.
        """
        engine, identity, now = self._engine, self._session.identity, self._session.now()
        date = engine.sealing_date(now)
        not_before = max(date - _SKEW_SECONDS * MICROSECONDS, identity.not_before)
        not_after = min(identity.not_after, date + CREDENTIAL_LIFE_SECONDS * MICROSECONDS)
        tbs = engine.credential_tbs(
            site_id=identity.site_id,
            name=identity.name,
            certificate_hash=hashlib.sha256(identity.certificate).digest(),
            not_before=not_before,
            not_after=not_after,
            succeeds=self._succeeds,
        )
        if tbs is None:
            raise InternalError("a stream credential was asked for before the join")
        signed = SignedObject.sign(Context.STREAM_CREDENTIAL, tbs, identity.signer).serialize()
        try:
            engine.set_credential(signed, identity.chain, not_after, now)
        except _core.SendError as error:
            raise ConfigError(str(error), cure="use a larger MTU, or a shorter certificate chain") from None
        self._term = not_before, not_after
        self._session.wake()

    async def keep(self) -> None:
        """Certify anew twice a day, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + _RENEW_SECONDS
        while True:
            await asyncio.sleep(_TERM_LOOK_SECONDS)
            date = self._engine.sealing_date(self._session.now())
            not_before, not_after = self._term
            # Whoever sets the clock right must not wait half a day for a credential that is in force.
            is_in_force = not_before <= date <= not_after or date >= self._session.identity.not_after
            if loop.time() >= due or not is_in_force:
                due = loop.time() + _RENEW_SECONDS
                self.certify()
