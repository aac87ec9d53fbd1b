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
from sealcast.testing import SECOND
from tests.scenarios.ceremonies import Owner
from tests.scenarios.estate import ADMIN, DAY, DISPLAY, HOP, HOUR, MONITOR, Estate

ENDS = {
    ("certificates", "not_after"),
    ("devices", "ends"),
    ("policies", "next_update"),
    ("crl", "next_update"),
    ("other_crls", "next_update"),
}
"""Columns of the authority's database that say when something ends which others rest on."""

ROOT_LIFE = 20 * 365 * DAY

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


def test_f16_fault_21_a_root_and_a_site_ca_live_out_and_are_replaced_while_a_stream_runs(
    make_estate: Callable[..., Estate],
) -> None:
    """The last three and a half years of a root, and with them the whole life of a site CA, and of another.

    Each is rotated when the authority warns of it, in the safe order. Between two hops everybody sleeps.
    """
    # A hop has to be shorter than a third of a device certificate's life, in which that is renewed.
    estate = make_estate(root_age=ROOT_LIFE - 1277 * DAY, stride=28 * DAY)
    estate.populate()
    owner = Owner(estate)
    lives = {end.what: end.ends for end in estate.ends() if end.what.startswith(("root", "site CA"))}
    assert {what.split(" '")[0] for what in lives} == {"root", "site CA"}
    old = estate.authority.site.roots[0], estate.authority.site.issuer.certificate
    waited: set[str] = set()
    while estate.clock() < max(lives.values()):
        estate.hop()
        estate.speak()
        owner.look_after()
        if owner.current() is not None:
            estate.wake_polls()
            estate.speak()
        assert all(end.ends > estate.clock() for end in estate.ends())
        waited |= {rotation["step"] for rotation in [owner.current()] if rotation is not None}
    assert owner.done == ["site", "root"]
    assert waited == {"reports", "reissue"}, "each waited for the devices"
    rotations = estate.manage("GET", "/v1/rotations")["items"]
    assert [rotation["forced"] for rotation in rotations] == [[], []]
    assert (estate.failures, owner.warnings()) == ([], [])
    for name in (MONITOR, DISPLAY):
        identity = estate.identity(name)
        assert not set(old) & {*identity.roots, *identity.issuers}
    assert received(estate) == list(range(len(estate.publisher.stream.sent)))
    assert not any(isinstance(event, Gap | MessageLost) for event in estate.display.events)
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
    # A signed proof mends it. What waited is sealed once it is a member again, under no older key (KM-20).
    estate.blocked.clear()
    estate.hop(HOUR)
    estate.run(90)
    estate.speak()
    assert received(estate) == list(range(len(estate.publisher.stream.sent)))
    assert not any(isinstance(event, Gap | MessageLost) for event in estate.display.events)


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


def test_f16_a_root_that_ends_is_warned_of_for_a_year_and_then_nothing_is_believed(
    make_estate: Callable[..., Estate],
) -> None:
    """Under a root that has ended nobody can be told of another one: it comes out of band."""
    estate = make_estate(root_age=ROOT_LIFE - 5 * DAY)
    estate.populate()
    end = min(end.ends for end in estate.ends() if end.what.startswith("root"))
    warned = stand_still(estate, lambda: estate.clock() > end)
    assert all("root 'Owner root'" in seen for seen in warned)
    before = received(estate)
    assert before == list(range(len(estate.publisher.stream.sent) - 3)), "up to its end nothing is lost"
    estate.hop()
    estate.speak()
    estate.run(60)
    # What hangs on it ends with it: who runs seals and opens no more, and both say so.
    assert told(estate, MONITOR, Blocked)
    assert told(estate, DISPLAY, OutOfContact)
    assert received(estate) == before
    # Each agent is told what brings its device back.
    cures = [failure.cure for failure in estate.refused if failure.reason == "roots-ended"]
    assert len(cures) >= 2
    assert all("sealcast device enroll DIR --root NEW --token TOKEN" in cure for cure in cures)


def test_f16_a_root_whose_rotation_is_held_up_until_its_last_days_loses_nothing(
    make_estate: Callable[..., Estate],
) -> None:
    """The devices are the ones that block: a step ahead of their reports is refused with the counts."""
    estate = make_estate(root_age=ROOT_LIFE - 6 * DAY)
    estate.populate()
    owner = Owner(estate)
    owner.look_after()
    estate.blocked = {f"device {DISPLAY}"}
    for _ in range(4):
        estate.hop()
        estate.speak()
        owner.look_after()
        held = owner.current()
        assert held is not None
        assert (held["step"], held["missing"]) == ("reports", [DISPLAY])
        assert any(line.startswith("root 'Owner root' ends in") for line in owner.warnings())
    estate.blocked.clear()
    for _ in range(4):
        estate.hop()
        estate.speak()
        owner.look_after()
        estate.wake_polls()
        estate.speak()
    assert (owner.done, owner.warnings()) == (["root"], [])
    assert received(estate) == list(range(len(estate.publisher.stream.sent)))
    assert not any(isinstance(event, Gap | MessageLost) for event in estate.display.events)


def test_f16_slot_secrets_that_do_not_come_stop_the_stream_at_the_end_of_the_last_one(
    make_estate: Callable[..., Estate],
) -> None:
    """A key server out of reach: the slots that were fetched carry the stream, then it waits and says so."""
    estate = make_estate()
    estate.populate(slot=60 * SECOND, slots_ahead=5)
    estate.blocked = {"slots", "keys"}
    for _ in range(4):
        estate.run(55)
        estate.speak()
        assert received(estate) == list(range(len(estate.publisher.stream.sent))), "prefetched slots"
    # The alarm comes minutes before the first packet that cannot be sealed.
    assert told(estate, MONITOR, OutOfContact)
    assert told(estate, DISPLAY, OutOfContact)
    assert not told(estate, MONITOR, Blocked)
    for _ in range(4):
        estate.run(55)
        estate.speak()
    assert told(estate, MONITOR, Blocked) == ["no key for the present epoch"]
    assert len(received(estate)) < len(estate.publisher.stream.sent)
    estate.blocked.clear()
    estate.hop(SECOND)
    estate.run(20)
    assert received(estate) == list(range(len(estate.publisher.stream.sent)))
    assert not any(isinstance(event, Gap | MessageLost) for event in estate.display.events)


def test_f16_a_stream_credential_that_is_not_renewed_ends_the_stream_and_the_next_one_goes_on(
    make_estate: Callable[..., Estate],
) -> None:
    """The device key signs nothing: what its last credential vouches for is sent and taken, no more."""
    estate = make_estate()
    estate.populate()
    estate.blocked = {"stream credential"}
    estate.speak()
    estate.hop(HOP)
    estate.speak()
    before = received(estate)
    assert before == list(range(len(estate.publisher.stream.sent))), "to its end"
    assert "the stream credential has expired" not in told(estate, MONITOR, Blocked)
    estate.hop(2 * HOUR)
    estate.speak()
    estate.run(60)
    assert "the stream credential has expired" in told(estate, MONITOR, Blocked)
    assert told(estate, DISPLAY, StreamClosed) == ["expired"]
    assert received(estate) == before
    # What waited is sealed under the next credential: nothing of it is lost, and the stream is the same.
    estate.blocked.clear()
    estate.hop(HOUR)
    estate.run(20)
    assert received(estate) == list(range(len(estate.publisher.stream.sent)))
    assert not any(isinstance(event, Gap | MessageLost) for event in estate.display.events)
    assert len(estate.publisher.streams) == 1
