//! Maps whose keys are digests: as evenly spread as any hash of them would be.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// For bounded maps of what has been verified. Who chooses digests that collide makes its own look-ups slower, within the bound.
pub type DigestMap<K, V> = HashMap<K, V, BuildHasherDefault<DigestHasher>>;

/// Adds up what the keys begin with.
#[derive(Debug, Default)]
pub struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = self.0.wrapping_add(u64::from_le_bytes(*first));
        }
    }

    /// Lengths of keys, which are all the same.
    fn write_usize(&mut self, _: usize) {}
}
