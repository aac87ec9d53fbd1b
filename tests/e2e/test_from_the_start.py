"""`subscribe --from start`: who was killed and comes back has what was sent meanwhile (KM-10, DP-44)."""

import signal
import subprocess

from tests.e2e.site import Site


def test_what_was_sent_while_a_killed_subscriber_was_away(site: Site) -> None:
    monitor, display, other = site.enrol("monitor", "display", "other")
    channel = site.add_channel("icu3/start", publish="monitor")
    publisher = site.processes.start("publish", monitor, channel.name, stdin=subprocess.PIPE)
    first = site.subscribe(display, channel, "--from", "start")
    publisher.write(b"one\n")
    assert first.wait_lines(1) == ["one\n"]
    first.send_signal(signal.SIGKILL)
    first.wait()
    publisher.write(b"two\n")
    # Who joins meanwhile moves the keys on.
    witness = site.subscribe(other, channel, "--from", "start", "--count", "2")
    publisher.write(b"three\n")
    witness.wait_lines(1)
    again = site.subscribe(display, channel, "--from", "start", "--count", "4")
    publisher.write(b"four\n")
    finished = again.wait()
    assert (finished.code, finished.out) == (0, "one\ntwo\nthree\nfour\n"), finished.err
    # What was sent before its admission is not for the other.
    newcomer = witness.wait()
    assert (newcomer.code, newcomer.out) == (0, "three\nfour\n"), newcomer.err
    publisher.close_input()
    assert publisher.wait().code == 0
