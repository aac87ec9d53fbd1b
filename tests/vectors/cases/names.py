"""Identifiers made from names and keys."""

from __future__ import annotations

from tests.reference import ed25519, schedule
from tests.vectors.cases.writing import Group, VectorFile, fixed


def channel_id() -> VectorFile:
    group = Group("site and name give the channel; names are those of TR-2")
    site = fixed("site", 16)
    for comment, site_id, name in (
        ("usual", site, "ward-3/vitals"),
        ("another name", site, "ward-3/alarms"),
        ("another site", fixed("other site", 16), "ward-3/vitals"),
        ("one character", site, "a"),
        ("all kinds of characters", site, "0Az._/-"),
        ("case is kept", site, "Ward-3/Vitals"),
        ("127 characters", site, "x" * 127),
        ("site of zeros", bytes(16), "a"),
    ):
        group.valid(comment, siteId=site_id, channelName=name, channelId=schedule.channel_id(site_id, name))
    for comment, name in (
        ("empty", ""),
        ("128 characters", "x" * 128),
        ("begins with a dot", ".a"),
        ("begins with a slash", "/a"),
        ("begins with a dash", "-a"),
        ("space", "a b"),
        ("line feed at the end", "a\n"),
        ("NUL", "a\x00b"),
        ("star", "a*"),
        ("letter beyond ASCII", "stra\u00dfe"),
        ("digit beyond ASCII", "a\u0661"),
    ):
        group.invalid(comment, "name", flags=("Name",), siteId=site, channelName=name)
    notes = {"Name": ("MISSING_CHECK", "a channel name that TR-2 does not allow")}
    return VectorFile("channel_id", ["DP-3", "TR-2"], notes, [group])


def stream_id() -> VectorFile:
    group = Group("the stream id is a hash of the SubjectPublicKeyInfo")
    for name in ("stream 1", "stream 2", "control stream"):
        seed = fixed(name)
        public_key = ed25519.public_key_of(seed)
        group.valid(
            name,
            seed=seed,
            publicKey=public_key,
            spki=schedule.spki(public_key),
            streamId=schedule.stream_id(public_key),
        )
    return VectorFile("stream_id", ["DP-1"], {}, [group])
