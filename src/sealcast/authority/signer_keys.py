"""The keys of a signer process: which of them issues, and how another one takes its place.

It makes the next key of the site CA itself, under the passphrase of the present one, and hands out a request
for it. A certificate is taken if a root that lies in the signer's own folder has signed it, so that whoever
broke into the service cannot have a key of the owner's choice replaced by one that nobody has certified. A
request names the key to be signed with (SHA-256 of its SubjectPublicKeyInfo): the service's database says
which one issues, and the signer follows it one way, from one key to the next.

What became of a key is in the ledger before a file changes, and each step can be asked for again:

| | ledger | files |
|---|---|---|
| made | made | ca-….key, before the ledger |
| certified | certified, with the certificate | ca.pem lists both |
| switched | the new one issues, the others sign lists | ca.pem has the new one first |
| retired | gone | ca.key is the new one, which has taken the old one's place |

Where the folder is the service's too, ca.pem is that one's and follows the database (arrangement.py).
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cryptography import x509

from sealcast.authority.arrangement import ROOT_FILE
from sealcast.authority.at_rest import ROTATING_KEYS, keys_at_rest
from sealcast.authority.issuance import (
    CA_FILE,
    CA_KEY_FILE,
    ca_key_name,
    certificates,
    local_issuer,
    make_next_key,
)
from sealcast.authority.storage import DATABASE_FILE
from sealcast.ca import FileSigner, Limits, LocalIssuer, PassphraseSource, Signer
from sealcast.ca.ledger import KeyState, Ledger, SiteKey
from sealcast.ca.remote import key_hash
from sealcast.ca.root import check_alive
from sealcast.ca.signer import public_key_of
from sealcast.ca.site_request import SiteRequest, check_site_certificate, make_site_request
from sealcast.errors import CertificateError, ConflictError, StorageError, UsageError
from sealcast.pki.certificates import certificates_pem, is_issued_by, parse_certificate
from sealcast.pki.files import storage_errors, write_atomically
from sealcast.pki.profiles import MAX_SITE_CAS
from sealcast.system import sync_folder

_ISSUING = (KeyState.CERTIFIED, KeyState.ISSUES)
_SIGNING = (*_ISSUING, KeyState.LISTS)


class SignerKeys:
    """The site CAs whose keys a signer process holds; good for several threads."""

    def __init__(
        self,
        folder: Path,
        passphrases: PassphraseSource,
        *,
        limits: Limits,
        clock: Callable[[], int],
    ) -> None:
        """Open the keys of a folder, and finish what a crash has interrupted.

        Args:
            folder: with ca.pem, ca.key and ledger.db.
            passphrases: of the key, and of those that are made after it.
            limits: signatures in an hour.
            clock: microseconds.

        Raises:
            StorageError, CertificateError: a key is missing, unreadable, or of another certificate; the
            ledger is missing, or of another site.
        """
        self._folder = folder
        self._passphrases = passphrases
        self._clock = clock
        self._lock = threading.RLock()
        with keys_at_rest(folder):
            self.first = local_issuer(folder, passphrases, limits=limits, clock=clock)
            self.first.check_ledger()
            self._ledger: Ledger = self.first.ledger
            self._signers: dict[bytes, Signer] = {}
            self._files: dict[bytes, Path] = {}
            self._keys = {known.key: known for known in self._ledger.site_keys()}
            self._arranged: dict[tuple[bytes, ...], LocalIssuer] = {}
            self._take_listed()
            self._open_others()
            self._settle()

    # --- signing --------------------------------------------------------------------------------------------

    def issuer(self, key: bytes) -> LocalIssuer:
        """The issuer under a key, named by its hash. Raises: CertificateError: it does not issue here."""
        with self._lock:
            self._check(key, _ISSUING)
            return self._issuer([key])

    def lister(self, keys: Sequence[bytes]) -> LocalIssuer:
        """The issuer of the lists of keys; those that are not here are left out, but not the first.

        Raises: CertificateError.
        """
        with self._lock:
            self._check(keys[0] if keys else b"", _SIGNING)
            return self._issuer([key for key in dict.fromkeys(keys) if self._state(key) in _SIGNING])

    # --- the rotation ---------------------------------------------------------------------------------------

    def prepare(self, number: int) -> bytes:
        """Make the next key, and return the request (DER) for its certificate; the same key while it waits.

        `number`: which key of the site it is. Raises: ConflictError: another one is on its way.
        CertificateError: there is no passphrase for it. UsageError: the number is borne by another key.
        """
        with self._lock:
            borne = [SiteRequest.of_certificate(_der(known)).number for known in self._certified()]
            if not 1 <= number <= MAX_SITE_CAS or number in borne:
                raise UsageError(f"the next key of the site CA cannot have the number {number}")
            made = self._only(KeyState.MADE)
            if made is None:
                for state in (KeyState.CERTIFIED, KeyState.LISTS):
                    if (busy := self._only(state)) is not None:
                        raise ConflictError(
                            f"the signer holds another key of the site CA ({busy.key.hex()[:16]}, {state})",
                            cure="finish that rotation, or give it up",
                        )
                made = self._make()
            signer = self._signers[made.key]
            return make_site_request(signer, self.first.site_name, self.first.site_id, number)

    def take_certificate(self, certificate: bytes) -> None:
        """Take the certificate (DER) of a key that was made here.

        Raises: CertificateError: no root of the signer's folder has signed it, or it does not fit.
        """
        with self._lock:
            key = key_hash(public_key_of(certificate))
            known = self._keys.get(key)
            if known is not None and known.certificate == certificate and known.state in _SIGNING:
                self._settle()
                return
            self._check(key, (KeyState.MADE, KeyState.CERTIFIED))
            check_alive(parse_certificate(certificate), "site CA certificate", self._clock())
            check_site_certificate(
                certificate,
                public_key=self._signers[key].public_key,
                site_id=self.first.site_id,
                site_name=self.first.site_name,
                root=self._root_of(certificate),
            )
            subject = parse_certificate(certificate).subject
            others = [_der(each) for each in self._certified() if each.key != key]
            if any(parse_certificate(der).subject == subject for der in others):
                raise CertificateError(
                    f"another key of the site CA has the name {subject.rfc4514_string()!r}", reason="name"
                )
            self._enter(SiteKey(key=key, state=KeyState.CERTIFIED, certificate=certificate))

    def switch(self, key: bytes) -> None:
        """Issue under a key from now on; the others sign lists. Raises: CertificateError: it cannot."""
        with self._lock:
            self._check(key, _ISSUING)
            wanted = [
                replace(known, state=KeyState.ISSUES if known.key == key else KeyState.LISTS)
                for known in self._keys.values()
                if known.state in _ISSUING
            ]
            self._enter(*(known for known in wanted if known != self._keys[known.key]))

    def retire(self, key: bytes) -> None:
        """Destroy a key that signs lists alone; one that is not here is gone already.

        Raises: CertificateError: it issues.
        """
        self._destroy(key, (KeyState.LISTS,))

    def abandon(self, key: bytes) -> None:
        """Destroy a key that has never been switched to; one that is not here is gone already.

        Raises: CertificateError: it issues.
        """
        self._destroy(key, (KeyState.MADE, KeyState.CERTIFIED))

    # --- inside ---------------------------------------------------------------------------------------------

    def _make(self) -> SiteKey:
        self.first.charge("key", self._clock())
        issuing = next(known for known in self._keys.values() if known.state is KeyState.ISSUES)
        quiet = replace(self._passphrases, prompt=None)
        with keys_at_rest(self._folder):
            signer = make_next_key(self._folder, _der(issuing), self._signers[issuing.key].public_key, quiet)
        made = SiteKey(key=key_hash(signer.public_key), state=KeyState.MADE)
        self._hold(made.key, signer)
        self._enter(made)
        return made

    def _destroy(self, key: bytes, states: Sequence[KeyState]) -> None:
        with self._lock:
            if self._state(key) is KeyState.GONE:
                self._settle()
                return
            self._check(key, states)
            self._enter(SiteKey(key=key, state=KeyState.GONE))

    def _enter(self, *changed: SiteKey) -> None:
        if changed:
            self._ledger.enter_site_keys(changed, self._clock())
            self._keys |= {known.key: known for known in changed}
            self._arranged.clear()
        self._settle()

    def _state(self, key: bytes) -> KeyState:
        known = self._keys.get(key)
        return KeyState.GONE if known is None else known.state

    def _check(self, key: bytes, states: Sequence[KeyState]) -> None:
        state = self._state(key)
        if state in states:
            return
        if state is KeyState.GONE:
            raise CertificateError(
                "the signer does not hold the key of this site's CA",
                reason="key",
                cure="start the signer with the ca.pem and ca.key of this site",
            )
        raise CertificateError(
            f"the signer's key {key.hex()[:16]} is at the state {state}, and not good for that",
            reason="key",
            cure="see how far the rotation is: sealcast authority rotate status DIR",
        )

    def _only(self, state: KeyState) -> SiteKey | None:
        return next((known for known in self._keys.values() if known.state is state), None)

    def _certified(self) -> list[SiteKey]:
        """Those with a certificate, the one that issues first."""
        found = [known for known in self._keys.values() if known.state in _SIGNING]
        return sorted(found, key=lambda known: known.state is not KeyState.ISSUES)

    def _issuer(self, keys: Sequence[bytes]) -> LocalIssuer:
        names = tuple(keys)
        if names not in self._arranged:
            held = [_der(self._keys[key]) for key in keys]
            self._arranged[names] = self.first.arranged(held, *self._signers.values())
        return self._arranged[names]

    def _root_of(self, certificate: bytes) -> bytes:
        path = self._folder / ROOT_FILE
        if not path.exists():
            raise CertificateError(
                f"{path}: there is no root here by which the signer could judge the certificate",
                reason="unknown-issuer",
                cure="have the operator of the signer put the certificate of the owner's root there",
            )
        parsed = parse_certificate(certificate)
        for root in certificates(path):
            if is_issued_by(parsed, parse_certificate(root)):
                check_alive(parse_certificate(root), "root", self._clock())
                return root
        raise CertificateError(
            f"no root in the signer's {path} has signed the certificate",
            reason="unknown-issuer",
            cure="have one of them sign it: sealcast root sign-site; or have the signer's operator add it",
        )

    def _take_listed(self) -> None:
        """What ca.pem lists and the ledger does not know was certified before there was a signer."""
        for position, (certificate, signer) in enumerate(self.first.held()):
            key = key_hash(signer.public_key)
            known = self._keys.get(key)
            self._hold(key, signer)
            if known is None or known.state is KeyState.MADE:
                state = KeyState.CERTIFIED if position else KeyState.ISSUES
                self._keys[key] = SiteKey(key=key, state=state, certificate=certificate)
            elif known.state is KeyState.GONE:
                if position == 0:
                    raise CertificateError(
                        f"{self._folder / CA_FILE}: its first certificate is of a key that was retired",
                        reason="key",
                        cure="restore the whole folder from one backup",
                    )
            elif known.certificate is None or _is_newer(certificate, known.certificate):
                # A root has certified the same key anew.
                self._keys[key] = replace(known, certificate=certificate)

    def _open_others(self) -> None:
        """Open the keys that the ledger knows besides, and take over one that was made before a crash."""
        for path in sorted(self._folder.glob(ROTATING_KEYS)):
            signer = FileSigner.open(path, name="ca", passphrases=self._passphrases)
            key = key_hash(signer.public_key)
            if key not in self._keys and not any(map(self._only, (KeyState.MADE, KeyState.CERTIFIED))):
                made = SiteKey(key=key, state=KeyState.MADE)
                self._ledger.enter_site_keys([made], self._clock())
                self._keys[key] = made
            self._hold(key, signer)
        for key, known in list(self._keys.items()):
            if key in self._signers or known.state is KeyState.GONE:
                continue
            if known.state is not KeyState.MADE:
                raise StorageError(
                    str(self._folder),
                    f"the site CA's key {key.hex()[:16]} is missing, which the ledger says {known.state}",
                    cure="restore the whole folder from one backup",
                )
            gone = SiteKey(key=key, state=KeyState.GONE)
            self._ledger.enter_site_keys([gone], self._clock())
            self._keys[key] = gone

    def _settle(self) -> None:
        """Have the files say what the ledger says."""
        certified = self._certified()
        self._list(certified)
        gone = [self._files[key] for key in self._files if self._is_gone(key)]
        with storage_errors(self._folder):
            leftovers = [file for file in gone if file.exists()]
            for file in leftovers:
                file.unlink()
            first = self._files[certified[0].key]
            is_alone = len(certified) == 1 and first.exists()
            if is_alone:
                # By this the old key is gone.
                first.replace(self._folder / CA_KEY_FILE)
            if leftovers or is_alone:
                sync_folder(self._folder)
        for key in [key for key in self._signers if self._is_gone(key)]:
            del self._signers[key], self._files[key]

    def _is_gone(self, key: bytes) -> bool:
        known = self._keys.get(key)
        return known is not None and known.state is KeyState.GONE

    def _list(self, certified: Sequence[SiteKey]) -> None:
        path = self._folder / CA_FILE
        if (self._folder / DATABASE_FILE).exists():
            return
        present = dict.fromkeys(key_hash(public_key_of(der)) for der in certificates(path))
        if list(present) != [known.key for known in certified]:
            write_atomically(path, certificates_pem(map(_der, certified)))

    def _hold(self, key: bytes, signer: Signer) -> None:
        self._signers[key] = signer
        # Where it lies if it is not CA_KEY_FILE.
        identifier = x509.SubjectKeyIdentifier.from_public_key(signer.public_key).digest
        self._files[key] = self._folder / ca_key_name(identifier)


def _der(known: SiteKey) -> bytes:
    if known.certificate is None:
        raise StorageError("ledger.db", f"the site CA's key {known.key.hex()[:16]} has no certificate")
    return known.certificate


def _is_newer(certificate: bytes, other: bytes) -> bool:
    return parse_certificate(certificate).not_valid_before_utc > parse_certificate(other).not_valid_before_utc
