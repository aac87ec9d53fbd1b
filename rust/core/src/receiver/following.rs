//! A subscriber without multicast: it asks one source after the other for what comes next of each stream, from where it stands.
//!
//! A source holds such a request until there is something. What comes is judged as if it had come by multicast, its gate aside;
//! whoever brings nothing new, though a publisher that lives says something every second, is passed over. Spec: side-channel.md SC-44.

use std::collections::BTreeMap;

use crate::event::{Response, Target};
use crate::member::{Outgoing, Purposes};
use crate::messages::{follow_request, parse_repair_reply, parse_retry_after};
use crate::receiver::mending::{DOUBTED_AGE, MAX_BAD_REPAIRS, MAX_REPAIR_PACKETS, MAX_RETRY_AFTER};
use crate::receiver::sources::{Asked, Errand, PassedOver};
use crate::receiver::{Receiver, Via};
use crate::rejection::Rejection;
use crate::retention::MAX_ANSWER_BYTES;
use crate::wire::{MAX_DATAGRAM_BYTES, StreamId, Time};

const SECOND: u64 = 1_000_000;
/// A source that has nothing answers after 5 s (SC-44); one that takes longer than this is gone.
const TIMEOUT: u64 = 8 * SECOND;
/// After an answer that brought nothing, and no other source to ask: doubles up to `PAUSE_MAX`.
const PAUSE: u64 = SECOND / 20;
const PAUSE_MAX: u64 = 5 * SECOND;
/// How soon somebody without room is asked again.
const FULL_PAUSE: u64 = SECOND / 20;

/// How packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Multicast,
    /// There is no multicast: sources are asked for what comes next (SC-44).
    SideChannel,
}

#[derive(Debug, Default)]
struct Follow {
    /// When the next request is made; None while one is on the way.
    due: Option<Time>,
    /// Answers in a row that brought nothing.
    fruitless: u32,
}

impl Follow {
    fn pause(&mut self, now: Time) {
        self.due = Some(now + (PAUSE << self.fruitless.min(10)).min(PAUSE_MAX));
        self.fruitless = self.fruitless.saturating_add(1);
    }
}

/// The streams that are followed.
#[derive(Debug, Default)]
pub(super) struct Following {
    streams: BTreeMap<StreamId, Follow>,
}

impl Following {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.streams.values().filter_map(|follow| follow.due).min()
    }

    /// There are keys that may have been waited for.
    pub(super) fn go_on(&mut self, now: Time) {
        for follow in self.streams.values_mut().filter(|follow| follow.due.is_some()) {
            follow.due = Some(now);
        }
    }
}

impl Receiver {
    /// Asks for what comes next of each stream that goes on.
    pub(super) fn follow_streams(&mut self, now: Time) {
        let Some(mut following) = self.following.take() else {
            return;
        };
        let mut gone = Vec::new();
        following.streams.retain(|id, follow| {
            let goes_on = self
                .streams
                .get(id)
                .is_some_and(|stream| !stream.is_finished() && !stream.is_succeeded());
            if !goes_on && follow.due.is_some() {
                gone.push(*id);
                return false;
            }
            true
        });
        for id in gone {
            self.sources.settled(&(id, Errand::Follow));
        }
        for id in self.sorted_streams() {
            let is_over = self
                .streams
                .get(&id)
                .is_none_or(|stream| stream.is_finished() || stream.is_succeeded());
            if is_over {
                continue;
            }
            let follow = following.streams.entry(id).or_insert(Follow {
                due: Some(now),
                fruitless: 0,
            });
            if follow.due.is_some_and(|at| at <= now) {
                self.follow_stream(id, follow, now);
            }
        }
        self.following = Some(following);
    }

    fn follow_stream(&mut self, id: StreamId, follow: &mut Follow, now: Time) {
        if self.is_queue_full() {
            // The application does not read: sources keep what it has not taken, as long as they keep anything.
            follow.due = Some(now + FULL_PAUSE);
            return;
        }
        let errand = (id, Errand::Follow);
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let Some((source, _)) = self.sources.next(&errand, &stream.sources, now) else {
            follow.pause(now);
            self.member.want(Purposes::Directory, now);
            return;
        };
        let from = stream.window.head();
        follow.due = None;
        let target = Target::Peers(vec![source.clone()]);
        let asked = Asked {
            source,
            ranges: vec![(from, u64::MAX)],
            at: now,
        };
        self.sources.asked(errand, asked);
        self.counters.requests += 1;
        let outgoing = Outgoing {
            target,
            method: "POST",
            path: "/v1/follow".to_owned(),
            body: follow_request(self.member.channel(), &id, from),
            timeout: TIMEOUT,
        };
        self.member.request(Purposes::Follow(id), outgoing, now);
    }

    pub(super) fn follow_came(&mut self, id: StreamId, response: Response<'_>, now: Time) {
        let errand = (id, Errand::Follow);
        let (Some(asked), Some(mut following)) = (self.sources.take_asked(&errand), self.following.take())
        else {
            return;
        };
        let follow = following.streams.entry(id).or_default();
        let mut retry_after = 0;
        let outcome = match response {
            Response::Failed => Err(PassedOver::NoAnswer),
            Response::Answer { status: 200, body } => self.take_followed(&id, body, now),
            Response::Answer { status: 429, body } => {
                retry_after = parse_retry_after(body).unwrap_or(1).min(MAX_RETRY_AFTER) * SECOND;
                Err(PassedOver::Busy)
            }
            Response::Answer { .. } => Err(PassedOver::Refused),
        };
        let events = &mut self.member.events;
        match outcome {
            Ok(News::Some) => {
                self.sources.answered(&errand, &asked, true, now, events);
                (follow.due, follow.fruitless) = (Some(now), 0);
            }
            Ok(News::Sealed) => {
                self.sources.answered(&errand, &asked, true, now, events);
                follow.pause(now);
            }
            Ok(News::None) | Err(_) => {
                if outcome.is_err() {
                    self.sources.failed(&asked.source, now);
                }
                let publishers = self
                    .streams
                    .get(&id)
                    .map_or(&[][..], |stream| &stream.sources[..]);
                if self.sources.pass_over(&errand, &asked.source, publishers, now) {
                    follow.due = Some(now);
                    if let Err(reason) = outcome {
                        self.sources.tell(&asked.source, reason, now, events);
                    }
                } else {
                    follow.pause(now + retry_after);
                    if self.sources.is_older_than(DOUBTED_AGE, now) {
                        self.member.want(Purposes::Directory, now);
                    }
                }
            }
        }
        self.following = Some(following);
    }

    /// Takes what a source has given of a stream.
    fn take_followed(&mut self, id: &StreamId, body: &[u8], now: Time) -> Result<News, PassedOver> {
        let reply = parse_repair_reply(body).map_err(|_| PassedOver::BadPackets)?;
        let head_of = |receiver: &Self| receiver.streams.get(id).map(|stream| stream.window.head());
        let before = (self.counters.accepted, head_of(self));
        let (mut bad, mut sealed) = (0, 0);
        self.receive_batches(reply.packets.iter().copied(), Via::Follow, now, |refused| {
            bad += usize::from(matches!(
                refused,
                Some(Rejection::Malformed | Rejection::Signature)
            ));
            sealed += usize::from(refused == Some(Rejection::UnknownEpoch));
            bad <= MAX_BAD_REPAIRS
        });
        let bytes: usize = reply.packets.iter().map(|packet| packet.len()).sum();
        let is_full = reply.packets.len() == MAX_REPAIR_PACKETS as usize
            || bytes + MAX_DATAGRAM_BYTES > MAX_ANSWER_BYTES;
        // The head of an answer that had no room for all that there is would make the rest a loss.
        if let Some(head) = reply.head.filter(|_| !is_full) {
            self.receive(head, Via::Follow, now);
        }
        if bad > 0 {
            return Err(PassedOver::BadPackets);
        }
        Ok(match () {
            () if (self.counters.accepted, head_of(self)) != before => News::Some,
            () if sealed > 0 => News::Sealed,
            () => News::None,
        })
    }
}

/// What an answer brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Some,
    /// Packets whose key is on its way.
    Sealed,
    None,
}
