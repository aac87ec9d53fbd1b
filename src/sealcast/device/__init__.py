"""The device: its identity on disk, enrolment, renewal.

`folder` is the disk, `identity` what is read from it, `enrolment` how it gets there, `pending` what waits for
its answer.
"""

from sealcast.device.enrolment import cancel, default_keys_url, enroll, enroll_async, renew, renew_async
from sealcast.device.identity import DeviceIdentity, DeviceSettings
from sealcast.device.pending import PendingRequest

__all__ = [
    "DeviceIdentity",
    "DeviceSettings",
    "PendingRequest",
    "cancel",
    "default_keys_url",
    "enroll",
    "enroll_async",
    "renew",
    "renew_async",
]
