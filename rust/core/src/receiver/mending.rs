//! How a subscriber gets back what it misses, and when it gives up.
//!
//! Spec: wire.md DP-33; side-channel.md SC-8, SC-9.

use crate::event::{Response, Target};
use crate::member::{Outgoing, Purposes};
use crate::messages::{parse_repair_reply, repair_request};
use crate::receiver::{Receiver, Via};
use crate::rejection::Rejection;
use crate::wire::{StreamId, Time};

const SECOND: u64 = 1_000_000;
/// Most ranges and packets in one repair request (SC-8).
const MAX_RANGES: usize = 64;
const MAX_REPAIR_PACKETS: u64 = 1024;
/// A repair answer with more packets that fail than this is not read further: its peer is at fault.
const MAX_BAD_REPAIRS: usize = 3;

impl Receiver {
    pub(super) fn repair_came(&mut self, id: StreamId, response: Response<'_>, now: Time) {
        let before = self.counters.repaired;
        let mut oldest = None;
        if let Response::Answer { status: 200, body } = response
            && let Ok(reply) = parse_repair_reply(body)
        {
            let mut bad = 0;
            for datagram in &reply.packets {
                let refused = self.receive(datagram, Via::Repair, now);
                bad += usize::from(matches!(
                    refused,
                    Some(Rejection::Malformed | Rejection::Signature)
                ));
                if bad > MAX_BAD_REPAIRS {
                    break;
                }
            }
            if let Some(head) = reply.head {
                self.receive(head, Via::Repair, now);
            }
            if bad == 0 {
                oldest = Some(reply.oldest);
            }
        }
        let mended = (self.counters.repaired - before) as usize;
        let is_full = self.is_queue_full();
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.schedule.answered(mended, now, &mut self.member.jitter);
        // The source is the publisher itself: what it no longer holds will not come back.
        if let Some(oldest) = oldest.filter(|_| !is_full) {
            for (first, last) in stream.window.missing_below(oldest) {
                self.counters.lost += last - first + 1;
                stream.give_up(first, last, &mut self.member.events);
            }
        }
    }

    pub(super) fn give_up_overdue(&mut self, now: Time) {
        let Some(retention) = self.member.policy().map(|policy| policy.retention) else {
            return;
        };
        let cutoff = now.saturating_sub(retention);
        // In a fixed order, which keeps a seeded simulation repeatable.
        for id in self.sorted_streams() {
            if self.is_queue_full() {
                return;
            }
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            if stream.window.missing_since().is_none_or(|since| since >= cutoff) {
                continue;
            }
            for (first, last) in stream.window.overdue(cutoff) {
                self.counters.lost += last - first + 1;
                stream.give_up(first, last, &mut self.member.events);
            }
        }
    }

    pub(super) fn schedule_repairs(&mut self, now: Time) {
        for id in self.sorted_streams() {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let Some(since) = stream.window.missing_since() else {
                stream.schedule.settled();
                continue;
            };
            stream
                .schedule
                .noticed(since.max(now.saturating_sub(SECOND)), &mut self.member.jitter);
            if !stream.schedule.is_due(now) {
                continue;
            }
            if self.queue_bytes >= self.queue_limit {
                // The application does not read: what came would find no room. A deadline must not stay in the past.
                stream.schedule.postponed(now, &mut self.member.jitter);
                continue;
            }
            if stream.sources.is_empty() {
                stream.schedule.postponed(now, &mut self.member.jitter);
                self.member.want(Purposes::Directory, now);
                continue;
            }
            let by = stream.schedule.noticed_by(now);
            let ranges = stream.window.repairable(by, MAX_RANGES, MAX_REPAIR_PACKETS);
            if ranges.is_empty() {
                stream.schedule.postponed(now, &mut self.member.jitter);
                continue;
            }
            stream.schedule.requested();
            let (target, timeout) = (Target::Peers(stream.sources.clone()), stream.schedule.timeout());
            let body = repair_request(self.member.channel(), &id, &ranges);
            let path = "/v1/repair".to_owned();
            self.counters.requests += 1;
            let outgoing = Outgoing {
                target,
                method: "POST",
                path,
                body,
                timeout,
            };
            self.member.request(Purposes::Repair(id), outgoing, now);
        }
    }
}
