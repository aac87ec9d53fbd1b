"""The words of rotations, in the database, in the management API and on the command line."""

from enum import StrEnum


class Kind(StrEnum):
    """What is rotated."""

    SERVER = "server"
    """The key server's certificate and key."""
    SITE = "site"
    """The key of the site CA."""
    ROOT = "root"
    """The root above the site CA, which keeps its key."""


class Step(StrEnum):
    """What a rotation waits for; in this order."""

    CERTIFICATE = "certificate"
    """The certificate of the new site CA, or of the same one by the new root."""
    PUBLISH = "publish"
    """A trust bundle that lists old and new."""
    REPORTS = "reports"
    """The devices' reports that they have it; then the issuer is switched."""
    REISSUE = "reissue"
    """The devices' new certificates."""
    RETIRE = "retire"
    """A trust bundle without the old one."""
    DONE = "done"
    ABANDONED = "abandoned"
    """Given up before anything was published."""


ENDED = (Step.DONE, Step.ABANDONED)
