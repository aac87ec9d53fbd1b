"""`sealcast device renew` beside a running publisher and subscriber: invariant 6."""

import json

from sealcast.device import DeviceIdentity
from tests.e2e.feed import Feed
from tests.e2e.processes import Processes, wait_until
from tests.e2e.site import Site, certificate_in_use


def test_invariant_6_renewal_in_service_loses_nothing(site: Site, processes: Processes) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals")
    subscriber = site.subscribe(display, channel)
    with Feed(site, monitor, channel) as feed:
        subscriber.wait_lines(50)
        for device in (monitor, display, monitor):
            before = DeviceIdentity.open(device)
            renewed = processes.run("device", "renew", device, "--json")
            assert renewed.code == 0, renewed.err
            after = DeviceIdentity.open(device)
            assert json.loads(renewed.out)["serial"] == f"{after.serial:x}" != f"{before.serial:x}"
            if device == monitor:
                wait_until(
                    lambda expected=after.certificate: certificate_in_use(display, channel) == expected,  # type: ignore[misc]
                    "the stream vouched for by the new certificate",
                )
            subscriber.wait_lines(len(subscriber.out) + 50)
        # Both go on talking to the key server as they are now: a removal reaches them.
        site.enrol("third")
        site.revoke("third")
        lines = feed.finish()
    wait_until(lambda: subscriber.out == lines, "every line in order")
    assert "lost" not in subscriber.stop().err
