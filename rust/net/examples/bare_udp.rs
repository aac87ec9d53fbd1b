//! Bare multicast UDP through this crate's sockets, with no packet format, keys or pacing: what the figures of
//! `bench/` are set against.
//!
//! ```text
//! bare_udp receive GROUP:PORT INTERFACE plain|offload
//! bare_udp send GROUP:PORT INTERFACE plain|offload BYTES COUNT
//! ```
//!
//! `plain` is `sendmmsg` and `recvmmsg`, a datagram a slot; `offload` is the same with `UDP_SEGMENT` and `UDP_GRO`. The
//! receiver says `{"ready": true}`, waits for datagrams, ends when none came for half a second, and prints what it
//! counted; the sender prints what it sent.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sealcast_net::{Interface, MulticastReceiver, MulticastSender, ReceiverConfig, SEND_BATCH, SenderConfig};

/// The longest wait for the first datagram.
const PATIENCE: Duration = Duration::from_secs(30);
/// When nothing came for so long, the sender has ended.
const QUIET: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["receive", group, interface, mode] => receive(group, interface, mode),
        ["send", group, interface, mode, bytes, count] => send(group, interface, mode, bytes, count),
        _ => Err("usage: bare_udp receive|send GROUP:PORT INTERFACE plain|offload [BYTES COUNT]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare_udp: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn receive(group: &str, interface: &str, mode: &str) -> Result<(), Failure> {
    let group: SocketAddr = group.parse()?;
    let mut config = ReceiverConfig::new(group, Interface::resolve(interface)?);
    config.receive_offload = mode == "offload";
    let mut socket = MulticastReceiver::open(config)?;
    let mut buffers = socket.buffers();
    println!("{{\"ready\": true}}");
    let (mut datagrams, mut bytes, mut wait) = (0_u64, 0_u64, PATIENCE);
    let mut span: Option<(Instant, Instant)> = None;
    while socket.recv_batch(&mut buffers, Some(wait))? > 0 {
        let now = Instant::now();
        let first = span.map_or(now, |(first, _)| first);
        span = Some((first, now));
        datagrams += buffers.len() as u64;
        bytes += buffers
            .datagrams()
            .map(|datagram| datagram.len() as u64)
            .sum::<u64>();
        wait = QUIET;
    }
    let seconds = span.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    println!("{{\"datagrams\": {datagrams}, \"bytes\": {bytes}, \"seconds\": {seconds}}}");
    Ok(())
}

fn send(group: &str, interface: &str, mode: &str, bytes: &str, count: &str) -> Result<(), Failure> {
    let mut config = SenderConfig::new(group.parse()?, Interface::resolve(interface)?);
    config.segmentation_offload = mode == "offload";
    let socket = MulticastSender::open(config)?;
    let (datagram, count): (Vec<u8>, usize) = (vec![0x5e; bytes.parse()?], count.parse()?);
    let batch = [&datagram[..]; SEND_BATCH];
    let start = Instant::now();
    let mut sent = 0;
    while sent < count {
        sent += socket.send_batch(&batch[..SEND_BATCH.min(count - sent)])?;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{{\"datagrams\": {sent}, \"seconds\": {seconds}}}");
    Ok(())
}
