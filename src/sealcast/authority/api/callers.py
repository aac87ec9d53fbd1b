"""Who asks: an admin by the certificate that its TLS handshake proved, or the machine's owner.

No header says who asks; whoever puts a proxy in between that ends TLS puts it in place of the admins.
"""

from dataclasses import dataclass

from aiohttp import web

from sealcast import system
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.problems import Problem, RefusedError
from sealcast.authority.service import Authority
from sealcast.errors import RoleError
from sealcast.pki.names import Role
from sealcast.sidechannel import refusals
from sealcast.sidechannel.tls import peer_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, and in which role."""

    label: str
    """As the audit log writes it: `admin:NAME` or `local:UID`."""
    role: AdminRole
    admin: str | None
    """Name of the admin, whose role the transaction looks up once more; None for the machine's owner."""

    def require(self, role: AdminRole) -> None:
        """Check the role.

        Raises:
            RefusedError: it does not suffice.
        """
        if not self.role.includes(role):
            text = f"{self.label} is {self.role}; this needs {role}"
            raise RefusedError(Problem.ROLE, text, error=RoleError(text, role=str(role)))


def local_caller(user: int | str) -> Caller:
    """The owner of the folder, or root: who could change the files as well."""
    return Caller(label=f"local:{user}", role=AdminRole.SECURITY_OFFICER, admin=None)


def caller_of_socket(request: web.Request) -> Caller:
    """Who is at the other end of the local socket; the kernel says it."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None:
        raise RefusedError(Problem.NOT_AUTHENTICATED, "the connection has ended")
    return local_caller(system.peer_user(connection))


def caller_of_certificate(request: web.Request, authority: Authority) -> Caller:
    """The admin whose certificate the connection has shown, judged for this request.

    A wrong yes lets a stranger or a revoked admin rule the site; a wrong no costs an admin one request.

    Raises:
        RefusedError: no such admin.
    """
    try:
        peer = peer_of(request, authority.validator, Role.ADMIN, authority.clock(), authority.crl.der)
    except refusals.RefusedError as error:
        raise RefusedError(Problem.NOT_AUTHENTICATED, error.detail) from None
    role = authority.admin_role(peer.name) if peer.site_id == authority.site.site_id else None
    if role is None:
        raise _not_an_admin(peer.name)
    return Caller(label=f"admin:{peer.name}", role=role, admin=peer.name)


def with_role(caller: Caller, role: AdminRole | None) -> Caller:
    """The same caller in the role that the database says at this moment.

    Raises:
        RefusedError: it is an admin no more.
    """
    if caller.admin is None:
        return caller
    if role is None:
        raise _not_an_admin(caller.admin)
    return Caller(label=caller.label, role=role, admin=caller.admin)


def _not_an_admin(name: str) -> RefusedError:
    return RefusedError(
        Problem.NOT_AUTHENTICATED,
        f"{name!r} is no admin of this site, or was revoked",
        cure="have a security officer add it: sealcast authority admin add DIR NAME --role ROLE",
    )
