//! In which order an application gets messages, and how long it waits for what is missing.
//!
//! Spec: wire.md DP-33, DP-43.

use crate::repair::RepairTiming;

/// The first request also brings the connection up, which no deadline may cut off for ever.
const REQUEST_MIN: u64 = 1_000_000;

/// How an application gets messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// In order, complete, or a reported gap when nobody holds the packet any more.
    Reliable,
    /// In order; what has been missing for `deadline` microseconds is passed over and reported.
    Realtime { deadline: u64 },
    /// Each message when it is whole.
    Unordered,
}

impl Delivery {
    pub fn is_in_order(self) -> bool {
        self != Self::Unordered
    }

    /// Microseconds for which a missing packet is waited for, where publishers hold theirs for `retention`.
    pub fn patience(self, retention: u64) -> u64 {
        match self {
            Self::Realtime { deadline } => deadline.min(retention),
            Self::Reliable | Self::Unordered => retention,
        }
    }

    /// Repair gets several tries within a deadline.
    pub fn repair_timing(self, usual: RepairTiming) -> RepairTiming {
        let Self::Realtime { deadline } = self else {
            return usual;
        };
        RepairTiming {
            reorder: usual.reorder.min(deadline / 8),
            jitter: usual.jitter.min(deadline / 8),
            backoff: usual.backoff.min(deadline / 4),
            // After an answer that came too late the next loss is asked for as soon as ever.
            backoff_max: usual.backoff_max.min(deadline),
            timeout: usual.timeout.min(deadline.max(REQUEST_MIN)),
            source_timeout: usual.source_timeout.min(deadline.max(REQUEST_MIN)),
        }
    }

    /// By how many microseconds a loss may be taken for older than it is, where `usual` is the most.
    pub fn moment(self, usual: u64) -> u64 {
        match self {
            Self::Realtime { deadline } => usual.min(deadline / 8),
            Self::Reliable | Self::Unordered => usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repair_fits_into_a_deadline() {
        let usual = RepairTiming::default();
        let short = Delivery::Realtime { deadline: 20_000 }.repair_timing(usual);
        // The first request leaves in the first half, and there is time for another one.
        assert!(short.reorder + short.jitter <= 10_000);
        assert!(short.reorder + short.jitter + short.backoff < 20_000);
        let long = Delivery::Realtime { deadline: 1 << 40 };
        assert_eq!(long.repair_timing(usual).reorder, usual.reorder);
        assert_eq!(long.patience(30_000_000), 30_000_000);
        assert_eq!(Delivery::Reliable.repair_timing(usual).timeout, usual.timeout);
    }
}
