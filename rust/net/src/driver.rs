//! What both driver threads need: the clock, randomness, and a way to tell the host that there is something to take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01T00:00:00Z; 0 for a clock before that.
pub fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds by a clock that is never set: the wall clock as it was at the first call, and what has passed since, also
/// while the machine was suspended. The engine's `now` (trust.md TR-28).
pub fn steady_clock() -> u64 {
    static START: OnceLock<(Duration, u64)> = OnceLock::new();
    let (began, wall) = *START.get_or_init(|| (since_boot(), wall_clock()));
    let passed = since_boot().saturating_sub(began).as_micros();
    wall.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
}

#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for what the call writes; Linux has had this clock since 2.6.39.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    assert_eq!(done, 0, "the clock that counts from boot");
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_clock_starts_with_the_wall_clock_and_never_goes_back() {
        let (before, first, wall) = (wall_clock(), steady_clock(), wall_clock());
        assert!(first.abs_diff(before) <= 60_000_000 && wall.abs_diff(first) <= 60_000_000);
        let times: Vec<u64> = (0..1000).map(|_| steady_clock()).collect();
        assert!(times.is_sorted() && times[0] >= first);
    }
}
