//! Budgets: how much unproven work a claimed source may cause.
//!
//! Spec: wire.md DP-21, DP-30; keys.md KM-14.

use crate::wire::Time;

const SECOND: u64 = 1_000_000;

/// A token bucket in whole units of work; time is passed in.
#[derive(Clone, Debug)]
pub struct Budget {
    per_second: u64,
    burst: u64,
    /// In millionths of a unit, so that slow rates lose nothing.
    level: u64,
    updated: Time,
}

impl Budget {
    /// `per_second` units a second, at most `burst` saved up. Starts full.
    pub fn new(per_second: u64, burst: u64) -> Self {
        Self {
            per_second,
            burst,
            level: burst * SECOND,
            updated: 0,
        }
    }

    fn refill(&mut self, now: Time) {
        let passed = now.saturating_sub(self.updated);
        self.updated = self.updated.max(now);
        self.level = self
            .level
            .saturating_add(passed.saturating_mul(self.per_second))
            .min(self.burst * SECOND);
    }

    /// Whether one unit is left, without taking it.
    pub fn has_one(&mut self, now: Time) -> bool {
        self.refill(now);
        self.level >= SECOND
    }

    /// Takes one unit if there is one.
    pub fn take(&mut self, now: Time) -> bool {
        let left = self.has_one(now);
        if left {
            self.level -= SECOND;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(steps in proptest::collection::vec(0u64..200_000, 1..300)) {
            let mut budget = Budget::new(10, 5);
            let (mut now, mut taken) = (1_000_000u64, 0u64);
            budget.has_one(now);
            let start = now;
            for step in steps {
                now += step;
                taken += u64::from(budget.take(now));
            }
            prop_assert!(taken <= 5 + (now - start) * 10 / 1_000_000 + 1);
        }
    }
}
