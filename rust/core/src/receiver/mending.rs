//! How a subscriber gets back what it misses, and when it gives up.
//!
//! Spec: wire.md DP-33; side-channel.md SC-8, SC-9.

use std::collections::BTreeSet;

use crate::event::{Response, Target};
use crate::member::{Outgoing, Purposes};
use crate::messages::{RepairReply, parse_repair_reply, parse_retry_after, repair_request};
use crate::receiver::batch::Digests;
use crate::receiver::sources::{Asked, Errand, PassedOver};
use crate::receiver::{Receiver, Via};
use crate::rejection::Rejection;
use crate::retention::MAX_ANSWER_BYTES;
use crate::wire::{MAX_DATAGRAM_BYTES, PacketType, PacketView, StreamId, Time};

const SECOND: u64 = 1_000_000;
/// Most ranges and packets in one repair request (SC-8).
const MAX_RANGES: usize = 64;
pub(super) const MAX_REPAIR_PACKETS: u64 = 1024;
/// A repair answer with more packets that fail than this is not read further: its peer is at fault.
pub(super) const MAX_BAD_REPAIRS: usize = 3;
/// A source that wants to be asked again later than this, in seconds, is asked all the same.
pub(super) const MAX_RETRY_AFTER: u64 = 60;
/// Who misses something looks who has come since, if that was last told so long ago.
const DIRECTORY_AGE: u64 = 60 * SECOND;
/// The same if somebody did not answer, who may have moved.
pub(super) const DOUBTED_AGE: u64 = 10 * SECOND;
/// Over how long those who lost the same spread that.
const DIRECTORY_SPREAD: u64 = 5 * SECOND;

/// What an answer was worth.
struct Worth {
    /// Sequences that were asked for and did not come.
    lacking: bool,
    /// It may hold more than fits an answer.
    is_full: bool,
    /// The lowest sequence that its giver still holds.
    oldest: Option<u64>,
    failure: Option<PassedOver>,
    /// Seconds.
    retry_after: Option<u64>,
}

impl Worth {
    fn nothing(failure: PassedOver) -> Self {
        Self {
            lacking: true,
            is_full: false,
            oldest: None,
            failure: Some(failure),
            retry_after: None,
        }
    }
}

impl Receiver {
    pub(super) fn repair_came(&mut self, id: StreamId, response: Response<'_>, now: Time) {
        let (errand, before) = ((id, Errand::Repair), self.counters.repaired);
        let Some(asked) = self.sources.take_asked(&errand) else {
            return;
        };
        let worth = match response {
            Response::Failed => Worth::nothing(PassedOver::NoAnswer),
            Response::Answer { status: 200, body } => self.take_repaired(&id, &asked, body, now),
            Response::Answer { status: 429, body } => Worth {
                retry_after: Some(parse_retry_after(body).unwrap_or(1).min(MAX_RETRY_AFTER)),
                ..Worth::nothing(PassedOver::Busy)
            },
            Response::Answer { .. } => Worth::nothing(PassedOver::Refused),
        };
        let mended = (self.counters.repaired - before) as usize;
        let is_full = self.is_queue_full();
        let Some(stream) = self.streams.get_mut(&id) else {
            self.sources.settled(&errand);
            return;
        };
        let events = &mut self.member.events;
        match worth.failure {
            Some(_) => self.sources.failed(&asked.source, now),
            None => self
                .sources
                .answered(&errand, &asked, !worth.lacking, now, events),
        }
        let is_over = !worth.lacking || (worth.is_full && mended > 0);
        let is_next = !is_over
            && self
                .sources
                .pass_over(&errand, &asked.source, &stream.sources, now);
        if worth.failure == Some(PassedOver::NoAnswer) && self.sources.is_older_than(DOUBTED_AGE, now) {
            self.member.want(Purposes::Directory, now);
        }
        if let Some(reason) = worth.failure
            && is_next
        {
            let events = &mut self.member.events;
            self.sources.tell(&asked.source, reason, now, events);
        }
        match worth.retry_after {
            _ if is_next => stream.schedule.next_source(now),
            Some(seconds) => stream
                .schedule
                .held_off(now + seconds * SECOND, &mut self.member.jitter),
            None => stream.schedule.answered(mended, now, &mut self.member.jitter),
        }
        // Only of the publisher itself it is true that what it no longer holds will not come back.
        let is_publisher = asked.is_publisher(&stream.publisher);
        if let Some(oldest) = worth.oldest.filter(|_| !is_full && is_publisher) {
            for (first, last) in stream.window.missing_below(oldest) {
                self.counters.lost += last - first + 1;
                stream.give_up(first, last, &mut self.member.events);
            }
        }
    }

    fn take_repaired(&mut self, id: &StreamId, asked: &Asked, body: &[u8], now: Time) -> Worth {
        let Ok(reply) = parse_repair_reply(body) else {
            return Worth::nothing(PassedOver::BadPackets);
        };
        let (mut bad, mut bytes, mut came) = (0, 0, BTreeSet::new());
        for datagram in &reply.packets {
            bytes += datagram.len();
            let refused = self.receive(datagram, Via::Repair, now);
            if matches!(refused, Some(Rejection::Malformed | Rejection::Signature)) {
                bad += 1;
            } else if let Ok(packet) = PacketView::parse(datagram)
                && packet.header.stream == *id
                && packet.header.packet_type == PacketType::Data
            {
                came.insert(packet.header.sequence());
            }
            if bad > MAX_BAD_REPAIRS {
                break;
            }
        }
        if let Some(head) = reply.head {
            self.receive(head, Via::Repair, now);
        }
        let missing = self.streams.get(id).map_or(Vec::new(), |stream| {
            let last = asked.ranges.last().map_or(0, |&(_, last)| last);
            stream.window.missing_below(last.saturating_add(1))
        });
        let is_asked = |sequence: &u64| {
            let within = |&(first, last): &(u64, u64)| (first..=last).contains(sequence);
            asked.ranges.iter().any(within)
        };
        // No more than were asked for, with what was missing before them.
        let mut missing = missing.iter().flat_map(|&(first, last)| first..=last);
        let lacking = missing.any(|sequence| is_asked(&sequence) && !came.contains(&sequence));
        if bad == 0 {
            self.find_beginning(*id, asked, &reply, lacking, now);
        }
        Worth {
            lacking,
            is_full: reply.packets.len() == MAX_REPAIR_PACKETS as usize
                || bytes + MAX_DATAGRAM_BYTES > MAX_ANSWER_BYTES,
            oldest: (bad == 0).then_some(reply.oldest),
            failure: (bad > 0).then_some(PassedOver::BadPackets),
            retry_after: None,
        }
    }

    /// Where a stream begins that is wanted from its start (DP-44): above what its publisher holds no more, and above what was sealed
    /// before our admission, as the packets show that were asked for. A repair node alone tells it only if it had all of them.
    fn find_beginning(
        &mut self,
        id: StreamId,
        asked: &Asked,
        reply: &RepairReply<'_>,
        lacking: bool,
        now: Time,
    ) {
        let (Some(stream), Some(suite)) = (self.streams.get(&id), self.member.suite()) else {
            return;
        };
        let is_publisher = asked.is_publisher(&stream.publisher);
        if !stream.is_seeking() || (lacking && !is_publisher) {
            return;
        }
        let mut begins = if is_publisher { reply.oldest } else { 0 };
        for datagram in &reply.packets {
            let Ok(packet) = PacketView::parse(datagram) else {
                continue;
            };
            let header = packet.header;
            if header.packet_type != PacketType::Data || header.stream != id || header.sequence() < begins {
                continue;
            }
            let digests = Digests::of(&packet, suite);
            let is_vouched = self
                .authenticate(&packet, suite, &digests, Via::Repair, now)
                .is_ok();
            if is_vouched
                && let Some(admitted) = self.member.admitted()
                && admitted.keyring.is_before_admission(header.epoch)
            {
                begins = header.sequence() + 1;
            }
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.begin_at(begins, &mut self.member.events);
        }
    }

    pub(super) fn give_up_overdue(&mut self, now: Time) {
        let Some(retention) = self.member.policy().map(|policy| policy.retention) else {
            return;
        };
        // In a fixed order, which keeps a seeded simulation repeatable.
        for id in self.sorted_streams() {
            if self.is_queue_full() {
                return;
            }
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            if stream.give_up_at(retention).is_none_or(|at| at > now) {
                continue;
            }
            stream.give_up_seeking(&mut self.member.events);
            for (first, last) in stream.overdue(retention, now) {
                self.counters.lost += last - first + 1;
                stream.give_up(first, last, &mut self.member.events);
            }
        }
    }

    pub(super) fn schedule_repairs(&mut self, now: Time) {
        for id in self.sorted_streams() {
            let errand = (id, Errand::Repair);
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let Some(since) = stream.window.missing_since() else {
                stream.schedule.settled();
                self.sources.settled(&errand);
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
                self.member.want(Purposes::Directory, now);
            }
            let Some((source, has_another)) = self.sources.next(&errand, &stream.sources, now) else {
                stream.schedule.postponed(now, &mut self.member.jitter);
                continue;
            };
            let by = stream.schedule.noticed_by(now);
            let (mut ranges, held_until) = if stream.is_seeking() {
                (stream.probes(MAX_RANGES), None)
            } else {
                let ranges = stream.window.repairable(by, MAX_RANGES, MAX_REPAIR_PACKETS);
                stream.fec.release(ranges, &stream.window, now)
            };
            ranges.truncate(MAX_RANGES);
            if ranges.is_empty() {
                match held_until {
                    Some(until) => stream.schedule.held_off(until, &mut self.member.jitter),
                    None => stream.schedule.postponed(now, &mut self.member.jitter),
                }
                continue;
            }
            stream.schedule.requested();
            let timeout = stream.schedule.timeout(has_another);
            let target = Target::Peers(vec![source.clone()]);
            let asked = Asked {
                source,
                ranges: ranges.clone(),
                at: now,
            };
            self.sources.asked(errand, asked);
            if self.sources.is_older_than(DIRECTORY_AGE, now) {
                let at = now + self.member.jitter.below(DIRECTORY_SPREAD);
                self.member.want(Purposes::Directory, at);
            }
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
