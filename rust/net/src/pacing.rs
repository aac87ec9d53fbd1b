//! A token bucket: how long a datagram has to wait so that a stream keeps to its rate.

use std::num::NonZeroU64;
use std::time::Duration;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// What may leave in one go after a pause is what the rate earns in this time: a driver that wakes late catches up, and a
/// slow stream stays slow.
const BURST_MILLISECONDS: u64 = 10;
/// A few packets, or a slow stream would pay a wait for each of its heartbeats and credentials.
const MIN_BURST_BYTES: u64 = 4 * 1500;
/// Two batches, so that a kernel buffer takes it.
const MAX_BURST_BYTES: u64 = 2 * 64 * 1500;

/// The burst that fits a rate.
pub(crate) fn burst_bytes(bits_per_second: NonZeroU64) -> u32 {
    let earned = bits_per_second.get() / 8 / 1000 * BURST_MILLISECONDS;
    earned.clamp(MIN_BURST_BYTES, MAX_BURST_BYTES) as u32
}

/// Keeps what is sent within `burst + rate × time`, over every span of time.
///
/// Time comes in as nanoseconds of any clock that never goes back; a reading that does counts as no time passed.
/// Integers throughout: no rounding adds up over days, and the waits it names are never too short.
#[derive(Clone, Debug)]
pub struct Pacer {
    bits_per_second: u128,
    /// Bits times nanoseconds per second, so that each nanosecond earns exactly `bits_per_second`.
    capacity: i128,
    /// In the unit of `capacity`; below zero after something larger than the burst.
    credit: i128,
    updated_ns: u64,
}

impl Pacer {
    /// A full bucket. A `burst_bytes` below one datagram still lets every datagram through, each after the wait that
    /// the rate asks for.
    pub fn new(bits_per_second: NonZeroU64, burst_bytes: u32, now_ns: u64) -> Self {
        let capacity = cost(u64::from(burst_bytes));
        Self {
            bits_per_second: u128::from(bits_per_second.get()),
            capacity,
            credit: capacity,
            updated_ns: now_ns,
        }
    }

    /// How long `bytes` have to wait; zero when they may go now. Takes nothing.
    pub fn delay_until(&self, bytes: usize, now_ns: u64) -> Duration {
        // What exceeds the burst would wait for ever: a full bucket must do, and is left in debt.
        let needed = cost(bytes as u64).min(self.capacity);
        let missing = (needed - self.credit_at(now_ns)).max(0).unsigned_abs();
        let wait_ns = missing.div_ceil(self.bits_per_second);
        Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(u64::MAX))
    }

    /// Takes `bytes` if they may go now, else takes nothing and says how long to wait.
    pub fn try_take(&mut self, bytes: usize, now_ns: u64) -> Result<(), Duration> {
        let delay = self.delay_until(bytes, now_ns);
        if !delay.is_zero() {
            return Err(delay);
        }
        self.settle(now_ns);
        self.credit -= cost(bytes as u64);
        Ok(())
    }

    /// How many bytes may go now, to choose a batch by; 0 while in debt.
    pub fn available_bytes(&self, now_ns: u64) -> u64 {
        let bits = self.credit_at(now_ns).max(0) / NANOS_PER_SECOND;
        u64::try_from(bits / 8).unwrap_or(u64::MAX)
    }

    /// Changes the rate from now on; what was earned until now was earned at the old one.
    pub fn set_rate(&mut self, bits_per_second: NonZeroU64, now_ns: u64) {
        self.settle(now_ns);
        self.bits_per_second = u128::from(bits_per_second.get());
    }

    fn settle(&mut self, now_ns: u64) {
        self.credit = self.credit_at(now_ns);
        self.updated_ns = self.updated_ns.max(now_ns);
    }

    fn credit_at(&self, now_ns: u64) -> i128 {
        let elapsed_ns = u128::from(now_ns.saturating_sub(self.updated_ns));
        // Below 2^128 since both factors are below 2^64; beyond i128 the bucket is full long since.
        let earned = i128::try_from(elapsed_ns * self.bits_per_second).unwrap_or(i128::MAX);
        self.credit.saturating_add(earned).min(self.capacity)
    }
}

fn cost(bytes: u64) -> i128 {
    i128::from(bytes) * 8 * NANOS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(bits_per_second: u64) -> NonZeroU64 {
        NonZeroU64::new(bits_per_second).unwrap()
    }

    #[test]
    fn a_full_bucket_goes_at_once_and_then_waits() {
        let mut pacer = Pacer::new(rate(8_000), 1_000, 0); // 1,000 bytes a second
        assert_eq!(pacer.try_take(600, 0), Ok(()));
        assert_eq!(pacer.try_take(400, 0), Ok(()));
        assert_eq!(pacer.try_take(500, 0), Err(Duration::from_millis(500)));
        assert_eq!(pacer.available_bytes(0), 0);
        assert_eq!(pacer.try_take(500, 499_999_999), Err(Duration::from_nanos(1)));
        assert_eq!(pacer.available_bytes(500_000_000), 500);
        assert_eq!(pacer.try_take(500, 500_000_000), Ok(()));
    }

    #[test]
    fn the_burst_follows_the_rate() {
        for (bits_per_second, bytes) in [
            (1, 6_000),
            (1_000_000, 6_000),
            (20_000_000, 25_000),
            (100_000_000, 125_000),
            (1_000_000_000, 192_000),
            (u64::MAX, 192_000),
        ] {
            assert_eq!(burst_bytes(rate(bits_per_second)), bytes);
        }
    }

    #[test]
    fn a_short_stream_keeps_to_its_rate_too() {
        let slow = rate(1_000_000);
        let mut pacer = Pacer::new(slow, burst_bytes(slow), 0);
        let mut now_ns = 0;
        for _ in 0..100 {
            now_ns += pacer.delay_until(1_500, now_ns).as_nanos() as u64;
            assert_eq!(pacer.try_take(1_500, now_ns), Ok(()));
        }
        // 150,000 bytes, 6,000 of them at once, are 1.152 s of 1 Mbit/s.
        assert_eq!(now_ns, 1_152_000_000);
    }

    #[test]
    fn a_pause_earns_no_more_than_the_burst() {
        let mut pacer = Pacer::new(rate(8_000_000), 3_000, 0);
        assert_eq!(pacer.try_take(3_000, 0), Ok(()));
        let years = u64::MAX / 2;
        assert_eq!(pacer.available_bytes(years), 3_000);
        assert_eq!(pacer.try_take(3_000, years), Ok(()));
        assert!(pacer.try_take(1, years).is_err());
    }

    #[test]
    fn what_exceeds_the_burst_goes_and_is_paid_afterwards() {
        let mut pacer = Pacer::new(rate(8_000), 100, 0);
        assert_eq!(pacer.try_take(1_100, 0), Ok(()));
        assert_eq!(pacer.try_take(1, 0), Err(Duration::from_millis(1_001)));
        assert_eq!(pacer.available_bytes(0), 0);
    }

    #[test]
    fn a_clock_that_goes_back_earns_nothing() {
        let mut pacer = Pacer::new(rate(8_000), 1_000, 1_000_000_000);
        assert_eq!(pacer.try_take(1_000, 1_000_000_000), Ok(()));
        assert_eq!(pacer.try_take(1_000, 0), Err(Duration::from_secs(1)));
        pacer.set_rate(rate(16_000), 0);
        assert_eq!(pacer.available_bytes(1_000_000_000), 0);
        assert_eq!(pacer.try_take(1_000, 1_500_000_000), Ok(()));
    }

    #[test]
    fn a_new_rate_counts_from_its_start() {
        let mut pacer = Pacer::new(rate(8_000), 10_000, 0);
        assert_eq!(pacer.try_take(10_000, 0), Ok(()));
        pacer.set_rate(rate(80_000), 1_000_000_000);
        assert_eq!(pacer.available_bytes(1_000_000_000), 1_000);
        assert_eq!(pacer.available_bytes(1_500_000_000), 6_000);
    }

    proptest! {
        /// Over every span of any schedule: bytes sent <= burst + rate × span (the design's promise to the network).
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            bits_per_second in 1_u64..=100_000_000_000,
            burst_bytes in 1_500_u32..=1_000_000,
            steps in prop::collection::vec((0_u64..=2_000_000, 1_usize..=1_500), 1..300),
        ) {
            let mut pacer = Pacer::new(rate(bits_per_second), burst_bytes, 0);
            let mut now_ns = 0;
            let mut sent: Vec<(u64, u64)> = Vec::new();
            for (gap_ns, bytes) in steps {
                now_ns += gap_ns;
                if pacer.try_take(bytes, now_ns).is_ok() {
                    sent.push((now_ns, bytes as u64));
                }
            }
            for start in 0..sent.len() {
                let mut total_bytes = 0;
                for (at_ns, bytes) in &sent[start..] {
                    total_bytes += bytes;
                    let earned = i128::from(bits_per_second) * i128::from(at_ns - sent[start].0);
                    prop_assert!(cost(total_bytes) <= cost(u64::from(burst_bytes)) + earned);
                }
            }
        }

        /// The named wait is enough, and one nanosecond less is not: a driver that sleeps by it neither spins nor lags.
        #[test]
        fn the_wait_is_exact(
            bits_per_second in 1_u64..=100_000_000_000,
            burst_bytes in 0_u32..=100_000,
            sizes in prop::collection::vec(1_usize..=9_000, 1..50),
        ) {
            let mut pacer = Pacer::new(rate(bits_per_second), burst_bytes, 0);
            let mut now_ns: u64 = 0;
            for bytes in sizes {
                if let Err(delay) = pacer.try_take(bytes, now_ns) {
                    let wait_ns = u64::try_from(delay.as_nanos()).unwrap();
                    prop_assert!(pacer.try_take(bytes, now_ns + wait_ns - 1).is_err());
                    now_ns += wait_ns;
                    prop_assert_eq!(pacer.try_take(bytes, now_ns), Ok(()));
                }
            }
        }
    }
}
