"""Every notAfter and nextUpdate of an estate is passed while a stream runs (F16, fault 21).

With renewal at work nothing is lost. With one thing's renewal blocked: an alarm before, a stop that says why,
and nothing that has ended is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sealcast.authority.models import Base
from sealcast.endpoint.events import Blocked, Gap, MessageLost, OutOfContact, Refused, StreamClosed
from tests.scenarios.estate import ADMIN, DAY, DISPLAY, HOP, HOUR, MONITOR, Estate

ENDS = {
    ("certificates", "not_after"),
    ("devices", "ends"),
    ("policies", "next_update"),
    ("crl", "next_update"),
    ("other_crls", "next_update"),
}
"""Columns of the authority's database that say when something ends which others rest on."""

NO_ENDS = {
    ("tokens", "expires"),
    ("streams", "not_after"),
    ("renewal_windows", "end"),
    ("unrecorded", "ends"),
    ("guests", "not_after"),
}
"""Those of what nobody rests on, or of what `stream credential` below stands for."""


@pytest.fixture
def make_estate(tmp_path: Path) -> Iterator[Callable[..., Estate]]:
    made: list[Estate] = []

    def make(age: int = 0, **changes: object) -> Estate:
        made.append(Estate(tmp_path, age=age, **changes))  # type: ignore[arg-type]
        return made[0]

    yield make
    for estate in made:
        estate.close()


def received(estate: Estate) -> list[int]:
    return [message.message_id for message in estate.display.messages]


def told(estate: Estate, name: str, kind: type) -> list[str]:
    events = [event for event in estate.hosts[name].events if isinstance(event, kind)]
    return [getattr(event, "reason", "") for event in events]


def test_f16_no_kind_of_end_is_forgotten() -> None:
    """Whoever gives something else an end has to say here whether others rest on it."""
    words = ("not_after", "next_update", "expires", "ends", "end")
    found = {
        (table.name, column.name)
        for table in Base.metadata.tables.values()
        for column in table.columns
        if column.name in words
    }
    assert found == ENDS | NO_ENDS


def test_f16_fault_21_every_end_is_passed_while_a_stream_runs_and_nothing_is_lost(
    make_estate: Callable[..., Estate],
) -> None:
    estate = make_estate()
    estate.populate()
    first = {end.what: end.ends for end in estate.ends()}
    kinds = {what.split(" '")[0].rstrip(" 0123456789") for what in first}
    assert kinds == {
        "CRL",
        "certificate of admin",
        "certificate of device",
        "certificate of key-server",
        "policy of channel",
        "root",
        "site CA",
    }
    # CA and root end with a ceremony of their own (test_root_rollover_while_half_sleeps.py, and below).
    passed = {what: end for what, end in first.items() if not what.startswith(("root", "site CA"))}
    assert len(passed) == 6
    while estate.clock() < max(passed.values()):
        estate.hop()
        estate.speak()
        assert estate.warned() == set()
    assert estate.failures == []
    assert received(estate) == list(range(len(estate.publisher.stream.sent)))
    assert not any(isinstance(event, Gap | MessageLost) for event in estate.display.events)
    assert not told(estate, DISPLAY, StreamClosed)
    assert len({message.epoch[0] for message in estate.display.messages}) > 90, "slots"
    assert len(estate.publisher.streams) == 1


def stand_still(estate: Estate, until: Callable[[], bool], limit: int = 12) -> list[set[str]]:
    """Hop until something has ended; what was warned of at each hop."""
    warned: list[set[str]] = []
    for _ in range(limit):
        if until():
            return warned
        warned.append(estate.warned())
        estate.hop()
        estate.speak()
    raise AssertionError(f"it has not stopped: {estate.failures[-3:]}")


def test_f16_a_publisher_that_cannot_renew_is_warned_of_stops_and_is_taken_by_nobody(
    make_estate: Callable[..., Estate],
) -> None:
    estate = make_estate(age=80 * DAY)
    estate.enrol(MONITOR)
    estate.blocked = {f"device {MONITOR}"}
    estate.ahead = 0
    estate.populate()
    end = estate.identity(MONITOR).not_after
    warned = stand_still(estate, lambda: estate.clock() > end)
    assert all(f"certificate of device '{MONITOR}'" in seen for seen in warned)
    assert len(warned) >= 8
    before = received(estate)
    estate.speak()
    estate.run(60)
    assert "the stream credential has expired" in told(estate, MONITOR, Blocked)
    assert received(estate) == before
    # A signed proof mends it. What it sealed before it was a member again is refused, and told as lost.
    estate.blocked.clear()
    estate.hop(HOUR)
    estate.run(90)
    estate.speak()
    sent = range(len(estate.publisher.stream.sent))
    assert received(estate)[-3:] == list(sent[-3:])
    gaps = [event for event in estate.display.events if isinstance(event, Gap)]
    assert bool(gaps) == (received(estate) != list(sent))


def test_f16_a_subscriber_that_cannot_renew_is_warned_of_and_gets_no_later_key(
    make_estate: Callable[..., Estate],
) -> None:
    estate = make_estate(age=80 * DAY)
    estate.enrol(DISPLAY)
    estate.blocked = {f"device {DISPLAY}"}
    estate.ahead = 0
    estate.populate()
    end = estate.identity(DISPLAY).not_after
    warned = stand_still(estate, lambda: estate.clock() > end)
    assert all(f"certificate of device '{DISPLAY}'" in seen for seen in warned)
    before = len(received(estate))
    estate.hop()
    estate.speak()
    estate.run(60)
    assert len(received(estate)) == before < len(estate.publisher.stream.sent)
    assert told(estate, DISPLAY, OutOfContact)


def test_f16_a_key_server_that_cannot_renew_is_warned_of_and_believed_by_nobody(
    make_estate: Callable[..., Estate],
) -> None:
    estate = make_estate(age=80 * DAY)
    estate.blocked = {"server"}
    estate.ahead = 0
    estate.populate()
    end = estate.authority.identity.not_after
    warned = stand_still(estate, lambda: estate.clock() > end)
    assert all("certificate of key-server 'key-server'" in seen for seen in warned)
    estate.hop()
    estate.speak()
    estate.run(60)
    # The slots that were fetched have passed: nothing is sealed, and that is said.
    assert "no key for the present epoch" in told(estate, MONITOR, Blocked)
    assert told(estate, DISPLAY, OutOfContact)
    estate.blocked.clear()
    estate.hop(HOUR)
    estate.run(20)
    assert received(estate) == list(range(len(estate.publisher.stream.sent)))


def test_f16_a_crl_past_its_end_lets_streams_run_and_no_new_one_begin(
    make_estate: Callable[..., Estate],
) -> None:
    """Design 7: past grace new streams are refused, running ones go on; so with the policy for who seals."""
    estate = make_estate()
    estate.populate()
    estate.blocked = {"objects"}
    end = estate.authority.crl.next_update
    stand_still(estate, lambda: estate.clock() + HOP > end)
    warned = estate.warned()
    assert any(what.startswith("CRL") for what in warned)
    assert any(what.startswith("policy of channel") for what in warned)
    # Within the slots that were fetched, so that the authority is asked for nothing.
    estate.hop(end - estate.clock() - HOUR)
    estate.speak()
    before = len(received(estate))
    for host in estate.hosts.values():
        host.skew += 2 * HOUR
    estate.ahead += 2 * HOUR
    estate.run(60)
    assert not told(estate, DISPLAY, StreamClosed), "a running stream is not cut"
    estate.speak()
    assert "the policy is past its nextUpdate" in told(estate, MONITOR, Blocked)
    assert len(received(estate)) == before
    # Who starts now is refused, with the reason.
    estate.display.restart()
    estate.run(30)
    assert not estate.display.has_joined
    estate.blocked.clear()
    estate.hop(HOUR)
    estate.run(30)
    assert estate.display.has_joined


def test_f16_an_admin_that_cannot_renew_is_warned_of(make_estate: Callable[..., Estate]) -> None:
    estate = make_estate()
    estate.populate()
    estate.blocked = {"admin"}
    for _ in range(4):
        estate.hop()
    estate.hop(68 * DAY - 4 * HOP)
    assert f"certificate of admin '{ADMIN}'" in estate.warned()
    assert f"certificate of admin {ADMIN}" in estate.warned()


def test_f16_a_site_ca_that_ends_is_warned_of_for_months_and_then_signs_nothing(
    make_estate: Callable[..., Estate],
) -> None:
    estate = make_estate(age=2 * 365 * DAY - 5 * DAY)
    estate.ahead = 0
    estate.populate()
    end = min(end.ends for end in estate.ends() if end.what.startswith("site CA"))
    warned = stand_still(estate, lambda: estate.clock() > end)
    assert all("site CA 'Ward CA'" in seen for seen in warned)
    estate.speak()
    estate.run(60)
    # What it signed ends with it, and nothing new is made.
    assert told(estate, MONITOR, Blocked)
    assert any("site CA" in failure and "expired" in failure for failure in estate.failures)
    before = len(received(estate))
    estate.hop()
    estate.speak()
    assert len(received(estate)) == before
    assert not any(
        isinstance(event, Refused) and "revoked" in event.reason for event in estate.display.events
    )
