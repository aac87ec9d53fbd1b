//! Reassembly of messages from their parts, within bounds.
//!
//! Spec: wire.md DP-24, DP-25.

use std::collections::BTreeMap;

use crate::frames::{MessageFrame, Origin};
use crate::wire::Time;

/// A whole message, as the publisher sent it.
#[derive(Debug, PartialEq, Eq)]
pub struct Complete {
    pub message_id: u64,
    pub topic: Option<String>,
    pub origin: Option<Origin>,
    pub data: Vec<u8>,
    /// Sealing time of the packet with the first part (or the first that came).
    pub time: Time,
}

#[derive(Debug)]
struct Partial {
    topic: Option<String>,
    origin: Option<Origin>,
    data: Vec<u8>,
    /// Received ranges, merged; a complete message is one range from 0 to its length.
    ranges: BTreeMap<u64, u64>,
    total: u64,
    time: Time,
}

/// Why a message will never be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abandoned {
    /// Longer than this receiver takes.
    TooLong,
    /// Its parts contradict each other.
    Inconsistent,
    /// Dropped to stay within the memory bound, or its missing parts will not come.
    Evicted,
}

#[derive(Debug)]
pub struct Reassembler {
    max_message_bytes: u64,
    max_partials: usize,
    partials: BTreeMap<u64, Partial>,
    bytes: u64,
}

impl Reassembler {
    pub fn new(max_message_bytes: u64, max_partials: usize) -> Self {
        Self {
            max_message_bytes,
            max_partials,
            partials: BTreeMap::new(),
            bytes: 0,
        }
    }

    pub fn buffered_bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes one frame; gives a whole message, or says which one is lost.
    pub fn accept(
        &mut self,
        frame: &MessageFrame<'_>,
        time: Time,
    ) -> Result<Option<Complete>, (u64, Abandoned)> {
        let id = frame.message_id;
        let Some((offset, total)) = frame.part else {
            if frame.data.len() as u64 > self.max_message_bytes {
                return Err((id, Abandoned::TooLong));
            }
            return Ok(Some(Complete {
                message_id: id,
                topic: frame.topic.map(str::to_owned),
                origin: frame.origin,
                data: frame.data.to_vec(),
                time,
            }));
        };
        if total > self.max_message_bytes {
            // Said once, at its first part: the others are passed over.
            return if offset == 0 {
                Err((id, Abandoned::TooLong))
            } else {
                Ok(None)
            };
        }
        if !self.partials.contains_key(&id) {
            if self.partials.len() >= self.max_partials {
                let oldest = *self.partials.keys().next().unwrap_or(&id);
                self.remove(oldest);
                self.insert(id, total, time);
                self.fill(frame, offset);
                return Err((oldest, Abandoned::Evicted));
            }
            self.insert(id, total, time);
        }
        if self.partials[&id].total != total {
            self.remove(id);
            return Err((id, Abandoned::Inconsistent));
        }
        self.fill(frame, offset);
        let partial = &self.partials[&id];
        if partial.ranges.get(&0) != Some(&total) {
            return Ok(None);
        }
        Ok(self.remove(id).map(|done| Complete {
            message_id: id,
            topic: done.topic,
            origin: done.origin,
            data: done.data,
            time: done.time,
        }))
    }

    fn insert(&mut self, id: u64, total: u64, time: Time) {
        let partial = Partial {
            topic: None,
            origin: None,
            data: Vec::new(),
            ranges: BTreeMap::new(),
            total,
            time,
        };
        self.partials.insert(id, partial);
    }

    /// Memory grows with what has come, not with the length that a frame claims.
    fn fill(&mut self, frame: &MessageFrame<'_>, offset: u64) {
        let Some(partial) = self.partials.get_mut(&frame.message_id) else {
            return;
        };
        if offset == 0 {
            partial.topic = frame.topic.map(str::to_owned);
            partial.origin = frame.origin;
        }
        let (start, end) = (offset as usize, offset as usize + frame.data.len());
        if partial.data.len() < end {
            self.bytes += (end - partial.data.len()) as u64;
            partial.data.resize(end, 0);
        }
        partial.data[start..end].copy_from_slice(frame.data);
        merge(&mut partial.ranges, start as u64, end as u64);
    }

    fn remove(&mut self, id: u64) -> Option<Partial> {
        let partial = self.partials.remove(&id)?;
        self.bytes -= partial.data.len() as u64;
        Some(partial)
    }

    /// Gives up every message that is not whole; for the end of a stream.
    pub fn abandon_all(&mut self) -> Vec<u64> {
        let ids = self.partials.keys().copied().collect();
        self.partials.clear();
        self.bytes = 0;
        ids
    }
}

/// Adds `start..end` to a set of disjoint ranges, joining those that touch.
fn merge(ranges: &mut BTreeMap<u64, u64>, mut start: u64, mut end: u64) {
    if let Some((&s, &e)) = ranges.range(..=start).next_back()
        && e >= start
    {
        start = s;
        end = end.max(e);
    }
    while let Some((&s, &e)) = ranges.range(start..).next()
        && s <= end
    {
        end = end.max(e);
        ranges.remove(&s);
    }
    ranges.insert(start, end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(data: &[u8], offset: usize, end: usize) -> MessageFrame<'_> {
        MessageFrame {
            message_id: 5,
            part: Some((offset as u64, data.len() as u64)),
            topic: None,
            origin: None,
            data: &data[offset..end],
        }
    }

    proptest! {
        #[test]
        fn parts_in_any_order_make_the_message(
            data in proptest::collection::vec(any::<u8>(), 1..500),
            order in any::<u64>(),
        ) {
            let mut cuts: Vec<(usize, usize)> = (0..data.len()).step_by(37).map(|s| (s, (s + 37).min(data.len()))).collect();
            let mut jitter = crate::crypto::Jitter::new(order);
            cuts.sort_by_key(|_| jitter.below(1 << 30));
            let mut reassembler = Reassembler::new(1000, 4);
            let mut whole = None;
            for (start, end) in cuts {
                whole = whole.or(reassembler.accept(&part(&data, start, end), 1).unwrap());
            }
            prop_assert_eq!(whole.unwrap().data, data);
            prop_assert_eq!(reassembler.buffered_bytes(), 0);
        }
    }

    #[test]
    fn bounds_hold() {
        let mut reassembler = Reassembler::new(100, 2);
        let long = vec![0; 200];
        assert_eq!(
            reassembler.accept(&part(&long, 0, 10), 1),
            Err((5, Abandoned::TooLong))
        );
        let short = [0; 50];
        for id in 0..3 {
            let frame = MessageFrame {
                message_id: id,
                ..part(&short, 0, 10)
            };
            let result = reassembler.accept(&frame, 1);
            assert_eq!(
                result,
                if id == 2 {
                    Err((0, Abandoned::Evicted))
                } else {
                    Ok(None)
                }
            );
        }
        assert_eq!(reassembler.buffered_bytes(), 20);
    }
}
