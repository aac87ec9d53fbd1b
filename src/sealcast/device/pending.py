"""A first enrolment that is not decided yet: its key and its request, kept over restarts (SC-24).

The authority knows a request again by its key, and an operator's yes is for that key alone. So both are on
the disk before the authority hears of them, and stay there until it has answered.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sealcast.ca.signer import FileSigner, KeySigner
from sealcast.device.folder import KEY_FILE, pending_request
from sealcast.errors import CertificateError, StorageError, UsageError
from sealcast.pki.certificates import certificates_pem, parse_pem_certificates
from sealcast.pki.files import read_file, write_atomically
from sealcast.pki.names import Role, check_device_name

FACTS_FILE = "request.json"
REQUEST_FILE = "request.der"
ROOTS_FILE = "roots.pem"
REFUSAL_FILE = "refusal"

_MAX_REFUSAL = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRequest:
    """What was asked for, of whom, and by which key."""

    name: str
    role: Role
    authority_url: str
    keys_url: str
    label: str | None
    time: int
    """When it was first asked, in microseconds."""
    roots: tuple[bytes, ...]
    """DER."""
    signer: KeySigner
    csr: bytes | None
    """DER; None where each TLS session needs a request of its own (SC-28)."""
    refusal: str = ""
    """What the authority has last answered, if it was a final no; empty while the request waits."""

    @classmethod
    def read(cls, folder: Path) -> "PendingRequest | None":
        """Read that of a device's folder; None if nothing waits there.

        Raises: StorageError, CertificateError: it is damaged.
        """
        place = pending_request(folder)
        if place is None:
            return None
        csr, refusal = place / REQUEST_FILE, place / REFUSAL_FILE
        try:
            facts = json.loads(read_file(place / FACTS_FILE))
            return cls(
                name=check_device_name(facts["name"]),
                role=Role(facts["role"]),
                authority_url=str(facts["authority"]),
                keys_url=str(facts["keys"]),
                label=None if facts["label"] is None else str(facts["label"]),
                time=int(facts["time"]),
                roots=tuple(parse_pem_certificates(read_file(place / ROOTS_FILE))),
                signer=FileSigner.open(place / KEY_FILE),
                csr=read_file(csr) if csr.exists() else None,
                refusal=read_file(refusal).decode("utf-8", "replace") if refusal.exists() else "",
            )
        except (ValueError, TypeError, KeyError, UsageError):
            raise StorageError(str(place / FACTS_FILE), "makes no sense", cure=CANCEL) from None
        except CertificateError as error:
            raise CertificateError(error.problem, reason=error.reason, cure=CANCEL) from None

    def files(self) -> Mapping[str, bytes]:
        """What `read` reads, by name of the file."""
        facts = {
            "name": self.name,
            "role": str(self.role),
            "authority": self.authority_url,
            "keys": self.keys_url,
            "label": self.label,
            "time": self.time,
        }
        return {
            KEY_FILE: self.signer.to_pem(),
            **({} if self.csr is None else {REQUEST_FILE: self.csr}),
            ROOTS_FILE: certificates_pem(self.roots),
            FACTS_FILE: json.dumps(facts, indent=2).encode(),
        }

    def check_same(self, path: Path, *, name: str, role: Role, label: str | None) -> None:
        """Check that it is this request that is to be gone on with. Raises: StorageError.

        The authority may have moved to another URL meanwhile; it is known by its certificate.
        """
        if (self.name, self.role, self.label) != (name, role, label):
            of = f"label {self.label!r} of " if self.label else ""
            raise StorageError(
                str(path),
                f"the request of {self.role} {self.name!r} to {of}{self.authority_url} is not decided yet",
                cure=CANCEL,
            )

    def note_refusal(self, folder: Path, refusal: str) -> None:
        """Keep what the authority has answered; an empty text: the request waits again. Raises: StorageError.

        `folder`: of the device, which is locked.
        """
        place = pending_request(folder)
        if place is None or refusal == self.refusal:
            return
        write_atomically(place / REFUSAL_FILE, refusal.encode()[:_MAX_REFUSAL])


DROP = "sealcast device enroll DIR --cancel"
CANCEL = f"go on with the same options, or drop the request: {DROP}"
