//! Numbers and keys that come to their end: nothing wraps, nothing is sealed twice, nobody uses a key up.

use std::collections::HashMap;

use crate::abuse_replay::pairs_of;
use crate::common::forge::message;
use crate::common::{SECOND, World};
use sealcast_core::event::Event;
use sealcast_core::fec::{Fec, Ratio};
use sealcast_core::heartbeat::Heartbeat;
use sealcast_core::rejection::Rejection;
use sealcast_core::retention::Datagram;
use sealcast_core::sender::{SendError, SenderConfig};
use sealcast_core::stream::Start;
use sealcast_core::wire::{Header, MAX_SEQUENCE, PacketType, PacketView};

/// A publisher whose first packet and message have these numbers, and a subscriber.
fn starting_at(sequence: u64, message_id: u64, change: impl FnOnce(&mut SenderConfig)) -> World {
    let mut world = World::new(1);
    let publisher = world.add_publisher();
    world.start_publisher(publisher, change);
    world.sender(publisher).begin_at(sequence, message_id);
    world.settle();
    // It is told where the stream stands.
    world.add_subscriber();
    world.settle();
    world
}

/// Sends until the stream takes no more, then ends it; how many messages that were.
fn send_all_it_takes(world: &mut World, length: usize) -> usize {
    for count in 0..10_000 {
        let refused = world.sender(0).send(None, vec![0; length]).err();
        world.pump_publisher(0);
        if let Some(error) = refused {
            assert_eq!(error, SendError::Exhausted);
            let now = world.now;
            world.sender(0).finish(None, now);
            return count;
        }
    }
    panic!("it takes messages for ever");
}

fn sequences(datagrams: &[Datagram]) -> Vec<u64> {
    let header = |datagram: &Datagram| PacketView::parse(datagram).unwrap().header;
    datagrams
        .iter()
        .map(|datagram| header(datagram).sequence())
        .collect()
}

/// What was taken is delivered, losses mended; what would need a sequence that there is not is refused; the end is said.
#[test]
fn b8_a_stream_stops_at_its_last_sequence() {
    for fec in [Fec::Off, Fec::Fixed(Ratio::new(8, 2).unwrap())] {
        let start = MAX_SEQUENCE - 2000;
        let mut world = starting_at(start, 0, |config| config.fec = Some(fec));
        world.subscribers[0].link.loss = 100;
        let stream = world.stream(0);
        // What comes after the first refusal cannot be less than what the numbers that are left allow.
        let large = world.sender(0).send(None, vec![0; 3 << 20]);
        assert_eq!(large, Err(SendError::Exhausted));
        let sent = send_all_it_takes(&mut world, 1100);
        assert!(world.run_until(10 * SECOND, |world| world.ids(0, stream).len() == sent));
        world.run_for(3 * SECOND);

        let data = sequences(&world.captured_of(PacketType::Data));
        assert!(data.iter().copied().eq(start..start + data.len() as u64));
        let (next, _) = world.sender(0).reach();
        assert!((MAX_SEQUENCE - 2..=MAX_SEQUENCE).contains(&next), "{next:x}");
        assert_eq!(world.gaps(0, stream), []);
        let ended = |event: &&Event| matches!(event, Event::StreamEnded { next_sequence, .. } if *next_sequence == next);
        assert_eq!(world.subscribers[0].events.iter().filter(ended).count(), 1);
        assert_eq!(
            world.receiver(0).counters().rejected(Rejection::Malformed),
            0,
            "parity that reaches beyond the last sequence"
        );
        assert!(world.sender(0).is_finished());
    }
}

#[test]
fn b8_a_stream_stops_at_its_last_message_id() {
    let mut world = starting_at(0, MAX_SEQUENCE - 5, |_| ());
    let stream = world.stream(0);
    assert_eq!(send_all_it_takes(&mut world, 10), 5);
    world.run_for(3 * SECOND);
    assert!(
        world
            .ids(0, stream)
            .into_iter()
            .eq(MAX_SEQUENCE - 5..MAX_SEQUENCE)
    );
}

/// Last values are messages like any other.
#[test]
fn b8_last_values_are_not_sent_again_beyond_the_end() {
    let mut world = starting_at(0, MAX_SEQUENCE - 3, |config| {
        (config.retain.topics, config.retain.bytes) = (8, 1 << 10);
    });
    for topic in ["a", "b"] {
        assert!(world.sender(0).send(Some(topic), vec![1]).is_ok());
    }
    world.pump_publisher(0);
    let newcomer = world.add_subscriber_with(|config| config.start = Start::Last);
    world.run_for(30 * SECOND);
    // One number was left for one of the two.
    assert_eq!(world.subscribers[newcomer].messages.len(), 1);
    assert_eq!(world.sender(0).send(None, vec![1]), Err(SendError::Exhausted));
}

/// The last sequence there is is delivered; a packet or heartbeat that speaks of one above it is none.
#[test]
fn b8_a_receiver_takes_the_last_sequence_and_none_above() {
    let mut world = starting_at(MAX_SEQUENCE - 3, 0, |_| ());
    let forge = world.forge(0);
    let heartbeat = |block: u8, counter: u64, next_sequence: u64| {
        let header = Header {
            packet_type: PacketType::Heartbeat,
            ..forge.data_header(block, 0, 1, world.now)
        };
        let body = Heartbeat {
            counter,
            next_sequence,
            is_final: false,
            successor: None,
        };
        forge.block(header, &[body.encode()]).remove(0)
    };
    let (last, beyond) = (
        heartbeat(1, 1 << 40, MAX_SEQUENCE),
        heartbeat(2, 1 << 41, MAX_SEQUENCE + 1),
    );
    let plaintexts: Vec<_> = (0..3).map(|id| message(id, b"one of the last")).collect();
    let block = forge.block(forge.data_header(3, MAX_SEQUENCE - 3, 3, world.now), &plaintexts);
    // As no sealer makes it: the same block one further on.
    let mut above = block[2].clone();
    above[46..54].copy_from_slice(&(MAX_SEQUENCE - 2).to_be_bytes());
    for datagram in [&above, &beyond] {
        assert_eq!(world.refused(0, datagram), Rejection::Malformed);
    }
    for datagram in [&last, &block[0], &block[2], &block[1]] {
        assert_eq!(world.feed(0, datagram), None);
    }
    for datagram in [&above, &beyond] {
        assert_eq!(world.refused(0, datagram), Rejection::Malformed);
    }
    assert_eq!(world.ids(0, forge.stream), [0, 1, 2]);
}

/// KM-22: what AES-GCM allows for a key (2^23 packets) is out of reach, since a key is one block's.
#[test]
fn b8_a_key_seals_64_packets_at_most() {
    let mut world = World::new(1);
    let publisher = world.add_publisher();
    world.settle();
    world.send(publisher, 5000, 1100);
    world.run_for(5 * SECOND);
    let captured: Vec<_> = world
        .captured
        .iter()
        .map(|(_, datagram)| datagram.clone())
        .collect();
    let mut uses: HashMap<[u8; 32], usize> = HashMap::new();
    for (key, index) in pairs_of(&world.key_server, &captured) {
        assert!(index < 64);
        *uses.entry(key).or_default() += 1;
    }
    assert_eq!(uses.values().max(), Some(&64));
}

/// KM-22: what an attacker makes up never comes to be opened, so that there are no failures of a key to count. An insider's
/// gate tags hold; outsiders do not come as far.
#[test]
fn b8_no_forgery_is_tried_on_a_key() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 20);
    let (stream, forge) = (world.stream(publisher), world.forge(publisher));
    let genuine = world.captured_of(PacketType::Data).pop().unwrap();
    let view = PacketView::parse(&genuine).unwrap();
    let flood = if cfg!(debug_assertions) { 2_000 } else { 20_000u64 };
    for n in 0..flood {
        // Under the key of a block that was sent, another text in a place that is free.
        let header = Header {
            first_sequence: 100 + n,
            ..view.header
        };
        let body = forge.seal_body(&header, &n.to_be_bytes());
        let datagram = forge.datagram(&header, &body, view.path, view.signature);
        let verdict = world.refused(subscriber, &datagram);
        assert!(
            matches!(verdict, Rejection::Signature | Rejection::SignatureBudget),
            "{verdict:?}"
        );
    }
    assert_eq!(world.receiver(subscriber).counters().rejected(Rejection::Open), 0);
    world.send(publisher, 20, 1100);
    world.finish(subscriber, stream, 5 * SECOND);
}
