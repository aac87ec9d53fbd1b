//! BLAKE3 of many inputs side by side: each lane of the processor's vector unit works on another input.
//!
//! The digests are those of the library's keyed hash, one input after the other; its kernel for many inputs takes a fifth of
//! the time. Spec: wire.md DP-7, DP-16.

use blake3::IncrementCounter;
use blake3::platform::Platform;
use zeroize::Zeroize;

use crate::block::Hash;

const BLOCK: usize = 64;
const CHUNK: usize = 1024;
const HASH: usize = 32;

const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;
const KEYED_HASH: u8 = 16;

/// A key of 32 bytes, secret or not, as the kernel takes it; wiped on drop.
#[derive(Clone, Zeroize)]
#[zeroize(drop)]
pub struct LaneKey([u32; 8]);

impl core::fmt::Debug for LaneKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("LaneKey(redacted)")
    }
}

impl LaneKey {
    pub fn new(key: &[u8; 32]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(key.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self(words)
    }

    /// A key that everyone knows, for telling uses of the hash apart.
    pub fn public(context: &str, material: &[u8]) -> Self {
        Self::new(&blake3::derive_key(context, material))
    }

    fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (four, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            *four = word.to_le_bytes();
        }
        bytes
    }

    /// The hash of inputs of one length, which is a multiple of 64 and at most 1,024.
    pub fn hash_equal<const N: usize>(&self, inputs: &[[u8; N]], out: &mut Vec<Hash>) {
        const { assert!(N.is_multiple_of(BLOCK) && N <= CHUNK) };
        let flags = (KEYED_HASH, CHUNK_START, CHUNK_END | ROOT);
        self.kernel(Platform::detect(), inputs, 0, flags, out);
    }

    /// The hash of each input, followed by 0x80 and as many zeros as fill its last block of 64 bytes.
    pub fn hash_padded(&self, inputs: &[&[u8]], out: &mut Vec<Hash>) {
        let platform = Platform::detect();
        let base = out.len();
        out.resize(base + inputs.len(), [0; HASH]);
        let digests = &mut out[base..];
        // Places of inputs of one chunk and of two, by the blocks of their last chunk: the kernel takes equal lengths only.
        let mut groups: [[Vec<usize>; CHUNK / BLOCK]; 2] = Default::default();
        let mut long = Vec::with_capacity(inputs.len());
        for (at, input) in inputs.iter().enumerate() {
            let blocks = input.len() / BLOCK + 1;
            match (blocks - 1) / (CHUNK / BLOCK) {
                0 => groups[0][blocks - 1].push(at),
                1 => {
                    groups[1][blocks - 1 - CHUNK / BLOCK].push(at);
                    long.push(at);
                }
                // Long enough for the library to work on several chunks of it at a time.
                _ => digests[at] = self.hash_one(input),
            }
        }
        for (counter, groups) in groups.iter().enumerate() {
            for (blocks, places) in (1..).zip(groups).filter(|(_, places)| !places.is_empty()) {
                self.hash_last_chunks(platform, inputs, (counter, blocks), places, digests);
            }
        }
        if !long.is_empty() {
            self.hash_first_chunks(platform, inputs, &long, digests);
        }
    }

    /// Hashes the padded last chunk, of so many blocks, of some inputs; `counter` is its number, 0 if there is no other.
    fn hash_last_chunks(
        &self,
        platform: Platform,
        inputs: &[&[u8]],
        (counter, blocks): (usize, usize),
        places: &[usize],
        digests: &mut [Hash],
    ) {
        let length = blocks * BLOCK;
        let mut padded = vec![0; places.len() * length];
        for (&at, copy) in places.iter().zip(padded.chunks_exact_mut(length)) {
            let rest = &inputs[at][counter * CHUNK..];
            copy[..rest.len()].copy_from_slice(rest);
            copy[rest.len()] = 0x80;
        }
        let end = if counter == 0 { CHUNK_END | ROOT } else { CHUNK_END };
        let mut values = Vec::with_capacity(places.len());
        macro_rules! kernel {
            ($($blocks:literal)*) => {
                match blocks {
                    $($blocks => self.kernel(platform, padded.as_chunks::<{ $blocks * BLOCK }>().0, counter, (KEYED_HASH, CHUNK_START, end), &mut values),)*
                    _ => unreachable!("a chunk has 16 blocks"),
                }
            };
        }
        kernel!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
        for (&at, value) in places.iter().zip(values) {
            digests[at] = value;
        }
    }

    /// Hashes the first of two chunks, and it with the second one's value, which is in `digests`.
    fn hash_first_chunks(
        &self,
        platform: Platform,
        inputs: &[&[u8]],
        places: &[usize],
        digests: &mut [Hash],
    ) {
        let firsts: Vec<&[u8; CHUNK]> = places.iter().filter_map(|&at| inputs[at].first_chunk()).collect();
        let mut values = Vec::with_capacity(places.len());
        self.kernel_of(
            platform,
            &firsts,
            0,
            (KEYED_HASH, CHUNK_START, CHUNK_END),
            &mut values,
        );
        let mut parents = vec![[0; BLOCK]; places.len()];
        for ((&at, value), parent) in places.iter().zip(&values).zip(&mut parents) {
            parent[..HASH].copy_from_slice(value);
            parent[HASH..].copy_from_slice(&digests[at]);
        }
        values.clear();
        self.kernel(
            platform,
            &parents,
            0,
            (KEYED_HASH | PARENT | ROOT, 0, 0),
            &mut values,
        );
        for (&at, value) in places.iter().zip(values) {
            digests[at] = value;
        }
    }

    fn hash_one(&self, input: &[u8]) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.bytes());
        hasher.update(input);
        let mut padding = [0; BLOCK];
        padding[0] = 0x80;
        hasher.update(&padding[..BLOCK - input.len() % BLOCK]);
        *hasher.finalize().as_bytes()
    }

    fn kernel<const N: usize>(
        &self,
        platform: Platform,
        inputs: &[[u8; N]],
        counter: usize,
        flags: (u8, u8, u8),
        out: &mut Vec<Hash>,
    ) {
        let inputs: Vec<&[u8; N]> = inputs.iter().collect();
        self.kernel_of(platform, &inputs, counter, flags, out);
    }

    fn kernel_of<const N: usize>(
        &self,
        platform: Platform,
        inputs: &[&[u8; N]],
        counter: usize,
        (flags, start, end): (u8, u8, u8),
        out: &mut Vec<Hash>,
    ) {
        let base = out.len();
        out.resize(base + inputs.len(), [0; HASH]);
        let place = out[base..].as_flattened_mut();
        platform.hash_many(
            inputs,
            &self.0,
            counter as u64,
            IncrementCounter::No,
            flags,
            start,
            end,
            place,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(input: &[u8]) -> Vec<u8> {
        let mut padded = input.to_vec();
        padded.push(0x80);
        padded.resize(padded.len().next_multiple_of(BLOCK), 0);
        padded
    }

    #[test]
    fn every_length_is_the_hash_of_the_library() {
        let secret = [7; 32];
        let key = LaneKey::new(&secret);
        let data: Vec<u8> = (0..9000u32).map(|n| ((n * 31) >> 3) as u8).collect();
        let lengths = [
            (0..200).collect::<Vec<_>>(),
            (900..1300).collect(),
            vec![1983, 1984, 2047, 2048, 9000],
        ]
        .concat();
        let inputs: Vec<&[u8]> = lengths.iter().map(|&length| &data[..length]).collect();
        let mut hashes = Vec::new();
        key.hash_padded(&inputs, &mut hashes);
        for (input, hash) in inputs.iter().zip(&hashes) {
            assert_eq!(
                blake3::keyed_hash(&secret, &padded(input)).as_bytes(),
                hash,
                "{} bytes",
                input.len()
            );
        }
    }

    #[test]
    fn blocks_are_hashed_as_they_are() {
        let key = LaneKey::public("sealcast test", b"");
        let blocks: Vec<[u8; BLOCK]> = (0..70).map(|n| [n; BLOCK]).collect();
        let mut hashes = Vec::new();
        key.hash_equal(&blocks, &mut hashes);
        for (block, hash) in blocks.iter().zip(&hashes) {
            assert_eq!(blake3::keyed_hash(&key.bytes(), block).as_bytes(), hash);
        }
    }
}
