"""Properties of the reference that no list of cases can show."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import ed25519, edwards, frames, seal, tree, trust
from tests.reference.bodies import Beacon, Heartbeat
from tests.reference.frames import Frame, RetainedOrigin
from tests.reference.receiver import Gap, Message, Receiver
from tests.reference.schedule import gate_key, next_step, slot_commitment
from tests.reference.wire import (
    SEQUENCE_END,
    Datagram,
    Epoch,
    MalformedError,
    depth,
    payload_limit,
    read_varint,
    write_varint,
)
from tests.vectors.cases import certificates
from tests.vectors.cases.making import usual_beacon
from tests.vectors.cases.schedule import START
from tests.vectors.cases.trust import (
    CHANNEL_ID,
    NOW,
    make_bundle,
    monitor,
    root,
    site_ca,
    usual_credential,
    usual_policy,
)
from tests.vectors.cases.writing import fixed

EPOCH = Epoch(slot=9, generation=2, step=1)
SECRETS = seal.EpochSecrets(epoch=EPOCH, slot_secret=fixed("slot"), step_secret=fixed("step"))
SEED = fixed("stream 1")

suites = st.sampled_from((1, 2, 3))
numbers = st.integers(0, SEQUENCE_END - 1)
origins = st.builds(
    RetainedOrigin,
    stream_id=st.binary(min_size=16, max_size=16),
    sequence=st.integers(0, 2**64 - 1),
    time=st.integers(0, 2**64 - 1),
)
topics = st.none() | st.text(st.characters(codec="utf-8"), max_size=60)
whole_frames = st.builds(
    Frame, message_id=numbers, data=st.binary(max_size=100), topic=topics, retained=st.none() | origins
)


def sealer(suite: int) -> seal.Sealer:
    return seal.Sealer(suite=suite, channel_id=CHANNEL_ID, seed=SEED)


def receiver(suite: int) -> Receiver:
    made = Receiver(suite, CHANNEL_ID)
    made.add_slot(EPOCH.slot, SECRETS.slot_secret)
    made.add_generation(EPOCH.generation, EPOCH.step, SECRETS.step_secret)
    made.add_stream(sealer(suite).public_key)
    return made


def sealed(suite: int, plaintexts: Sequence[bytes], first: int = 0) -> list[bytes]:
    return sealer(suite).data(
        SECRETS, plaintexts, first_sequence=first, randomness=fixed(f"{first}", 16), time=START
    )


class TestSealing:
    @given(
        suites,
        st.lists(st.lists(whole_frames, max_size=3), min_size=1, max_size=64),
        st.randoms(use_true_random=False),
    )
    @settings(deadline=None, max_examples=30)
    def test_what_is_sealed_opens_in_any_order(
        self, suite: int, contents: list[list[Frame]], random: Random
    ) -> None:
        datagrams = sealed(suite, [b"".join(f.serialize() for f in found) for found in contents])
        shuffled = list(datagrams)
        random.shuffle(shuffled)
        subscriber = receiver(suite)
        for one in shuffled:
            assert subscriber.receive(one) is None
        expected = [
            (frame.message_id, frame.data, frame.topic, frame.retained, sequence)
            for sequence, found in enumerate(contents)
            for frame in found
        ]
        assert [_content(message) for message in subscriber.messages] == expected

    @given(suites, st.integers(1, 64), st.data())
    @settings(deadline=None, max_examples=60)
    def test_any_bit_flipped_is_refused(self, suite: int, count: int, data: st.DataObject) -> None:
        datagrams = sealed(suite, [Frame(message_id=n, data=b"x").serialize() for n in range(count)])
        whole = datagrams[data.draw(st.integers(0, count - 1))]
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        subscriber = receiver(suite)
        assert subscriber.receive(bytes(changed)) is not None
        assert (subscriber.messages, subscriber.reports) == ([], [])
        assert subscriber.receive(whole) is None, "the refused one left a trace"

    @pytest.mark.parametrize("suite", [1, 2, 3])
    def test_every_single_bit_of_a_packet_counts(self, suite: int) -> None:
        whole = sealed(suite, [b"\x40\x00\x01x"] * 3)[1]
        for bit in range(8 * len(whole)):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            assert receiver(suite).receive(bytes(changed)) is not None, bit

    @given(suites, st.binary(max_size=400))
    @settings(deadline=None)
    def test_noise_is_refused_and_never_raises(self, suite: int, noise: bytes) -> None:
        subscriber = receiver(suite)
        assert subscriber.receive(noise) is not None
        assert subscriber.receive(sealed(suite, [b""])[0][:64] + noise) is not None

    @given(st.integers(0, payload_limit()), st.integers(1, 64))
    @settings(deadline=None, max_examples=20)
    def test_no_datagram_is_larger_than_the_budget(self, length: int, count: int) -> None:
        assert max(len(one) for one in sealed(1, [bytes(length)] * count)) <= 1452

    def test_overheads_are_those_of_the_budget(self) -> None:
        for count, overhead in ((1, 152), (16, 216), (32, 232), (64, 248)):
            assert {len(one) for one in sealed(1, [b""] * count)} == {overhead}
        with pytest.raises(ValueError, match="more than a packet may hold"):
            sealed(1, [bytes(payload_limit() + 1)])

    @given(st.integers(1, 12), st.sets(st.integers(0, 11)))
    @settings(deadline=None, max_examples=30)
    def test_a_loss_is_mended_or_reported(self, count: int, lost: set[int]) -> None:
        plaintexts = [Frame(message_id=n, data=b"x").serialize() for n in range(count)]
        subscriber = receiver(1)
        for number, one in enumerate(sealed(1, plaintexts)):
            if number not in lost:
                subscriber.receive(one)
        stream_id = sealer(1).stream_id
        subscriber.abandon(stream_id, count)
        gaps = {
            n for gap in subscriber.reports if isinstance(gap, Gap) for n in range(gap.first, gap.last + 1)
        }
        assert gaps == lost & set(range(count))
        assert [m.message_id for m in subscriber.messages] == [n for n in range(count) if n not in lost]
        assert not list(subscriber.missing(stream_id))


def _content(message: Message) -> tuple[int, bytes, str | None, RetainedOrigin | None, int]:
    return message.message_id, message.data, message.topic, message.retained, message.sequence


class TestTree:
    @given(st.integers(1, 64), st.data())
    def test_every_leaf_leads_to_the_root_from_its_own_place_alone(
        self, count: int, data: st.DataObject
    ) -> None:
        leaves = [fixed(f"leaf {n}") for n in range(count)]
        levels = tree.levels(1, bytes(16), leaves)
        index = data.draw(st.integers(0, count - 1))
        path = tree.path(levels, index)
        assert len(path) == depth(index, count)
        for other in range(count):
            try:
                found = tree.root_of(1, bytes(16), other, count, leaves[index], path)
            except MalformedError:
                found = b""
            assert (found == levels[-1][0]) == (other == index)


class TestEncoding:
    @given(numbers)
    def test_a_varint_is_what_was_written(self, value: int) -> None:
        assert read_varint(write_varint(value), 0) == (value, len(write_varint(value)))

    @given(st.lists(whole_frames, max_size=5))
    def test_frames_are_what_was_written(self, written: list[Frame]) -> None:
        assert frames.parse(b"".join(frame.serialize() for frame in written)) == (written, True)

    @given(st.binary(max_size=200))
    def test_frames_of_noise_never_raise(self, noise: bytes) -> None:
        found, well_formed = frames.parse(noise)
        assert well_formed or len(noise) > len(b"".join(frame.serialize() for frame in found))

    @given(st.binary(max_size=300))
    def test_bodies_of_noise_are_refused_or_the_same(self, noise: bytes) -> None:
        for kind in (Beacon, Heartbeat, Datagram):
            try:
                parsed = kind.parse(noise)
            except MalformedError:
                continue
            assert kind is Heartbeat or parsed.serialize() == noise


class TestEd25519:
    @given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
    @settings(deadline=None, max_examples=20)
    def test_the_library_and_the_equation_agree(self, seed: bytes, message: bytes) -> None:
        key, signature = ed25519.public_key_of(seed), ed25519.sign(seed, message)
        scalar, _ = edwards.secret_scalar(seed)
        assert (scalar * edwards.BASE).encode() == key
        assert ed25519.verify(key, message, signature)
        assert edwards.verdict(key, message, signature)
        assert not ed25519.verify(key, message + b"x", signature)

    def test_the_listed_points_are_those_of_small_order(self) -> None:
        points = [number * edwards.TORSION for number in range(8)]
        assert len(set(points)) == 8
        assert 8 * edwards.TORSION == edwards.IDENTITY
        assert {point.y for point in points} == set(ed25519.SMALL_ORDER_Y)


class TestKeys:
    def test_steps_reach_four_beyond_the_beacon_and_no_further(self) -> None:
        """KM-9: without a beacon not one."""
        subscriber = receiver(1)
        later, secret = {}, SECRETS.step_secret
        for step in range(EPOCH.step, EPOCH.step + 6):
            epoch = Epoch(slot=EPOCH.slot, generation=EPOCH.generation, step=step)
            held = seal.EpochSecrets(epoch=epoch, slot_secret=SECRETS.slot_secret, step_secret=secret)
            later[step] = held
            secret = next_step(secret, CHANNEL_ID, EPOCH.generation, step)
        control = seal.Sealer(suite=1, channel_id=CHANNEL_ID, seed=fixed("control stream"))
        subscriber.add_stream(control.public_key, control=True)
        beacon = control.beacon(SECRETS, usual_beacon(), randomness=bytes(16), time=START)
        assert subscriber.receive(beacon) is None
        for sequence, (step, held) in enumerate(later.items()):
            (one,) = sealer(1).data(
                held,
                [Frame(message_id=sequence, data=b"x").serialize()],
                first_sequence=sequence,
                randomness=fixed(f"{step}", 16),
                time=START,
            )
            assert subscriber.receive(one) is None
        assert len(subscriber.messages) == 5, "the sixth waits for its key"

    def test_a_second_secret_for_a_number_is_not_taken(self) -> None:
        """KM-8."""
        subscriber = receiver(1)
        other = fixed("other")
        with pytest.raises(trust.RefusedError, match="second secret"):
            subscriber.add_slot(EPOCH.slot, other, slot_commitment(other, CHANNEL_ID, EPOCH.slot))

    def test_a_beacon_is_obeyed_once_and_never_back(self) -> None:
        """KM-16."""
        subscriber = receiver(1)
        control = seal.Sealer(suite=1, channel_id=CHANNEL_ID, seed=fixed("control stream"))
        subscriber.add_stream(control.public_key, control=True)
        lower = seal.EpochSecrets(
            epoch=Epoch(slot=EPOCH.slot, generation=EPOCH.generation - 1, step=200),
            slot_secret=SECRETS.slot_secret,
            step_secret=SECRETS.step_secret,
        )
        for counter, held, reason in (
            (5, SECRETS, None),
            (5, SECRETS, "counter"),
            (4, SECRETS, "counter"),
            (6, lower, "counter"),
            (6, SECRETS, None),
        ):
            body = usual_beacon(counter=counter)
            one = control.beacon(held, body, randomness=fixed(f"{counter}", 16), time=START)
            assert subscriber.receive(one) == reason


class TestCredentialPackets:
    @pytest.mark.parametrize("part_bytes", [None, 160])
    def test_a_stream_makes_itself_known(self, part_bytes: int | None) -> None:
        """DP-30: data before the credential is of an unknown stream, after it is delivered."""
        subscriber = Receiver(1, CHANNEL_ID, policy=usual_policy(), anchors=[root().der])
        subscriber.add_slot(EPOCH.slot, SECRETS.slot_secret)
        subscriber.add_generation(EPOCH.generation, EPOCH.step, SECRETS.step_secret)
        (one,) = sealed(1, [Frame(message_id=0, data=b"x").serialize()])
        bundle = make_bundle(usual_credential(), monitor(), site_ca())
        size = part_bytes and -(-len(bundle) // 8)
        packets = sealer(1).credential(SECRETS, bundle, part_bytes=size, randomness=bytes(16), time=NOW)
        assert subscriber.receive(one, NOW) == "unknown-stream"
        for packet in reversed(packets):
            assert subscriber.receive(packet, NOW) is None
        assert subscriber.receive(one, NOW) is None
        assert [message.data for message in subscriber.messages] == [b"x"]

    def test_a_credential_of_another_stream_is_refused(self) -> None:
        """Replayed under a key of the attacker's own, the genuine bundle names another stream."""
        subscriber = Receiver(1, CHANNEL_ID, policy=usual_policy(), anchors=[root().der])
        subscriber.add_slot(EPOCH.slot, SECRETS.slot_secret)
        subscriber.add_generation(EPOCH.generation, EPOCH.step, SECRETS.step_secret)
        thief = seal.Sealer(suite=1, channel_id=CHANNEL_ID, seed=fixed("thief"))
        bundle = make_bundle(usual_credential(), monitor(), site_ca())
        reasons = [
            subscriber.receive(packet, NOW)
            for packet in thief.credential(SECRETS, bundle, randomness=bytes(16), time=NOW)
        ]
        assert reasons[-1] == "credential"
        assert not subscriber.streams

    def test_a_genuine_bundle_in_a_block_of_somebody_else_is_refused(self) -> None:
        """A member has the bundle and all keys of the group, and signs the block with another key."""
        subscriber = Receiver(1, CHANNEL_ID, policy=usual_policy(), anchors=[root().der])
        subscriber.add_slot(EPOCH.slot, SECRETS.slot_secret)
        subscriber.add_generation(EPOCH.generation, EPOCH.step, SECRETS.step_secret)
        bundle = make_bundle(usual_credential(), monitor(), site_ca())
        packets = sealer(1).credential(SECRETS, bundle, randomness=bytes(16), time=NOW)
        secret = SECRETS.epoch_secret(1, CHANNEL_ID)
        parsed = [Datagram.parse(packet) for packet in packets]
        thief = seal.Sealer(suite=1, channel_id=CHANNEL_ID, seed=fixed("thief"))
        bodies = [packet.body for packet in parsed]
        forged = thief.sign(parsed[0].header, bodies, gate_key(secret, 1, CHANNEL_ID))
        assert [subscriber.receive(packet, NOW) for packet in forged][-1] == "signature"
        assert not subscriber.streams

    def test_a_device_that_is_not_listed_is_refused(self) -> None:
        with pytest.raises(trust.RefusedError, match="policy"):
            trust.accept_stream(
                make_bundle(usual_credential(), monitor(), site_ca()),
                stream_id=sealer(1).stream_id,
                policy=usual_policy(publishers=("monitor-2",)),
                anchors=[root().der],
                role="device",
                now=NOW,
                packet_time=NOW,
            )

    def test_certificates_are_the_same_in_every_run(self) -> None:
        assert certificates.device(site_ca()).der == monitor().der
