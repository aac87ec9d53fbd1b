//! The thread between a publisher's engine and the group's socket: seals, paces, sends.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sealcast_core::retention::Datagram;
use sealcast_core::sender::Sender;

use crate::driver::{Notifier, fresh_randomness, lock, steady_clock, wall_clock};
use crate::pacing::burst_bytes;
use crate::{MulticastSender, NetError, Pacer, SEND_BATCH, SenderConfig};

const MAX_WAIT: Duration = Duration::from_secs(1);
/// The most that one batch takes from the pacer, so that a slow rate still flows evenly.
const BATCH_MILLISECONDS: u64 = 2;

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// The host waits for room in the queue.
    wants_room: AtomicBool,
    sent: AtomicU64,
    errors: AtomicU64,
    /// The system's number of the last of them.
    last_error: AtomicI32,
    signal: Signal,
}

#[derive(Debug, Default)]
struct Signal {
    raised: Mutex<bool>,
    condition: Condvar,
}

impl Signal {
    fn raise(&self) {
        *lock(&self.raised) = true;
        self.condition.notify_one();
    }

    fn wait(&self, timeout: Duration) {
        let mut raised = lock(&self.raised);
        if !*raised {
            raised = self
                .condition
                .wait_timeout(raised, timeout)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
        *raised = false;
    }
}

/// Runs until stopped or dropped.
#[derive(Debug)]
pub struct SendDriver {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl SendDriver {
    /// Opens the socket and starts the thread. `rate` is in bits per second.
    pub fn start(
        engine: Arc<Mutex<Sender>>,
        config: SenderConfig,
        rate: NonZeroU64,
        notifier: Arc<Notifier>,
    ) -> Result<Self, NetError> {
        check_mtu(lock(&engine).mtu(), &config)?;
        let socket = MulticastSender::open(config)?;
        let shared = Arc::new(Shared::default());
        let context = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("sealcast-send".to_owned())
            .spawn(move || {
                Loop {
                    shared: &context,
                    socket,
                    engine: &engine,
                    notifier: &notifier,
                }
                .run(rate)
            })
            .map_err(|error| NetError::System {
                doing: "start a thread".into(),
                error,
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The engine has something new to seal, or an answer has come.
    pub fn wake(&self) {
        self.shared.signal.raise();
    }

    /// Notify the host once when the queue has drained by half.
    pub fn want_room(&self) {
        self.shared.wants_room.store(true, Ordering::Release);
        self.wake();
    }

    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Sends that the system refused; their packets come back by repair.
    pub fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }

    /// The system's number of the last of them; 0 if there was none.
    pub fn last_error(&self) -> i32 {
        self.shared.last_error.load(Ordering::Relaxed)
    }

    /// Ends the thread and closes the socket.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by the runtime; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// A packet that the system refuses for its size would come by repair alone, for every receiver, and nobody would know why.
fn check_mtu(mtu: usize, config: &SenderConfig) -> Result<(), NetError> {
    match config.interface.mtu_bytes {
        Some(interface_mtu) if !config.allow_fragments && (interface_mtu as usize) < mtu => {
            Err(NetError::MtuAboveInterface {
                mtu,
                interface: config.interface.name.clone(),
                interface_mtu,
            })
        }
        _ => Ok(()),
    }
}

impl Drop for SendDriver {
    fn drop(&mut self) {
        self.stop();
    }
}

/// So many thousandths of a rate.
fn paced(rate: NonZeroU64, pace: u16) -> NonZeroU64 {
    let part = u128::from(rate.get()) * u128::from(pace) / 1000;
    NonZeroU64::new(part as u64).unwrap_or(NonZeroU64::MIN)
}

struct Loop<'a> {
    shared: &'a Shared,
    socket: MulticastSender,
    engine: &'a Mutex<Sender>,
    notifier: &'a Notifier,
}

impl Loop<'_> {
    fn run(&self, rate: NonZeroU64) {
        let started = Instant::now();
        let clock = || u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut pacer = Pacer::new(rate, burst_bytes(rate), clock());
        let per_batch = rate.get() / 8 * BATCH_MILLISECONDS / 1000;
        let mut batch: Vec<Datagram> = Vec::with_capacity(SEND_BATCH);
        while !self.shared.stop.load(Ordering::Acquire) {
            let (wait, pace) = self.fill(&mut batch, per_batch);
            pacer.set_rate(paced(rate, pace), clock());
            if batch.is_empty() {
                self.shared.signal.wait(wait);
                continue;
            }
            let bytes = batch.iter().map(|datagram| datagram.len()).sum();
            // Messages that come while we wait for the rate make the next block larger.
            while let Err(delay) = pacer.try_take(bytes, clock()) {
                if self.shared.stop.load(Ordering::Acquire) {
                    return;
                }
                std::thread::sleep(delay.min(MAX_WAIT));
            }
            self.send(&batch);
            batch.clear();
        }
    }

    /// Takes what is ready; seals more when nothing is. Returns how long to wait if there is nothing, and what of the rate is to be
    /// used, in thousandths.
    fn fill(&self, batch: &mut Vec<Datagram>, per_batch: u64) -> (Duration, u16) {
        let now = steady_clock();
        let mut engine = lock(self.engine);
        engine.member_mut().set_wall(now, wall_clock());
        if engine.next_deadline().is_some_and(|at| at <= now) {
            engine.handle_deadline(now, [fresh_randomness(), fresh_randomness()]);
        }
        if !engine.has_transmit() && engine.has_queued() {
            engine.seal_block(now, fresh_randomness());
        }
        let mut bytes = 0;
        while batch.len() < SEND_BATCH && bytes <= per_batch {
            let Some(datagram) = engine.poll_transmit() else {
                break;
            };
            bytes += datagram.len() as u64;
            batch.push(datagram);
        }
        let drained = engine.queued_bytes() * 2 <= engine.queue_limit();
        let room = drained && self.shared.wants_room.swap(false, Ordering::AcqRel);
        let has_output = engine.has_output() || room;
        let wait = engine
            .next_deadline()
            .map_or(MAX_WAIT, |at| Duration::from_micros(at.saturating_sub(now)));
        // Blocked with messages in the queue: the keys come with an answer, which wakes us; look again soon anyway.
        let wait = if engine.has_queued() {
            wait.min(MAX_WAIT / 20)
        } else {
            wait.min(MAX_WAIT)
        };
        let pace = engine.pace();
        drop(engine);
        if has_output {
            self.notifier.notify();
        }
        (wait, pace)
    }

    fn send(&self, batch: &[Datagram]) {
        let datagrams: Vec<&[u8]> = batch.iter().map(|datagram| &datagram[..]).collect();
        let mut rest = &datagrams[..];
        while !rest.is_empty() {
            match self.socket.send_batch(rest) {
                Ok(sent) if sent > 0 => {
                    self.shared.sent.fetch_add(sent as u64, Ordering::Relaxed);
                    rest = &rest[sent..];
                }
                // The one that failed is passed over: repair mends it.
                failed => {
                    self.shared.errors.fetch_add(1, Ordering::Relaxed);
                    let number = failed.err().and_then(|error| error.raw_os_error());
                    self.shared
                        .last_error
                        .store(number.unwrap_or(0), Ordering::Relaxed);
                    rest = &rest[1..];
                }
            }
        }
    }
}
