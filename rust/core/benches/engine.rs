//! The engine alone, on one core: packets a second on each side, and the primitives that they are made of.
//!
//! ```text
//! engine [--json] [--quick] [--rounds N] [--only seal|open|primitive] [--block PACKETS]
//! ```
//!
//! Packets are as large as an MTU of 1500 allows, a message each. Sealing goes from the queue of messages to datagrams and
//! holds them for repair, as a publisher does; opening goes from datagrams to messages. Every block has an id, a key and a
//! signature of its own, on both sides, so that deriving the key and checking the signature are in the figures.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sealcast_core::block::Tree;
use sealcast_core::crypto::{BlockKey, GateKey, Secret, SigningKey, Suite, VerifyingKey, sha256};
use sealcast_core::event::Event;
use sealcast_core::retention::Datagram;
use sealcast_core::schedule::block_key;
use sealcast_core::wire::{BlockId, Time};

#[path = "../tests/common/mod.rs"]
mod common;

use common::{SECOND, World};

/// Bytes of a packet's plaintext, and of the frame around a message that fills it.
const PAYLOAD_BYTES: usize = 1204;
const FRAME_BYTES: usize = 8;
/// What a sender's thread draws from the operating system for each block.
const RANDOMNESS_BYTES: usize = 16;

struct Options {
    json: bool,
    quick: bool,
    rounds: usize,
    only: Option<String>,
    blocks: Vec<u8>,
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            json: false,
            quick: false,
            rounds: 5,
            only: None,
            blocks: vec![1, 8, 16, 64],
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => options.json = true,
                "--quick" => options.quick = true,
                "--rounds" => options.rounds = number(words.next()),
                "--only" => options.only = words.next(),
                "--block" => options.blocks = vec![number(words.next()) as u8],
                // cargo bench adds this one.
                "--bench" => {}
                other => panic!("there is no option {other}"),
            }
        }
        options
    }

    /// How long one round of one figure takes.
    fn round(&self) -> Duration {
        Duration::from_millis(if self.quick { 60 } else { 400 })
    }

    fn wants(&self, group: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == group)
    }

    fn report(&self, group: &str, name: &str, unit: &str, mut values: Vec<f64>) {
        if self.json {
            let values = serde_json::json!(values);
            let line = serde_json::json!({"group": group, "name": name, "unit": unit, "values": values});
            println!("{line}");
        } else {
            values.sort_by(f64::total_cmp);
            let (least, most) = (values[0], values[values.len() - 1]);
            println!(
                "{name:<44} {:>12.2} ({least:.2} - {most:.2}) {unit}",
                values[values.len() / 2]
            );
        }
    }
}

fn number(word: Option<String>) -> usize {
    word.and_then(|word| word.parse().ok())
        .expect("--rounds and --block want a number")
}

fn main() {
    let options = Options::read();
    for &block in &options.blocks {
        if options.wants("seal") {
            let values = measure(&options, |round| seal(block, round));
            options.report("engine", &format!("seal, blocks of {block}"), "packets/s", values);
        }
    }
    for &block in &options.blocks {
        if options.wants("open") {
            let values = measure(&options, |round| open(block, round));
            options.report("engine", &format!("open, blocks of {block}"), "packets/s", values);
        }
    }
    if options.wants("primitive") {
        primitives(&options);
    }
}

fn measure(options: &Options, mut run: impl FnMut(Duration) -> f64) -> Vec<f64> {
    (0..options.rounds).map(|_| run(options.round())).collect()
}

// -- the engine --------------------------------------------------------------------------------------------------------

/// A subscriber and a publisher of blocks of `block` packets in mid-stream.
fn site(block: u8) -> World {
    let mut world = World::new(7);
    world.beacon_interval = None;
    world.add_subscriber();
    world.add_publisher();
    world.start_publisher(0, |config| config.max_block = block);
    world.settle();
    world.send(0, 1, 100);
    world.run_for(SECOND);
    assert_eq!(world.subscribers[0].messages.len(), 1);
    world
}

fn randomness() -> [u8; RANDOMNESS_BYTES] {
    let mut bytes = [0; RANDOMNESS_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness of the operating system");
    bytes
}

/// Queues and seals one block.
fn seal_one(world: &mut World, block: u8, message: &[u8], now: Time, out: &mut Vec<Datagram>) {
    let sender = world.sender(0);
    for _ in 0..block {
        sender.send(None, message.to_vec()).expect("there is room");
    }
    sender.seal_block(now, randomness());
    out.extend(std::iter::from_fn(|| sender.poll_transmit()));
}

fn seal(block: u8, round: Duration) -> f64 {
    let mut world = site(block);
    let (message, mut out, mut now) = (message(), Vec::new(), world.now);
    let (mut packets, start) = (0, Instant::now());
    while start.elapsed() < round {
        out.clear();
        now += 1;
        seal_one(&mut world, block, &message, now, &mut out);
        packets += out.len();
        debug_assert_eq!(out.len(), usize::from(block));
    }
    packets as f64 / start.elapsed().as_secs_f64()
}

fn open(block: u8, round: Duration) -> f64 {
    /// Datagrams that are sealed ahead of each stretch that is timed: few enough to be bounded, more than a cache holds.
    const AHEAD: usize = 8192;
    let mut world = site(block);
    let (message, mut out, now) = (message(), Vec::with_capacity(AHEAD), world.now);
    let (mut packets, mut spent) = (0, Duration::ZERO);
    while spent < round {
        out.clear();
        // A few where they are slow, so that a round is about as long as asked for.
        let ahead = if block == 1 { AHEAD / 16 } else { AHEAD };
        while out.len() < ahead {
            seal_one(&mut world, block, &message, now, &mut out);
        }
        let receiver = world.receiver(0);
        let (mut messages, start) = (0, Instant::now());
        for batch in out.chunks(64) {
            for datagram in batch {
                black_box(receiver.receive_datagram(datagram, now));
            }
            while let Some(event) = receiver.poll_event() {
                messages += usize::from(matches!(black_box(event), Event::Message(_)));
            }
        }
        spent += start.elapsed();
        assert_eq!(messages, out.len(), "every packet is delivered");
        packets += messages;
    }
    packets as f64 / spent.as_secs_f64()
}

fn message() -> Vec<u8> {
    vec![0x5e; PAYLOAD_BYTES - FRAME_BYTES]
}

// -- the primitives ----------------------------------------------------------------------------------------------------

/// Microseconds a call.
fn time(options: &Options, name: &str, mut call: impl FnMut()) {
    let values = measure(options, |round| {
        let (mut calls, start) = (0_u32, Instant::now());
        while start.elapsed() < round {
            for _ in 0..64 {
                call();
            }
            calls += 64;
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
    });
    options.report("primitive", name, "µs", values);
}

fn primitives(options: &Options) {
    let suite = Suite::Aes256Gcm;
    let secret = Secret::new([7; 32]);
    let signing = SigningKey::from_seed(&secret);
    let statement = [0x21; 140];
    let signature = signing.sign(&statement);
    let verifying = VerifyingKey::new(signing.public_key()).expect("a sound key");
    time(options, "Ed25519 sign", || {
        black_box(signing.sign(black_box(&statement)));
    });
    time(options, "Ed25519 verify", || {
        black_box(verifying.verifies(black_box(&statement), &signature));
    });
    let key = BlockKey::new(suite, &secret);
    let (aad, mut buffer) = ([3; 106], vec![0x5e; PAYLOAD_BYTES]);
    time(options, "AES-256-GCM seal, 1,204 bytes", || {
        black_box(key.seal(0, &aad, black_box(&mut buffer)));
    });
    let mut body = vec![0x5e; PAYLOAD_BYTES];
    let tag = key.seal(0, &aad, &mut body);
    body.extend_from_slice(&tag);
    time(options, "AES-256-GCM open, 1,204 bytes", || {
        black_box(key.open(0, &aad, black_box(&body)));
    });
    let leaf = vec![0x5e; 1314];
    time(options, "SHA-256 of a leaf, 1,314 bytes", || {
        black_box(sha256(&[black_box(&leaf)]));
    });
    let node = [0x5e; 52];
    time(options, "SHA-256 of a node, 52 bytes", || {
        black_box(sha256(&[black_box(&node)]));
    });
    let gate = GateKey::new(&secret);
    let (hash, path) = ([1; 32], [2; 96]);
    time(options, "HMAC gate tag of a leaf in a block of 64", || {
        black_box(gate.tag(black_box(&hash), &path, &signature));
    });
    let block = BlockId([9; 16]);
    time(options, "block key derivation and set-up", || {
        black_box(block_key(suite, &secret, black_box(&block)));
    });
    time(options, "block id, randomness included", || {
        black_box(signing.block_id(&randomness(), 1, 0, 0));
    });
    let leaves = vec![[4; 32]; 64];
    time(options, "tree over 64 leaves", || {
        black_box(Tree::build(suite, &block, black_box(&leaves).clone()));
    });
}
