//! Packets from outside the group: no key, any bytes. Names begin with the id of the abuse case.

use crate::common::forge::message;
use crate::common::{Forge, MILLI, SECOND, World};
use sealcast_core::crypto::Jitter;
use sealcast_core::event::Event;
use sealcast_core::rejection::Rejection;
use sealcast_core::schedule::channel_id;
use sealcast_core::wire::{HEADER_BYTES, Header, PacketType, PacketView, put_varint};

fn random_bytes(random: &mut Jitter, length: usize) -> Vec<u8> {
    (0..length).map(|_| random.below(256) as u8).collect()
}

#[test]
fn a2_a_good_header_with_a_junk_body_is_stopped_by_the_gate() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 20);
    let stream = world.stream(publisher);
    let mut random = Jitter::new(2);
    let genuine = world.captured_of(PacketType::Data).pop().unwrap();
    let signatures = world.receiver(subscriber).counters().signatures;
    for sequence in 0..2000u64 {
        let mut datagram = random_bytes(&mut random, 1400);
        datagram[..HEADER_BYTES].copy_from_slice(&genuine[..HEADER_BYTES]);
        datagram[46..54].copy_from_slice(&(sequence / 2).to_be_bytes());
        datagram[54] = 0;
        datagram[55] = 1;
        let verdict = world.refused(subscriber, &datagram);
        assert!(matches!(verdict, Rejection::Gate), "{verdict:?}");
    }
    assert_eq!(world.receiver(subscriber).counters().signatures, signatures);
    world.send(publisher, 20, 1100);
    world.finish(subscriber, stream, SECOND);
}

#[test]
fn a3_a_far_future_sequence_or_heartbeat_makes_no_gap() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 20);
    let stream = world.stream(publisher);
    let data = world.captured_of(PacketType::Data).pop().unwrap();
    for sequence in [
        21u64,
        1 << 20,
        1 << 40,
        1 << 61,
        (1 << 62) - 64,
        (1 << 62) - 1,
        1 << 62,
        1 << 63,
        u64::MAX,
    ] {
        let mut datagram = data.to_vec();
        datagram[46..54].copy_from_slice(&sequence.to_be_bytes());
        let verdict = world.refused(subscriber, &datagram);
        assert!(
            matches!(verdict, Rejection::Gate | Rejection::Malformed),
            "{verdict:?}"
        );
    }
    let heartbeat = world.captured_of(PacketType::Heartbeat).pop().unwrap();
    for (at, value) in [(64, u64::MAX), (72, 1 << 61), (72, u64::MAX), (80, u64::MAX)] {
        let mut datagram = heartbeat.to_vec();
        datagram[64..72].copy_from_slice(&(1u64 << 40).to_be_bytes());
        datagram[at..at + 8].copy_from_slice(&value.to_be_bytes());
        let wanted = if value == u64::MAX && at == 72 {
            Rejection::Malformed
        } else {
            Rejection::Gate
        };
        assert_eq!(world.refused(subscriber, &datagram), wanted);
    }
    world.run_for(5 * SECOND);
    assert_eq!(world.repair_requests, 0);
    assert_eq!(world.gaps(subscriber, stream), []);
}

/// KM-14: ten signature checks a second, and no fetch of keys, for packets that nobody signed.
#[test]
fn a4_an_unknown_epoch_spray_fetches_no_keys() {
    let (mut world, subscriber, _) = World::in_mid_stream(1, 20);
    let mut random = Jitter::new(3);
    let data = world.captured_of(PacketType::Data).pop().unwrap();
    let heartbeat = world.captured_of(PacketType::Heartbeat).pop().unwrap();
    let commands = world.subscribers[subscriber].commands.len();
    let signatures = world.receiver(subscriber).counters().signatures;
    for _ in 0..5 {
        for n in 0..4000 {
            let mut datagram = if n % 4 == 0 {
                heartbeat.to_vec()
            } else {
                data.to_vec()
            };
            let epoch = random_bytes(&mut random, 8);
            datagram[22..30].copy_from_slice(&epoch);
            // Ahead of ours in one number only, in two, in all.
            if n % 3 == 0 {
                datagram[25..30].copy_from_slice(&data[25..30]);
            }
            if datagram[5] == PacketType::Data as u8 {
                datagram[46..54].copy_from_slice(&100u64.to_be_bytes());
            }
            world.refused(subscriber, &datagram);
        }
        world.run_for(SECOND);
    }
    let checked = world.receiver(subscriber).counters().signatures - signatures;
    assert!(checked <= 60 + 10, "{checked} signatures were checked");
    let asked = world.subscribers[subscriber].commands[commands..].iter();
    assert_eq!(asked.filter(|command| command.path.ends_with("/keys")).count(), 0);
}

/// KM-14: genuine packets of an epoch ahead cause one fetch a second at most, and are opened when the key is there.
#[test]
fn a4_packets_that_run_ahead_of_our_keys_cause_one_fetch_a_second() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 20);
    let stream = world.stream(publisher);
    world.beacon_interval = None;
    // The publisher learns of the new generation, the subscriber does not, and its fetches fail.
    world.key_server.remove("subscriber-7");
    world.subscribers[subscriber].link.side_cut = true;
    world.run_for(SECOND / 2);
    let commands = world.subscribers[subscriber].commands.len();
    world.send_steadily(publisher, 100, 1100, 50 * MILLI);
    let asked = world.subscribers[subscriber].commands[commands..].iter();
    let fetches = asked.filter(|command| command.path.ends_with("/keys")).count();
    assert!((1..=6).contains(&fetches), "{fetches} fetches in 5 s");
    assert_eq!(world.ids(subscriber, stream).len(), 20);
    world.subscribers[subscriber].link.side_cut = false;
    world.finish(subscriber, stream, 20 * SECOND);
}

/// State and look-ups do not follow the number of claimed streams.
#[test]
fn a5_a_spray_of_stream_ids_costs_nothing() {
    let (mut world, subscriber, _) = World::in_mid_stream(1, 20);
    let mut random = Jitter::new(4);
    let kinds = [PacketType::Data, PacketType::Heartbeat, PacketType::Credential];
    let mut datagrams: Vec<Vec<u8>> = kinds
        .iter()
        .map(|&kind| world.captured_of(kind).pop().unwrap().to_vec())
        .collect();
    let commands = world.subscribers[subscriber].commands.len();
    let signatures = world.receiver(subscriber).counters().signatures;
    let before = world.receiver(subscriber).fingerprint();
    let now = world.now;
    let ids = if cfg!(debug_assertions) { 1 << 16 } else { 1 << 20 };
    for n in 0..ids {
        let datagram = &mut datagrams[n % 3];
        let id: Vec<u8> = (0..2)
            .flat_map(|_| random.below(u64::MAX).to_be_bytes())
            .collect();
        datagram[6..22].copy_from_slice(&id);
        let verdict = world.receiver(subscriber).receive_datagram(datagram, now);
        assert!(
            matches!(verdict, Some(Rejection::UnknownStream | Rejection::Gate)),
            "{verdict:?}"
        );
    }
    assert_eq!(world.receiver(subscriber).fingerprint(), before);
    assert_eq!(world.receiver(subscriber).counters().signatures, signatures);
    assert_eq!(world.receiver(subscriber).streams().count(), 1);
    world.pump_subscriber(subscriber);
    assert_eq!(world.subscribers[subscriber].commands.len(), commands);
}

#[test]
fn a6_lying_lengths_are_refused() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 30);
    let stream = world.stream(publisher);
    for kind in [
        PacketType::Data,
        PacketType::Heartbeat,
        PacketType::Credential,
        PacketType::Beacon,
    ] {
        let genuine = world.captured_of(kind).pop().unwrap();
        for length in 0..genuine.len() {
            world.refused(subscriber, &genuine[..length]);
        }
        for more in [
            1,
            8,
            16,
            72,
            1000,
            64_000,
            65_507 - genuine.len(),
            65_508 - genuine.len(),
        ] {
            let mut datagram = genuine.to_vec();
            datagram.resize(genuine.len() + more, 0);
            world.refused(subscriber, &datagram);
        }
        for index in 0..=255 {
            for count in 0..=255 {
                if (index, count) != (genuine[54], genuine[55]) {
                    let mut datagram = genuine.to_vec();
                    (datagram[54], datagram[55]) = (index, count);
                    world.refused(subscriber, &datagram);
                }
            }
        }
    }
    for length in [0, 1, 63, 64, 135, 136, 152, 65_507, 65_508, 100_000] {
        assert_eq!(world.refused(subscriber, &vec![0; length]), Rejection::Malformed);
    }
    world.send(publisher, 5, 1100);
    world.finish(subscriber, stream, SECOND);
}

/// The same from a publisher who signs it: told as lost, no panic, memory as configured.
#[test]
fn a6_lying_lengths_in_signed_frames_are_reported() {
    let mut world = World::new(1);
    let limit = 1 << 20;
    let subscriber = world.add_subscriber_with(|config| config.stream.buffer_bytes = limit);
    let publisher = world.add_publisher();
    world.settle();
    let forge = world.forge(publisher);
    let varint = |value: u64| {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        out
    };
    let most = (1 << 62) - 1;
    let part = |id: u64, offset: u64, total: u64, length: u64, data: &[u8]| {
        [
            vec![0x41],
            varint(id),
            varint(offset),
            varint(total),
            varint(length),
            data.to_vec(),
        ]
        .concat()
    };
    let malformed = [
        vec![0x01],
        vec![0x40],
        vec![0x48, 0, 0],
        vec![0x7f],
        vec![0x80],
        vec![0x80, 5, 0],
        vec![0xff, 0xff, 0xff, 0xff],
        // A varint longer than need be.
        vec![0x40, 0x40, 0x01, 0x00],
        vec![0x40, 0x00, 0x80, 0, 0, 1, 9],
        [vec![0x40, 0], varint(most)].concat(),
        part(1, 0, 0, 0, b""),
        part(1, 5, 4, 0, b""),
        part(1, most, most, 5, b"12345"),
        part(1, 0, 4, 5, b"12345"),
        // A topic that is no text, a topic on a part that is not the first, an origin that is cut short.
        vec![0x42, 0, 1, 0xff, 0],
        vec![0x43, 0, 1, 5, 1, b'a', 1, b'x'],
        vec![0x44, 0, 1, 2, 3],
    ];
    let mut sequence = 0;
    let mut send = |world: &mut World, plaintext: &[u8]| {
        let header = forge.data_header(sequence as u8, sequence, 1, world.now);
        let datagrams = forge.block(header, &[plaintext.to_vec()]);
        sequence += 1;
        world.feed(subscriber, &datagrams[0])
    };
    for (n, plaintext) in malformed.iter().enumerate() {
        assert_eq!(send(&mut world, plaintext), None);
        let gaps = world.gaps(subscriber, forge.stream);
        assert_eq!(gaps.last(), Some(&(n as u64, Some(n as u64))), "{plaintext:x?}");
    }
    assert!(world.subscribers[subscriber].messages.is_empty());
    // Longer than taken: the message is reported, the packet is no gap.
    assert_eq!(send(&mut world, &part(7, 0, most, 5, b"12345")), None);
    assert_eq!(send(&mut world, &part(7, 5, most, 5, b"12345")), None);
    // Parts that stand far out in their message must not reserve what they claim.
    for id in 100..160 {
        assert_eq!(
            send(&mut world, &part(id, (16 << 20) - 1, 16 << 20, 1, b"1")),
            None
        );
    }
    let lost = |event: &&Event| matches!(event, Event::MessageLost { .. });
    assert!(world.subscribers[subscriber].events.iter().filter(lost).count() >= 1);
    let buffered: u64 = world
        .receiver(subscriber)
        .streams()
        .map(|stream| stream.buffered_bytes())
        .sum();
    assert!(
        buffered <= limit + (16 << 20),
        "{buffered} bytes are held for 60 bytes received"
    );
    // The stream is alive.
    assert_eq!(send(&mut world, &message(500, b"alive")), None);
    assert_eq!(world.subscribers[subscriber].messages.len(), 1);
}

/// The same stream key and group keys misused on two channels (DP-2): nothing crosses over.
#[test]
fn a8_a_packet_of_another_channel_is_refused() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 5);
    let genuine = world.forge(publisher);
    let other = Forge {
        channel: channel_id(&world.key_server.site.id, "ward-4/vitals"),
        ..world.forge(publisher)
    };
    let header = genuine.data_header(9, 5, 1, world.now);
    // Signed for the other channel, gated with this channel's key.
    let datagram = &other.block(header, &[message(5, b"crossed")])[0];
    assert_eq!(world.refused(subscriber, datagram), Rejection::Signature);
    // Signed for this one, sealed for the other: known to be lost, never delivered.
    let body = other.seal_body(&header, &message(5, b"crossed"));
    let signature = genuine.sign(&header, &genuine.leaf(&header, &body));
    let datagram = genuine.datagram(&header, &body, &[], &signature);
    assert_eq!(world.feed(subscriber, &datagram), Some(Rejection::Open));
    assert_eq!(world.gaps(subscriber, genuine.stream), [(5, Some(5))]);
    assert_eq!(world.subscribers[subscriber].messages.len(), 5);
}

/// Reserved and unknown types are counted and ignored, whoever sends them (DP-4, DP-35).
#[test]
fn reserved_and_unknown_types_are_ignored() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 5);
    let forge = world.forge(publisher);
    for kind in [PacketType::Rekey, PacketType::Root] {
        let header = Header {
            packet_type: kind,
            first_sequence: 0,
            ..forge.data_header(1, 0, 1, world.now)
        };
        let datagram = &forge.block(header, &[b"reserved".to_vec()])[0];
        assert_eq!(world.refused(subscriber, datagram), Rejection::ReservedType);
        for code in [0, 8, 77, 255] {
            let mut datagram = datagram.clone();
            datagram[5] = code;
            assert_eq!(world.refused(subscriber, &datagram), Rejection::UnknownType);
        }
    }
}

/// Every bit of every kind of packet, flipped alone.
#[test]
fn invariant_1_no_flipped_bit_changes_state() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 30);
    // Packets that the subscriber has not seen, so that nothing hides behind a duplicate.
    world.drop_if = Some(Box::new(|_, _| true));
    world.send(publisher, 7, 300);
    world.run_for(30 * MILLI);
    let count = world.captured.len();
    world.run_for(2 * SECOND + MILLI);
    let fresh: Vec<_> = world.captured[count - 7..]
        .iter()
        .map(|(_, datagram)| datagram.clone())
        .collect();
    for kind in [
        PacketType::Data,
        PacketType::Heartbeat,
        PacketType::Credential,
        PacketType::Beacon,
    ] {
        let genuine = fresh.iter().rfind(|datagram| datagram[5] == kind as u8);
        let genuine = genuine
            .cloned()
            .unwrap_or_else(|| world.captured_of(kind).pop().unwrap());
        for bit in 0..genuine.len() * 8 {
            let mut datagram = genuine.to_vec();
            datagram[bit / 8] ^= 1 << (bit % 8);
            world.refused(subscriber, &datagram);
        }
    }
}

/// Invariant 2 and DP-22. An inherent method would be preferred to the trait's, and this would no longer compile.
#[test]
fn invariant_2_a_receiver_has_nothing_to_transmit() {
    struct Nothing;
    trait Silent {
        fn poll_transmit(&mut self) -> Nothing {
            Nothing
        }
    }
    impl Silent for sealcast_core::receiver::Receiver {}
    let (mut world, subscriber, _) = World::in_mid_stream(1, 1);
    let _: Nothing = world.receiver(subscriber).poll_transmit();
}

/// A packet that was never parsed has no view: what reads the wire is total.
#[test]
fn a6_parsing_is_total() {
    let mut random = Jitter::new(5);
    for _ in 0..20_000 {
        let length = random.below(300) as usize;
        let mut bytes = random_bytes(&mut random, length);
        if length > 6 {
            bytes[..5].copy_from_slice(&[0x53, 0x45, 0x41, 0x4c, 1]);
            bytes[5] = random.below(9) as u8;
        }
        if let Ok(view) = PacketView::parse(&bytes) {
            assert!(view.header.index < view.header.count);
        }
    }
}

/// What an outsider writes into a header must not displace the keys of genuine epochs, nor derive new ones.
#[test]
fn invariant_1_a_spray_of_held_epochs_keeps_no_keys() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 5);
    let stream = world.stream(publisher);
    let genuine = world.captured_of(PacketType::Data).pop().unwrap();
    let keyring = |world: &mut World| {
        let keyring = &world.receiver(subscriber).member().admitted().unwrap().keyring;
        (keyring.held_epoch_numbers(), keyring.cached_epochs())
    };
    let before = keyring(&mut world);
    for slot in 999..1004u32 {
        for generation in [4u32, 5, 6] {
            for step in 0..=255 {
                let mut datagram = genuine.to_vec();
                datagram[22..25].copy_from_slice(&slot.to_be_bytes()[1..]);
                datagram[25] = step;
                datagram[26..30].copy_from_slice(&generation.to_be_bytes());
                datagram[46..54].copy_from_slice(&1000u64.to_be_bytes());
                world.refused(subscriber, &datagram);
            }
        }
    }
    assert_eq!(keyring(&mut world), before);
    world.send(publisher, 5, 1100);
    world.finish(subscriber, stream, SECOND);
}

/// What stands in a header costs a gate, and a derivation only the first time: also where claims take turns (A2).
#[test]
fn a2_claims_of_held_epochs_in_turn_cost_no_derivation_each() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 5);
    let stream = world.stream(publisher);
    let genuine = world.captured_of(PacketType::Data).pop().unwrap();
    let derivations = |world: &mut World| {
        let admitted = world.receiver(subscriber).member().admitted().unwrap();
        admitted.keyring.derivations()
    };
    let before = derivations(&mut world);
    let present = world.key_server.epoch(world.now);
    let mut gates = 0;
    for n in 0..20_000u32 {
        let mut datagram = genuine.to_vec();
        // Four slots that are held, and the steps from the present one on: four of them can be derived.
        let slot = present.slot + n % 4;
        let step = present.step + (n / 4 % 50) as u8;
        datagram[22..25].copy_from_slice(&slot.to_be_bytes()[1..]);
        datagram[25] = step;
        datagram[46..54].copy_from_slice(&1000u64.to_be_bytes());
        let verdict = world.refused(subscriber, &datagram);
        let is_derivable = step <= present.step + 4;
        gates += u32::from(verdict == Rejection::Gate);
        assert_eq!(verdict == Rejection::Gate, is_derivable, "{verdict:?}");
    }
    assert_eq!(gates, 2000);
    assert!(derivations(&mut world) - before <= 4 * 5);
    world.send(publisher, 5, 1100);
    world.finish(subscriber, stream, SECOND);
}

/// A recorded beacon or heartbeat, sent again and again, costs no signature check.
#[test]
fn a1_replayed_beacons_and_heartbeats_cost_no_signature() {
    let (mut world, subscriber, _) = World::in_mid_stream(1, 5);
    world.run_for(20 * SECOND);
    let signatures = world.receiver(subscriber).counters().signatures;
    for kind in [PacketType::Beacon, PacketType::Heartbeat] {
        let captured = world.captured_of(kind);
        assert!(captured.len() > 5);
        for datagram in captured.iter().cycle().take(2000) {
            world.refused(subscriber, datagram);
        }
    }
    assert_eq!(world.receiver(subscriber).counters().signatures, signatures);
}
