//! How threads of the host wait for something to happen.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A wait without end.
pub const SEALCAST_FOREVER: u64 = u64::MAX;

/// Counts what has happened. Whoever looks, sees nothing and waits, gives the count from before it looked.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn count(&self) -> u64 {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn raise(&self) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.wrapping_add(1);
        self.changed.notify_all();
    }

    /// Waits until more has happened than `seen`, or until a time.
    pub(crate) fn wait(&self, seen: u64, until: Instant) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(count, left, |count| *count == seen);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// When a wait of so many microseconds ends; one without end ends in a year, and is begun again.
pub(crate) fn after(microseconds: u64) -> Instant {
    const YEAR: u64 = 365 * 24 * 3600 * 1_000_000;
    Instant::now() + Duration::from_micros(microseconds.min(YEAR))
}
