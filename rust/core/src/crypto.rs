//! Thin, typed faces of the cryptographic library; every primitive of the engine is named here and nowhere else.
//!
//! Spec: registry.md (suites), keys.md KM-2 (`kdf`), wire.md DP-11 (the Ed25519 verdict).

use aws_lc_rs::{aead, digest, hmac, signature};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::lanes::LaneKey;

/// AEAD and block hash of a channel; KDF and signature are the same in all suites (registry.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Suite {
    Aes256Gcm = 1,
    ChaCha20Poly1305 = 2,
    Aes256GcmBlake3 = 3,
}

/// What leaves, nodes and gate tags of a suite are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    Sha256,
    /// The packets of a block side by side.
    Blake3,
}

impl Suite {
    pub fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            3 => Some(Self::Aes256GcmBlake3),
            _ => None,
        }
    }

    pub fn hash(self) -> HashFunction {
        match self {
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => HashFunction::Sha256,
            Self::Aes256GcmBlake3 => HashFunction::Blake3,
        }
    }

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes256Gcm | Self::Aes256GcmBlake3 => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }
}

/// 32 secret bytes: wiped on drop, never printed, compared in constant time only.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// `KDF(K, label, context)` of KM-2: SP 800-108 in counter mode, one 256-bit block.
pub fn kdf(secret: &[u8], label: &str, context: &[&[u8]]) -> Secret {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut mac = hmac::Context::with_key(&key);
    mac.update(&1u32.to_be_bytes());
    mac.update(label.as_bytes());
    mac.update(&[0]);
    for part in context {
        mac.update(part);
    }
    mac.update(&256u32.to_be_bytes());
    let mut out = [0; 32];
    out.copy_from_slice(mac.sign().as_ref());
    Secret(out)
}

pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

pub fn sha3_256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA3_256, data).as_ref());
    out
}

/// First 16 bytes of an HMAC-SHA-256 (block ids).
pub fn prf16(secret: &Secret, parts: &[&[u8]]) -> [u8; 16] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let mut mac = hmac::Context::with_key(&key);
    for part in parts {
        mac.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&mac.sign().as_ref()[..16]);
    out
}

/// What a gate tag covers, of one packet.
#[derive(Clone, Copy, Debug)]
pub struct Gated<'a> {
    pub leaf: &'a [u8; 32],
    pub path: &'a [u8],
    pub signature: &'a [u8; 64],
}

/// The key of gate tags (DP-16), set up once.
#[derive(Clone)]
pub struct GateKey(GateMac);

#[derive(Clone)]
enum GateMac {
    Hmac(Box<hmac::Key>),
    Blake3(LaneKey),
}

/// A gate tag covers at most this: three blocks of the hash.
const MAX_GATED_BYTES: usize = 192;

impl core::fmt::Debug for GateKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("GateKey(redacted)")
    }
}

impl GateKey {
    pub fn new(suite: Suite, secret: &Secret) -> Self {
        Self(match suite.hash() {
            HashFunction::Sha256 => {
                GateMac::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret.expose())))
            }
            HashFunction::Blake3 => GateMac::Blake3(LaneKey::new(secret.expose())),
        })
    }

    /// The tags of some packets, each at its place.
    pub fn tags(&self, packets: &[Gated<'_>]) -> Vec<[u8; 8]> {
        let first_eight = |hash: &[u8]| {
            let mut tag = [0; 8];
            tag.copy_from_slice(&hash[..8]);
            tag
        };
        match &self.0 {
            GateMac::Hmac(key) => packets
                .iter()
                .map(|packet| {
                    let mut mac = hmac::Context::with_key(key);
                    mac.update(packet.leaf);
                    mac.update(packet.path);
                    mac.update(packet.signature);
                    first_eight(mac.sign().as_ref())
                })
                .collect(),
            GateMac::Blake3(key) => {
                let mut inputs = Vec::with_capacity(packets.len());
                for packet in packets {
                    let mut input = [0; MAX_GATED_BYTES];
                    input[..32].copy_from_slice(packet.leaf);
                    input[32..96].copy_from_slice(packet.signature);
                    input[96..96 + packet.path.len()].copy_from_slice(packet.path);
                    inputs.push(input);
                }
                let mut hashes = Vec::with_capacity(packets.len());
                key.hash_equal(&inputs, &mut hashes);
                hashes.iter().map(|hash| first_eight(hash)).collect()
            }
        }
    }

    /// Whether each of `given` is the tag of the packet at its place.
    pub fn hold(&self, packets: &[Gated<'_>], given: &[[u8; 8]]) -> Vec<bool> {
        let tags = self.tags(packets);
        tags.iter()
            .zip(given)
            .map(|(tag, given)| tag.ct_eq(given).into())
            .collect()
    }

    /// Whether a tag is the packet's.
    pub fn holds(&self, packet: Gated<'_>, tag: &[u8; 8]) -> bool {
        self.hold(&[packet], &[*tag]) == [true]
    }
}

/// The AEAD key of one block (KM-4, KM-6, KM-22).
pub struct BlockKey(aead::LessSafeKey);

impl core::fmt::Debug for BlockKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("BlockKey(redacted)")
    }
}

pub const TAG_BYTES: usize = 16;

impl BlockKey {
    pub fn new(suite: Suite, secret: &Secret) -> Self {
        // The key is always 32 bytes, which both algorithms take: the library has no other reason to refuse.
        let unbound = aead::UnboundKey::new(suite.algorithm(), secret.expose()).expect("32-byte AEAD key");
        Self(aead::LessSafeKey::new(unbound))
    }

    fn nonce(index: u8) -> aead::Nonce {
        let mut nonce = [0; 12];
        nonce[11] = index;
        aead::Nonce::assume_unique_for_key(nonce)
    }

    /// Seals `buffer` in place; returns the tag. The caller uses each index once per key (DP-15).
    pub fn seal(&self, index: u8, aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self
            .0
            .seal_in_place_separate_tag(Self::nonce(index), aead::Aad::from(aad), buffer)
            .expect("a packet is far below the AEAD's length limit");
        let mut out = [0; TAG_BYTES];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// Opens `body` (ciphertext and tag) into a new buffer; on failure nothing of the plaintext is left.
    pub fn open(&self, index: u8, aad: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        let mut plaintext = vec![0; body.len().checked_sub(TAG_BYTES)?];
        self.open_into(index, aad, body, &mut plaintext)
            .then_some(plaintext)
    }

    /// The same into `plaintext`, which is as long as the ciphertext; false if it does not open.
    #[must_use]
    pub fn open_into(&self, index: u8, aad: &[u8], body: &[u8], plaintext: &mut [u8]) -> bool {
        let Some((ciphertext, tag)) = body.split_at_checked(plaintext.len()) else {
            return false;
        };
        let (nonce, aad) = (Self::nonce(index), aead::Aad::from(aad));
        let is_opened = self
            .0
            .open_separate_gather(nonce, aad, ciphertext, tag, plaintext)
            .is_ok();
        if !is_opened {
            plaintext.zeroize();
        }
        is_opened
    }
}

/// DER prefix of the SubjectPublicKeyInfo of an Ed25519 key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

pub fn spki_of(public_key: &[u8; 32]) -> [u8; 44] {
    let mut spki = [0; 44];
    spki[..12].copy_from_slice(&SPKI_PREFIX);
    spki[12..].copy_from_slice(public_key);
    spki
}

pub fn public_key_of(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

/// y coordinates of the points of small order on edwards25519, little-endian, without the sign bit.
const SMALL_ORDER_Y: [[u8; 32]; 5] = {
    let mut zero = [0; 32];
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    minus_one[31] = 0x7f;
    zero[0] = 0;
    [
        zero,
        one,
        minus_one,
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ]
};

/// Canonically encoded (y < 2^255 - 19) and not of small order: the part of DP-11 that libraries differ in.
fn is_sound_point(encoded: &[u8]) -> bool {
    let Ok(mut y) = <[u8; 32]>::try_from(encoded) else {
        return false;
    };
    y[31] &= 0x7f;
    let below_p = y[31] < 0x7f || y[1..31].iter().any(|&b| b != 0xff) || y[0] < 0xed;
    below_p && !SMALL_ORDER_Y.contains(&y)
}

/// A stream's public key, decompressed once; its verdict is DP-11.
#[derive(Clone)]
pub struct VerifyingKey {
    parsed: signature::ParsedPublicKey,
}

impl core::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("VerifyingKey")
    }
}

impl VerifyingKey {
    pub fn new(public_key: &[u8; 32]) -> Option<Self> {
        if !is_sound_point(public_key) {
            return None;
        }
        let parsed = signature::ParsedPublicKey::new(&signature::ED25519, public_key).ok()?;
        Some(Self { parsed })
    }

    /// True only for a signature that every conforming verifier accepts (DP-11).
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        is_sound_point(&signature[..32]) && self.parsed.verify_sig(message, signature).is_ok()
    }
}

/// A stream's signing key (DP-2): lives in memory only.
pub struct SigningKey {
    pair: signature::Ed25519KeyPair,
    public_key: [u8; 32],
    block_id_key: Secret,
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SigningKey(redacted)")
    }
}

impl SigningKey {
    pub fn from_seed(seed: &Secret) -> Self {
        use signature::KeyPair;
        let pair = signature::Ed25519KeyPair::from_seed_unchecked(seed.expose())
            .expect("32 bytes are an Ed25519 seed");
        let mut public_key = [0; 32];
        public_key.copy_from_slice(pair.public_key().as_ref());
        Self {
            pair,
            public_key,
            block_id_key: kdf(seed.expose(), "block id", &[]),
        }
    }

    pub fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }

    /// DP-12.
    pub fn block_id(
        &self,
        randomness: &[u8; 16],
        packet_type: u8,
        first_sequence: u64,
        time: u64,
    ) -> [u8; 16] {
        prf16(
            &self.block_id_key,
            &[
                randomness,
                &[packet_type],
                &first_sequence.to_be_bytes(),
                &time.to_be_bytes(),
            ],
        )
    }
}

/// A small deterministic generator for jitter only, seeded by the caller (SplitMix64).
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound` (0 when `bound` is 0). The small bias does not matter for spreading in time.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        if bound == 0 { 0 } else { z % bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_order_and_non_canonical_points_are_refused() {
        for y in SMALL_ORDER_Y {
            assert!(VerifyingKey::new(&y).is_none());
            let mut negative = y;
            negative[31] |= 0x80;
            assert!(VerifyingKey::new(&negative).is_none());
        }
        let mut p_plus_three = [0xff; 32];
        p_plus_three[0] = 0xf0;
        p_plus_three[31] = 0x7f;
        assert!(!is_sound_point(&p_plus_three));
    }

    #[test]
    fn a_failed_opening_leaves_no_plaintext() {
        let key = BlockKey::new(Suite::Aes256Gcm, &Secret::new([7; 32]));
        let mut buffer = *b"attack at dawn";
        let tag = key.seal(3, b"aad", &mut buffer);
        let mut body = buffer.to_vec();
        body.extend_from_slice(&tag);
        assert_eq!(
            key.open(3, b"aad", &body).as_deref(),
            Some(&b"attack at dawn"[..])
        );
        assert!(key.open(4, b"aad", &body).is_none());
        body[0] ^= 1;
        assert!(key.open(3, b"aad", &body).is_none());
    }
}
