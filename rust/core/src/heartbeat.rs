//! What a heartbeat says: how far its stream has come, and whether it has ended.
//!
//! Spec: wire.md section 7 (DP-26, DP-27).

use crate::wire::{MAX_SEQUENCE, StreamId};

/// What a verified heartbeat says (DP-26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub counter: u64,
    pub next_sequence: u64,
    pub is_final: bool,
    pub successor: Option<StreamId>,
}

pub const HEARTBEAT_BYTES: usize = 33;

impl Heartbeat {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEARTBEAT_BYTES);
        out.extend_from_slice(&self.counter.to_be_bytes());
        out.extend_from_slice(&self.next_sequence.to_be_bytes());
        out.push(u8::from(self.is_final) | (u8::from(self.successor.is_some()) << 1));
        out.extend_from_slice(&self.successor.map_or([0; 16], |id| id.0));
        out
    }

    pub fn parse(body: &[u8]) -> Option<Self> {
        let body: &[u8; HEARTBEAT_BYTES] = body.try_into().ok()?;
        let word = |at: usize| {
            body[at..at + 8]
                .iter()
                .fold(0u64, |value, &b| (value << 8) | u64::from(b))
        };
        let next_sequence = word(8);
        let successor = StreamId::from_slice(&body[17..])?;
        Some(Self {
            counter: word(0),
            next_sequence,
            is_final: body[16] & 1 != 0,
            successor: (body[16] & 2 != 0).then_some(successor),
        })
        .filter(|_| next_sequence <= MAX_SEQUENCE)
    }
}
