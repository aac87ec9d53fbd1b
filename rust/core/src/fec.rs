//! Forward error correction: what a parity packet says of its group, the code, and the symbols that it works on.
//!
//! The code is systematic and MDS: any `k` of a group's `k + m` symbols give all of them. Spec: wire.md section 11.

use rustfs_erasure_codec::galois_8;

use crate::wire::{
    CONNECTION_ID, GATE_BYTES, HEADER_BYTES, MAX_SEQUENCE, NODE_BYTES, PacketType, SIGNATURE_BYTES, StreamId,
    VERSION,
};

/// Data packets and parity packets of a group at most (DP-37).
pub const MAX_SOURCES: u8 = 64;
pub const MAX_PARITIES: u8 = 16;
/// Sequences between neighbours of a group, at most.
pub const MAX_STRIDE: u8 = 16;
/// First sequences of groups are below this, so that no group goes beyond the last sequence (DP-37).
pub const END_OF_GROUPS: u64 = MAX_SEQUENCE - MAX_SOURCES as u64 * MAX_STRIDE as u64;
/// Parity packets in a block at most, hence a path of four nodes (DP-36).
pub const MAX_PARITY_BLOCK: u8 = 16;
const MAX_PARITY_DEPTH: usize = 4;
pub const DESCRIPTION_BYTES: usize = 14;
const LENGTH_BYTES: usize = 2;
/// What of a data packet every receiver knows that misses it: connection id, version, type, stream.
const KNOWN_BYTES: usize = 22;
/// The longest packet and parity packet around the same frames differ by this: what FEC takes of the payload (DP-6).
pub const FEC_BYTES: usize = (HEADER_BYTES + DESCRIPTION_BYTES + LENGTH_BYTES + (HEADER_BYTES - KNOWN_BYTES))
    + (crate::crypto::TAG_BYTES + MAX_PARITY_DEPTH * NODE_BYTES + SIGNATURE_BYTES + GATE_BYTES)
    - crate::wire::OVERHEAD_BYTES;

/// What a parity packet's body begins with (DP-37).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    pub first_sequence: u64,
    /// Sequences from one packet of the group to the next.
    pub stride: u8,
    /// Data packets, `k`.
    pub sources: u8,
    /// Parity packets, `m`.
    pub parities: u8,
    /// Milliseconds from the group's first packet to its parity, at most.
    pub delay_ms: u16,
}

impl Group {
    pub fn sequences(&self) -> impl Iterator<Item = u64> + use<> {
        let (first, stride) = (self.first_sequence, u64::from(self.stride));
        (0..u64::from(self.sources)).map(move |place| first + place * stride)
    }

    /// The highest sequence.
    pub fn last(&self) -> u64 {
        self.first_sequence + u64::from(self.sources - 1) * u64::from(self.stride)
    }

    /// Where in the group a sequence stands.
    pub fn place(&self, sequence: u64) -> Option<u8> {
        let offset = sequence.checked_sub(self.first_sequence)?;
        let stride = u64::from(self.stride);
        (sequence <= self.last() && offset.is_multiple_of(stride)).then_some((offset / stride) as u8)
    }
}

/// The body of a parity packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parity<'a> {
    pub group: Group,
    /// Which of the group's parity packets it is.
    pub index: u8,
    pub symbol: &'a [u8],
}

impl<'a> Parity<'a> {
    pub fn write(&self, out: &mut Vec<u8>) {
        let group = &self.group;
        out.extend_from_slice(&group.first_sequence.to_be_bytes());
        out.extend_from_slice(&[group.stride, group.sources, group.parities, self.index]);
        out.extend_from_slice(&group.delay_ms.to_be_bytes());
        out.extend_from_slice(self.symbol);
    }

    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (first_sequence, rest) = body.split_first_chunk::<8>()?;
        let (&[stride, sources, parities, index], rest) = rest.split_first_chunk::<4>()?;
        let (delay, symbol) = rest.split_first_chunk::<2>()?;
        let first_sequence = u64::from_be_bytes(*first_sequence);
        let is_sound = (1..=MAX_STRIDE).contains(&stride)
            && (1..=MAX_SOURCES).contains(&sources)
            && (1..=MAX_PARITIES).contains(&parities)
            && index < parities
            && first_sequence < END_OF_GROUPS
            && symbol.len() > LENGTH_BYTES + HEADER_BYTES - KNOWN_BYTES;
        let group = Group {
            first_sequence,
            stride,
            sources,
            parities,
            delay_ms: u16::from_be_bytes(*delay),
        };
        is_sound.then_some(Self { group, index, symbol })
    }
}

/// Whether, and how much, parity a publisher sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fec {
    #[default]
    Off,
    Fixed(Ratio),
    /// After the losses that subscribers report ([`crate::sender::Sender::set_loss`]).
    Adaptive,
}

/// How much parity: `parities` packets for `sources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    pub sources: u8,
    pub parities: u8,
}

impl Ratio {
    pub fn new(sources: u8, parities: u8) -> Option<Self> {
        let is_sound = (1..=MAX_SOURCES).contains(&sources) && (1..=MAX_PARITIES).contains(&parities);
        is_sound.then_some(Self { sources, parities })
    }

    /// What mends all losses of nearly every group (999 of 1,000) where each packet is lost with this chance in thousandths.
    pub fn for_loss(permille: u16) -> Self {
        let loss = f64::from(permille.min(1000)) / 1000.0;
        // With heavy losses small groups leave room for more parity than data.
        for sources in [64, 48, 32, 24, 16, 12, 8, 6, 4] {
            let found = (1..=MAX_PARITIES).find(|&parities| {
                chance_of_more(
                    u32::from(sources) + u32::from(parities),
                    u32::from(parities),
                    loss,
                ) <= 1e-3
            });
            if let Some(parities) = found {
                return Self { sources, parities };
            }
        }
        Self {
            sources: 4,
            parities: MAX_PARITIES,
        }
    }
}

/// The chance that of `packets` more than `most` are lost.
fn chance_of_more(packets: u32, most: u32, loss: f64) -> f64 {
    if loss >= 1.0 {
        return 1.0;
    }
    let mut term = (1.0 - loss).powi(packets as i32);
    let mut sum = term;
    for lost in 1..=most {
        term *= f64::from(packets - lost + 1) / f64::from(lost) * loss / (1.0 - loss);
        sum += term;
    }
    1.0 - sum
}

// -- symbols -----------------------------------------------------------------------------------------------------------

/// Writes the symbol of a data packet, given as its header and body together (DP-38).
pub fn write_symbol(covered: &[u8], out: &mut Vec<u8>) {
    let part = &covered[KNOWN_BYTES..];
    // A datagram's length fits (DP-4).
    out.extend_from_slice(&(part.len() as u16).to_be_bytes());
    out.extend_from_slice(part);
}

/// Header and body of the data packet that a symbol stands for; `None` if it stands for none.
pub fn read_symbol(symbol: &[u8], stream: &StreamId) -> Option<Vec<u8>> {
    let (length, rest) = symbol.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (part, padding) = rest.split_at_checked(length)?;
    if padding.iter().any(|&byte| byte != 0) {
        return None;
    }
    let mut covered = Vec::with_capacity(KNOWN_BYTES + length);
    covered.extend_from_slice(&CONNECTION_ID.to_be_bytes());
    covered.extend_from_slice(&[VERSION, PacketType::Data as u8]);
    covered.extend_from_slice(&stream.0);
    covered.extend_from_slice(part);
    Some(covered)
}

// -- the code ----------------------------------------------------------------------------------------------------------

/// The weight of source `place` in parity `index`, in a group of `sources` (DP-39): of Cauchy's matrix, of which every square
/// part can be inverted.
fn weight(sources: u8, index: u8, place: u8) -> u8 {
    galois_8::div(1, (sources + index) ^ place)
}

/// The parity symbols of sources of one length.
pub fn encode(sources: &[&[u8]], parities: u8) -> Vec<Vec<u8>> {
    let count = sources.len() as u8;
    let weights: Vec<u8> = (0..parities)
        .flat_map(|index| (0..count).map(move |place| weight(count, index, place)))
        .collect();
    combine(&weights, sources, usize::from(parities))
}

/// The missing sources of a group of `count`, from the others, with their places, and as many parities, with their indexes, as are
/// missing; all of one length, each once, in rising order.
pub fn decode(count: u8, sources: &[(u8, &[u8])], parities: &[(u8, &[u8])]) -> Option<Vec<(u8, Vec<u8>)>> {
    let missing: Vec<u8> = (0..count)
        .filter(|place| !sources.iter().any(|(held, _)| held == place))
        .collect();
    if missing.len() != parities.len() || missing.is_empty() {
        return None;
    }
    // Each parity is the sum of what is missing and what is there, weighted; the weights of what is missing are inverted.
    let inverse = inverse(missing.len(), |row, column| {
        weight(count, parities[row].0, missing[column])
    })?;
    let mut weights = Vec::with_capacity(missing.len() * usize::from(count));
    for row in inverse.chunks_exact(missing.len()) {
        let of_source = |&(place, _): &(u8, &[u8])| {
            let terms = row.iter().zip(parities);
            terms.fold(0, |sum, (&factor, &(index, _))| {
                sum ^ galois_8::mul(factor, weight(count, index, place))
            })
        };
        weights.extend(sources.iter().map(of_source));
        weights.extend_from_slice(row);
    }
    let symbols: Vec<&[u8]> = sources
        .iter()
        .chain(parities)
        .map(|(_, symbol)| *symbol)
        .collect();
    let rebuilt = combine(&weights, &symbols, missing.len());
    Some(missing.into_iter().zip(rebuilt).collect())
}

/// The inverse, by rows, of a small square matrix (Gauss and Jordan).
fn inverse(size: usize, value: impl Fn(usize, usize) -> u8) -> Option<Vec<u8>> {
    let mut rows: Vec<Vec<u8>> = (0..size)
        .map(|row| {
            let unit = (0..size).map(|column| u8::from(column == row));
            (0..size).map(|column| value(row, column)).chain(unit).collect()
        })
        .collect();
    for column in 0..size {
        let pivot = (column..size).find(|&row| rows[row][column] != 0)?;
        rows.swap(column, pivot);
        let scale = galois_8::div(1, rows[column][column]);
        rows[column]
            .iter_mut()
            .for_each(|value| *value = galois_8::mul(*value, scale));
        let pivot = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(at, _)| *at != column) {
            let factor = row[column];
            for (value, &of_pivot) in row.iter_mut().zip(&pivot) {
                *value ^= galois_8::mul(factor, of_pivot);
            }
        }
    }
    Some(rows.iter().flat_map(|row| row[size..].iter().copied()).collect())
}

/// Sums of symbols of one length, each symbol by a weight of its own: one sum for each row of weights.
fn combine(weights: &[u8], symbols: &[&[u8]], rows: usize) -> Vec<Vec<u8>> {
    let length = symbols.first().map_or(0, |symbol| symbol.len());
    let mut sums = vec![vec![0; length]; rows];
    for (row, sum) in weights.chunks_exact(symbols.len()).zip(&mut sums) {
        for (&weight, symbol) in row.iter().zip(symbols) {
            galois_8::mul_slice_xor(weight, symbol, sum);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any `k` of `k + m` symbols give the others (DP-38, DP-39).
        #[test]
        fn any_k_of_a_group_suffice(
            sources in 1u8..=MAX_SOURCES,
            parities in 1u8..=MAX_PARITIES,
            length in 1usize..100,
            seed in any::<u64>(),
        ) {
            let mut random = crate::crypto::Jitter::new(seed);
            let symbols: Vec<Vec<u8>> = (0..sources)
                .map(|_| (0..length).map(|_| random.below(256) as u8).collect())
                .collect();
            let symbols: Vec<&[u8]> = symbols.iter().map(Vec::as_slice).collect();
            let parity = encode(&symbols, parities);
            let mut all: Vec<u8> = (0..sources + parities).collect();
            for lost in 0..parities {
                let at = random.below(u64::from(sources + parities - lost)) as usize;
                all.remove(at);
            }
            let there: Vec<(u8, &[u8])> =
                all.iter().filter(|&&at| at < sources).map(|&at| (at, symbols[usize::from(at)])).collect();
            let from: Vec<(u8, &[u8])> = all
                .iter()
                .filter(|&&at| at >= sources)
                .map(|&at| (at - sources, parity[usize::from(at - sources)].as_slice()))
                .collect();
            let missing = usize::from(sources) - there.len();
            prop_assert_eq!(missing, from.len());
            let rebuilt = decode(sources, &there, &from);
            if missing == 0 {
                prop_assert!(rebuilt.is_none());
            } else {
                for (place, symbol) in rebuilt.unwrap() {
                    prop_assert_eq!(symbol.as_slice(), symbols[usize::from(place)]);
                }
            }
        }

        #[test]
        fn parsing_never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(parity) = Parity::parse(&data) {
                let mut again = Vec::new();
                parity.write(&mut again);
                prop_assert_eq!(&again, &data);
                prop_assert!(parity.group.sequences().all(|at| parity.group.place(at).is_some()));
            }
            let _ = read_symbol(&data, &StreamId([0; 16]));
        }
    }

    #[test]
    fn more_loss_takes_more_parity() {
        let overheads: Vec<f64> = [0, 1, 5, 10, 20, 50, 100, 200, 300, 500, 1000]
            .map(Ratio::for_loss)
            .iter()
            .map(|ratio| f64::from(ratio.parities) / f64::from(ratio.sources))
            .collect();
        assert!(overheads.is_sorted(), "{overheads:?}");
        assert_eq!(
            Ratio::for_loss(0),
            Ratio {
                sources: 64,
                parities: 1
            }
        );
        for (permille, most) in [(10, 0.1), (50, 0.25), (200, 0.7)] {
            let ratio = Ratio::for_loss(permille);
            assert!(
                f64::from(ratio.parities) / f64::from(ratio.sources) <= most,
                "{ratio:?}"
            );
        }
    }
}
