//! The window of a stream: which sequences are resolved, held or missing, and the leaf hash of each that is retained.
//!
//! Changes only for packets whose signature has held (invariant 1). Spec: wire.md DP-19.

use std::collections::{BTreeMap, VecDeque};

use crate::block::Hash;
use crate::fingerprint::Fingerprint;
use crate::wire::Time;

/// What a sequence is to the window, before anything is believed about its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Below the retained range, or resolved as lost: too late.
    Below,
    /// Held, with the same leaf.
    Duplicate,
    /// Held, with another leaf.
    Conflict,
    New,
    /// Further ahead than is kept; its head counts once verified, its content comes back by repair.
    Beyond,
}

type Leaf = [u8; 16];

/// Microseconds by which the time of notice of a missing sequence may be too early, unless told otherwise.
pub const MOMENT: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missing {
    /// Exclusive.
    end: u64,
    since: Time,
}

#[derive(Debug)]
pub struct Window {
    /// Retained leaves start here.
    low: u64,
    /// The lowest sequence that is neither received nor given up.
    next: u64,
    /// One above the highest sequence known to exist.
    head: u64,
    leaves: VecDeque<Option<Leaf>>,
    missing: BTreeMap<u64, Missing>,
    history: u64,
    ahead: u64,
    moment: u64,
}

impl Window {
    /// Starts at `start`; keeps leaves of `history` resolved sequences and takes up to `ahead` beyond the first gap.
    pub fn new(start: u64, history: u64, ahead: u64) -> Self {
        Self {
            low: start,
            next: start,
            head: start,
            leaves: VecDeque::new(),
            missing: BTreeMap::new(),
            history,
            ahead,
            moment: MOMENT,
        }
    }

    /// With other microseconds than [`MOMENT`].
    #[must_use]
    pub fn with_moment(mut self, moment: u64) -> Self {
        self.moment = moment;
        self
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn head(&self) -> u64 {
        self.head
    }

    pub fn place(&self, sequence: u64, leaf: &Hash) -> Place {
        let Some(offset) = sequence.checked_sub(self.low) else {
            return Place::Below;
        };
        match self.leaves.get(offset as usize) {
            Some(Some(held)) if held[..] == leaf[..16] => Place::Duplicate,
            Some(Some(_)) => Place::Conflict,
            _ if sequence < self.next => Place::Below,
            // The head moves only with signatures, so an exclusive range of missing ones is exact.
            _ if sequence < self.head && !self.is_missing(sequence) => Place::Below,
            _ if sequence - self.next >= self.ahead => Place::Beyond,
            _ => Place::New,
        }
    }

    /// Cheaper than [`Self::place`], for before the leaf is hashed.
    pub fn is_below(&self, sequence: u64) -> bool {
        sequence < self.low
    }

    /// Whether its packet would be taken.
    pub fn is_open(&self, sequence: u64) -> bool {
        self.place(sequence, &[0; 32]) == Place::New
    }

    /// When a missing sequence was noticed.
    pub fn noticed(&self, sequence: u64) -> Option<Time> {
        let (_, range) = self.missing.range(..=sequence).next_back()?;
        (sequence < range.end).then_some(range.since)
    }

    fn is_missing(&self, sequence: u64) -> bool {
        self.noticed(sequence).is_some()
    }

    /// A verified word that everything below `head` exists. Never moves back.
    pub fn raise_head(&mut self, head: u64, now: Time) {
        if head <= self.head {
            return;
        }
        match self.missing.last_entry() {
            // One range for what is noticed within a moment, so that a long outage is not a million of them.
            Some(mut last)
                if last.get().end == self.head && now.saturating_sub(last.get().since) < self.moment =>
            {
                last.get_mut().end = head;
            }
            _ => {
                self.missing.insert(
                    self.head,
                    Missing {
                        end: head,
                        since: now,
                    },
                );
            }
        }
        self.head = head;
    }

    /// Marks a verified packet, whose place was `New`, as received.
    pub fn receive(&mut self, sequence: u64, leaf: &Hash, now: Time) {
        if sequence == self.head {
            // The common case: the next one, which was not missing for a moment.
            self.head += 1;
        } else {
            self.raise_head(sequence + 1, now);
            self.resolve(sequence, sequence + 1);
        }
        let offset = (sequence - self.low) as usize;
        if self.leaves.len() <= offset {
            self.leaves.resize(offset + 1, None);
        }
        let mut short = [0; 16];
        short.copy_from_slice(&leaf[..16]);
        self.leaves[offset] = Some(short);
        self.advance();
    }

    /// Gives up `first..end`; a later packet of it is too late.
    pub fn give_up(&mut self, first: u64, end: u64) {
        self.resolve(first, end);
        self.advance();
    }

    fn resolve(&mut self, first: u64, end: u64) {
        let start = self
            .missing
            .range(..=first)
            .next_back()
            .map_or(first, |(&s, _)| s);
        let overlapping: Vec<(u64, Missing)> =
            self.missing.range(start..end).map(|(&s, &m)| (s, m)).collect();
        for (s, range) in overlapping {
            if range.end <= first {
                continue;
            }
            self.missing.remove(&s);
            if s < first {
                self.missing.insert(
                    s,
                    Missing {
                        end: first,
                        since: range.since,
                    },
                );
            }
            if range.end > end {
                self.missing.insert(
                    end,
                    Missing {
                        end: range.end,
                        since: range.since,
                    },
                );
            }
        }
    }

    fn advance(&mut self) {
        self.next = self.missing.keys().next().copied().unwrap_or(self.head);
        let low = self.next.saturating_sub(self.history).max(self.low);
        let surplus = (low - self.low).min(self.leaves.len() as u64);
        self.leaves.drain(..surplus as usize);
        self.low = low;
    }

    pub fn has_missing(&self) -> bool {
        !self.missing.is_empty()
    }

    /// When the oldest missing sequence was noticed.
    pub fn missing_since(&self) -> Option<Time> {
        self.missing.values().map(|range| range.since).min()
    }

    /// Missing ranges (first, last included), lowest first, that repair may bring now: within what the window takes, noticed
    /// by `noticed_by`, at most `max_ranges` and `max_packets`.
    pub fn repairable(&self, noticed_by: Time, max_ranges: usize, max_packets: u64) -> Vec<(u64, u64)> {
        let limit = self.next.saturating_add(self.ahead);
        let mut left = max_packets;
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (&start, range) in &self.missing {
            if start >= limit || left == 0 {
                break;
            }
            if range.since > noticed_by {
                continue;
            }
            let end = range.end.min(limit).min(start.saturating_add(left));
            left -= end - start;
            let is_full = ranges.len() == max_ranges;
            match ranges.last_mut() {
                Some(last) if last.1 + 1 == start => last.1 = end - 1,
                _ if is_full => break,
                _ => ranges.push((start, end - 1)),
            }
        }
        ranges
    }

    /// Missing ranges (first, last included) noticed before `cutoff`.
    pub fn overdue(&self, cutoff: Time) -> Vec<(u64, u64)> {
        joined(
            self.missing
                .iter()
                .filter(|(_, m)| m.since < cutoff)
                .map(|(&s, m)| (s, m.end - 1)),
        )
    }

    /// Missing ranges below `sequence` (first, last included).
    pub fn missing_below(&self, sequence: u64) -> Vec<(u64, u64)> {
        joined(
            self.missing
                .range(..sequence)
                .map(|(&s, m)| (s, m.end.min(sequence) - 1)),
        )
    }

    pub fn fingerprint(&self, into: &mut Fingerprint) {
        into.number(self.low).number(self.next).number(self.head);
        into.number(self.missing.len() as u64);
        for (start, range) in &self.missing {
            into.number(*start).number(range.end).number(range.since);
        }
        into.number(self.leaves.len() as u64);
        for leaf in &self.leaves {
            into.bytes(leaf.as_ref().map_or(&[], |leaf| &leaf[..]));
        }
    }
}

/// Ascending ranges (first, last included), those that touch made one.
fn joined(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match out.last_mut() {
            Some(before) if before.1 + 1 == first => before.1 = last,
            _ => out.push((first, last)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn leaf(sequence: u64) -> Hash {
        crate::crypto::sha256(&[&sequence.to_be_bytes()])
    }

    proptest! {
        /// The window agrees with a set of all received sequences.
        #[test]
        fn agrees_with_a_set(arrivals in proptest::collection::vec(0u64..200, 1..400)) {
            let mut window = Window::new(0, 16, 64);
            let mut received = BTreeSet::new();
            for (now, sequence) in arrivals.into_iter().enumerate() {
                let place = window.place(sequence, &leaf(sequence));
                if received.contains(&sequence) {
                    prop_assert!(matches!(place, Place::Duplicate | Place::Below));
                } else if place == Place::New {
                    window.receive(sequence, &leaf(sequence), now as u64);
                    received.insert(sequence);
                } else {
                    prop_assert_eq!(place, Place::Beyond);
                }
                let next = (0..).find(|s| !received.contains(s)).unwrap();
                prop_assert_eq!(window.next(), next.min(window.head()));
                let missing: Vec<u64> = window.repairable(u64::MAX, 1000, 1000).iter().flat_map(|&(a, b)| a..=b).collect();
                let expected: Vec<u64> =
                    (next..window.head()).filter(|s| !received.contains(s) && *s < next + 64).collect();
                prop_assert_eq!(missing, expected);
            }
        }
    }

    #[test]
    fn duplicates_conflicts_and_edges() {
        let mut window = Window::new(10, 4, 8);
        assert_eq!(window.place(9, &leaf(9)), Place::Below);
        assert_eq!(window.place(17, &leaf(17)), Place::New);
        assert_eq!(window.place(18, &leaf(18)), Place::Beyond);
        window.receive(10, &leaf(10), 1);
        assert_eq!(window.place(10, &leaf(10)), Place::Duplicate);
        assert_eq!(window.place(10, &leaf(11)), Place::Conflict);
        window.raise_head(1 << 62, 2);
        assert_eq!(window.repairable(2, 64, 4), vec![(11, 14)]);
        window.give_up(11, 13);
        assert_eq!(window.place(11, &leaf(11)), Place::Below);
        assert_eq!(window.next(), 13);
    }
}
