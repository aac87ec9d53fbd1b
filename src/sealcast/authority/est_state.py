"""What the enrolment service holds in memory: the switches of EST, and the makers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sqlalchemy.orm import Session

from sealcast.authority import audit, makers
from sealcast.authority.arrangement import rollover_certificates
from sealcast.authority.models import SettingRow
from sealcast.errors import StorageError, UsageError
from sealcast.est.settings import EstSettings
from sealcast.pki.idevid import Maker

_PART = "est"


@dataclass(frozen=True, slots=True, kw_only=True)
class EstState:
    """Switches, makers, and the certificates of a root's change, as they are stored."""

    settings: EstSettings = field(default_factory=EstSettings)
    makers: tuple[Maker, ...] = ()
    crosses: tuple[bytes, ...] = ()
    """DER: of old and new root by each other (RFC 4210 section 4.4)."""


def load_state(session: Session) -> EstState:
    """Read what is stored.

    Raises:
        StorageError: it makes no sense to this version.
    """
    return EstState(
        settings=load_settings(session),
        makers=makers.load_makers(session),
        crosses=rollover_certificates(session),
    )


def load_settings(session: Session) -> EstSettings:
    """Read the switches; the defaults where none was ever set.

    Raises:
        StorageError: they make no sense to this version.
    """
    row = session.get(SettingRow, _PART)
    if row is None:
        return EstSettings()
    try:
        return EstSettings(**{**row.values, "labels": tuple(row.values["labels"])})
    except (TypeError, KeyError, UsageError) as error:
        raise StorageError(
            "the settings of enrolment",
            f"make no sense: {error}",
            cure="set them again: sealcast authority est set",
        ) from None


def set_settings(session: Session, now: int, changes: Mapping[str, Any]) -> EstSettings:
    """Change the switches that are named.

    Raises:
        UsageError: a label that no server may have.
    """
    if "labels" in changes:
        changes = {**changes, "labels": tuple(dict.fromkeys(changes["labels"]))}
    settings = replace(load_settings(session), **changes)
    values = {**asdict(settings), "labels": list(settings.labels)}
    row = session.get(SettingRow, _PART)
    if row is None:
        session.add(SettingRow(part=_PART, values=values))
    else:
        row.values = values
    audit.record(session, now, "set enrolment", _PART, **{**values, "labels": " ".join(settings.labels)})
    return settings
