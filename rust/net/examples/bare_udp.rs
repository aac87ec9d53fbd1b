//! Bare multicast UDP through this crate's sockets, with no packet format, keys or pacing: what the figures of
//! `bench/` are set against.
//!
//! ```text
//! bare_udp receive GROUP:PORT INTERFACE plain|offload
//! bare_udp send GROUP:PORT INTERFACE plain|offload BYTES COUNT
//! bare_udp receive-lone GROUP:PORT INTERFACE COUNT
//! bare_udp send-lone GROUP:PORT INTERFACE MICROSECONDS BYTES COUNT
//! ```
//!
//! `plain` is `sendmmsg` and `recvmmsg`, a datagram a slot; `offload` is the same with `UDP_SEGMENT` and `UDP_GRO`. The
//! receiver says `{"ready": true}`, waits for datagrams, ends when none came for half a second, and prints what it
//! counted; the sender prints what it sent. Lone datagrams go one after each pause, with the time in them; the receiver
//! prints how old each was, in microseconds.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
        ["receive-lone", group, interface, count] => receive_lone(group, interface, count),
        ["send-lone", group, interface, pause, bytes, count] => {
            send_lone(group, interface, pause, (bytes, count))
        }
        _ => Err("usage: bare_udp receive|send|receive-lone|send-lone ...; see its first lines".into()),
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

/// Nanoseconds since 1970, the same for both processes.
fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn receive_lone(group: &str, interface: &str, count: &str) -> Result<(), Failure> {
    let config = ReceiverConfig::new(group.parse()?, Interface::resolve(interface)?);
    let mut socket = MulticastReceiver::open(config)?;
    let mut buffers = socket.buffers();
    println!("{{\"ready\": true}}");
    let (count, mut ages): (usize, Vec<f64>) = (count.parse()?, Vec::new());
    while ages.len() < count && socket.recv_batch(&mut buffers, Some(PATIENCE))? > 0 {
        let now = clock();
        for datagram in buffers.datagrams() {
            let written = u64::from_be_bytes(*datagram.first_chunk().ok_or("a datagram without a time")?);
            ages.push(now.saturating_sub(written) as f64 / 1e3);
        }
    }
    println!("{{\"ages\": {ages:?}}}");
    Ok(())
}

fn send_lone(group: &str, interface: &str, pause: &str, (bytes, count): (&str, &str)) -> Result<(), Failure> {
    let socket = MulticastSender::open(SenderConfig::new(group.parse()?, Interface::resolve(interface)?))?;
    let (mut datagram, count): (Vec<u8>, usize) = (vec![0x5e; bytes.parse()?], count.parse()?);
    let pause = Duration::from_micros(pause.parse()?);
    for _ in 0..count {
        let stamp = datagram
            .first_chunk_mut()
            .ok_or("no room for the time: 8 bytes at least")?;
        *stamp = clock().to_be_bytes();
        socket.send_batch(&[&datagram[..]])?;
        std::thread::sleep(pause);
    }
    println!("{{\"sent\": {count}}}");
    Ok(())
}
