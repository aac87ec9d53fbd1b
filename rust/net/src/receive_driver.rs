//! The thread between a group's socket and a subscriber's engine.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use sealcast_core::receiver::Receiver;

use crate::driver::{Notifier, lock, steady_clock, wall_clock};
use crate::{MulticastReceiver, NetError, ReceiverConfig, Waker};

/// The longest sleep without a datagram or deadline, so that a clock that was set is noticed.
const MAX_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    datagrams: AtomicU64,
    dropped: AtomicU64,
}

/// Runs until stopped or dropped.
#[derive(Debug)]
pub struct ReceiveDriver {
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    granted_buffer: usize,
    buffer_capped: bool,
}

impl ReceiveDriver {
    /// Opens the socket and starts the thread. The engine is locked for one batch at a time.
    pub fn start(
        engine: Arc<Mutex<Receiver>>,
        config: ReceiverConfig,
        notifier: Arc<Notifier>,
    ) -> Result<Self, NetError> {
        let socket = MulticastReceiver::open(config)?;
        let (waker, buffer) = (socket.waker(), socket.receive_buffer());
        let shared = Arc::new(Shared::default());
        let context = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("sealcast-receive".to_owned())
            .spawn(move || run(&context, socket, &engine, &notifier))
            .map_err(|error| NetError::System {
                doing: "start a thread".into(),
                error,
            })?;
        Ok(Self {
            shared,
            waker,
            thread: Some(thread),
            granted_buffer: buffer.granted_bytes,
            buffer_capped: buffer.is_capped(),
        })
    }

    /// The engine has got something to do from elsewhere (an answer): look at its deadline again.
    pub fn wake(&self) {
        self.waker.wake();
    }

    pub fn datagrams(&self) -> u64 {
        self.shared.datagrams.load(Ordering::Relaxed)
    }

    /// Datagrams that the kernel dropped because its buffer was full.
    pub fn dropped_by_kernel(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Bytes of the socket's receive buffer, and whether the system gave less than was asked for.
    pub fn receive_buffer(&self) -> (usize, bool) {
        (self.granted_buffer, self.buffer_capped)
    }

    /// Ends the thread and closes the socket.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by the runtime; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Drop for ReceiveDriver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(shared: &Shared, mut socket: MulticastReceiver, engine: &Mutex<Receiver>, notifier: &Notifier) {
    let mut buffers = socket.buffers();
    let mut deadline = lock(engine).next_deadline();
    while !shared.stop.load(Ordering::Acquire) {
        let wait = deadline
            .map_or(MAX_WAIT, |at| {
                Duration::from_micros(at.saturating_sub(steady_clock()))
            })
            .min(MAX_WAIT);
        let received = match socket.recv_batch(&mut buffers, Some(wait)) {
            Ok(received) => received,
            // An interface that went away: the group may come back with it.
            Err(_) => {
                std::thread::park_timeout(MAX_WAIT / 10);
                0
            }
        };
        let now = steady_clock();
        let mut engine = lock(engine);
        engine.member_mut().set_wall(now, wall_clock());
        engine.receive_datagrams(buffers.datagrams().take(received), now);
        engine.handle_deadline(now);
        let has_output = engine.has_output();
        // Asked for now: to lock the engine again would keep the host from what it is about to be told of.
        deadline = engine.next_deadline();
        drop(engine);
        shared.datagrams.fetch_add(received as u64, Ordering::Relaxed);
        shared
            .dropped
            .store(socket.dropped_by_kernel().unwrap_or(0).into(), Ordering::Relaxed);
        if has_output {
            notifier.notify();
        }
    }
}
