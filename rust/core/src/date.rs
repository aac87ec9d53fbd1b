//! The date: what validity, slots and the time of sealing go by. It survives a clock that is set wrong.
//!
//! `now` is the host's steady clock, which is never set and measures intervals; what the host's wall clock says besides is
//! only one of three witnesses of the date, and the latest of them counts. So a wall clock that is set back makes nothing
//! good again that had ended, and one that was set ahead does no harm once it is right.
//!
//! Spec: trust.md TR-27, TR-28.

use crate::control::CLOCK_ALLOWANCE;
use crate::wire::Time;

const SECOND: u64 = 1_000_000;
/// How far beyond the wall clock a signed time may move the memory: clocks of authority and device differ a little.
const ALLOWANCE: u64 = 600 * SECOND;
/// How far one object may move it where the wall clock stands before what was signed: documents come daily.
const STEP: u64 = 24 * 3600 * SECOND;

/// The latest signed time to remember, when an object that the site's authority signed at `signed` is taken (TR-27).
///
/// Bounded: an authority whose clock was years ahead for a moment must not end the life of every device.
#[must_use]
pub fn later_signed_time(known: Time, signed: Time, wall: Time) -> Time {
    let bound = wall.saturating_add(ALLOWANCE);
    let bound = if bound < known {
        known.saturating_add(STEP)
    } else {
        bound
    };
    known.max(signed.min(bound))
}

/// What a member knows of the date.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dates {
    /// What the wall clock is ahead of `now`, in microseconds.
    ahead: i64,
    /// The latest signed time.
    signed: Time,
    /// The time of the last verified beacon, and the `now` at which it came.
    told: Option<(Time, Time)>,
}

impl Dates {
    /// `signed`: what an earlier run remembered ([`Self::signed`]).
    #[must_use]
    pub fn new(signed: Time) -> Self {
        Self {
            signed,
            ..Self::default()
        }
    }

    /// The wall clock says `wall` at `now`.
    pub fn set_wall(&mut self, now: Time, wall: Time) {
        self.ahead = wall.wrapping_sub(now).cast_signed();
    }

    /// What the wall clock says at `now`.
    #[must_use]
    pub fn wall(&self, now: Time) -> Time {
        now.saturating_add_signed(self.ahead)
    }

    fn told(&self, now: Time) -> Option<Time> {
        self.told
            .map(|(time, since)| time.saturating_add(now.saturating_sub(since)))
    }

    /// The date at `now`, which everything is judged by: the latest that any witness says.
    #[must_use]
    pub fn date(&self, now: Time) -> Time {
        self.wall(now).max(self.signed).max(self.told(now).unwrap_or(0))
    }

    /// The date at `now` for what others are to judge: what is sealed must not bear a time that is far ahead of theirs.
    #[must_use]
    pub fn sealing_date(&self, now: Time) -> Time {
        let told = self.told(now).unwrap_or(Time::MAX);
        self.date(now).min(told.saturating_add(CLOCK_ALLOWANCE))
    }

    /// The latest signed time, for the host to store and to hand to a later run.
    #[must_use]
    pub fn signed(&self) -> Time {
        self.signed
    }

    /// An object that the authority signed at `signed` has been taken for the first time.
    pub fn take_signed(&mut self, signed: Time, now: Time) {
        self.signed = later_signed_time(self.signed, signed, self.wall(now));
    }

    /// A verified beacon of `time` has come. The last one counts, not the latest: a key server whose clock was ahead is
    /// believed again when it is right, and nothing of this outlives the run.
    pub fn take_beacon(&mut self, time: Time, now: Time) {
        self.told = Some((time, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = STEP;
    const YEAR: u64 = 365 * DAY;
    const NOW: u64 = 56 * YEAR;

    fn dates(signed: Time) -> Dates {
        let mut dates = Dates::new(signed);
        dates.set_wall(NOW, NOW);
        dates
    }

    #[test]
    fn h1_a_wall_clock_that_is_set_back_takes_nothing_back() {
        for back in [10 * YEAR, DAY, 120 * SECOND] {
            let mut dates = dates(NOW - DAY / 2);
            dates.take_beacon(NOW, NOW);
            dates.set_wall(NOW, NOW - back);
            assert_eq!(dates.date(NOW), NOW);
            assert_eq!(dates.date(NOW + DAY), NOW + DAY);
            // Another run knows what was signed, and no more.
            let mut later = Dates::new(dates.signed());
            later.set_wall(NOW, NOW - back);
            assert_eq!(later.date(NOW), (NOW - back).max(NOW - DAY / 2));
        }
    }

    #[test]
    fn h2_a_wall_clock_that_was_ahead_leaves_nothing_behind() {
        let mut dates = dates(NOW - DAY);
        dates.set_wall(NOW, NOW + 10 * YEAR);
        assert_eq!(dates.date(NOW), NOW + 10 * YEAR);
        assert_eq!(
            dates.sealing_date(NOW),
            NOW + 10 * YEAR,
            "before the first beacon"
        );
        // What is signed meanwhile bears the right date, and a beacon says it.
        dates.take_signed(NOW, NOW);
        dates.take_beacon(NOW, NOW);
        assert_eq!(dates.date(NOW), NOW + 10 * YEAR);
        assert_eq!(dates.sealing_date(NOW + DAY), NOW + DAY + CLOCK_ALLOWANCE);
        dates.set_wall(NOW + SECOND, NOW + SECOND);
        assert_eq!((dates.date(NOW + SECOND), dates.signed()), (NOW + SECOND, NOW));
    }

    #[test]
    fn tr_27_an_authority_that_is_years_ahead_moves_a_right_clock_by_minutes() {
        let mut dates = dates(NOW - DAY);
        for _ in 0..1000 {
            dates.take_signed(NOW + 10 * YEAR, NOW);
        }
        assert_eq!(dates.signed(), NOW + ALLOWANCE);
        // A key server that is ahead is believed for as long as it says so.
        dates.take_beacon(NOW + DAY, NOW);
        assert_eq!(dates.date(NOW), NOW + DAY);
        dates.take_beacon(NOW, NOW);
        assert_eq!(dates.date(NOW), NOW + ALLOWANCE);
    }

    #[test]
    fn tr_27_a_clock_that_lags_follows_what_is_signed_day_by_day() {
        let mut dates = dates(NOW);
        dates.set_wall(NOW, 0);
        for day in 1..=5 {
            dates.take_signed(NOW + day * DAY, NOW);
            assert_eq!(dates.signed(), NOW + day * DAY);
        }
        dates.take_signed(NOW + 9 * DAY, NOW);
        assert_eq!(dates.signed(), NOW + 6 * DAY);
        dates.take_signed(NOW, NOW);
        assert_eq!(dates.signed(), NOW + 6 * DAY);
    }
}
