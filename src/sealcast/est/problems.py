"""The answers of an EST server that are not certificates: one named table.

Handlers and the enrolment service raise errors of `sealcast.errors`; `problem_of` picks the row.
"""

from dataclasses import dataclass
from enum import Enum

from sealcast.errors import CertificateError, CsrError, EnrolmentError, StorageError, TokenError, UsageError


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    text: str


class Problem(Enum):
    """Status and first words of an answer (plain text, RFC 7030 section 4.2.3)."""

    PENDING = _Row(202, "the request waits for approval")
    BAD_REQUEST = _Row(400, "the request is malformed")
    BAD_CSR = _Row(400, "the certificate request is not acceptable")
    BAD_LINKING = _Row(400, "the challengePassword does not belong to this TLS session")
    NO_LINKING = _Row(400, "the request must carry tls-unique in challengePassword (RFC 7030 section 3.5)")
    NO_ENCRYPTION = _Row(400, "no key is known that could encrypt the private key")
    NO_CREDENTIALS = _Row(
        401, "authentication is needed: user is the device name, password the one-time token"
    )
    BAD_TOKEN = _Row(401, "the token does not admit this device")
    NO_CERTIFICATE = _Row(403, "renewal needs a TLS client certificate")
    NOT_ALLOWED = _Row(403, "not allowed")
    WRONG_NAME = _Row(403, "the certificate request names someone else")
    UNKNOWN_OPERATION = _Row(404, "no such EST operation")
    UNKNOWN_LABEL = _Row(404, "no such EST label")
    UNKNOWN_CERTIFICATE = _Row(404, "nothing is known of that certificate")
    WRONG_METHOD = _Row(405, "wrong method for this EST operation")
    WRONG_TIME = _Row(409, "the clocks of device and authority differ")
    TIMEOUT = _Row(408, "the request took too long")
    TOO_LARGE = _Row(413, "the request is too large")
    WRONG_TYPE = _Row(415, "the content type must be application/pkcs10")
    WRONG_PROOF_TYPE = _Row(415, "the content type must be application/cbor")
    INTERNAL = _Row(500, "internal error")
    TOO_MANY_REQUESTS = _Row(503, "too many requests wait for approval")
    UNAVAILABLE = _Row(503, "the authority cannot store anything now")

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.value.status

    @property
    def text(self) -> str:
        """What it means, without particulars."""
        return self.value.text


# Long enough for an operator to make room, short enough that nobody forgets.
_RETRY_STORAGE_SECONDS = 60


class RefusedError(Exception):
    """One row, with particulars: what a handler answers.

    `detail`: plain text, one line; may go to anybody. `retry_after`: seconds.
    """

    def __init__(self, problem: Problem, detail: str = "", *, retry_after: int | None = None) -> None:
        super().__init__(problem, detail)
        self.problem = problem
        self.detail = detail
        self.retry_after = retry_after

    @property
    def text(self) -> str:
        """The body of the answer."""
        return f"{self.problem.text}: {self.detail}\n" if self.detail else f"{self.problem.text}\n"


def problem_of(error: Exception) -> RefusedError:
    """Return what a client is told about an error; anything unforeseen says no more than `internal error`."""
    match error:
        case RefusedError():
            return error
        case TokenError():
            return RefusedError(Problem.BAD_TOKEN, str(error))
        case CsrError(fault="name"):
            return RefusedError(Problem.WRONG_NAME, str(error))
        case CsrError(fault="size"):
            return RefusedError(Problem.TOO_LARGE, str(error))
        case CsrError():
            return RefusedError(Problem.BAD_CSR, str(error))
        case EnrolmentError(retry_after=int(seconds)):
            return RefusedError(Problem.PENDING, str(error), retry_after=seconds)
        case CertificateError(reason="time" | "not-expired"):
            return RefusedError(Problem.WRONG_TIME, str(error))
        case EnrolmentError() | CertificateError():
            return RefusedError(Problem.NOT_ALLOWED, str(error))
        case UsageError():
            return RefusedError(Problem.BAD_REQUEST, str(error))
        case StorageError():
            # No path and no particulars of our disk to strangers.
            return RefusedError(Problem.UNAVAILABLE, retry_after=_RETRY_STORAGE_SECONDS)
        case _:
            return RefusedError(Problem.INTERNAL)
