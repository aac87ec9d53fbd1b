"""The main job in processes of its own: one publisher, three subscribers, real multicast on loopback."""

import base64
import json
import random
import subprocess
from pathlib import Path

from tests.e2e.processes import Processes
from tests.e2e.site import Site


def test_three_subscribers_get_every_line(site: Site, processes: Processes, tmp_path: Path) -> None:
    monitor, *displays = site.enrol("monitor", "display-1", "display-2", "display-3")
    channel = site.add_channel("icu3/vitals", "--rate", "100Mbit/s", publish="monitor", subscribe="display-*")
    draw = random.Random(1)
    lines = [f"{number} {'µ' * draw.randrange(400)}".encode() for number in range(5_000)]
    lines[7] = b""
    lines[8] = b"x" * 100_000
    source = tmp_path / "source"
    source.write_bytes(b"".join(line + b"\n" for line in lines))
    outputs = [tmp_path / f"{display.name}.out" for display in displays]
    subscribers = [
        site.subscribe(display, channel, "--output", output, "--count", str(len(lines)))
        for display, output in zip(displays, outputs, strict=True)
    ]
    published = processes.run("publish", monitor, channel.name, source, "--json")
    assert published.code == 0, published.err
    assert json.loads(published.out)["messages"] == len(lines)
    for subscriber, output in zip(subscribers, outputs, strict=True):
        finished = subscriber.wait()
        assert finished.code == 0, finished.err
        assert "lost" not in finished.err
        assert output.read_bytes() == source.read_bytes()


def test_a_message_says_whose_it_is(site: Site, processes: Processes, tmp_path: Path) -> None:
    """As `--json` shows it, from two instances of one publisher."""
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals")
    subscriber = site.subscribe(display, channel, "--json", "--count", "4")
    for instance in ("left", "right"):
        process = processes.start(
            "publish", monitor, channel.name, "--instance", instance, "--topic", "ecg", "--linger", "200ms",
            stdin=subprocess.PIPE,
        )  # fmt: skip
        process.write(b"one\n\xfftwo\n")
        process.close_input()
        assert process.wait().code == 0
    messages = [json.loads(line) for line in subscriber.wait().out.splitlines()]
    assert [message["publisher"] for message in messages] == ["monitor"] * 4
    assert [message["topic"] for message in messages] == ["ecg"] * 4
    assert [message["instance"] for message in messages] == ["left", "left", "right", "right"]
    assert [base64.b64decode(message["data"]) for message in messages] == [b"one", b"\xfftwo"] * 2
    assert len({message["stream"] for message in messages}) == 2


def test_raw_is_byte_for_byte(site: Site, processes: Processes, tmp_path: Path) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/waves", "--rate", "500Mbit/s", "--suite", "2")
    source, output = tmp_path / "source", tmp_path / "output"
    source.write_bytes(random.Random(2).randbytes(5_000_001))
    subscriber = site.subscribe(display, channel, "--raw", "--output", output, "--count", "77")
    assert processes.run("publish", monitor, channel.name, source, "--raw").code == 0
    assert subscriber.wait().code == 0
    assert output.read_bytes() == source.read_bytes()
