//! Messages that wait for sealing, and how they share packets.
//!
//! A message begins in its turn. A large one then goes on beside the queue: what was queued after it overtakes it, but for messages
//! of its own topic. Spec: wire.md DP-25.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::FRAME_ROOM;
use crate::frames::{MessageFrame, Origin};
use crate::wire::varint_len;

/// Longer messages are large: 5 ms at 100 Mbit/s, and no longer than what a pipe is read by at once.
pub const LARGE_BYTES: u64 = 64 << 10;
/// Of so many packets one begins with a large message, however much else waits.
const LARGE_SHARE: u32 = 4;
/// A part with less data than this is not worth its frame's fields.
const PART_MIN: usize = 64;

pub(super) struct Queued {
    pub(super) message_id: u64,
    pub(super) topic: Option<Arc<str>>,
    pub(super) origin: Option<Origin>,
    pub(super) data: Bytes,
    /// How much of it has been put into packets.
    pub(super) sent: usize,
}

impl Queued {
    fn is_large(&self) -> bool {
        self.data.len() as u64 > LARGE_BYTES
    }

    /// A message without data takes memory, too.
    fn cost(&self) -> u64 {
        self.data.len() as u64 + 1
    }
}

/// Bounded for small and for large messages apart, so that a large one that takes long leaves room for others.
pub(super) struct Queue {
    limit: u64,
    /// In the order of sending.
    turns: VecDeque<Queued>,
    /// Large messages whose turn has come, and what must not overtake them: one after the other.
    large: VecDeque<Queued>,
    small_bytes: u64,
    large_bytes: u64,
    /// Packets since the last one that began with a large message.
    since_large: u32,
    /// Copies of last values among all of them.
    copies: usize,
    keeps_last: bool,
    /// What has been written whole of messages with a topic, for whoever keeps last values.
    written: Vec<(Arc<str>, Bytes)>,
}

impl Queue {
    /// `keeps_last`: whether [`Self::take_written`] is going to be asked.
    pub(super) fn new(limit: u64, keeps_last: bool) -> Self {
        Self {
            limit,
            turns: VecDeque::new(),
            large: VecDeque::new(),
            small_bytes: 0,
            large_bytes: 0,
            since_large: 0,
            copies: 0,
            keeps_last,
            written: Vec::new(),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn bytes(&self) -> u64 {
        self.small_bytes + self.large_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.turns.len() + self.large.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.large.is_empty()
    }

    pub(super) fn small_bytes(&self) -> u64 {
        self.small_bytes
    }

    /// Whether a message of this length is taken; the only one of its kind always is.
    pub(super) fn has_room(&self, length: u64) -> bool {
        let held = if length > LARGE_BYTES {
            self.large_bytes
        } else {
            self.small_bytes
        };
        held == 0 || held + length <= self.limit
    }

    /// How many packets with room for `limit` bytes what waits and one more message of this length take at most.
    pub(super) fn packets_with(&self, length: u64, limit: usize) -> u64 {
        // Each packet is full of one message, but for the last one of each, and a first one that its topic fills.
        let messages = self.len() as u64 + 1;
        2 * messages + (self.bytes() + length) / (limit - FRAME_ROOM) as u64
    }

    pub(super) fn push(&mut self, message: Queued) {
        *self.bytes_of(&message) += message.cost();
        self.copies += usize::from(message.origin.is_some());
        self.turns.push_back(message);
    }

    fn bytes_of(&mut self, message: &Queued) -> &mut u64 {
        if message.is_large() {
            &mut self.large_bytes
        } else {
            &mut self.small_bytes
        }
    }

    pub(super) fn clear(&mut self) {
        self.turns.clear();
        self.large.clear();
        (self.small_bytes, self.large_bytes, self.copies) = (0, 0, 0);
    }

    pub(super) fn has_copies(&self) -> bool {
        self.copies > 0
    }

    /// Topics and data of the messages whose last byte the last packet got.
    pub(super) fn take_written(&mut self) -> Vec<(Arc<str>, Bytes)> {
        core::mem::take(&mut self.written)
    }

    fn note_written(&mut self, done: Queued) {
        *self.bytes_of(&done) -= done.cost();
        match (done.topic, done.origin) {
            (_, Some(_)) => self.copies -= 1,
            (Some(topic), None) if self.keeps_last => self.written.push((topic, done.data)),
            _ => {}
        }
    }

    /// Lets large messages whose turn has come step aside, and what has to stay behind them. Those without a topic
    /// keep their order among themselves, as those of one topic do.
    fn take_turns(&mut self) {
        while let Some(next) = self.turns.front() {
            let stays_behind = || self.large.iter().any(|before| before.topic == next.topic);
            if !next.is_large() && (self.large.is_empty() || !stays_behind()) {
                return;
            }
            self.large.extend(self.turns.pop_front());
        }
    }

    /// Fills one packet, of `limit` bytes from here, with frames; there is something in the queue.
    pub(super) fn write_packet(&mut self, memory: &mut Vec<u8>, limit: usize) {
        let start = memory.len();
        self.take_turns();
        let mut large_first = self.turns.is_empty() || self.since_large + 1 >= LARGE_SHARE;
        self.since_large = if large_first { 0 } else { self.since_large + 1 };
        loop {
            let from_large = (large_first && !self.large.is_empty()) || self.turns.is_empty();
            large_first = false;
            let queue = if from_large {
                &mut self.large
            } else {
                &mut self.turns
            };
            let Some(message) = queue.front_mut() else {
                return;
            };
            if !write_message(message, memory, start, limit) {
                return;
            }
            if let Some(done) = queue.pop_front() {
                self.note_written(done);
            }
            self.take_turns();
        }
    }
}

/// Writes what is left of a message, or as much of it as fits into the packet that begins at `start`; whether that was all.
fn write_message(message: &mut Queued, memory: &mut Vec<u8>, start: usize, limit: usize) -> bool {
    let room = limit - (memory.len() - start);
    let left = message.data.len() - message.sent;
    let total = message.data.len() as u64;
    let first = message.sent == 0;
    let mut frame = MessageFrame {
        message_id: message.message_id,
        part: (!first).then_some((message.sent as u64, total)),
        topic: message.topic.as_deref().filter(|_| first),
        origin: message.origin.filter(|_| first),
        data: &message.data[message.sent..],
    };
    if frame.overhead() + left <= room {
        frame.write(memory);
        return true;
    }
    // A part, if that is worth its overhead; a message that fits a packet of its own is not cut.
    frame.part = Some((message.sent as u64, total));
    let overhead = frame.overhead() + varint_len(total);
    let whole_fits = first && frame.overhead() + left <= limit;
    if memory.len() > start && (whole_fits || room < overhead + PART_MIN) {
        return false;
    }
    let take = room.saturating_sub(overhead).min(left);
    frame.data = &message.data[message.sent..message.sent + take];
    frame.write(memory);
    message.sent += take;
    false
}

/// What of `parts` there is `room` for, at least the first: copied into one piece of memory, of which each is a slice.
pub fn gather(parts: &[&[u8]], mut room: u64) -> impl Iterator<Item = Bytes> {
    let fits = |part: &&&[u8]| {
        let is_room = room > part.len() as u64;
        room = room.saturating_sub(part.len() as u64 + 1);
        is_room
    };
    let count = parts.iter().take_while(fits).count().max(1).min(parts.len());
    let parts = &parts[..count];
    let all = Bytes::from(parts.concat());
    let mut start = 0;
    parts.iter().map(move |part| {
        start += part.len();
        all.slice(start - part.len()..start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Frames;
    use proptest::prelude::*;

    fn queued(message_id: u64, topic: Option<&str>, length: usize) -> Queued {
        Queued {
            message_id,
            topic: topic.map(Arc::from),
            origin: None,
            data: Bytes::from(vec![message_id as u8; length]),
            sent: 0,
        }
    }

    /// Ids in the order in which the messages complete, with the number of the packet; the queue is empty then.
    fn completed(queue: &mut Queue) -> Vec<(u64, usize)> {
        let mut done = Vec::new();
        let mut packet = 0;
        while !queue.is_empty() {
            let mut memory = Vec::new();
            queue.write_packet(&mut memory, 1204);
            assert!(!memory.is_empty() && memory.len() <= 1204);
            for frame in Frames::new(&memory) {
                let frame = frame.unwrap();
                let is_last = frame
                    .part
                    .is_none_or(|(offset, total)| offset + frame.data.len() as u64 == total);
                done.extend(is_last.then_some((frame.message_id, packet)));
            }
            packet += 1;
        }
        assert_eq!((queue.bytes(), queue.len()), (0, 0));
        done
    }

    #[test]
    fn a_large_message_holds_up_nothing_but_its_topic() {
        let mut queue = Queue::new(1 << 20, false);
        queue.push(queued(0, None, 100));
        queue.push(queued(1, Some("image"), 1 << 20));
        queue.push(queued(2, Some("image"), 100));
        queue.push(queued(3, Some("alarm"), 100));
        queue.push(queued(4, None, 100));
        let done = completed(&mut queue);
        assert_eq!(done[..3], [(0, 0), (3, 0), (4, 0)]);
        let ids: Vec<u64> = done.iter().map(|&(id, _)| id).collect();
        assert_eq!(ids, [0, 3, 4, 1, 2]);
    }

    /// However much else waits, a large message gets its share.
    #[test]
    fn small_messages_do_not_starve_a_large_one() {
        let mut queue = Queue::new(1 << 30, false);
        queue.push(queued(0, Some("image"), 100_000));
        for id in 1..2000 {
            queue.push(queued(id, None, 1000));
        }
        let done = completed(&mut queue);
        let (_, packet) = done.iter().find(|&&(id, _)| id == 0).unwrap();
        assert!((300..400).contains(packet), "{packet}");
        let small = done.iter().map(|&(id, _)| id).filter(|&id| id > 0);
        assert!(small.eq(1..2000));
    }

    #[test]
    fn a_large_message_leaves_room_for_small_ones() {
        let mut queue = Queue::new(200_000, false);
        queue.push(queued(0, None, 500_000));
        assert!(!queue.has_room(LARGE_BYTES + 1));
        assert!(queue.has_room(LARGE_BYTES));
        queue.push(queued(1, None, 60_000));
        assert!(queue.has_room(LARGE_BYTES));
        queue.push(queued(2, None, 60_000));
        queue.push(queued(3, None, 60_000));
        assert!(!queue.has_room(60_000));
        assert_eq!(queue.small_bytes(), 180_003);
    }

    proptest! {
        /// Parts rise without a hole, every byte comes once, and messages of one topic, or of none, complete in
        /// their order.
        #[test]
        fn every_message_is_written_whole(
            messages in proptest::collection::vec((0usize..4, 0u32..18, any::<bool>()), 1..40),
            limit in 300usize..1500,
        ) {
            let topics = [None, Some("a"), Some("b"), Some("c")];
            let mut queue = Queue::new(1 << 30, false);
            for (id, &(topic, size, odd)) in (0u64..).zip(&messages) {
                queue.push(queued(id, topics[topic], (1usize << size) - usize::from(odd)));
            }
            let mut received = vec![0u64; messages.len()];
            let mut order: Vec<u64> = Vec::new();
            let (most, mut packets) = (queue.packets_with(0, limit), 0);
            while !queue.is_empty() {
                packets += 1;
                prop_assert!(packets <= most);
                let mut memory = Vec::new();
                queue.write_packet(&mut memory, limit);
                prop_assert!(!memory.is_empty() && memory.len() <= limit);
                for frame in Frames::new(&memory) {
                    let frame = frame.unwrap();
                    let got = &mut received[frame.message_id as usize];
                    prop_assert_eq!(frame.part.map_or(0, |(offset, _)| offset), *got);
                    *got += frame.data.len() as u64;
                    if frame.part.is_none_or(|(_, total)| total == *got) {
                        order.push(frame.message_id);
                    }
                }
            }
            for (id, &(_, size, odd)) in messages.iter().enumerate() {
                prop_assert_eq!(received[id], (1u64 << size) - u64::from(odd));
            }
            for topic in 0..4 {
                let of_topic = order.iter().filter(|&&id| messages[id as usize].0 == topic);
                prop_assert!(of_topic.is_sorted());
            }
        }
    }
}
