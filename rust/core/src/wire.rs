//! Datagrams: parsing and writing. Nothing here is trusted yet; see [`crate::block`] for what is signed.
//!
//! Spec: wire.md section 2 (DP-4 to DP-6).

use core::fmt;

pub const CONNECTION_ID: u32 = 0x5345_414c;
pub const VERSION: u8 = 1;
pub const HEADER_BYTES: usize = 64;
/// Where the block id and the index stand in a header.
pub const BLOCK_ID_BYTES: core::ops::Range<usize> = 30..46;
pub const INDEX_BYTE: usize = 54;
pub const NODE_BYTES: usize = 16;
pub const SIGNATURE_BYTES: usize = 64;
pub const GATE_BYTES: usize = 8;
/// The greatest number of packets in a block, hence the greatest depth, 6.
pub const MAX_COUNT: u8 = 64;
pub const MAX_DEPTH: usize = 6;
pub const MAX_DATAGRAM_BYTES: usize = 65_507;
/// Sequences and message ids end here (DP-4, DP-47), so that they fit a varint.
pub const MAX_SEQUENCE: u64 = 1 << 62;
/// What IPv6 and UDP take of the MTU.
pub const IP_UDP_BYTES: usize = 48;
/// MTU minus IP, UDP, header, tag, the longest path, signature and gate tag is what frames may fill (DP-6).
pub const OVERHEAD_BYTES: usize =
    HEADER_BYTES + crate::crypto::TAG_BYTES + MAX_DEPTH * NODE_BYTES + SIGNATURE_BYTES + GATE_BYTES;

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Time = u64;

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            pub fn hex(&self) -> String {
                self.0.iter().map(|b| format!("{b:02x}")).collect()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.hex())
            }
        }
    };
}

byte_id!(
    /// First 128 bits of the hash of the stream key (DP-1).
    StreamId, 16
);
byte_id!(
    /// Names one block of a stream (DP-12).
    BlockId, 16
);
byte_id!(
    /// Hash of site id and channel name (DP-3).
    ChannelId, 32
);
byte_id!(
    /// 128 random bits made when the site is (TR-1).
    SiteId, 16
);

/// The number of a group key (KM-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// 24 bits.
    pub slot: u32,
    pub generation: u32,
    pub step: u8,
}

impl Epoch {
    pub fn to_bytes(self) -> [u8; 8] {
        let mut out = [0; 8];
        out[..3].copy_from_slice(&self.slot.to_be_bytes()[1..]);
        out[3] = self.step;
        out[4..].copy_from_slice(&self.generation.to_be_bytes());
        out
    }

    pub fn from_bytes(bytes: &[u8; 8]) -> Self {
        let [a, b, c, step, g @ ..] = *bytes;
        Self {
            slot: u32::from_be_bytes([0, a, b, c]),
            step,
            generation: u32::from_be_bytes(g),
        }
    }

    /// What orders memberships: generation first, then step.
    pub fn membership(self) -> (u32, u8) {
        (self.generation, self.step)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    Data = 1,
    Parity = 2,
    Heartbeat = 3,
    Credential = 4,
    Beacon = 5,
    Rekey = 6,
    Root = 7,
}

impl PacketType {
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Data,
            2 => Self::Parity,
            3 => Self::Heartbeat,
            4 => Self::Credential,
            5 => Self::Beacon,
            6 => Self::Rekey,
            7 => Self::Root,
            _ => return None,
        })
    }

    /// The context of its block signature (registry.md).
    pub fn context(self) -> &'static str {
        match self {
            Self::Data => "sealcast/1 block data",
            Self::Parity => "sealcast/1 block parity",
            Self::Heartbeat => "sealcast/1 block heartbeat",
            Self::Credential => "sealcast/1 block credential",
            Self::Beacon => "sealcast/1 block beacon",
            Self::Rekey => "sealcast/1 block rekey",
            Self::Root => "sealcast/1 block root",
        }
    }
}

/// The first 64 bytes of a datagram. Equal in all packets of a block but for `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub packet_type: PacketType,
    pub stream: StreamId,
    pub epoch: Epoch,
    pub block: BlockId,
    pub first_sequence: u64,
    pub index: u8,
    pub count: u8,
    pub time: Time,
}

impl Header {
    pub fn sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.index)
    }

    /// DP-4. After connection id and version the type is looked at first.
    pub fn parse(header_bytes: &[u8; HEADER_BYTES]) -> Result<Self, ParseError> {
        use ParseError::Malformed;
        if header_bytes[..4] != CONNECTION_ID.to_be_bytes() || header_bytes[4] != VERSION {
            return Err(Malformed);
        }
        let packet_type = PacketType::from_code(header_bytes[5]).ok_or(ParseError::UnknownType)?;
        let mut epoch = [0; 8];
        epoch.copy_from_slice(&header_bytes[22..30]);
        let (index, count) = (header_bytes[INDEX_BYTE], header_bytes[55]);
        let first_sequence = be64(&header_bytes[46..54]);
        if count == 0 || count > MAX_COUNT || index >= count {
            return Err(Malformed);
        }
        if packet_type == PacketType::Data {
            if first_sequence > MAX_SEQUENCE - u64::from(count) {
                return Err(Malformed);
            }
        } else if first_sequence != 0 {
            return Err(Malformed);
        }
        Ok(Self {
            packet_type,
            stream: StreamId::from_slice(&header_bytes[6..22]).ok_or(Malformed)?,
            epoch: Epoch::from_bytes(&epoch),
            block: BlockId::from_slice(&header_bytes[BLOCK_ID_BYTES]).ok_or(Malformed)?,
            first_sequence,
            index,
            count,
            time: be64(&header_bytes[56..]),
        })
    }

    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&CONNECTION_ID.to_be_bytes());
        out[4] = VERSION;
        out[5] = self.packet_type as u8;
        out[6..22].copy_from_slice(&self.stream.0);
        out[22..30].copy_from_slice(&self.epoch.to_bytes());
        out[BLOCK_ID_BYTES].copy_from_slice(&self.block.0);
        out[46..54].copy_from_slice(&self.first_sequence.to_be_bytes());
        out[INDEX_BYTE] = self.index;
        out[55] = self.count;
        out[56..].copy_from_slice(&self.time.to_be_bytes());
        out
    }
}

/// Why a datagram is no packet of ours (DP-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    Malformed,
    UnknownType,
}

/// A parsed datagram that nobody has vouched for yet; borrows from it.
#[derive(Clone, Copy, Debug)]
pub struct PacketView<'a> {
    pub header: Header,
    pub header_bytes: &'a [u8; HEADER_BYTES],
    pub body: &'a [u8],
    /// Header and body: what the leaf covers.
    pub covered: &'a [u8],
    pub path: &'a [u8],
    pub signature: &'a [u8; SIGNATURE_BYTES],
    pub gate: &'a [u8; GATE_BYTES],
}

fn be64(bytes: &[u8]) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(bytes);
    u64::from_be_bytes(out)
}

impl<'a> PacketView<'a> {
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        use ParseError::Malformed;
        if datagram.len() > MAX_DATAGRAM_BYTES {
            return Err(Malformed);
        }
        let (header_bytes, rest) = datagram.split_first_chunk::<HEADER_BYTES>().ok_or(Malformed)?;
        let header = Header::parse(header_bytes)?;
        let (rest, gate) = rest.split_last_chunk::<GATE_BYTES>().ok_or(Malformed)?;
        let (rest, signature) = rest.split_last_chunk::<SIGNATURE_BYTES>().ok_or(Malformed)?;
        let path_bytes = NODE_BYTES * crate::block::depth(header.index, header.count);
        let body_bytes = rest.len().checked_sub(path_bytes).ok_or(Malformed)?;
        let (body, path) = rest.split_at(body_bytes);
        Ok(Self {
            header,
            header_bytes,
            body,
            covered: &datagram[..HEADER_BYTES + body_bytes],
            path,
            signature,
            gate,
        })
    }

    /// A packet of which only header and body are left, as its parity tells them (DP-40).
    pub fn rebuilt(covered: &'a [u8]) -> Result<Self, ParseError> {
        let (header_bytes, body) = covered
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(ParseError::Malformed)?;
        Ok(Self {
            header: Header::parse(header_bytes)?,
            header_bytes,
            body,
            covered,
            path: &[],
            signature: &[0; SIGNATURE_BYTES],
            gate: &[0; GATE_BYTES],
        })
    }
}

/// Header and channel id: what an AEAD of this channel binds besides the plaintext (DP-15).
pub fn associated_data(header: &[u8; HEADER_BYTES], channel: &ChannelId) -> [u8; HEADER_BYTES + 32] {
    let mut out = [0; HEADER_BYTES + 32];
    out[..HEADER_BYTES].copy_from_slice(header);
    out[HEADER_BYTES..].copy_from_slice(&channel.0);
    out
}

/// Appends `value` as the shortest varint of RFC 9000 section 16. `value` is below 2^62.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    debug_assert!(value < 1 << 62);
    match varint_len(value) {
        1 => out.push(value as u8),
        2 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        4 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

pub fn varint_len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Takes a varint off the front of `input`; `None` if cut short or not in its shortest form.
pub fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let first = *input.first()?;
    let len = 1usize << (first >> 6);
    let bytes = input.get(..len)?;
    let value =
        bytes.iter().fold(0u64, |value, &b| (value << 8) | u64::from(b)) & (u64::MAX >> (66 - 8 * len));
    if varint_len(value) != len {
        return None;
    }
    *input = &input[len..];
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(value in 0u64..(1 << 62)) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut input = out.as_slice();
            prop_assert_eq!(take_varint(&mut input), Some(value));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn parsing_never_panics(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = PacketView::parse(&data);
        }
    }

    #[test]
    fn varints_have_one_form() {
        assert_eq!(take_varint(&mut &[0x40, 0x3f][..]), None);
        assert_eq!(take_varint(&mut &[0x40, 0x40][..]), Some(0x40));
        assert_eq!(take_varint(&mut &[0xc0][..]), None);
    }
}
