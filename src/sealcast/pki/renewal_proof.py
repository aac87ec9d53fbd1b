"""The signed proof by which a device whose certificate has expired asks for the next one.

TLS refuses an expired certificate before anybody could be asked to forgive it, so the proof travels over a
connection that only the server shows a certificate on. Spec: spec/side-channel.md SC-22.
"""

from dataclasses import dataclass
from typing import Self

from sealcast.errors import CertificateError
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.signed import Context, SignedObject, Signer, algorithm_of, decode_array, encode_cbor

PROOF_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalProof:
    """The holder of an expired certificate's key asks for a certificate of another key.

    One that `parse` returned was signed by the key of `certificate`; whether that certificate may be renewed
    is not judged yet.
    """

    certificate: bytes
    """DER, expired."""
    csr: bytes
    """DER: the request for the new key, signed by it."""
    time: int
    """Of the device's clock, microseconds: an old recording is of no use."""

    def sign(self, signer: Signer) -> bytes:
        """Return the signed object; `signer` holds the key of the expired certificate."""
        tbs = encode_cbor([PROOF_FORMAT, self.certificate, self.csr, self.time])
        return SignedObject.sign(Context.RENEWAL_PROOF, tbs, signer).serialize()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a signed object and check the signature. Raises: CertificateError."""
        envelope = SignedObject.parse(data)
        match decode_array(envelope.tbs):
            case [1, bytes(certificate), bytes(csr), int(time)]:
                pass
            case _:
                raise CertificateError("not a renewal proof", reason="malformed")
        key = parse_certificate(certificate).public_key()
        algorithm_of(key)
        envelope.verify(Context.RENEWAL_PROOF, key)  # type: ignore[arg-type]  # its kind has just been checked
        return cls(certificate=certificate, csr=csr, time=time)
