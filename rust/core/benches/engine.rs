//! What one core seals and opens, and what each primitive costs: `cargo bench -p sealcast-core [-- --json] [-- 64]`.
//!
//! Every figure is the median of some runs, with the lowest and the highest; the engine's are whole packets through `Sender` and
//! `Receiver`, fresh block ids and key derivation included, without sockets. Time is that of this thread on a processor where the
//! system tells it (Linux), so that other work on the machine counts little; else it is the wall's.

// It uses a part of what the tests stand on.
#[allow(dead_code, unused_imports)]
#[path = "../tests/engine/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Instant;

use common::{SECOND, World};
use sealcast_core::block::{leaf_hashes, sign_input};
use sealcast_core::crypto::{BlockKey, GateKey, Gated, Secret, SigningKey, Suite, VerifyingKey, kdf};
use sealcast_core::event::Event;
use sealcast_core::retention::Datagram;
use sealcast_core::schedule::block_key;
use sealcast_core::wire::BlockId;

const RUNS: usize = 9;
/// Packets in a run.
const PACKETS: usize = 16384;
const BLOCK_SIZES: [u8; 4] = [1, 8, 16, 64];
/// Fills a packet at MTU 1500: 1,204 bytes of frames less type, message id and length.
const MESSAGE_BYTES: usize = 1204 - 7;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Seconds since some moment, in steps of a few milliseconds.
fn clock() -> f64 {
    let on_cpu = || {
        let times = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        times.split_whitespace().next()?.parse::<f64>().ok()
    };
    on_cpu().map_or_else(|| EPOCH.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}

struct Figure {
    name: String,
    unit: &'static str,
    /// Sorted.
    runs: Vec<f64>,
}

impl Figure {
    fn new(name: String, unit: &'static str, mut runs: Vec<f64>) -> Self {
        runs.sort_by(f64::total_cmp);
        Self { name, unit, runs }
    }

    fn median(&self) -> f64 {
        self.runs[self.runs.len() / 2]
    }

    fn text(&self) -> String {
        let (low, high) = (self.runs[0], self.runs[self.runs.len() - 1]);
        format!(
            "{:<44} {:>10.0} {} ({low:.0} to {high:.0})",
            self.name,
            self.median(),
            self.unit
        )
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name,
            "unit": self.unit,
            "median": self.median(),
            "low": self.runs[0],
            "high": self.runs[self.runs.len() - 1],
            "runs": self.runs.len(),
        })
    }
}

/// Nanoseconds of one call.
fn time(name: &str, calls: u32, mut call: impl FnMut(u32)) -> Figure {
    (0..calls / 4).for_each(&mut call);
    let run = |_| {
        let start = clock();
        (0..calls).for_each(&mut call);
        (clock() - start) * 1e9 / f64::from(calls)
    };
    Figure::new(name.to_owned(), "ns", (0..RUNS).map(run).collect())
}

/// Packets a second that are sealed; gives them, for opening.
fn seal(suite: Suite, block: u8) -> (World, Figure, Vec<Datagram>) {
    let mut world = World::with_suite(1, suite);
    let subscriber = world.add_subscriber_with(|config| config.queue_bytes = 1 << 40);
    let publisher = world.add_publisher();
    world.start_publisher(publisher, |config| {
        config.max_block = block;
        config.queue_bytes = 1 << 40;
    });
    world.settle();
    world.receiver(subscriber);
    let now = world.now;
    let sender = world.sender(publisher);
    let mut datagrams = Vec::new();
    let mut randomness = [0; 16];
    let mut runs = Vec::new();
    for _ in 0..=RUNS {
        for n in 0..PACKETS {
            sender.send(None, vec![n as u8; MESSAGE_BYTES]).unwrap();
        }
        let start = clock();
        for _ in 0..PACKETS / usize::from(block) {
            // The caller draws it from the operating system; here it only has to differ.
            randomness[..8].copy_from_slice(&(datagrams.len() as u64).to_be_bytes());
            assert_eq!(sender.seal_block(now, randomness), usize::from(block));
            datagrams.extend(core::iter::from_fn(|| sender.poll_transmit()));
        }
        runs.push(PACKETS as f64 / (clock() - start));
    }
    let figure = Figure::new(
        format!("seal, {suite:?}, blocks of {block}"),
        "packets/s",
        runs.split_off(1),
    );
    (world, figure, datagrams)
}

/// Packets a second that are verified, opened and delivered in order.
fn open(mut world: World, suite: Suite, block: u8, datagrams: &[Datagram]) -> Figure {
    let now = world.now + SECOND;
    let receiver = world.receiver(0);
    let mut runs = Vec::new();
    for run in datagrams.chunks(PACKETS) {
        let mut delivered = 0;
        let start = clock();
        // As many as a system call brings.
        for batch in run.chunks(256) {
            receiver.receive_datagrams(batch.iter().map(|datagram| &datagram[..]), now);
            while let Some(event) = receiver.poll_event() {
                delivered += usize::from(matches!(event, Event::Message(_)));
            }
        }
        runs.push(PACKETS as f64 / (clock() - start));
        assert_eq!(delivered, PACKETS);
    }
    Figure::new(
        format!("open, {suite:?}, blocks of {block}"),
        "packets/s",
        runs.split_off(1),
    )
}

/// Leaf and gate tag of a packet, of so many at a time.
fn hashes(suite: Suite, name: &str, secret: &Secret, count: usize) -> [Figure; 2] {
    let packet = [1u8; 1284];
    let packets = vec![&packet[..]; count];
    let gate = GateKey::new(suite, secret);
    let gated = vec![
        Gated {
            leaf: &[1; 32],
            path: &[2; 96],
            signature: &[3; 64]
        };
        count
    ];
    let of = |figure: Figure| Figure {
        runs: figure.runs.iter().map(|time| time / count as f64).collect(),
        ..figure
    };
    let calls = 100_000 / count as u32;
    [
        of(time(
            &format!("leaf, {name}, 1284 bytes, {count} at a time"),
            calls,
            |_| {
                black_box(leaf_hashes(suite, black_box(&packets)));
            },
        )),
        of(time(
            &format!("gate tag, {name}, {count} at a time"),
            calls,
            |_| {
                black_box(gate.tags(black_box(&gated)));
            },
        )),
    ]
}

fn primitives() -> Vec<Figure> {
    let key = SigningKey::from_seed(&Secret::new([7; 32]));
    let public = VerifyingKey::new(key.public_key()).unwrap();
    let statement = sign_input("sealcast/1 block data", &[3; 122]);
    let signature = key.sign(&statement);
    let secret = Secret::new([9; 32]);
    let mut figures = vec![
        time("Ed25519 sign, 144 bytes", 10_000, |_| {
            black_box(key.sign(black_box(&statement)));
        }),
        time("Ed25519 verify, 144 bytes", 10_000, |_| {
            assert!(public.verifies(black_box(&statement), &signature));
        }),
        time("KDF (HMAC-SHA-256, key set up)", 100_000, |n| {
            black_box(kdf(secret.expose(), "block", &[&n.to_be_bytes()]));
        }),
        time("block id", 100_000, |n| {
            black_box(key.block_id(&[1; 16], 1, u64::from(n), 2));
        }),
    ];
    for (suite, name) in [(Suite::Aes256Gcm, "SHA-256"), (Suite::Aes256GcmBlake3, "BLAKE3")] {
        figures.extend(
            [1, 64]
                .into_iter()
                .flat_map(|count| hashes(suite, name, &secret, count)),
        );
    }
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let block = BlockId([4; 16]);
        let sealer = block_key(suite, &secret, &block);
        let mut buffer = [5u8; 1204];
        let tag = BlockKey::new(suite, &secret).seal(0, &[6; 96], &mut [0; 1204]);
        let mut body = vec![5u8; 1204];
        let tag_of_body = sealer.seal(1, &[6; 96], &mut body);
        body.extend_from_slice(&tag_of_body);
        assert_ne!(tag, tag_of_body);
        figures.extend([
            time(&format!("{suite:?} seal, 1204 bytes"), 100_000, |n| {
                black_box(sealer.seal(n as u8, &[6; 96], black_box(&mut buffer)));
            }),
            time(&format!("{suite:?} open, 1204 bytes"), 100_000, |_| {
                assert!(sealer.open(1, &[6; 96], black_box(&body)).is_some());
            }),
            time(
                &format!("{suite:?} block key, derived and set up"),
                100_000,
                |n| {
                    let mut block = block;
                    block.0[..4].copy_from_slice(&n.to_be_bytes());
                    black_box(block_key(suite, &secret, &block));
                },
            ),
        ]);
    }
    figures
}

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    // `-- 64` leaves only blocks of 64, for a profile.
    let only: Option<u8> = std::env::args().find_map(|argument| argument.parse().ok());
    let mut figures = if only.is_none() { primitives() } else { Vec::new() };
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305, Suite::Aes256GcmBlake3] {
        if only.is_some()
            && !std::env::args()
                .skip(2)
                .all(|word| word.parse::<u8>().is_ok() || word == format!("{suite:?}"))
        {
            continue;
        }
        for block in BLOCK_SIZES
            .into_iter()
            .filter(|block| only.is_none_or(|only| *block == only))
        {
            let (world, sealed, datagrams) = seal(suite, block);
            figures.push(sealed);
            figures.push(open(world, suite, block, &datagrams));
        }
    }
    if json {
        let figures: Vec<_> = figures.iter().map(Figure::json).collect();
        println!("{}", serde_json::Value::from(figures));
    } else {
        for figure in &figures {
            println!("{}", figure.text());
        }
    }
}
