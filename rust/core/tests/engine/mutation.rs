//! Ten million packets that nobody sent, made from packets that somebody did, against a subscriber in mid-stream: none is
//! accepted, none changes its state, none makes it panic or grow.
//!
//! `SEALCAST_MUTATIONS` sets the number for a soak, `SEALCAST_SEED` the seed. Meant for release builds; debug builds do little.

use std::sync::Mutex;
use std::time::Instant;

use crate::common::{Forge, SECOND, World};
use sealcast_core::crypto::Jitter;
use sealcast_core::rejection::Rejection;
use sealcast_core::wire::{HEADER_BYTES, PacketType, PacketView, Time};

/// The fields of the header: offset and length.
const FIELDS: [(usize, usize); 11] = [
    (0, 4),
    (4, 1),
    (5, 1),
    (6, 16),
    (22, 3),
    (25, 1),
    (26, 4),
    (30, 16),
    (46, 8),
    (54, 2),
    (56, 8),
];
const EDGES: [u64; 10] = [0, 1, 2, 63, 64, 65, 255, 1 << 62, u64::MAX - 1, u64::MAX];

/// One at a time: memory is measured.
static ALONE: Mutex<()> = Mutex::new(());

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Resident memory in KiB, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Valid packets of every type, of two streams and several epochs; most of them new to the subscriber.
struct Corpus {
    world: World,
    subscriber: usize,
    packets: Vec<Vec<u8>>,
    /// Those that the subscriber has not seen, in order.
    fresh: Vec<Vec<u8>>,
}

impl Corpus {
    fn new() -> Self {
        let mut world = World::new(1);
        // A short history, so that the digest of the state is quick to take.
        let subscriber = world.add_subscriber_with(|config| config.stream.history_packets = 64);
        let publishers = [world.add_publisher(), world.add_publisher()];
        world.settle();
        for round in 0..3 {
            for publisher in publishers {
                for (count, length) in [(1, 20), (9, 300), (64, 1100), (1, 5000)] {
                    world.send(publisher, count, length);
                    world.run_for(SECOND / 10);
                }
            }
            if round < 2 {
                world.key_server.turn_generation();
            }
            world.run_for(3 * SECOND);
        }
        let seen = world.captured.len();
        world.drop_if = Some(Box::new(|_, _| true));
        for publisher in publishers {
            for (count, length) in [(1, 20), (1, 1100), (9, 300), (64, 1100), (200, 30)] {
                world.send(publisher, count, length);
            }
        }
        world.run_for(3 * SECOND);
        let all = |captured: &[(Time, sealcast_core::retention::Datagram)]| -> Vec<Vec<u8>> {
            captured.iter().map(|(_, datagram)| datagram.to_vec()).collect()
        };
        let fresh = all(&world.captured[seen..]);
        let mut packets = all(&world.captured);
        // Fresh ones are what a forger would rather begin with.
        for _ in 0..4 {
            packets.extend(fresh.iter().cloned());
        }
        Self {
            world,
            subscriber,
            packets,
            fresh,
        }
    }
}

/// Changes `packet`, which is a copy of a valid one, with the help of `other`.
fn mutate(packet: &mut Vec<u8>, other: &[u8], random: &mut Jitter) {
    let below = |random: &mut Jitter, bound: usize| random.below(bound as u64) as usize;
    match random.below(10) {
        0..3 => {
            for _ in 0..=random.below(8) {
                let bit = below(random, packet.len() * 8);
                packet[bit / 8] ^= 1 << (bit % 8);
            }
        }
        3 => packet.truncate(below(random, packet.len())),
        4 => {
            let more = 1 + below(random, 200);
            let from = below(random, other.len());
            packet.extend(other[from..].iter().chain(other).take(more));
        }
        5 => {
            // A field of the header of another packet.
            let (at, length) = FIELDS[below(random, FIELDS.len())];
            packet[at..at + length].copy_from_slice(&other[at..at + length]);
        }
        6 => {
            // A field of the header with a value from the edge of its range, or any value.
            let (at, length) = FIELDS[2 + below(random, FIELDS.len() - 2)];
            let value = match random.below(2) {
                0 => EDGES[below(random, EDGES.len())],
                _ => random.below(u64::MAX),
            };
            let bytes = value.to_be_bytes();
            for (n, byte) in packet[at..at + length].iter_mut().rev().enumerate() {
                *byte = bytes[7 - n % 8];
            }
        }
        7 => {
            // The front of one and the end of another.
            let at = below(random, packet.len().min(other.len()));
            packet.truncate(at);
            packet.extend_from_slice(&other[at..]);
        }
        8 => {
            // Signature and gate, or gate alone, of another.
            let length = if random.below(2) == 0 { 8 } else { 72 };
            let (at, from) = (packet.len() - length, other.len() - length);
            packet[at..].copy_from_slice(&other[from..]);
        }
        _ => {
            // The whole header of another: its body, path and signature stand at a place that exists.
            packet[..HEADER_BYTES].copy_from_slice(&other[..HEADER_BYTES]);
        }
    }
}

#[test]
fn mutated_packets_are_refused_without_a_trace() {
    let _alone = ALONE.lock();
    let default = if cfg!(debug_assertions) {
        100_000
    } else {
        10_000_000
    };
    let count = from_environment("SEALCAST_MUTATIONS", default);
    let seed = from_environment("SEALCAST_SEED", 1);
    let mut random = Jitter::new(seed);
    let mut corpus = Corpus::new();
    let subscriber = corpus.subscriber;
    let mut now = corpus.world.now;
    let receiver = corpus.world.receiver(subscriber);
    let before = (receiver.fingerprint(), receiver.next_deadline());
    let counters = receiver.counters().clone();
    let memory = resident();
    let started = Instant::now();
    let mut packet = Vec::with_capacity(4096);
    let mut unchanged = 0u64;
    for n in 0..count {
        let base = &corpus.packets[random.below(corpus.packets.len() as u64) as usize];
        let other = &corpus.packets[random.below(corpus.packets.len() as u64) as usize];
        packet.clear();
        packet.extend_from_slice(base);
        mutate(&mut packet, other, &mut random);
        if packet == *base || packet == *other {
            unchanged += 1;
            continue;
        }
        now += 1;
        let verdict = receiver.receive_datagram(&packet, now);
        assert!(
            verdict.is_some(),
            "seed {seed}, packet {n} was accepted: {packet:02x?}"
        );
        if n < 100_000 || n % 1000 == 0 {
            let after = (receiver.fingerprint(), receiver.next_deadline());
            assert!(
                after == before,
                "seed {seed}, packet {n} left a trace ({verdict:?}): {packet:02x?}"
            );
        }
    }
    let elapsed = started.elapsed();
    assert_eq!((receiver.fingerprint(), receiver.next_deadline()), before);
    assert_eq!(receiver.poll_event(), None);
    assert_eq!(receiver.poll_command(), None);
    if let (Some(before), Some(after)) = (memory, resident()) {
        assert!(after < before + 32 * 1024, "grew from {before} to {after} KiB");
    }
    let after = receiver.counters();
    assert_eq!(after.accepted, counters.accepted);
    let checked = after.signatures - counters.signatures;
    println!(
        "{} packets in {elapsed:.1?} ({:.2} us each), seed {seed}, {checked} signatures checked",
        count - unchanged,
        elapsed.as_secs_f64() * 1e6 / count as f64,
    );
    let mut refusals = 0;
    for reason in Rejection::ALL {
        let refused = after.rejected(reason) - counters.rejected(reason);
        refusals += refused;
        if refused > 0 {
            println!("  {:>10} {}", refused, reason.as_str());
        }
    }
    assert_eq!(refusals, count - unchanged);
    assert!(unchanged < count / 10);
    everything_genuine_is_still_taken(corpus, now);
}

/// The same with the right gate tag each time, as a member could make it: the signature is what stops them.
#[test]
fn mutated_packets_with_a_right_gate_tag_are_refused_too() {
    let _alone = ALONE.lock();
    let default = if cfg!(debug_assertions) { 2_000 } else { 50_000 };
    let count = from_environment("SEALCAST_GATED_MUTATIONS", default);
    let seed = from_environment("SEALCAST_SEED", 2);
    let mut random = Jitter::new(seed);
    let mut corpus = Corpus::new();
    let subscriber = corpus.subscriber;
    let key_server = &corpus.world.key_server;
    let mut forges: Vec<Forge> = Vec::new();
    for packet in &corpus.packets {
        let epoch = PacketView::parse(packet).unwrap().header.epoch;
        if forges.iter().all(|forge| forge.epoch != epoch) {
            forges.push(Forge::new(
                key_server,
                epoch,
                &sealcast_core::crypto::Secret::new([1; 32]),
            ));
        }
    }
    let mut now = corpus.world.now;
    let packets = corpus.packets.clone();
    let receiver = corpus.world.receiver(subscriber);
    let signatures = receiver.counters().signatures;
    let mut tried = 0;
    while tried < count {
        let base = &packets[random.below(packets.len() as u64) as usize];
        let other = &packets[random.below(packets.len() as u64) as usize];
        let mut packet = base.clone();
        mutate(&mut packet, other, &mut random);
        let Ok(view) = PacketView::parse(&packet) else {
            continue;
        };
        let Some(forge) = forges.iter().find(|forge| forge.epoch == view.header.epoch) else {
            continue;
        };
        let packet = forge.datagram(&view.header, view.body, view.path, view.signature);
        if packets.contains(&packet) {
            continue;
        }
        tried += 1;
        // Time for the budgets to recover: here every signature is to be checked.
        now += 5_000;
        let before = receiver.fingerprint();
        let verdict = receiver.receive_datagram(&packet, now);
        if view.header.packet_type == PacketType::Credential {
            // Parts are gathered, within bounds, before the signature that they end in (DP-30).
            assert_eq!(receiver.streams().count(), 2);
            continue;
        }
        assert!(verdict.is_some(), "seed {seed}: accepted {packet:02x?}");
        assert_eq!(
            receiver.fingerprint(),
            before,
            "seed {seed}: {verdict:?} left a trace of {packet:02x?}"
        );
    }
    let checked = receiver.counters().signatures - signatures;
    println!("{tried} packets with a right gate tag, {checked} signatures checked");
    assert!(checked > count / 10);
    everything_genuine_is_still_taken(corpus, now);
}

/// After all that, the packets that were the models are delivered as if nothing had happened.
fn everything_genuine_is_still_taken(mut corpus: Corpus, now: Time) {
    let subscriber = corpus.subscriber;
    for datagram in &corpus.fresh {
        corpus.world.receiver(subscriber).receive_datagram(datagram, now);
    }
    corpus.world.pump_subscriber(subscriber);
    for publisher in 0..2 {
        let stream = corpus.world.stream(publisher);
        corpus.world.assert_complete(subscriber, stream);
    }
}
