//! Verified packets that are kept sealed until the key of their epoch is there (KM-14).

use std::collections::{HashMap, HashSet, VecDeque};

use crate::block::Hash;
use crate::fingerprint::Fingerprint;
use crate::wire::StreamId;

#[derive(Debug)]
pub(super) struct HeldPackets {
    limit: usize,
    bytes: usize,
    packets: VecDeque<Vec<u8>>,
    /// A repetition takes no room, nor does a copy with another gate tag.
    leaves: HashSet<Hash>,
    by_stream: HashMap<StreamId, usize>,
}

impl HeldPackets {
    /// Holds at most `limit` bytes, half of them of one stream.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: 0,
            packets: VecDeque::new(),
            leaves: HashSet::new(),
            by_stream: HashMap::new(),
        }
    }

    /// Takes a packet whose signature has held; one that finds no room comes back by repair.
    pub(super) fn push(&mut self, stream: StreamId, leaf: &Hash, datagram: &[u8]) {
        let own = self.by_stream.get(&stream).copied().unwrap_or(0) + datagram.len();
        if self.bytes + datagram.len() > self.limit || own > self.limit / 2 || !self.leaves.insert(*leaf) {
            return;
        }
        self.bytes += datagram.len();
        self.by_stream.insert(stream, own);
        self.packets.push_back(datagram.to_vec());
    }

    /// Gives everything, in the order in which it came.
    pub(super) fn take(&mut self) -> VecDeque<Vec<u8>> {
        self.bytes = 0;
        self.leaves.clear();
        self.by_stream.clear();
        core::mem::take(&mut self.packets)
    }

    pub(super) fn fingerprint(&self, into: &mut Fingerprint) {
        into.number(self.packets.len() as u64);
        for packet in &self.packets {
            into.bytes(packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stream_takes_no_more_than_half() {
        let mut held = HeldPackets::new(100);
        let (one, two) = (StreamId([1; 16]), StreamId([2; 16]));
        for n in 0..20 {
            held.push(one, &[n; 32], &[n; 10]);
        }
        held.push(one, &[0; 32], &[7; 10]);
        for n in 20..40 {
            held.push(two, &[n; 32], &[n; 10]);
        }
        let first_bytes: Vec<u8> = held.take().iter().map(|packet| packet[0]).collect();
        assert_eq!(first_bytes, [0, 1, 2, 3, 4, 20, 21, 22, 23, 24]);
        held.push(one, &[0; 32], &[9; 10]);
        assert_eq!(held.take().len(), 1);
    }
}
