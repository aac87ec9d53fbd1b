"""The lists of one site CA: an entry that stood on the last one is not encoded again.

A list of ten thousand entries is made at each removal, and differs from the one before by one. So the library
builds a list of the new entries alone, under a key that is nobody's; the encodings of the others, which it
made earlier, are put before them, and the site CA signs the whole. All that is encoded here are the tags and
lengths around that, and the library reads and verifies the list before anybody gets it.
"""

import threading
from collections.abc import Iterable, Sequence

from cryptography import x509

from sealcast.ca.signer import Signer, nobody_like
from sealcast.errors import InternalError
from sealcast.pki.crl import Revocation, crl_builder, der_content, der_values
from sealcast.pki.profiles import CertificateIssuer
from sealcast.pki.signed import verify_signature

JOINED_FROM = 500
"""Entries; the library builds a shorter list as a whole."""

_SEQUENCE = 0x30
_BIT_STRING = 0x03
_NO_UNUSED_BITS = b"\x00"
_BEFORE_ENTRIES = 5
"""Fields of a TBSCertList: version, signature, issuer, thisUpdate, nextUpdate; the extensions follow the
entries (RFC 5280 section 5.1).
"""


class CrlMaker:
    """Makes them; good for several threads."""

    def __init__(self, issuer: CertificateIssuer, signer: Signer) -> None:
        """Take what the site CA is as an issuer, and the signer of its key."""
        self._issuer = issuer
        self._signer = signer
        self._nobody: Signer | None = None
        self._lock = threading.Lock()
        # What stood on the last list, in the order in which it was given, and how.
        self._listed: list[Revocation] = []
        self._encoded: list[bytes] = []

    def make(self, *, number: int, revocations: Iterable[Revocation], now: int) -> bytes:
        """Return a DER CRL of these, those that stood on the last list before the new ones.

        `number`: above that of every one before. `now`: microseconds.
        """
        asked = list(revocations)
        with self._lock:
            encoded = self._known(asked) if len(asked) >= JOINED_FROM else []
            new = asked[len(encoded) :]
            builder = crl_builder(issuer=self._issuer, number=number, revocations=new, now=now)
            if encoded:
                self._nobody = self._nobody or nobody_like(self._signer)
                part = self._nobody.sign_crl(builder)
                der = self._joined(part, encoded, number, len(asked))
            else:
                part = der = self._signer.sign_crl(builder)
            # At once, so that it is the first list after a start that takes longer, and not the second too.
            entries = _entries(part) if len(asked) >= JOINED_FROM else {}
            if len(entries) == len(new):
                self._listed = asked
                self._encoded = [*encoded, *(entries[each.serial] for each in new)]
            else:
                # Short, or a serial number was given twice: which entry is whose cannot be told.
                self._listed, self._encoded = [], []
        return der

    def _known(self, asked: list[Revocation]) -> list[bytes]:
        """The encodings of the first of them, as many as stood on the last list, in the same order."""
        if asked[: len(self._listed)] == self._listed:
            return self._encoded
        kept: list[bytes] = []
        for listed, encoded in zip(self._listed, self._encoded, strict=True):
            # Others have ended.
            if len(kept) < len(asked) and (asked[len(kept)] is listed or asked[len(kept)] == listed):
                kept.append(encoded)
        return kept

    def _joined(self, part: bytes, encoded: Sequence[bytes], number: int, count: int) -> bytes:
        """A list with other entries before its own, signed by the site CA."""
        _, algorithm, _ = der_values(der_content(part))
        fields = der_values(der_content(x509.load_der_x509_crl(part).tbs_certlist_bytes))
        entries = _wrapped(_SEQUENCE, b"".join([*encoded, *_encoded_entries(fields)]))
        tbs = _wrapped(_SEQUENCE, b"".join([*fields[:_BEFORE_ENTRIES], entries, fields[-1]]))
        signature = _wrapped(_BIT_STRING, _NO_UNUSED_BITS + self._signer.sign(tbs))
        der = _wrapped(_SEQUENCE, b"".join([tbs, algorithm, signature]))
        # `is_signature_valid` of the library encodes all of it once more.
        crl = x509.load_der_x509_crl(der)
        verify_signature(self._signer.public_key, crl.signature, tbs)
        stated = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        if len(crl) != count or stated != number:
            raise InternalError(f"the CRL {number} that was put together is another one")
        return der


def _entries(part: bytes) -> dict[int, bytes]:
    """The encoding of each entry, by its serial number."""
    crl = x509.load_der_x509_crl(part)
    encoded = _encoded_entries(der_values(der_content(crl.tbs_certlist_bytes)))
    return {entry.serial_number: der for entry, der in zip(crl, encoded, strict=True)}


def _encoded_entries(fields: Sequence[bytes]) -> list[bytes]:
    """Of a TBSCertList, which has no such field where it has no entries."""
    return [entry for field in fields[_BEFORE_ENTRIES:-1] for entry in der_values(der_content(field))]


def _wrapped(tag: int, content: bytes) -> bytes:
    """A DER value."""
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content
