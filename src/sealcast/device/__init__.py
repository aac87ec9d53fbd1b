"""The device: its identity on disk, enrolment, renewal.

`folder` is the disk, `identity` what is read from it, `enrolment` how it gets there.
"""

from sealcast.device.enrolment import default_keys_url, enroll, enroll_async, renew, renew_async
from sealcast.device.identity import DeviceIdentity, DeviceSettings

__all__ = [
    "DeviceIdentity",
    "DeviceSettings",
    "default_keys_url",
    "enroll",
    "enroll_async",
    "renew",
    "renew_async",
]
