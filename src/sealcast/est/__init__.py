"""Enrolment over Secure Transport (RFC 7030, RFC 8951, RFC 9908).

`messages` is the form of bodies and headers, `attributes` what a server wants in requests, `renewal` the hint
when to renew, `problems` the table of refusals; `operations` and `server` are one end, `client` the other.
Who may have a certificate is decided by the `EnrolmentService` (`service`) that the authority implements, by
the switches of `settings`.
"""

from sealcast.est.attributes import CsrAttributes
from sealcast.est.client import Enrolled, EstClient, check_authority_url
from sealcast.est.problems import Problem, RefusedError
from sealcast.est.renewal import CertificateId, RenewalHint, RenewalWindow
from sealcast.est.server import make_application, make_tls_context, require_linking, start_listener
from sealcast.est.service import EnrolmentRequest, EnrolmentService, GeneratedKey
from sealcast.est.settings import EstSettings, check_label

__all__ = [
    "CertificateId",
    "CsrAttributes",
    "Enrolled",
    "EnrolmentRequest",
    "EnrolmentService",
    "EstClient",
    "EstSettings",
    "GeneratedKey",
    "Problem",
    "RefusedError",
    "RenewalHint",
    "RenewalWindow",
    "check_authority_url",
    "check_label",
    "make_application",
    "make_tls_context",
    "require_linking",
    "start_listener",
]
