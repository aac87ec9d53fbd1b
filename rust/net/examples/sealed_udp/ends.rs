//! What publisher and subscriber do: each an engine, its driver, and an application's thread.

use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::mpsc::{Receiver as Signal, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sealcast_core::block::sign_input;
use sealcast_core::crypto::{Secret, SigningKey, VerifyingKey};
use sealcast_core::event::Event;
use sealcast_core::receiver::Receiver;
use sealcast_core::retention::Datagram;
use sealcast_core::sender::Sender;
use sealcast_net::{Interface, Notifier, ReceiveDriver, ReceiverConfig, SendDriver, SenderConfig};
use serde_json::json;

use crate::Failure;

/// Messages that are handed over, or taken, at once.
const BATCH: usize = 256;
/// The longest wait for the first message.
const PATIENCE: Duration = Duration::from_secs(30);
/// What has not come by then was lost.
const QUIET: Duration = Duration::from_millis(500);
/// A rate that no machine reaches.
const UNPACED: u64 = 100_000_000_000;
const STAMP_BYTES: usize = 16;

pub(crate) enum Flow {
    /// As fast as the rate lets them, in Mbit/s of datagrams.
    Stream { megabits: u64 },
    /// One after each pause.
    Lone { pause: Duration },
}

pub(crate) struct Plan {
    pub(crate) group: SocketAddr,
    pub(crate) interface: String,
    pub(crate) flow: Flow,
    pub(crate) bytes: usize,
    pub(crate) count: u64,
}

/// What both ends know of a message: its number and the time in front, then bytes that differ from message to message.
struct Content {
    filler: Vec<u8>,
    length: usize,
}

impl Content {
    fn new(length: usize) -> Result<Self, Failure> {
        if length < STAMP_BYTES {
            return Err(
                format!("{length} bytes are no room for number and time: {STAMP_BYTES} at least").into(),
            );
        }
        let filler = (0..256 + length as u32)
            .map(|at| ((at * 31) >> 3) as u8)
            .collect();
        Ok(Self { filler, length })
    }

    fn rest(&self, number: u64) -> &[u8] {
        let from = number as usize % 256;
        &self.filler[from..from + self.length - STAMP_BYTES]
    }

    /// Some messages in one piece of memory, as the extension has them.
    fn write(&self, numbers: Range<u64>) -> impl Iterator<Item = Datagram> {
        let mut memory = Vec::with_capacity(self.length * (numbers.end - numbers.start) as usize);
        for number in numbers {
            memory.extend_from_slice(&number.to_be_bytes());
            memory.extend_from_slice(&clock().to_be_bytes());
            memory.extend_from_slice(self.rest(number));
        }
        let mut memory = Datagram::from(memory);
        std::iter::from_fn(move || (!memory.is_empty()).then(|| memory.split_to(self.length)))
    }

    /// When it was written, if it is message `number` and nothing else.
    fn read(&self, number: u64, message: &[u8]) -> Option<u64> {
        let (stamp, rest) = message.split_at_checked(STAMP_BYTES)?;
        let (told, written) = stamp.split_at(8);
        if told == number.to_be_bytes() && rest == self.rest(number) {
            Some(u64::from_be_bytes(written.try_into().ok()?))
        } else {
            None
        }
    }
}

/// Nanoseconds since 1970, the same for both processes.
fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds for which the threads of this process have had a core.
fn cpu_seconds() -> f64 {
    // SAFETY: plain data, for which all zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid place for what the call writes.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn lock<T>(engine: &Mutex<T>) -> MutexGuard<'_, T> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A notifier, and what it tells.
fn notifier() -> (Arc<Notifier>, Signal<()>) {
    let (tell, told) = sync_channel(1);
    // Full means that it has been told already.
    let notifier = Notifier::new(move || {
        let _ = tell.try_send(());
    });
    (Arc::new(notifier), told)
}

// -- the publisher -----------------------------------------------------------------------------------------------------

pub(crate) fn publish(sender: Sender, plan: &Plan) -> Result<(), Failure> {
    let content = Content::new(plan.bytes)?;
    let engine = Arc::new(Mutex::new(sender));
    let (notifier, told) = notifier();
    let rate = match plan.flow {
        Flow::Stream { megabits } => megabits * 1_000_000,
        Flow::Lone { .. } => UNPACED,
    };
    let rate = NonZeroU64::new(rate).ok_or("a rate of 0 sends nothing")?;
    let config = SenderConfig::new(plan.group, Interface::resolve(&plan.interface)?);
    let before = lock(&engine).counters().clone();
    let driver = SendDriver::start(Arc::clone(&engine), config, rate, Arc::clone(&notifier))?;
    let (cpu, start) = (cpu_seconds(), clock());
    match plan.flow {
        Flow::Stream { .. } => send_stream(&engine, &driver, &notifier, &told, (&content, plan.count))?,
        Flow::Lone { pause } => {
            for number in 0..plan.count {
                // Written at the last moment.
                let message = content.write(number..number + 1);
                let sent = lock(&engine).send_many(None, message);
                sent.map_err(|error| format!("message {number} is not taken: {error:?}"))?;
                driver.wake();
                std::thread::sleep(pause);
            }
        }
    }
    let (seconds, cpu) = ((clock() - start) as f64 / 1e9, cpu_seconds() - cpu);
    let engine = lock(&engine);
    let (packets, bytes) = (
        engine.counters().packets - before.packets,
        engine.counters().bytes - before.bytes,
    );
    let report = json!({
        "sent": plan.count,
        "start": start,
        "send_seconds": seconds,
        "send_cpu": cpu,
        "packets": packets,
        "blocks": engine.counters().blocks - before.blocks,
        "bytes": bytes,
        "refused_by_system": driver.errors(),
    });
    println!("{report}");
    Ok(())
}

fn send_stream(
    engine: &Mutex<Sender>,
    driver: &SendDriver,
    notifier: &Notifier,
    told: &Signal<()>,
    (content, count): (&Content, u64),
) -> Result<(), Failure> {
    let mut number = 0;
    while number < count {
        let last = count.min(number + BATCH as u64);
        let batch = content.write(number..last);
        let room = (last - number) * (content.length as u64 + 1);
        loop {
            notifier.rearm();
            let mut engine = lock(engine);
            // Nobody is there to be asked for anything.
            while engine.poll_command().is_some() || engine.poll_event().is_some() {}
            if engine.room() >= room {
                break;
            }
            drop(engine);
            driver.want_room();
            told.recv_timeout(PATIENCE)
                .map_err(|_| "the driver has made no room")?;
        }
        let taken = lock(engine).send_many(None, batch);
        if taken != Ok((last - number) as usize) {
            return Err(format!("of messages {number} to {last} these were taken: {taken:?}").into());
        }
        driver.wake();
        number = last;
    }
    // The last of them are on their way when the driver has what is sealed.
    while {
        let engine = lock(engine);
        engine.has_queued() || engine.has_transmit()
    } {
        driver.wake();
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

// -- the subscriber ----------------------------------------------------------------------------------------------------

pub(crate) fn subscribe(
    receiver: Receiver,
    plan: &Plan,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), Failure> {
    let content = Content::new(plan.bytes)?;
    let before = receiver.counters().clone();
    let engine = Arc::new(Mutex::new(receiver));
    let (notifier, told) = notifier();
    let config = ReceiverConfig::new(plan.group, Interface::resolve(&plan.interface)?);
    let driver = ReceiveDriver::start(Arc::clone(&engine), config, Arc::clone(&notifier))?;
    ready()?;
    let (mut wait, mut cpu) = (PATIENCE, cpu_seconds());
    let (mut next, mut received, mut wrong, mut last) = (0, 0, 0, 0);
    let is_lone = matches!(plan.flow, Flow::Lone { .. });
    let mut ages = Vec::new();
    let mut messages = Vec::with_capacity(BATCH);
    while received < plan.count {
        notifier.rearm();
        {
            let mut engine = lock(&engine);
            while engine.poll_command().is_some() {}
            while messages.len() < BATCH
                && let Some(event) = engine.poll_event()
            {
                if let Event::Message(message) = event {
                    messages.push(message.data);
                }
            }
        }
        if messages.is_empty() {
            match told.recv_timeout(wait) {
                Ok(()) => continue,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err("the driver has ended".into()),
            }
        }
        if received == 0 {
            (wait, cpu) = (QUIET, cpu_seconds());
        }
        last = clock();
        for message in messages.drain(..) {
            match content.read(next, &message) {
                Some(written) if is_lone => ages.push((last.saturating_sub(written)) as f64 / 1e3),
                Some(_) => {}
                None => wrong += 1,
            }
            next += 1;
            received += 1;
        }
    }
    let cpu = cpu_seconds() - cpu;
    let engine = lock(&engine);
    let counters = engine.counters();
    let report = json!({
        "received": received,
        "wrong": wrong,
        "lost": plan.count - received,
        "last": last,
        "receive_cpu": cpu,
        "signatures": counters.signatures - before.signatures,
        "repaired": counters.repaired - before.repaired,
        "dropped_by_kernel": driver.dropped_by_kernel(),
        "ages": ages,
    });
    println!("{report}");
    Ok(())
}

// -- alone -------------------------------------------------------------------------------------------------------------

/// Microseconds to sign a block and to verify it: medians.
pub(crate) fn time_signature() -> Result<(), Failure> {
    const CALLS: usize = 2000;
    let key = SigningKey::from_seed(&Secret::new([7; 32]));
    let public = VerifyingKey::new(key.public_key()).ok_or("no point of the curve")?;
    let statement = sign_input("sealcast/1 block data", &[3; 122]);
    let signature = key.sign(&statement);
    let time = |call: &dyn Fn()| {
        let run = |_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64() * 1e6
        };
        let mut runs: Vec<f64> = (0..CALLS).map(run).collect();
        runs.sort_by(f64::total_cmp);
        runs[CALLS / 2]
    };
    let sign = time(&|| {
        black_box(key.sign(black_box(&statement)));
    });
    let verify = time(&|| assert!(public.verifies(black_box(&statement), &signature)));
    println!("{}", json!({"sign": sign, "verify": verify}));
    Ok(())
}
