//! Reassembly of messages from their parts, within bounds.
//!
//! Spec: wire.md DP-24, DP-25.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::fingerprint::Fingerprint;
use crate::frames::{MessageFrame, Origin};

/// A whole message, as the publisher sent it.
#[derive(Debug, PartialEq, Eq)]
pub struct Complete {
    pub message_id: u64,
    pub topic: Option<String>,
    pub origin: Option<Origin>,
    pub data: Bytes,
}

#[derive(Debug)]
struct Partial {
    topic: Option<String>,
    origin: Option<Origin>,
    /// What has come, by offset; no two overlap, and what touches its forerunner is appended to it.
    parts: BTreeMap<u64, Vec<u8>>,
    received: u64,
    total: u64,
}

/// What a separate part costs besides its data: an allocation and its place in the map.
const PART_OVERHEAD: u64 = 64;

impl Partial {
    /// What it costs to hold.
    fn cost(&self) -> u64 {
        self.received + PART_OVERHEAD * self.parts.len() as u64
    }

    /// Memory grows with what has come, not with the length or place that a frame claims. False if it overlaps.
    fn fill(&mut self, offset: u64, data: &[u8]) -> bool {
        let end = offset + data.len() as u64;
        if self
            .parts
            .range(offset..)
            .next()
            .is_some_and(|(&next, _)| next < end)
        {
            return false;
        }
        if let Some((&start, part)) = self.parts.range_mut(..offset).next_back() {
            let part_end = start + part.len() as u64;
            if part_end >= offset {
                let (needed, rest) = (data.len(), (self.total - start) as usize - part.len());
                if part.capacity() - part.len() < needed {
                    // As usual, but never beyond the message: one of 1 GiB takes no 2.
                    part.reserve_exact(part.len().max(needed).min(rest));
                }
                part.extend_from_slice(data);
                self.received += data.len() as u64;
                return part_end == offset;
            }
        }
        if !data.is_empty() {
            self.parts.insert(offset, data.to_vec());
            self.received += data.len() as u64;
        }
        true
    }
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
    max_bytes: u64,
    /// Whether packets are given in the order of their sequences, so that a part that is not there was lost.
    in_order: bool,
    /// Whether the first packets may hold parts of messages that began before, which are nobody's loss.
    is_midway: bool,
    /// The first message whose beginning has come.
    first_begun: Option<u64>,
    partials: BTreeMap<u64, Partial>,
    bytes: u64,
    /// Messages that were reported as lost and of which more parts may come.
    lost: VecDeque<u64>,
}

impl Reassembler {
    /// Holds at most `max_partials` messages and `max_bytes`, or one message where that is more.
    pub fn new(
        max_message_bytes: u64,
        max_partials: usize,
        max_bytes: u64,
        in_order: bool,
        is_midway: bool,
    ) -> Self {
        Self {
            max_message_bytes,
            max_partials,
            max_bytes,
            in_order,
            is_midway,
            first_begun: None,
            partials: BTreeMap::new(),
            bytes: 0,
            lost: VecDeque::new(),
        }
    }

    /// What comes first may be parts of messages that began before.
    pub fn begin_midway(&mut self) {
        self.is_midway = true;
    }

    pub fn buffered_bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes one frame, which stands in `packet`; gives a whole message, or says which one is lost.
    pub fn accept(
        &mut self,
        frame: &MessageFrame<'_>,
        packet: &Bytes,
    ) -> Result<Option<Complete>, (u64, Abandoned)> {
        let id = frame.message_id;
        if self.first_begun.is_none() && frame.part.is_none_or(|(offset, _)| offset == 0) {
            self.first_begun = Some(id);
        }
        let Some((offset, total)) = frame.part else {
            if frame.data.len() as u64 > self.max_message_bytes {
                return Err((id, Abandoned::TooLong));
            }
            return Ok(Some(Complete {
                message_id: id,
                topic: frame.topic.map(str::to_owned),
                origin: frame.origin,
                data: packet.slice_ref(frame.data),
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
        let received = self.partials.get(&id).map_or(0, |partial| partial.received);
        if self.in_order && offset > received {
            return self.miss(id);
        }
        let partial = self.partials.entry(id).or_insert_with(|| Partial {
            topic: None,
            origin: None,
            parts: BTreeMap::new(),
            received: 0,
            total,
        });
        if offset == 0 {
            partial.topic = frame.topic.map(str::to_owned);
            partial.origin = frame.origin;
        }
        let before = partial.cost();
        let consistent = partial.total == total && partial.fill(offset, frame.data);
        self.bytes += partial.cost() - before;
        if !consistent {
            self.remove(id);
            return Err((id, Abandoned::Inconsistent));
        }
        if partial.received == total {
            return Ok(self.remove(id).map(|done| Complete {
                message_id: id,
                topic: done.topic,
                origin: done.origin,
                data: done.parts.into_values().reduce(joined).unwrap_or_default().into(),
            }));
        }
        if self.partials.len() > self.max_partials || self.bytes > self.max_bytes {
            let oldest = self.partials.keys().copied().find(|&other| other != id);
            if let Some(oldest) = oldest {
                self.remove(oldest);
                if !self.began_before_us(oldest) {
                    return Err((oldest, Abandoned::Evicted));
                }
            }
        }
        Ok(None)
    }

    /// Parts come in rising order (DP-25): what is not here by now will not come. Said once.
    fn miss(&mut self, id: u64) -> Result<Option<Complete>, (u64, Abandoned)> {
        self.remove(id);
        if self.lost.contains(&id) || self.began_before_us(id) {
            return Ok(None);
        }
        self.lost.push_back(id);
        if self.lost.len() > self.max_partials {
            self.lost.pop_front();
        }
        Err((id, Abandoned::Evicted))
    }

    /// Whether a message of which nothing but later parts is here had begun when we came: its id is then lower than that of any
    /// whose beginning came first. Where that was lost instead, the gap has been told.
    fn began_before_us(&self, id: u64) -> bool {
        self.is_midway && self.first_begun.is_none_or(|first| id < first)
    }

    fn remove(&mut self, id: u64) -> Option<Partial> {
        let partial = self.partials.remove(&id)?;
        self.bytes -= partial.cost();
        Some(partial)
    }

    pub fn fingerprint(&self, into: &mut Fingerprint) {
        into.number(self.partials.len() as u64);
        for (id, partial) in &self.partials {
            into.number(*id)
                .number(partial.total)
                .number(partial.received)
                .bytes(partial.topic.as_deref().unwrap_or_default().as_bytes())
                .optional(partial.origin.map(|origin| origin.sequence))
                .number(partial.parts.len() as u64);
            for (offset, part) in &partial.parts {
                into.number(*offset).bytes(part);
            }
        }
        into.optional(self.first_begun).number(self.lost.len() as u64);
        for id in &self.lost {
            into.number(*id);
        }
    }

    /// Gives up every message that is not whole; for the end of a stream.
    pub fn abandon_all(&mut self) -> Vec<u64> {
        let ids = self.partials.keys().copied();
        let ids = ids.filter(|&id| !self.began_before_us(id)).collect();
        self.partials.clear();
        self.bytes = 0;
        ids
    }
}

fn joined(mut before: Vec<u8>, after: Vec<u8>) -> Vec<u8> {
    before.extend_from_slice(&after);
    before
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
            let mut reassembler = Reassembler::new(1000, 4, 2000, false, false);
            let mut whole = None;
            for (start, end) in cuts {
                whole = whole.or(reassembler.accept(&part(&data, start, end), &Bytes::new()).unwrap());
            }
            prop_assert_eq!(whole.unwrap().data, data);
            prop_assert_eq!(reassembler.buffered_bytes(), 0);
        }
    }

    #[test]
    fn bounds_hold() {
        let mut reassembler = Reassembler::new(100, 2, 1000, true, false);
        let long = vec![0; 200];
        assert_eq!(
            reassembler.accept(&part(&long, 0, 10), &Bytes::new()),
            Err((5, Abandoned::TooLong))
        );
        let short = [0; 50];
        for id in 0..3 {
            let frame = MessageFrame {
                message_id: id,
                ..part(&short, 0, 10)
            };
            let result = reassembler.accept(&frame, &Bytes::new());
            assert_eq!(
                result,
                if id == 2 {
                    Err((0, Abandoned::Evicted))
                } else {
                    Ok(None)
                }
            );
        }
        assert_eq!(reassembler.buffered_bytes(), 2 * (10 + PART_OVERHEAD));
    }

    /// A frame far out in its message costs what it holds; too many of them push out the oldest message.
    #[test]
    fn memory_follows_what_has_come() {
        let total = 1 << 20;
        let mut reassembler = Reassembler::new(total, 64, 1000, false, false);
        let frame = |message_id: u64, offset: u64| MessageFrame {
            message_id,
            part: Some((offset, total)),
            topic: None,
            origin: None,
            data: b"x",
        };
        for id in 0..15 {
            assert_eq!(reassembler.accept(&frame(id, total - 1), &Bytes::new()), Ok(None));
        }
        assert_eq!(
            reassembler.accept(&frame(15, total - 1), &Bytes::new()),
            Err((0, Abandoned::Evicted))
        );
        assert!(reassembler.buffered_bytes() <= 1000);
        assert_eq!(
            reassembler.accept(&frame(15, total - 1), &Bytes::new()),
            Err((15, Abandoned::Inconsistent))
        );
    }

    /// Who joins in the midst of a large message is not told that it was lost; of one that began later, it is.
    #[test]
    fn what_began_before_us_is_no_loss() {
        let mut reassembler = Reassembler::new(1000, 4, 1000, true, true);
        let (data, nothing) = ([7; 100], Bytes::new());
        let of = |message_id, offset, end| MessageFrame {
            message_id,
            ..part(&data, offset, end)
        };
        assert_eq!(reassembler.accept(&of(5, 40, 60), &nothing), Ok(None));
        let whole = MessageFrame {
            part: None,
            ..of(9, 0, 0)
        };
        assert!(reassembler.accept(&whole, &nothing).unwrap().is_some());
        assert_eq!(reassembler.accept(&of(5, 60, 100), &nothing), Ok(None));
        assert_eq!(
            reassembler.accept(&of(10, 40, 60), &nothing),
            Err((10, Abandoned::Evicted))
        );
        assert_eq!(reassembler.buffered_bytes(), 0);
    }
}
