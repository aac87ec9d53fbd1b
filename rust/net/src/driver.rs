//! What both driver threads need: the clock, randomness, and a way to tell the host that there is something to take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01T00:00:00Z; 0 for a clock before that.
pub fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// 16 bytes of the operating system.
///
/// # Panics
/// If the system has no randomness to give: going on would repeat block ids.
pub(crate) fn fresh_randomness() -> [u8; 16] {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness of the operating system");
    bytes
}

/// A lock that a panic elsewhere does not take down with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the host once that output waits; again only after the host has said that it looks.
///
/// The host is told from the driver's thread, which must not wait for it: `tell` is to return at once, for example by
/// writing a byte to a socket that never blocks.
pub struct Notifier {
    told: AtomicBool,
    tell: Box<dyn Fn() + Send + Sync>,
}

impl core::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Notifier(told: {})", self.told.load(Ordering::Relaxed))
    }
}

impl Notifier {
    pub fn new(tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            told: AtomicBool::new(false),
            tell: Box::new(tell),
        }
    }

    /// Output waits.
    pub fn notify(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            (self.tell)();
        }
    }

    /// The host is about to look: what comes after this is told anew.
    pub fn rearm(&self) {
        self.told.store(false, Ordering::Release);
    }
}
