//! The last value of each topic, sealed again for those who come late.
//!
//! Off unless the operator allows it: a newcomer gets values from before its admission. Spec: wire.md DP-45.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::crypto::Jitter;
use crate::frames::Origin;
use crate::wire::Time;

/// Publishers that are told of a newcomer at one moment spread over this.
const SPREAD: u64 = 100_000;
/// Many who join one after the other share a copy of everything.
const INTERVAL: u64 = 2_000_000;

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetainLimits {
    /// Topics; 0: nothing is kept.
    pub topics: usize,
    /// Bytes of values and topics.
    pub bytes: u64,
}

struct Value {
    data: Bytes,
    origin: Origin,
    order: u64,
}

pub(super) struct LastValues {
    limits: RetainLimits,
    values: HashMap<Arc<str>, Value>,
    /// The topics, the one that was sent to longest ago first.
    order: BTreeMap<u64, Arc<str>>,
    next_order: u64,
    bytes: u64,
    due: Option<Time>,
    last_sent: Option<Time>,
}

impl LastValues {
    pub(super) fn new(limits: RetainLimits) -> Self {
        Self {
            limits,
            values: HashMap::new(),
            order: BTreeMap::new(),
            next_order: 0,
            bytes: 0,
            due: None,
            last_sent: None,
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.limits.topics > 0
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.due
    }

    /// Keeps the value of a topic, which takes the place of the one before; the topics that had none for longest make room.
    pub(super) fn keep(&mut self, topic: &Arc<str>, data: &Bytes, origin: Origin) {
        self.remove(topic);
        let cost = (topic.len() + data.len()) as u64;
        if cost > self.limits.bytes {
            return;
        }
        while self.values.len() >= self.limits.topics || self.bytes + cost > self.limits.bytes {
            let Some((_, oldest)) = self.order.pop_first() else {
                return;
            };
            self.remove(&oldest);
        }
        let order = self.next_order;
        self.next_order += 1;
        self.bytes += cost;
        self.order.insert(order, topic.clone());
        let value = Value {
            // A copy of its own: the message may be a slice of many.
            data: Bytes::copy_from_slice(data),
            origin,
            order,
        };
        self.values.insert(topic.clone(), value);
    }

    fn remove(&mut self, topic: &Arc<str>) {
        if let Some(value) = self.values.remove(topic) {
            self.order.remove(&value.order);
            self.bytes -= (topic.len() + value.data.len()) as u64;
        }
    }

    /// Somebody new may listen.
    pub(super) fn want(&mut self, now: Time, jitter: &mut Jitter) {
        if self.is_enabled() && self.due.is_none() {
            let earliest = self
                .last_sent
                .map_or(now, |sent| now.max(sent.saturating_add(INTERVAL)));
            self.due = Some(earliest + jitter.below(SPREAD));
        }
    }

    pub(super) fn postpone(&mut self, now: Time) {
        self.due = Some(now + INTERVAL);
    }

    /// What is to be sent again at `now`, in the order in which it was sent.
    pub(super) fn take(&mut self, now: Time) -> Vec<(Arc<str>, Bytes, Origin)> {
        self.due = None;
        self.last_sent = Some(now);
        let topics = self.order.values();
        topics
            .filter_map(|topic| {
                let value = self.values.get(topic)?;
                Some((topic.clone(), value.data.clone(), value.origin))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::StreamId;

    fn kept(limits: RetainLimits, sent: &[(&str, usize)]) -> Vec<(String, usize, u64)> {
        let mut values = LastValues::new(limits);
        for (sequence, &(topic, length)) in (0..).zip(sent) {
            let origin = Origin {
                stream: StreamId([1; 16]),
                sequence,
                time: sequence,
            };
            values.keep(&Arc::from(topic), &Bytes::from(vec![0; length]), origin);
            assert!(values.bytes <= limits.bytes && values.values.len() <= limits.topics);
        }
        let taken = values.take(0).into_iter();
        taken
            .map(|(topic, data, origin)| (topic.to_string(), data.len(), origin.sequence))
            .collect()
    }

    #[test]
    fn the_last_of_each_topic_within_bounds() {
        let limits = RetainLimits {
            topics: 3,
            bytes: 1000,
        };
        let of = |topic: &str, length, sequence| (topic.to_owned(), length, sequence);
        let sent = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("d", 5)];
        // b was sent to longest ago.
        assert_eq!(kept(limits, &sent), [of("a", 3, 2), of("c", 4, 3), of("d", 5, 4)]);
        // One that is too long is not kept, and an older value of its topic is not its last.
        assert_eq!(kept(limits, &[("a", 1), ("b", 1), ("a", 1000)]), [of("b", 1, 1)]);
        assert_eq!(kept(limits, &[("a", 500), ("b", 600)]), [of("b", 600, 1)]);
        assert_eq!(kept(RetainLimits::default(), &[("a", 1)]), []);
    }

    #[test]
    fn many_newcomers_share_a_copy() {
        let mut values = LastValues::new(RetainLimits { topics: 1, bytes: 9 });
        let mut jitter = Jitter::new(1);
        values.want(10, &mut jitter);
        let first = values.deadline().unwrap();
        assert!((10..10 + SPREAD).contains(&first));
        values.want(11, &mut jitter);
        assert_eq!(values.deadline(), Some(first));
        values.take(first);
        assert_eq!(values.deadline(), None);
        values.want(first + 1, &mut jitter);
        assert!(values.deadline().unwrap() >= first + INTERVAL);
    }
}
