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
    secret: EpochSecret,
    pub gate: GateKey,
}

/// What the keys of an epoch's packets follow from.
#[derive(Debug)]
enum EpochSecret {
    /// All of them.
    Opening(Secret),
    /// The credential key alone, which a repair node is given (KM-21): no data packet opens by it.
    Credential(Secret),
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
            secret: EpochSecret::Opening(epoch_secret),
            gate,
        }
    }

    /// What a repair node is given of an epoch: gate key and credential key (KM-21).
    pub fn given(suite: Suite, channel: &ChannelId, gate: &Secret, credential: Secret) -> Self {
        Self {
            suite,
            channel: *channel,
            secret: EpochSecret::Credential(credential),
            gate: GateKey::new(suite, gate),
        }
    }

    /// None to a repair node.
    pub fn stream_secret(&self, stream: &StreamId) -> Option<Secret> {
        let EpochSecret::Opening(epoch_secret) = &self.secret else {
            return None;
        };
        Some(kdf(
            epoch_secret.expose(),
            "stream",
            &[&[self.suite as u8], &self.channel.0, &stream.0],
        ))
    }

    pub fn credential_block_key(&self, stream: &StreamId, block: &BlockId) -> BlockKey {
        let derived;
        let key = match &self.secret {
            EpochSecret::Credential(key) => key,
            EpochSecret::Opening(epoch_secret) => {
                derived = credential_key(self.suite, epoch_secret, &self.channel);
                &derived
            }
        };
        let secret = kdf(key.expose(), "credential block", &[&stream.0, &block.0]);
        BlockKey::new(self.suite, &secret)
    }
}

fn credential_key(suite: Suite, epoch_secret: &Secret, channel: &ChannelId) -> Secret {
    kdf(epoch_secret.expose(), "credential", &[&[suite as u8], &channel.0])
}

/// Gate key and credential key of an epoch: all that the key server hands out to a repair node (KM-21).
pub fn gate_keys(
    suite: Suite,
    channel: &ChannelId,
    epoch: Epoch,
    slot: &Secret,
    step: &Secret,
) -> (Secret, Secret) {
    let s = [suite as u8];
    let epoch_secret = kdf(
        slot.expose(),
        "epoch",
        &[&s, &channel.0, &epoch.to_bytes(), step.expose()],
    );
    let gate = kdf(epoch_secret.expose(), "gate", &[&s, &channel.0]);
    (gate, credential_key(suite, &epoch_secret, channel))
}

pub fn block_key(suite: Suite, stream_secret: &Secret, block: &BlockId) -> BlockKey {
    BlockKey::new(suite, &kdf(stream_secret.expose(), "block", &[&block.0]))
}
