//! What a subscriber tells publishers of the packets that multicast has lost on the way to it.
//!
//! It measures for a moment and reports that, seldom enough that all subscribers together cost a publisher a few reports a second: at
//! first by how many they are, then as the publisher says. Spec: side-channel.md SC-49.

use std::collections::BTreeMap;

use crate::event::{Response, Target};
use crate::member::{Outgoing, Purposes};
use crate::messages::{loss_report, parse_report_reply};
use crate::receiver::Receiver;
use crate::wire::{StreamId, Time};

const SECOND: u64 = 1_000_000;
/// For so long the packets of a report are counted.
const MEASURE: u64 = SECOND;
/// Of fewer packets no share can be told, and nothing that is worth a request.
const SENT_MIN: u64 = 10;
/// Reports a second that all subscribers together send, before the publisher has said how often it wants them.
const REPORTS_PER_SECOND: u64 = 8;
/// The shortest and the longest time between two reports.
pub(crate) const REPORT_INTERVALS: (u64, u64) = (2 * SECOND, 3600 * SECOND);
const TIMEOUT: u64 = 5 * SECOND;

/// One stream's reports.
#[derive(Debug)]
struct Meter {
    /// When to begin to count, or to report what was counted.
    at: Time,
    interval: u64,
    /// Head and arrived packets when counting began.
    since: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Reporting {
    streams: BTreeMap<StreamId, Meter>,
}

impl Reporting {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.streams.values().map(|meter| meter.at).min()
    }
}

/// How often one of so many subscribers reports.
fn interval_of(subscribers: u64) -> u64 {
    (subscribers.saturating_mul(SECOND) / REPORTS_PER_SECOND).clamp(REPORT_INTERVALS.0, REPORT_INTERVALS.1)
}

impl Receiver {
    /// Counts, and reports what has been counted, where that is due.
    pub(super) fn report_losses(&mut self, now: Time) {
        // Who hears no multicast, or serves others, loses nothing of a stream that its publisher could change.
        if self.following.is_some() || self.store.is_some() {
            return;
        }
        let (streams, meters) = (&self.streams, &mut self.reporting.streams);
        meters.retain(|id, _| streams.get(id).is_some_and(|stream| !stream.is_finished()));
        let interval = interval_of(self.member.subscribers);
        for id in self.sorted_streams() {
            let Some(stream) = self.streams.get(&id).filter(|stream| !stream.is_finished()) else {
                continue;
            };
            let meter = self.reporting.streams.entry(id).or_insert_with(|| Meter {
                at: now + self.member.jitter.below(interval),
                interval,
                since: None,
            });
            if meter.at > now {
                continue;
            }
            let reached = (stream.window.head(), stream.arrived);
            let Some((head, arrived)) = meter.since.take() else {
                (meter.since, meter.at) = (Some(reached), now + MEASURE);
                continue;
            };
            // Spread, so that those who began together do not stay together.
            meter.at = now + meter.interval / 2 + self.member.jitter.below(meter.interval);
            let sent = reached.0 - head;
            let Some(source) = stream.sources.first().filter(|_| sent >= SENT_MIN) else {
                continue;
            };
            let lost = sent.saturating_sub(reached.1 - arrived);
            let outgoing = Outgoing {
                target: Target::Peers(vec![source.clone()]),
                method: "POST",
                path: "/v1/losses".to_owned(),
                body: loss_report(self.member.channel(), &id, (lost, sent)),
                timeout: TIMEOUT,
            };
            self.member.request(Purposes::ReportLoss(id), outgoing, now);
        }
    }

    /// A publisher that does not answer, or has enough, hears of us less often.
    pub(super) fn report_came(&mut self, id: StreamId, response: Response<'_>, _now: Time) {
        let Some(meter) = self.reporting.streams.get_mut(&id) else {
            return;
        };
        let told = match response {
            Response::Answer { status: 200, body } => parse_report_reply(body).ok(),
            _ => None,
        };
        let interval = told.map_or(meter.interval.saturating_mul(2), |told| told.saturating_mul(1000));
        meter.interval = interval.clamp(REPORT_INTERVALS.0, REPORT_INTERVALS.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_subscribers_report_no_more_than_eight_a_second() {
        for subscribers in [1, 16, 17, 100, 10_000] {
            let each = SECOND as f64 / interval_of(subscribers) as f64;
            assert!(
                subscribers as f64 * each <= REPORTS_PER_SECOND as f64,
                "{subscribers}"
            );
        }
        assert_eq!(interval_of(1_000_000), REPORT_INTERVALS.1);
    }
}
