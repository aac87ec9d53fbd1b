//! What parity costs a data packet of 1,300 bytes: `cargo bench -p sealcast-core --bench fec`.
//!
//! Encoding a group, and decoding what a loss of 5 % leaves to decode; medians, by the time of this thread on a processor where
//! the system tells it (Linux).

use std::hint::black_box;
use std::time::Instant;

use sealcast_core::crypto::Jitter;
use sealcast_core::fec::{decode, encode};

const BYTES: usize = 1300;
const GROUPS: usize = 64;
const RUNS: usize = 15;
/// Packets in a run.
const PACKETS: usize = 100_000;
const LOSS: u64 = 50;

/// With their places.
type Symbols<'a> = Vec<(u8, &'a [u8])>;

fn clock(start: Instant) -> f64 {
    let on_cpu = || {
        let times = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        times.split_whitespace().next()?.parse::<f64>().ok()
    };
    on_cpu().unwrap_or_else(|| start.elapsed().as_secs_f64() * 1e9)
}

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn main() {
    let start = Instant::now();
    let mut random = Jitter::new(1);
    for (sources, parities) in [(8u8, 2u8), (20, 2), (20, 5), (32, 4), (40, 10), (64, 8)] {
        let packet = |random: &mut Jitter| (0..BYTES).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
        let groups: Vec<Vec<Vec<u8>>> = (0..GROUPS)
            .map(|_| (0..sources).map(|_| packet(&mut random)).collect())
            .collect();
        let groups: Vec<Vec<&[u8]>> = groups
            .iter()
            .map(|group| group.iter().map(Vec::as_slice).collect())
            .collect();
        let rounds = PACKETS / (GROUPS * usize::from(sources)) + 1;
        let packets = (rounds * GROUPS * usize::from(sources)) as f64;
        let (mut encoding, mut decoding) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let begin = clock(start);
            let mut made = Vec::new();
            for _ in 0..rounds {
                made = groups
                    .iter()
                    .map(|group| encode(black_box(group), parities))
                    .collect();
            }
            encoding.push((clock(start) - begin) / packets);
            // What is there of each group: those with more losses than parity are not decoded.
            let there: Vec<(Symbols<'_>, Symbols<'_>)> = groups
                .iter()
                .zip(&made)
                .map(|(group, parity)| {
                    let held: Symbols<'_> = (0u8..)
                        .zip(group)
                        .filter(|_| random.below(1000) >= LOSS)
                        .map(|(place, symbol)| (place, *symbol))
                        .collect();
                    let missing = usize::from(sources) - held.len();
                    let used = (0u8..).zip(parity).take(missing);
                    (
                        held,
                        used.map(|(index, symbol)| (index, symbol.as_slice())).collect(),
                    )
                })
                .collect();
            let begin = clock(start);
            for _ in 0..rounds {
                for (held, parity) in &there {
                    black_box(decode(sources, held, parity));
                }
            }
            decoding.push((clock(start) - begin) / packets);
        }
        let (encoding, decoding) = (median(encoding), median(decoding));
        let sum = encoding + decoding;
        println!(
            "{sources}+{parities}: {encoding:.0} ns to encode, {decoding:.0} to decode, {sum:.0} a packet"
        );
    }
}
