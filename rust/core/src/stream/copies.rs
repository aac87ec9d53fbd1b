//! Last values that a publisher sealed again for those who come late: which of them are new to us.
//!
//! Spec: wire.md DP-45.

use std::collections::BTreeSet;

use crate::crypto::sha256;
use crate::fingerprint::Fingerprint;
use crate::frames::Origin;
use crate::wire::StreamId;

/// Copies of which it is remembered that they were delivered; as many topics as a publisher keeps at most. Beyond it none is taken.
const MAX_COPIES: usize = 8192;

/// What is to be done with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Deliver,
    /// It has been delivered, or was never asked for.
    PassOver,
    /// Its publisher says that it comes from a stream of somebody else.
    Foreign,
}

#[derive(Debug)]
pub(super) struct Copies {
    wanted: bool,
    /// Originals below this were never ours to get; from here on they were delivered or reported as lost.
    below: u64,
    /// The stream that this one continues, where nothing of it was ever delivered to us.
    predecessor: Option<StreamId>,
    /// Of each copy that was delivered the original's place, and a digest of the topic: a packet holds many messages.
    taken: BTreeSet<(StreamId, u64, [u8; 8])>,
}

impl Copies {
    pub(super) fn new(wanted: bool, below: u64) -> Self {
        Self {
            wanted,
            below,
            predecessor: None,
            taken: BTreeSet::new(),
        }
    }

    pub(super) fn set_predecessor(&mut self, predecessor: StreamId) {
        self.predecessor = Some(predecessor);
    }

    /// The stream begins here for us, or later.
    pub(super) fn begin_at(&mut self, sequence: u64) {
        self.below = self.below.max(sequence);
    }

    /// Judges a copy that came on `stream`; one that is to be delivered is remembered.
    pub(super) fn judge(&mut self, stream: StreamId, origin: &Origin, topic: Option<&str>) -> Verdict {
        let is_new = if origin.stream == stream {
            origin.sequence < self.below
        } else if self.predecessor == Some(origin.stream) {
            true
        } else {
            return Verdict::Foreign;
        };
        let Some(topic) = topic.filter(|_| is_new && self.wanted) else {
            return Verdict::PassOver;
        };
        let mut short = [0; 8];
        short.copy_from_slice(&sha256(&[topic.as_bytes()])[..8]);
        if self.taken.len() < MAX_COPIES && self.taken.insert((origin.stream, origin.sequence, short)) {
            Verdict::Deliver
        } else {
            Verdict::PassOver
        }
    }

    pub(super) fn fingerprint(&self, into: &mut Fingerprint) {
        into.number(self.below).number(self.taken.len() as u64);
        for (stream, sequence, topic) in &self.taken {
            into.bytes(&stream.0).number(*sequence).bytes(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: StreamId = StreamId([1; 16]);
    const BEFORE: StreamId = StreamId([2; 16]);

    fn origin(stream: StreamId, sequence: u64) -> Origin {
        Origin {
            stream,
            sequence,
            time: 0,
        }
    }

    #[test]
    fn each_original_once_and_none_that_was_ours() {
        let mut copies = Copies::new(true, 100);
        copies.set_predecessor(BEFORE);
        let mut judge = |stream, sequence, topic| copies.judge(OWN, &origin(stream, sequence), topic);
        assert_eq!(judge(OWN, 99, Some("a")), Verdict::Deliver);
        assert_eq!(judge(OWN, 99, Some("b")), Verdict::Deliver);
        assert_eq!(judge(OWN, 99, Some("a")), Verdict::PassOver);
        assert_eq!(judge(OWN, 100, Some("a")), Verdict::PassOver);
        assert_eq!(judge(OWN, 98, None), Verdict::PassOver);
        assert_eq!(judge(BEFORE, 5000, Some("a")), Verdict::Deliver);
        assert_eq!(judge(BEFORE, 5000, Some("a")), Verdict::PassOver);
        assert_eq!(judge(StreamId([3; 16]), 1, Some("a")), Verdict::Foreign);
    }

    #[test]
    fn memory_is_bounded_and_the_bound_delivers_nothing_twice() {
        let mut copies = Copies::new(true, u64::MAX);
        let mut delivered = 0;
        for _ in 0..2 {
            for sequence in 0..2 * MAX_COPIES as u64 {
                let verdict = copies.judge(OWN, &origin(OWN, sequence), Some("t"));
                delivered += usize::from(verdict == Verdict::Deliver);
            }
        }
        assert_eq!((delivered, copies.taken.len()), (MAX_COPIES, MAX_COPIES));
        assert_eq!(
            Copies::new(false, 9).judge(OWN, &origin(OWN, 1), Some("t")),
            Verdict::PassOver
        );
    }
}
