//! A digest of state, built piece by piece: equal before and after whatever was refused (invariant 1).

use crate::crypto::sha256;

#[derive(Debug, Default)]
pub struct Fingerprint(Vec<u8>);

impl Fingerprint {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn number(&mut self, value: impl Into<u64>) -> &mut Self {
        self.0.extend_from_slice(&value.into().to_be_bytes());
        self
    }

    /// With its length, so that no two states run together.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.number(value.len() as u64).0.extend_from_slice(value);
        self
    }

    pub fn optional(&mut self, value: Option<impl Into<u64>>) -> &mut Self {
        match value {
            Some(value) => self.number(1u8).number(value),
            None => self.number(0u8),
        }
    }

    pub fn finish(&self) -> [u8; 32] {
        sha256(&[&self.0])
    }
}
