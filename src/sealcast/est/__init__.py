"""Enrolment over Secure Transport (RFC 7030, RFC 8951).

`messages` is the form of bodies and headers, `problems` the table of refusals, `server` and `client` the two
ends. Who may have a certificate is decided by the `EnrolmentService` that the authority implements.
"""

from sealcast.est.client import Enrolled, EstClient, check_authority_url
from sealcast.est.problems import Problem, RefusedError
from sealcast.est.server import EnrolmentService, make_application, make_tls_context, start_listener

__all__ = [
    "Enrolled",
    "EnrolmentService",
    "EstClient",
    "Problem",
    "RefusedError",
    "check_authority_url",
    "make_application",
    "make_tls_context",
    "start_listener",
]
