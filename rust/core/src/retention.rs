//! What a publisher keeps for repair: its own datagrams, byte for byte, within bytes and age.
//!
//! Spec: wire.md DP-17; side-channel.md SC-8.

use bytes::Bytes;
use std::collections::VecDeque;

use crate::wire::Time;

/// A datagram; those of a block share its memory.
pub type Datagram = Bytes;

/// Most packets and bytes in one answer (SC-8).
pub const MAX_ANSWER_PACKETS: usize = 1024;
pub const MAX_ANSWER_BYTES: usize = 2 << 20;

#[derive(Debug)]
pub struct Retention {
    first: u64,
    packets: VecDeque<(Time, Datagram)>,
    bytes: u64,
    max_bytes: u64,
    max_age: u64,
}

impl Retention {
    /// `first`: the sequence of the first packet that it is going to be given; `max_age` in microseconds.
    pub fn new(first: u64, max_bytes: u64, max_age: u64) -> Self {
        Self {
            first,
            packets: VecDeque::new(),
            bytes: 0,
            max_bytes,
            max_age,
        }
    }

    /// Other bounds, from now on; `max_age` in microseconds.
    pub fn set_bounds(&mut self, max_bytes: u64, max_age: u64, now: Time) {
        (self.max_bytes, self.max_age) = (max_bytes, max_age);
        self.expire(now);
    }

    /// The lowest sequence still kept.
    pub fn oldest(&self) -> u64 {
        self.first
    }

    /// Keeps the next packet of the stream; `sequence` is one above the last one given.
    pub fn push(&mut self, sequence: u64, time: Time, datagram: Datagram) {
        debug_assert_eq!(sequence, self.first + self.packets.len() as u64);
        self.bytes += datagram.len() as u64;
        self.packets.push_back((time, datagram));
        self.expire(time);
    }

    /// Drops what is over the bounds at `now`.
    pub fn expire(&mut self, now: Time) {
        while let Some((time, datagram)) = self.packets.front() {
            if self.bytes <= self.max_bytes && now.saturating_sub(*time) <= self.max_age {
                break;
            }
            self.bytes -= datagram.len() as u64;
            self.packets.pop_front();
            self.first += 1;
        }
    }

    /// The kept packets of `ranges` (first, last included), in order, within the bounds of one answer.
    pub fn answer(&self, ranges: &[(u64, u64)]) -> Vec<Datagram> {
        let mut answer = Vec::new();
        let mut bytes = 0;
        let end = self.first + self.packets.len() as u64;
        for &(first, last) in ranges {
            for sequence in first.max(self.first)..last.saturating_add(1).min(end) {
                let (_, datagram) = &self.packets[(sequence - self.first) as usize];
                bytes += datagram.len();
                if answer.len() == MAX_ANSWER_PACKETS || bytes > MAX_ANSWER_BYTES {
                    return answer;
                }
                answer.push(datagram.clone());
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_by_bytes_and_age() {
        let mut retention = Retention::new(0, 30, 100);
        for sequence in 0..5u64 {
            retention.push(sequence, sequence * 10, Datagram::from(vec![sequence as u8; 10]));
        }
        assert_eq!(retention.oldest(), 2);
        let answer = retention.answer(&[(0, 2), (4, u64::MAX)]);
        assert_eq!(answer.iter().map(|d| d[0]).collect::<Vec<_>>(), [2, 4]);
        retention.expire(131);
        assert_eq!(retention.oldest(), 4);
        assert!(retention.answer(&[(9, 3)]).is_empty());
    }
}
