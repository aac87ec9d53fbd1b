"""Times: microseconds since 1970-01-01T00:00:00Z everywhere, and the datetimes that X.509 wants.

Spec: spec/README.md, conventions.
"""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def system_time() -> int:
    """Return the present time of this machine in microseconds. Only outermost layers call it.

    Others take `now`.
    """
    return time.time_ns() // 1000


def microseconds(moment: datetime | timedelta) -> int:
    """Return a moment (aware) as a time, or a duration as a count of microseconds."""
    return (moment - _EPOCH if isinstance(moment, datetime) else moment) // _MICROSECOND


def to_datetime(moment: int) -> datetime:
    """Return a time as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=moment)


def to_certificate_time(moment: int) -> datetime:
    """Return a time as X.509 carries it: UTC, whole seconds, the fraction cut off."""
    return to_datetime(moment).replace(microsecond=0)
