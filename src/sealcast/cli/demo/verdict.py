"""The claims of the demo, each judged from the evidence alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sealcast.cli.demo.evidence import Evidence, Observed
from sealcast.cli.demo.plan import CHANNELS, MEMBERS, REMOVED, SUBSCRIBERS
from sealcast.errors import SealcastError

LEAST_TURNS = 5
LEAST_PACKETS = 10_000
LARGEST_OLD_SPAN = 1_000_000
"""Microseconds."""
LOSS_TOLERANCE = 0.01
LARGEST_BLOCK = 64
MOST_MISSED = 20
"""Datagrams that passed the switch before the removed one listened, or when it had ended: heartbeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One thing that is said, the figure that decides it, and whether it holds."""

    name: str
    figure: str
    holds: bool


def judge(evidence: Evidence) -> list[Claim]:
    """Return every claim, judged."""
    members = [evidence.observed[name] for name in MEMBERS]
    return [
        _samples(evidence, members),
        _file(evidence, members),
        _nothing_lost(members),
        _loss(evidence),
        _slots(members),
        _renewal(evidence, members),
        _new_generation(members),
        _refused(evidence),
        _nothing_opened(evidence),
        _all_tried(evidence),
        _control(evidence),
        _old_generation(evidence, members),
    ]


def unjudged(error: SealcastError) -> Claim:
    """Return what stands for every claim when there is no evidence, since the run was cut short."""
    return Claim(name="the demo comes to its end", figure=str(error), holds=False)


def _samples(evidence: Evidence, members: list[Observed]) -> Claim:
    figures = ", ".join(f"{member.samples:,}" for member in members)
    return Claim(
        name="every ECG sample decoded and equal",
        figure=f"{figures} of {evidence.sample_count:,}",
        holds=evidence.sample_count > 0
        and all(member.samples == evidence.sample_count and member.samples_equal for member in members),
    )


def _file(evidence: Evidence, members: list[Observed]) -> Claim:
    sent = evidence.file_sha256
    found = ", ".join(member.file_sha256[:8] if member.file_sha256 else "no file" for member in members)
    return Claim(
        name="SHA-256 of the file equal",
        figure=f"{found} of {sent[:8]}",
        holds=all(member.file_sha256 == member.sha256_noted == sent for member in members),
    )


def _nothing_lost(members: list[Observed]) -> Claim:
    lost = sum(member.lost for member in members)
    events = [event for member in members for event in member.loss_events]
    unended = [
        f"{member.name}: no end of {channel}"
        for member in members
        for channel in CHANNELS
        if channel not in member.ended
    ]
    repaired = sum(member.repaired for member in members)
    return Claim(
        name="nothing lost up to the signed end",
        figure="; ".join([f"{lost} lost, {repaired:,} repaired", *events, *unended]),
        holds=not lost and not events and not unended,
    )


def _loss(evidence: Evidence) -> Claim:
    low, high = evidence.loss - LOSS_TOLERANCE, evidence.loss + LOSS_TOLERANCE
    rates = []
    for name in SUBSCRIBERS:
        links = evidence.links[name].values()
        # What the system dropped before the switch is lost to everyone.
        dropped = sum(link.dropped for link in links) + (evidence.overrun or 0)
        total = dropped + sum(link.forwarded for link in links)
        rates.append(dropped / total if total else 0.0)
    figure = ", ".join(f"{rate:.2%}" for rate in rates)
    return Claim(
        name=f"{low:.0%} to {high:.0%} dropped for each subscriber",
        figure=figure + (f"; {evidence.overrun:,} of it before the switch" if evidence.overrun else ""),
        holds=all(low <= rate <= high for rate in rates),
    )


def _slots(members: list[Observed]) -> Claim:
    spans = [_filled_slots(member.messages.get(channel, {})) for member in members for channel in CHANNELS]
    turns = min(spans) - 1
    return Claim(
        name=f"{LEAST_TURNS} slots turned, each with messages",
        figure=f"{max(turns, 0)} turned on each channel",
        holds=turns >= LEAST_TURNS,
    )


def _filled_slots(messages: Mapping[int, int]) -> int:
    """Return how many slots in a row delivered messages; 0 if one between first and last did not."""
    filled = sorted(slot for slot, count in messages.items() if count)
    return len(filled) if filled and filled[-1] - filled[0] + 1 == len(filled) else 0


def _renewal(evidence: Evidence, members: list[Observed]) -> Claim:
    before, after = evidence.folder_serials
    told = {
        serials
        for member in members
        for serials in (tuple(member.serials.get(channel, ())) for channel in CHANNELS)
        if any(member.serials.values())
    }
    return Claim(
        name="publisher's certificate renewed",
        figure=f"directory: {before[:6]}…, then {after[:6]}…"
        if told == {(before, after)}
        else f"folder {before[:6]}… {after[:6]}…; directory {_serials(told)}",
        holds=before != after and told == {(before, after)},
    )


def _serials(told: set[tuple[str, ...]]) -> str:
    return " / ".join(" ".join(f"{serial[:6]}…" for serial in serials) or "none" for serials in sorted(told))


def _new_generation(members: list[Observed]) -> Claim:
    delivered = [
        [count for _, (count, _) in sorted(member.generations.get(channel, {}).items())]
        for member in members
        for channel in CHANNELS
    ]
    fewest = min((counts[-1] for counts in delivered if counts), default=0)
    return Claim(
        name="members follow the new generation",
        figure=f"at least {fewest:,} messages a channel",
        holds=all(len(counts) == 2 for counts in delivered) and fewest > 0,
    )


def _refused(evidence: Evidence) -> Claim:
    refused = evidence.observed[REMOVED].refused_keys
    return Claim(
        name=f"{REMOVED} gets no key once removed",
        figure=f"refused on {len(refused)} of {len(CHANNELS)} channels",
        holds=refused == set(CHANNELS),
    )


def _nothing_opened(evidence: Evidence) -> Claim:
    attempted = evidence.attempted
    own = sum(
        count
        for channel, generations in evidence.observed[REMOVED].generations.items()
        for generation, (count, _) in generations.items()
        if generation > _first_generation(evidence, channel)
    )
    return Claim(
        name=f"{REMOVED} opens 0 of {LEAST_PACKETS:,} new packets",
        figure=f"{attempted.opened + own:,} of {attempted.packets:,}, each with {attempted.keys:,} keys "
        f"(those held, and 4 steps on); of {attempted.blocks:,} blocks, whose packets share a key, one "
        f"packet with all {attempted.steps:,} steps to 255; {attempted.attempts:,} tries",
        holds=attempted.opened == 0
        and own == 0
        and attempted.packets >= LEAST_PACKETS
        and attempted.keys > 0
        and attempted.steps > 0
        and attempted.packets >= attempted.blocks >= attempted.packets / LARGEST_BLOCK
        and attempted.attempts >= attempted.packets * attempted.keys + attempted.blocks * attempted.steps,
    )


def _all_tried(evidence: Evidence) -> Claim:
    """Whether what was tried is what there was: the switch knows how much it has sent to the removed one."""
    attempted = evidence.attempted
    forwarded = sum(link.forwarded for link in evidence.links[REMOVED].values())
    return Claim(
        name="... which are all that it was sent",
        figure=f"{attempted.packets:,} tried, {attempted.clear:,} in clear, {attempted.old:,} of before: "
        f"{attempted.heard:,} of {forwarded:,} forwarded",
        holds=attempted.heard == attempted.packets + attempted.clear + attempted.old
        and 0 <= forwarded - attempted.heard <= MOST_MISSED,
    )


def _first_generation(evidence: Evidence, channel: str) -> int:
    seen = [min(evidence.observed[name].generations.get(channel, {}), default=0) for name in MEMBERS]
    return min(seen)


def _control(evidence: Evidence) -> Claim:
    attempted = evidence.attempted
    return Claim(
        name="... but by the same tries old ones",
        figure=f"{attempted.control_opened:,} of {attempted.control_packets:,}",
        holds=attempted.control_opened > 0,
    )


def _old_generation(evidence: Evidence, members: list[Observed]) -> Claim:
    attempted = evidence.attempted
    spans = [attempted.old_span] + [
        last - evidence.removed_at
        for member in members
        for channel, generations in member.generations.items()
        for generation, (_, last) in generations.items()
        if generation == _first_generation(evidence, channel)
    ]
    span = max(0, *spans)
    return Claim(
        name="old generation ends within 1 s",
        figure=f"{attempted.old_packets:,} packets more, {span / 1e6:.3f} s",
        holds=span <= LARGEST_OLD_SPAN,
    )
