"""The removed subscriber's attempt: it opens whatever one of its keys fits, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sealcast.cli.demo import attempt
from tests.reference import schedule
from tests.reference.bodies import Heartbeat
from tests.reference.seal import EpochSecrets, Sealer
from tests.reference.wire import Epoch

CHANNEL = bytes(range(32))
SLOTS = {7: b"\x07" * 32, 8: b"\x08" * 32}
STEP = b"\x55" * 32
REMOVED_AT = 5_000_000
SEALER = Sealer(suite=1, channel_id=CHANNEL, seed=b"\x11" * 32)


def make_ring() -> attempt.Ring:
    return attempt.Ring(CHANNEL, 1, SLOTS, [(1, 2, STEP)])


def sealed(
    *, slot: int = 7, generation: int = 1, step: int = 2, secret: bytes = STEP, count: int = 1, time: int = 1
) -> list[bytes]:
    secrets = EpochSecrets(
        epoch=Epoch(slot=slot, step=step, generation=generation),
        slot_secret=SLOTS.get(slot, b"\x99" * 32),
        step_secret=secret,
    )
    plaintexts = [b"\x40\x00\x01x"] * count
    return SEALER.data(secrets, plaintexts, first_sequence=0, randomness=os.urandom(16), time=time)


def heartbeat(*, generation: int) -> bytes:
    secrets = EpochSecrets(
        epoch=Epoch(slot=7, step=0, generation=generation), slot_secret=SLOTS[7], step_secret=STEP
    )
    return SEALER.heartbeat(secrets, Heartbeat(counter=1, next_sequence=9), randomness=bytes(16), time=1)


def opens(datagram: bytes, *, thoroughly: bool = True) -> bool:
    return make_ring().opens(attempt.Packet.parse(datagram), thoroughly=thoroughly)


def later_step(step: int) -> bytes:
    secret = STEP
    for number in range(2, step):
        secret = schedule.next_step(secret, CHANNEL, 1, number)
    return secret


@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_every_packet_of_a_block_is_opened(count: int) -> None:
    assert all(opens(datagram) for datagram in sealed(count=count))


def test_a_credential_packet_is_opened() -> None:
    secrets = EpochSecrets(epoch=Epoch(slot=8, step=2, generation=1), slot_secret=SLOTS[8], step_secret=STEP)
    packets = SEALER.credential(secrets, b"bundle" * 400, randomness=bytes(16), time=1)
    assert len(packets) > 1
    assert all(opens(packet) for packet in packets)


@pytest.mark.parametrize("step", [3, 6, 7, 255])
def test_steps_are_derived_to_the_last(step: int) -> None:
    (datagram,) = sealed(step=step, secret=later_step(step))
    assert opens(datagram)
    # Beyond the four steps that are tried on each packet, it takes the thorough way.
    assert opens(datagram, thoroughly=False) == (step <= 6)


def test_a_new_generation_under_an_old_secret_would_be_opened() -> None:
    """The mistake that the attempt is there to find: a key server that renews the number alone."""
    (datagram,) = sealed(generation=2, step=0)
    assert opens(datagram)


def test_a_fresh_generation_secret_is_not_opened() -> None:
    (datagram,) = sealed(generation=2, step=0, secret=b"\x66" * 32)
    ring = make_ring()
    assert not ring.opens(attempt.Packet.parse(datagram), thoroughly=True)
    assert ring.attempts >= ring.keys + ring.steps


def test_a_slot_that_was_never_given_is_not_opened() -> None:
    (datagram,) = sealed(slot=9)
    assert not opens(datagram)


def test_what_is_counted() -> None:
    work = attempt.Attempt(make_ring(), REMOVED_AT)
    for datagram in [
        *sealed(generation=2, step=0, secret=b"\x66" * 32, count=3),
        *sealed(generation=2, step=0),
        heartbeat(generation=2),
        *sealed(time=REMOVED_AT),
        *sealed(time=REMOVED_AT + 250),
        *sealed(time=REMOVED_AT + 100),
    ]:
        work.take(datagram)
    report = work.report()
    assert (report["packets"], report["opened"]) == (4, 1)
    assert (report["old_packets"], report["old_span"]) == (2, 250)
    assert (report["heard"], report["clear"], report["old"]) == (8, 1, 3)
    assert report["blocks"] == 2


def test_the_process_reads_files_that_grow(tmp_path: Path) -> None:
    held = {
        "id": CHANNEL.hex(),
        "suite": 1,
        "slots": {str(slot): secret.hex() for slot, secret in SLOTS.items()},
        "steps": [[1, 2, STEP.hex()]],
    }
    (tmp_path / attempt.SECRETS_FILE).write_text(json.dumps({"a": held}))
    record = tmp_path / "datagrams-0.bin"
    old = sealed(count=64) + sealed(count=64)
    new = sealed(generation=2, step=0, secret=b"\x66" * 32, count=20)
    written = b"".join(len(datagram).to_bytes(2) + datagram for datagram in [*old, *new])
    record.write_bytes(written[:-100])
    command = [sys.executable, "-I", attempt.__file__, str(tmp_path), "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["packets"] == 19
        with record.open("ab") as file:
            file.write(written[-100:])
        process.stdin.close()
        reports = [json.loads(line) for line in process.stdout]
    assert (reports[-1]["packets"], reports[-1]["opened"]) == (20, 0)
    assert reports[-1]["control_packets"] == reports[-1]["control_opened"] == 1


def test_it_shares_no_code() -> None:
    source = Path(attempt.__file__).read_text(encoding="utf-8")
    assert "import sealcast" not in source
    assert "from sealcast" not in source
