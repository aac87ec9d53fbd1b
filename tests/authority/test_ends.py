"""What ends soon is said in time: by `authority status`, by the service's log, by the device's agent."""

import json
import logging
from pathlib import Path

import pytest

from sealcast.authority.ends import site_ends
from sealcast.authority.maintenance import warn_of_ends
from sealcast.cli import main
from sealcast.device.agent import DeviceAgent
from sealcast.errors import SealcastError
from sealcast.pki.ends import warnings
from sealcast.pki.times import system_time
from tests.authority.conftest import DAY, Site, make_site


def told(site: Site) -> list[str]:
    """What the status warns of, without the times."""
    now = site.clock()
    with site.authority.site.storage.snapshot() as session:
        lines = warnings(site_ends(session, site.authority.site, now), now)
    return [line.partition(" ends ")[0].partition(" has ended")[0] for line in lines]


async def test_f16_each_thing_that_the_site_needs_is_told_of_before_it_ends(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.add_channel()
    await site.enrol("monitor-1")
    assert told(site) == []
    site.clock.ahead = 3 * DAY + DAY // 2
    assert told(site) == ["CRL 1", "policy of channel 'ward/ecg'"]
    await site.authority.renew_objects()
    assert told(site) == []
    site.clock.ahead = 70 * DAY
    await site.authority.renew_objects()
    assert sorted(told(site)) == [
        "certificate of device monitor-1",
        "certificate of key-server 'key-server'",
    ]
    await site.authority.renew_certificate()
    assert told(site) == ["certificate of device monitor-1"]
    for ahead, what in (
        (600 * DAY, "site CA 'Ward CA'"),
        (7000 * DAY, "root 'Ward root'"),
    ):
        site.clock.ahead = ahead
        assert what in told(site)
    with caplog.at_level(logging.WARNING, logger="sealcast.authority"):
        await warn_of_ends(site.authority)
    assert any("root 'Ward root' ends in 299 days" in message for message in caplog.messages)


def test_status_and_show_say_what_ends_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_site(tmp_path / "authority", now=system_time() - 600 * DAY)
    assert main(["authority", "status", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["ends"][0]["what"] == "CRL 1"
    assert [end["what"] for end in shown["ends"][1:]] == [
        "certificate of key-server 'key-server'",
        "site CA 'Ward CA'",
        "root 'Ward root'",
    ]
    assert any(line.startswith("site CA 'Ward CA' ends in 129 days") for line in shown["warnings"])
    assert main(["authority", "status", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "earliest end    CRL 1, " in out
    assert "warning         site CA 'Ward CA' ends in 129 days" in out


async def test_the_agent_warns_of_the_whole_chain_also_when_it_reaches_nobody(
    site: Site, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = await site.enrol("monitor-1")
    await site.stack.aclose()
    now = site.clock() + 80 * DAY
    with caplog.at_level(logging.WARNING, logger="sealcast.device.agent"):
        async with DeviceAgent(identity.path, clock=lambda: now) as agent:
            for _ in range(2):
                with pytest.raises(SealcastError):
                    await agent.look()
            assert [message.partition(": ")[2].partition(" in ")[0] for message in caplog.messages] == [
                "certificate of device 'monitor-1' ends"
            ]
            now = site.clock() + 600 * DAY
            with pytest.raises(SealcastError):
                await agent.look()
    assert any("site CA 'Ward CA' ends in 129 days" in message for message in caplog.messages)
    assert main(["device", "show", str(identity.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["earliest_end"], shown["warning"]) == (shown["not_after"], [])
