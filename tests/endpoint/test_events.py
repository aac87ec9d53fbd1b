"""Events as lines for people."""

import pytest

from sealcast.endpoint.events import (
    CommitmentMismatch,
    Equivocation,
    Event,
    Gap,
    Joined,
    MessageLost,
    MulticastSilent,
    OutOfContact,
    StreamClosed,
    SuccessionConflict,
)

STREAM = bytes(range(16))


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            Gap(publisher="bed12", instance="", stream_id=STREAM, first=3, last=7),
            "lost: packets 3 to 7 of bed12",
        ),
        (
            Gap(publisher="bed12", instance="ecg", stream_id=STREAM, first=3, last=None),
            "lost: packets 3 to an unknown end of bed12/ecg",
        ),
        (
            MessageLost(publisher="bed12", instance="", stream_id=STREAM, message_id=4, reason="too long"),
            "lost: message 4 of bed12: too long",
        ),
        (
            StreamClosed(publisher="bed12", instance="", stream_id=STREAM, reason="revoked"),
            "bed12 is no longer accepted: revoked",
        ),
        (Joined(epoch=(1, 2, 3)), "joined in slot 1, generation 2, step 3"),
        (
            MulticastSilent(repaired=120, seconds=5.0),
            "multicast is silent, repair is busy: 120 packets in 5 s",
        ),
        (OutOfContact(since=0), "nothing from the key server since 1970-01-01 00:00:00 UTC"),
        (
            CommitmentMismatch(detail="slot 4"),
            "the key server signed for another secret than it handed out: slot 4",
        ),
    ],
)
def test_a_line_has_names_and_numbers(event: Event, line: str) -> None:
    assert str(event) == line


def test_proof_is_not_poured_into_a_line() -> None:
    evidence = (b"s" * 122, b"s" * 64, 3, b"")
    forked = Equivocation(
        publisher="bed12", instance="", stream_id=STREAM, sequence=9, first=None, second=evidence
    )
    assert str(forked) == "bed12 has signed twice for sequence 9; the first stands"
    conflict = SuccessionConflict(
        predecessor=STREAM,
        first=b"a" * 16,
        first_credential=b"c" * 99,
        second=b"b" * 16,
        second_credential=None,
    )
    assert (
        str(conflict) == "two streams, 61616161… and 62626262…, claim to continue 00010203…; the first stands"
    )
