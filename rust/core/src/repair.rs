//! When a stream asks for what it misses: spread in time, one request at a time, backing off.
//!
//! Spec: side-channel.md SC-9.

use crate::crypto::Jitter;
use crate::fingerprint::Fingerprint;
use crate::wire::Time;

/// Delays in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct RepairTiming {
    /// A missing packet may only be late: how long to wait before the first request.
    pub reorder: u64,
    /// The most by which a request is moved at random.
    pub jitter: u64,
    /// The first wait after a request that brought nothing; doubles up to `backoff_max`.
    pub backoff: u64,
    pub backoff_max: u64,
    /// A request without answer is given up after this.
    pub timeout: u64,
    /// The same while there is another source to ask (SC-41).
    pub source_timeout: u64,
}

impl Default for RepairTiming {
    fn default() -> Self {
        Self {
            reorder: 10_000,
            jitter: 20_000,
            backoff: 50_000,
            backoff_max: 2_000_000,
            timeout: 5_000_000,
            source_timeout: 2_000_000,
        }
    }
}

#[derive(Debug)]
pub struct RepairSchedule {
    timing: RepairTiming,
    next_at: Option<Time>,
    in_flight: bool,
    fruitless: u32,
}

impl RepairSchedule {
    pub fn new(timing: RepairTiming) -> Self {
        Self {
            timing,
            next_at: None,
            in_flight: false,
            fruitless: 0,
        }
    }

    /// There is something missing since `since`.
    pub fn noticed(&mut self, since: Time, jitter: &mut Jitter) {
        if self.next_at.is_none() && !self.in_flight {
            self.next_at = Some(since + self.timing.reorder + jitter.below(self.timing.jitter));
        }
    }

    /// Nothing is missing any more.
    pub fn settled(&mut self) {
        self.next_at = None;
        self.fruitless = 0;
    }

    pub fn deadline(&self) -> Option<Time> {
        self.next_at
    }

    pub fn is_due(&self, now: Time) -> bool {
        self.next_at.is_some_and(|at| at <= now)
    }

    /// What was noticed by this time is worth asking for.
    pub fn noticed_by(&self, now: Time) -> Time {
        now.saturating_sub(self.timing.reorder)
    }

    pub fn requested(&mut self) {
        self.next_at = None;
        self.in_flight = true;
    }

    /// The request came back, having mended `mended` packets.
    pub fn answered(&mut self, mended: usize, now: Time, jitter: &mut Jitter) {
        self.in_flight = false;
        self.fruitless = if mended > 0 {
            0
        } else {
            self.fruitless.saturating_add(1)
        };
        let wait = match self.fruitless {
            0 => 0,
            n => (self.timing.backoff << (n - 1).min(10)).min(self.timing.backoff_max),
        };
        self.next_at = Some(now + wait + jitter.below(self.timing.jitter.min(wait + 1_000)));
    }

    /// Another source is asked at once.
    pub fn next_source(&mut self, now: Time) {
        (self.in_flight, self.next_at) = (false, Some(now));
    }

    /// Whom we ask has said when it wants to be asked again, or parity may bring until then what is missing.
    pub fn held_off(&mut self, until: Time, jitter: &mut Jitter) {
        (self.in_flight, self.next_at) = (false, Some(until + jitter.below(self.timing.jitter)));
    }

    /// Parity does not bring it: what waited for that is asked for now.
    pub fn released(&mut self, now: Time, jitter: &mut Jitter) {
        if self.next_at.is_some_and(|at| at > now + self.timing.jitter) {
            self.held_off(now, jitter);
        }
    }

    /// Nobody could be asked; try again later.
    pub fn postponed(&mut self, now: Time, jitter: &mut Jitter) {
        self.answered(0, now, jitter);
    }

    pub fn timeout(&self, has_another: bool) -> u64 {
        if has_another {
            self.timing.source_timeout
        } else {
            self.timing.timeout
        }
    }

    pub fn fingerprint(&self, into: &mut Fingerprint) {
        into.optional(self.next_at)
            .number(self.in_flight)
            .number(self.fruitless);
    }
}
