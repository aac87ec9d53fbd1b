//! Sealing a block: encrypt, hash, sign once, gate; the same for every type of packet.
//!
//! Spec: wire.md sections 3 and 4.

use crate::block::{Tree, leaf_hash, signed_statement};
use crate::control::BeaconBody;
use crate::crypto::{BlockKey, GateKey, Secret, SigningKey, Suite};
use crate::retention::Datagram;
use crate::schedule::{control_gate_key, stream_id};
use crate::wire::{
    BlockId, ChannelId, Epoch, GATE_BYTES, HEADER_BYTES, Header, MAX_DEPTH, NODE_BYTES, PacketType,
    SIGNATURE_BYTES, StreamId, Time, associated_data,
};

/// A stream's own end: its key, and the rule that its times never go back.
#[derive(Debug)]
pub struct Sealer {
    key: SigningKey,
    stream: StreamId,
    suite: Suite,
    channel: ChannelId,
    last_time: Time,
}

/// What all packets of a block share besides the stream.
#[derive(Clone, Copy, Debug)]
pub struct BlockPlan {
    pub packet_type: PacketType,
    pub epoch: Epoch,
    pub first_sequence: u64,
    pub time: Time,
    /// Drawn from the operating system for this block (DP-12).
    pub randomness: [u8; 16],
}

impl Sealer {
    pub fn new(seed: &Secret, suite: Suite, channel: ChannelId) -> Self {
        let key = SigningKey::from_seed(seed);
        let stream = stream_id(key.public_key());
        Self {
            key,
            stream,
            suite,
            channel,
            last_time: 0,
        }
    }

    pub fn stream(&self) -> StreamId {
        self.stream
    }

    pub fn public_key(&self) -> &[u8; 32] {
        self.key.public_key()
    }

    /// Seals `bodies` (1 to 64) as one block. `block_key` gives the AEAD key for the block id, or none for clear bodies.
    pub fn seal(
        &mut self,
        plan: BlockPlan,
        bodies: &[Vec<u8>],
        gate: &GateKey,
        block_key: impl FnOnce(&StreamId, &BlockId) -> Option<BlockKey>,
    ) -> Vec<Datagram> {
        // DP-14: a clock that was set back does not make times go back.
        let time = plan.time.max(self.last_time);
        self.last_time = time;
        let block = BlockId(self.key.block_id(
            &plan.randomness,
            plan.packet_type as u8,
            plan.first_sequence,
            time,
        ));
        let key = block_key(&self.stream, &block);
        let mut header = Header {
            packet_type: plan.packet_type,
            stream: self.stream,
            epoch: plan.epoch,
            block,
            first_sequence: plan.first_sequence,
            index: 0,
            count: bodies.len() as u8,
            time,
        };
        let mut leaves = Vec::with_capacity(bodies.len());
        let mut datagrams: Vec<Vec<u8>> = Vec::with_capacity(bodies.len());
        for (index, body) in bodies.iter().enumerate() {
            header.index = index as u8;
            let header_bytes = header.to_bytes();
            let mut datagram = Vec::with_capacity(
                HEADER_BYTES + body.len() + 16 + MAX_DEPTH * NODE_BYTES + SIGNATURE_BYTES + GATE_BYTES,
            );
            datagram.extend_from_slice(&header_bytes);
            datagram.extend_from_slice(body);
            if let Some(key) = &key {
                let aad = associated_data(&header_bytes, &self.channel);
                let tag = key.seal(header.index, &aad, &mut datagram[HEADER_BYTES..]);
                datagram.extend_from_slice(&tag);
            }
            leaves.push(leaf_hash(
                self.suite,
                &header,
                &header_bytes,
                &datagram[HEADER_BYTES..],
            ));
            datagrams.push(datagram);
        }
        let tree = Tree::build(self.suite, &block, leaves.clone());
        let signature = self
            .key
            .sign(&signed_statement(self.suite, &self.channel, &header, tree.root()));
        datagrams
            .into_iter()
            .enumerate()
            .map(|(index, mut datagram)| {
                let path = tree.path(index);
                let tag = gate.tag(&leaves[index], &path, &signature);
                datagram.extend_from_slice(&path);
                datagram.extend_from_slice(&signature);
                datagram.extend_from_slice(&tag);
                Datagram::from(datagram)
            })
            .collect()
    }

    /// A beacon of the control stream (KM-15), gated by the control gate key of its slot.
    pub fn seal_beacon(
        &mut self,
        epoch: Epoch,
        slot_secret: &Secret,
        body: &BeaconBody,
        time: Time,
        randomness: [u8; 16],
    ) -> Datagram {
        let gate = control_gate_key(self.suite, slot_secret, &self.channel, epoch.slot);
        let plan = BlockPlan {
            packet_type: PacketType::Beacon,
            epoch,
            first_sequence: 0,
            time,
            randomness,
        };
        self.seal(plan, &[body.encode()], &gate, |_, _| None)
            .swap_remove(0)
    }
}
