//! The key schedule: a function for each arrow from a slot secret to the key of a block.
//!
//! Spec: keys.md section 1 (KM-3 to KM-7).

use crate::crypto::{BlockKey, GateKey, Secret, Suite, kdf, sha3_256, sha256, spki_of};
use crate::wire::{BlockId, ChannelId, Epoch, SiteId, StreamId};

/// DP-3.
pub fn channel_id(site: &SiteId, name: &str) -> ChannelId {
    ChannelId(sha256(&[b"sealcast/1 channel\0", &site.0, name.as_bytes()]))
}

/// DP-1.
pub fn stream_id(public_key: &[u8; 32]) -> StreamId {
    let mut id = [0; 16];
    id.copy_from_slice(&sha3_256(&spki_of(public_key))[..16]);
    StreamId(id)
}

fn slot_bytes(slot: u32) -> [u8; 3] {
    let [_, rest @ ..] = slot.to_be_bytes();
    rest
}

/// The secret of `step` from the secret of the step before it.
pub fn step_secret(previous: &Secret, channel: &ChannelId, generation: u32, step: u8) -> Secret {
    kdf(
        previous.expose(),
        "step",
        &[&channel.0, &generation.to_be_bytes(), &[step]],
    )
}

pub fn commit_slot(secret: &Secret, channel: &ChannelId, slot: u32) -> [u8; 32] {
    *kdf(secret.expose(), "commit slot", &[&channel.0, &slot_bytes(slot)]).expose()
}

pub fn commit_generation(secret: &Secret, channel: &ChannelId, generation: u32, step: u8) -> [u8; 32] {
    *kdf(
        secret.expose(),
        "commit generation",
        &[&channel.0, &generation.to_be_bytes(), &[step]],
    )
    .expose()
}

pub fn control_gate_key(suite: Suite, slot_secret: &Secret, channel: &ChannelId, slot: u32) -> GateKey {
    let secret = kdf(
        slot_secret.expose(),
        "control gate",
        &[&[suite as u8], &channel.0, &slot_bytes(slot)],
    );
    GateKey::new(suite, &secret)
}

/// What is derived once for an epoch: what its gate needs, since anyone can claim it. No key of a block yet.
#[derive(Debug)]
pub struct EpochKeys {
    suite: Suite,
    channel: ChannelId,
    epoch_secret: Secret,
    pub gate: GateKey,
}

impl EpochKeys {
    pub fn derive(suite: Suite, channel: &ChannelId, epoch: Epoch, slot: &Secret, step: &Secret) -> Self {
        let s = [suite as u8];
        let epoch_secret = kdf(
            slot.expose(),
            "epoch",
            &[&s, &channel.0, &epoch.to_bytes(), step.expose()],
        );
        let gate = GateKey::new(suite, &kdf(epoch_secret.expose(), "gate", &[&s, &channel.0]));
        Self {
            suite,
            channel: *channel,
            epoch_secret,
            gate,
        }
    }

    pub fn stream_secret(&self, stream: &StreamId) -> Secret {
        kdf(
            self.epoch_secret.expose(),
            "stream",
            &[&[self.suite as u8], &self.channel.0, &stream.0],
        )
    }

    pub fn credential_block_key(&self, stream: &StreamId, block: &BlockId) -> BlockKey {
        let key = kdf(
            self.epoch_secret.expose(),
            "credential",
            &[&[self.suite as u8], &self.channel.0],
        );
        let secret = kdf(key.expose(), "credential block", &[&stream.0, &block.0]);
        BlockKey::new(self.suite, &secret)
    }
}

pub fn block_key(suite: Suite, stream_secret: &Secret, block: &BlockId) -> BlockKey {
    BlockKey::new(suite, &kdf(stream_secret.expose(), "block", &[&block.0]))
}
