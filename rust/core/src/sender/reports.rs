//! What subscribers report of their losses, and what follows: how much parity is made, and how fast is sent.
//!
//! A sample counts, never a single subscriber: the slowest of many changes nothing for the others. Spec: side-channel.md SC-49, wire.md
//! DP-46.

use std::collections::VecDeque;

use super::Sender;
use crate::receiver::REPORT_INTERVALS;
use crate::wire::Time;

const SECOND: u64 = 1_000_000;
/// How often it is looked at what has been reported.
const LOOK: u64 = 2 * SECOND;
/// Reports that are wanted in that time, and that are heeded at most.
const WANTED: u64 = 16;
const MOST: u64 = 64;
/// The latest reports of so many subscribers, of no more than this age, are the sample.
const SAMPLE: usize = 64;
const SAMPLE_AGE: u64 = 15 * SECOND;
/// Of a sample smaller than this, and than all who report, nothing follows.
const SAMPLE_MIN: usize = 4;
/// Thousandths: losses above which less is sent, and below which more is; parity and repair do with what lies between.
const HIGH: u16 = 100;
const LOW: u16 = 50;
/// The least of the policy's rate that losses bring a publisher down to, and what it rises by each time; thousandths.
const FLOOR: u16 = 125;
const RISE: u16 = 50;

#[derive(Debug)]
struct Report {
    device: String,
    permille: u16,
    at: Time,
}

#[derive(Debug)]
pub(super) struct LossReports {
    is_adaptive: bool,
    latest: VecDeque<Report>,
    /// Reports since the last look.
    count: u64,
    interval: u64,
    look_at: Option<Time>,
    /// What was sent before this says nothing of the present rate.
    changed: Time,
    pace: u16,
}

impl LossReports {
    /// `is_adaptive`: whether the rate follows.
    pub(super) fn new(is_adaptive: bool) -> Self {
        Self {
            is_adaptive,
            latest: VecDeque::new(),
            count: 0,
            interval: REPORT_INTERVALS.0,
            look_at: None,
            changed: 0,
            pace: 1000,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.look_at
    }

    /// Takes a report; gives the microseconds after which the next one is wanted of the same subscriber, or None if there are too
    /// many for now.
    fn take(&mut self, device: &str, permille: u16, now: Time) -> Option<u64> {
        self.count += 1;
        self.look_at.get_or_insert(now + LOOK);
        if self.count > MOST {
            return None;
        }
        self.latest.retain(|report| report.device != device);
        if self.latest.len() == SAMPLE {
            self.latest.pop_front();
        }
        self.latest.push_back(Report {
            device: device.to_owned(),
            permille,
            at: now,
        });
        Some(self.interval)
    }

    /// Looks at the sample; gives the loss that parity is to be made for, if there is one.
    fn look(&mut self, now: Time) -> Option<u16> {
        let (least, most) = REPORT_INTERVALS;
        self.interval = match self.count {
            count if count > WANTED => (self.interval * count / WANTED).min(most),
            count if count < WANTED / 2 => (self.interval * 4 / 5).max(least),
            _ => self.interval,
        };
        self.count = 0;
        self.latest
            .retain(|report| now.saturating_sub(report.at) <= SAMPLE_AGE);
        let mut losses: Vec<u16> = self
            .latest
            .iter()
            .filter(|report| report.at >= self.changed)
            .map(|report| report.permille)
            .collect();
        losses.sort_unstable();
        let is_sample = losses.len() >= SAMPLE_MIN.min(self.latest.len());
        let is_known = is_sample && !losses.is_empty();
        if self.is_adaptive && (is_sample || self.latest.is_empty()) {
            self.adapt(quantile(&losses, 3, 4), now);
        }
        let is_idle = self.latest.is_empty() && self.pace == 1000;
        self.look_at = (!is_idle).then_some(now + LOOK);
        is_known.then(|| quantile(&losses, 9, 10))
    }

    /// To what went through, when a quarter of the sample loses more than a tenth; back up step by step.
    fn adapt(&mut self, loss: u16, now: Time) {
        if loss > HIGH {
            let through = u32::from(self.pace) * u32::from(1000 - loss.min(500)) / 1000;
            self.pace = (through as u16).max(FLOOR);
            // Reports that began to count before this are of the rate before.
            self.changed = now + LOOK / 2;
        } else if loss < LOW {
            self.pace = (self.pace + RISE).min(1000);
        }
    }
}

/// The value that `part` of `of` parts of the sorted losses do not exceed; 0 of none.
fn quantile(losses: &[u16], part: usize, of: usize) -> u16 {
    let at = (losses.len() * part).div_ceil(of).saturating_sub(1);
    losses.get(at).copied().unwrap_or(0)
}

impl Sender {
    /// A subscriber, as the policy writes it, has lost so many of the packets of a moment, before any repair. Gives the milliseconds
    /// after which its next report is wanted; None: there are too many for now.
    pub fn take_report(&mut self, device: &str, (lost, sent): (u64, u64), now: Time) -> Option<u64> {
        let permille = lost.min(sent) as u128 * 1000 / u128::from(sent.max(1));
        let interval = self.reports.take(device, permille as u16, now)?;
        Some(interval / 1000)
    }

    /// What of the policy's rate is sent at, in thousandths.
    pub fn pace(&self) -> u16 {
        self.reports.pace
    }

    pub(super) fn look_at_reports(&mut self, now: Time) {
        if self.reports.deadline().is_some_and(|at| at <= now)
            && let Some(loss) = self.reports.look(now)
        {
            self.set_loss(loss);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs for so many looks, with the same losses reported before each; gives the pace.
    fn run(reports: &mut LossReports, losses: &[u16], looks: u64, now: &mut Time) -> u16 {
        for _ in 0..looks {
            for (n, &loss) in losses.iter().enumerate() {
                reports.take(&format!("s{n}"), loss, *now + LOOK - 1);
            }
            *now += LOOK;
            reports.look(*now);
        }
        reports.pace
    }

    #[test]
    fn one_slow_subscriber_of_twenty_changes_nothing() {
        let (mut reports, mut now) = (LossReports::new(true), 0);
        let mut losses = vec![0; 20];
        losses[7] = 1000;
        assert_eq!(run(&mut reports, &losses, 50, &mut now), 1000);
        // Nor does parity grow for it.
        for (n, &loss) in losses.iter().enumerate() {
            reports.take(&format!("s{n}"), loss, now);
        }
        assert_eq!(reports.look(now), Some(0));
    }

    #[test]
    fn half_of_them_lower_the_rate_and_it_comes_back() {
        let (mut reports, mut now) = (LossReports::new(true), 0);
        let losses: Vec<u16> = (0..20).map(|n| if n % 2 == 0 { 200 } else { 0 }).collect();
        assert_eq!(run(&mut reports, &losses, 1, &mut now), 800);
        assert_eq!(run(&mut reports, &losses, 20, &mut now), FLOOR);
        assert_eq!(run(&mut reports, &[0; 20], 17, &mut now), 975);
        assert_eq!(run(&mut reports, &[0; 20], 1, &mut now), 1000);
        assert_eq!(run(&mut LossReports::new(false), &losses, 20, &mut now), 1000);
    }

    #[test]
    fn the_rate_comes_back_when_nobody_reports_any_more_and_then_it_rests() {
        let (mut reports, mut now) = (LossReports::new(true), 0);
        run(&mut reports, &[400], 5, &mut now);
        assert!(reports.pace < 200);
        assert_eq!(run(&mut reports, &[], 30, &mut now), 1000);
        assert_eq!(reports.deadline(), None);
    }

    /// However many there are, and however they lie about how often they may: bounded in number and in memory.
    #[test]
    fn d2_reports_are_bounded_and_told_to_come_less_often() {
        let (mut reports, mut now) = (LossReports::new(true), 0);
        let mut heeded = 0;
        for n in 0..1000 {
            heeded += usize::from(reports.take(&format!("s{n}"), 1000, now).is_some());
        }
        assert_eq!((heeded, reports.latest.len()), (MOST as usize, SAMPLE));
        now += LOOK;
        reports.look(now);
        assert_eq!(
            reports.take("s", 0, now),
            Some(REPORT_INTERVALS.0 * 1000 / WANTED)
        );
        for _ in 0..50 {
            now += LOOK;
            reports.look(now);
        }
        assert_eq!(reports.take("s", 0, now), Some(REPORT_INTERVALS.0));
    }
}
