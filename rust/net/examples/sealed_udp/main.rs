//! The engine and this crate's drivers from one host to another, with nothing else in the way of a message: what `bench/`
//! calls the engine with sockets, set against `bare_udp`.
//!
//! ```text
//! sealed_udp stream GROUP:PORT INTERFACE MEGABITS BYTES COUNT [NAMESPACE]
//! sealed_udp lone GROUP:PORT INTERFACE MICROSECONDS BYTES COUNT [NAMESPACE]
//! sealed_udp signature
//! ```
//!
//! A publisher and a subscriber of a throw-away site, whose key server has answered both before anything is measured, are two
//! processes; the subscriber's is in NAMESPACE, a file of `/run/netns`, if one is named. `stream` sends messages as fast as
//! the rate lets them, `lone` one after each pause, with the time in it. The subscriber checks every byte of every message;
//! nobody answers a request for repair, so what is missing stays missing. Each of the two prints a line of JSON. `signature`
//! tells what the signature of one packet takes, alone.

#[cfg(target_os = "linux")]
mod ends;
#[cfg(target_os = "linux")]
mod hosts;

// It uses a part of what the engine's tests stand on.
#[cfg(target_os = "linux")]
#[allow(dead_code, unused_imports)]
#[path = "../../../core/tests/engine/common/mod.rs"]
mod common;

use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sealed_udp: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn run(words: &[&str]) -> Result<(), Failure> {
    use std::time::Duration;

    use ends::{Flow, Plan};

    let (mode, group, interface, pace, bytes, count, namespace) = match *words {
        ["signature"] => return ends::time_signature(),
        [mode, group, interface, pace, bytes, count] => (mode, group, interface, pace, bytes, count, None),
        [mode, group, interface, pace, bytes, count, namespace] => {
            (mode, group, interface, pace, bytes, count, Some(namespace))
        }
        _ => return Err("usage: sealed_udp stream|lone|signature ...; see its first lines".into()),
    };
    let pace: u64 = pace.parse()?;
    let flow = match mode {
        "stream" => Flow::Stream { megabits: pace },
        "lone" => Flow::Lone {
            pause: Duration::from_micros(pace),
        },
        _ => return Err(format!("{mode} is not stream, lone or signature").into()),
    };
    let plan = Plan {
        group: group.parse()?,
        interface: interface.to_owned(),
        flow,
        bytes: bytes.parse()?,
        count: count.parse()?,
    };
    hosts::run(&plan, namespace)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("sealed_udp: it takes network namespaces, which only Linux has");
    ExitCode::FAILURE
}
