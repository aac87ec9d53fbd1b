//! Frames: what stands inside the plaintext of a data packet.
//!
//! Spec: wire.md section 6 (DP-23 to DP-25).

use crate::wire::{StreamId, Time, put_varint, take_varint, varint_len};

const PADDING: u8 = 0x00;
const MESSAGE: u8 = 0x40;
const PART: u8 = 0x01;
const TOPIC: u8 = 0x02;
const RETAINED: u8 = 0x04;
const SKIPPABLE: u8 = 0x80;
pub const MAX_TOPIC_BYTES: usize = 255;

/// Where a re-sealed last value came from (design: retained mark).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub stream: StreamId,
    pub sequence: u64,
    pub time: Time,
}

/// A message, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageFrame<'a> {
    pub message_id: u64,
    /// Where the data stands in the message, and the length of the whole message, when it is a part.
    pub part: Option<(u64, u64)>,
    pub topic: Option<&'a str>,
    pub origin: Option<Origin>,
    pub data: &'a [u8],
}

/// The sender signed something that is no run of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedFrames;

impl MessageFrame<'_> {
    /// Bytes of everything but the data.
    pub fn overhead(&self) -> usize {
        let part = self
            .part
            .map_or(0, |(offset, total)| varint_len(offset) + varint_len(total));
        let topic = self.topic.map_or(0, |topic| 1 + topic.len());
        let origin = self.origin.map_or(0, |_| 32);
        1 + varint_len(self.message_id) + part + topic + origin + varint_len(self.data.len() as u64)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let mut flags = MESSAGE;
        flags |= if self.part.is_some() { PART } else { 0 };
        flags |= if self.topic.is_some() { TOPIC } else { 0 };
        flags |= if self.origin.is_some() { RETAINED } else { 0 };
        out.push(flags);
        put_varint(out, self.message_id);
        if let Some((offset, total)) = self.part {
            put_varint(out, offset);
            put_varint(out, total);
        }
        if let Some(topic) = self.topic {
            out.push(topic.len() as u8);
            out.extend_from_slice(topic.as_bytes());
        }
        if let Some(origin) = self.origin {
            out.extend_from_slice(&origin.stream.0);
            out.extend_from_slice(&origin.sequence.to_be_bytes());
            out.extend_from_slice(&origin.time.to_be_bytes());
        }
        put_varint(out, self.data.len() as u64);
        out.extend_from_slice(self.data);
    }
}

/// Takes frames off a verified, opened plaintext.
#[derive(Debug)]
pub struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    pub fn new(plaintext: &'a [u8]) -> Self {
        Self(plaintext)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn take_u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn take_data(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(take_varint(&mut self.0)?).ok()?;
        self.take(len)
    }

    fn message(&mut self, flags: u8) -> Option<MessageFrame<'a>> {
        let message_id = take_varint(&mut self.0)?;
        let part = if flags & PART == 0 {
            None
        } else {
            Some((take_varint(&mut self.0)?, take_varint(&mut self.0)?))
        };
        let offset = part.map_or(0, |(offset, _)| offset);
        if offset > 0 && flags & (TOPIC | RETAINED) != 0 {
            return None;
        }
        let topic = if flags & TOPIC == 0 {
            None
        } else {
            let len = usize::from(self.take(1)?[0]);
            Some(core::str::from_utf8(self.take(len)?).ok()?)
        };
        let origin = if flags & RETAINED == 0 {
            None
        } else {
            Some(Origin {
                stream: StreamId::from_slice(self.take(16)?)?,
                sequence: self.take_u64()?,
                time: self.take_u64()?,
            })
        };
        let data = self.take_data()?;
        if let Some((offset, total)) = part {
            // Both are below 2^62 and the data is in memory: the sum cannot overflow.
            if total == 0 || offset + data.len() as u64 > total {
                return None;
            }
        }
        Some(MessageFrame {
            message_id,
            part,
            topic,
            origin,
            data,
        })
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<MessageFrame<'a>, MalformedFrames>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&frame_type, rest) = self.0.split_first()?;
            self.0 = rest;
            let parsed = match frame_type {
                PADDING => continue,
                SKIPPABLE.. => {
                    if self.take_data().is_some() {
                        continue;
                    }
                    None
                }
                0x40..=0x47 => self.message(frame_type & 0x07),
                _ => None,
            };
            if parsed.is_none() {
                self.0 = &[];
            }
            return Some(parsed.ok_or(MalformedFrames));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_round_trip(
            message_id in 0u64..(1 << 62),
            topic in proptest::option::of("[a-z]{0,20}"),
            data in proptest::collection::vec(any::<u8>(), 0..300),
            offset in proptest::option::of(0u64..1000),
        ) {
            let part = offset.map(|offset| (offset, offset + data.len() as u64 + 1));
            let topic = topic.filter(|_| offset.unwrap_or(0) == 0);
            let frame = MessageFrame { message_id, part, topic: topic.as_deref(), origin: None, data: &data };
            let mut out = Vec::new();
            frame.write(&mut out);
            prop_assert_eq!(out.len(), frame.overhead() + data.len());
            out.push(PADDING);
            let parsed: Vec<_> = Frames::new(&out).collect();
            prop_assert_eq!(parsed, vec![Ok(frame)]);
        }

        #[test]
        fn any_plaintext_ends(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frames::new(&data).count();
        }
    }
}
