"""A path to be judged, the verdict of its authors, and ours."""

from dataclasses import dataclass

from sealcast import _core


@dataclass(frozen=True, slots=True, kw_only=True)
class PathCase:
    """One case of a suite."""

    name: str
    is_valid: bool
    """What the suite's authors say."""
    anchors: tuple[bytes, ...]
    """DER."""
    chain: tuple[bytes, ...]
    """DER: the end entity, then whatever may help to build a path, in no order."""
    crl: bytes | None
    """DER lists, one after the other."""
    now: int
    """Microseconds."""
    is_server: bool = False

    def refusal(self) -> str | None:
        """Why Sealcast refuses this path; None: it accepts."""
        try:
            validator = _core.Validator(self.anchors, ())
            validator.verify_path(self.chain, server=self.is_server, now=self.now, crl=self.crl)
        except _core.ValidationError as error:
            return str(error)
        return None

    def is_a_peer(self) -> bool:
        """Whether Sealcast would talk to the end entity, in any role."""
        try:
            validator = _core.Validator(self.anchors, ())
        except _core.ValidationError:
            return False
        for role in ("device", "key-server", "admin", "site"):
            try:
                validator.verify_peer(list(self.chain), role, self.now, self.crl)
            except _core.ValidationError:
                continue
            return True
        return False
