//! Memory for what has been opened, used again once nobody reads it any more.
//!
//! A packet's plaintext is written by one thread and let go by another, in the order in which it came: memory that goes round saves
//! the allocator that traffic. A message that is kept keeps its piece of memory, no more than a few packets, from going round.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::crypto::{BlockKey, TAG_BYTES};

const PIECE_BYTES: usize = 4096;
/// As many pieces as go round: a few hundred packets between the network and the application.
const MAX_PIECES: usize = 128;

#[derive(Debug, Default)]
pub(crate) struct Plaintexts {
    /// Where the next one is written.
    piece: Option<BytesMut>,
    /// Used up, those that wait longest first.
    used: VecDeque<BytesMut>,
}

impl Plaintexts {
    /// Opens a packet's body (ciphertext and tag).
    pub(crate) fn open(&mut self, key: &BlockKey, index: u8, aad: &[u8], body: &[u8]) -> Option<Bytes> {
        let length = body.len().checked_sub(TAG_BYTES)?;
        self.write(length, |plaintext| key.open_into(index, aad, body, plaintext))
    }

    /// `length` bytes that `write` fills; none if it says that it has not.
    fn write(&mut self, length: usize, write: impl FnOnce(&mut [u8]) -> bool) -> Option<Bytes> {
        if self.piece.as_ref().is_none_or(|piece| piece.capacity() < length) {
            let next = self.next_piece(length);
            self.used.extend(self.piece.replace(next));
            if self.used.len() > MAX_PIECES {
                self.used.pop_front();
            }
        }
        let piece = self.piece.as_mut()?;
        piece.resize(length, 0);
        let is_written = write(piece);
        let written = piece.split();
        is_written.then(|| written.freeze())
    }

    /// The oldest one if everything in it has been let go, else a new one. One that is kept for long is forgotten in its turn.
    fn next_piece(&mut self, length: usize) -> BytesMut {
        let bytes = length.max(PIECE_BYTES);
        if let Some(mut oldest) = self.used.pop_front() {
            if oldest.try_reclaim(bytes) {
                return oldest;
            }
            self.used.push_front(oldest);
        }
        BytesMut::with_capacity(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(plaintexts: &mut Plaintexts, byte: u8) -> Bytes {
        let written = plaintexts.write(1200, |place| {
            place.fill(byte);
            true
        });
        written.unwrap()
    }

    #[test]
    fn memory_goes_round() {
        let mut plaintexts = Plaintexts::default();
        let mut in_flight = VecDeque::new();
        for byte in (0..=255).cycle().take(10_000) {
            in_flight.push_back((byte, put(&mut plaintexts, byte)));
            if in_flight.len() > 30
                && let Some((byte, oldest)) = in_flight.pop_front()
            {
                assert_eq!(oldest[..], [byte; 1200]);
            }
        }
        // Three packets in each; without use of the old ones there would be as many as there may be.
        assert!(plaintexts.used.len() <= 12, "{} pieces", plaintexts.used.len());
    }

    #[test]
    fn what_is_kept_stays_and_holds_up_nothing_for_long() {
        let mut plaintexts = Plaintexts::default();
        let kept: Vec<Bytes> = (0..1000).map(|at| put(&mut plaintexts, at as u8)).collect();
        assert_eq!(plaintexts.used.len(), MAX_PIECES);
        for _ in 0..1000 {
            put(&mut plaintexts, 99);
        }
        let oldest = plaintexts.used.front_mut();
        assert!(oldest.is_some_and(|oldest| oldest.try_reclaim(PIECE_BYTES)));
        assert!(
            kept.iter()
                .zip(0..)
                .all(|(read, at)| read[..] == [at as u8; 1200])
        );
    }

    #[test]
    fn nobody_sees_what_was_not_written() {
        let mut plaintexts = Plaintexts::default();
        assert_eq!(plaintexts.write(100, |_| false), None);
        assert_eq!(put(&mut plaintexts, 1)[..], [1; 1200]);
        assert_eq!(plaintexts.write(100_000, |_| true).unwrap().len(), 100_000);
    }
}
