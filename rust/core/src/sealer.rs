//! Sealing a block: encrypt, hash, sign once, gate; the same for every type of packet.
//!
//! Spec: wire.md sections 3 and 4.

use std::ops::Range;

use crate::block::{Tree, leaf_hashes, signed_statement};
use crate::control::BeaconBody;
use crate::crypto::{BlockKey, GateKey, Gated, Secret, SigningKey, Suite, TAG_BYTES};
use crate::retention::Datagram;
use crate::schedule::{control_gate_key, stream_id};
use crate::wire::{
    BlockId, ChannelId, Epoch, GATE_BYTES, HEADER_BYTES, Header, MAX_DEPTH, NODE_BYTES, PacketType,
    SIGNATURE_BYTES, StreamId, Time, associated_data,
};

/// The longest that follows a body: AEAD tag, path, signature, gate tag.
const MAX_TRAILER_BYTES: usize = TAG_BYTES + MAX_DEPTH * NODE_BYTES + SIGNATURE_BYTES + GATE_BYTES;

/// The bodies of a block in one piece of memory, each where its datagram will stand.
#[derive(Debug, Default)]
pub struct Bodies {
    memory: Vec<u8>,
    places: Vec<Range<usize>>,
}

impl Bodies {
    /// `bytes`: of all bodies together, as far as is known.
    pub fn with_capacity(packets: usize, bytes: usize) -> Self {
        Self {
            memory: Vec::with_capacity(bytes + packets * (HEADER_BYTES + MAX_TRAILER_BYTES)),
            places: Vec::with_capacity(packets),
        }
    }

    pub fn of(bodies: &[Vec<u8>]) -> Self {
        let mut all = Self::with_capacity(bodies.len(), bodies.iter().map(Vec::len).sum());
        for body in bodies {
            all.push(|memory| memory.extend_from_slice(body));
        }
        all
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Adds a packet whose body is what `write` appends to the memory.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.places.last().map_or(0, |last| last.end + MAX_TRAILER_BYTES) + HEADER_BYTES;
        self.memory.resize(start, 0);
        write(&mut self.memory);
        self.places.push(start..self.memory.len());
    }
}

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
        bodies: Bodies,
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
        let Bodies { mut memory, places } = bodies;
        let mut header = Header {
            packet_type: plan.packet_type,
            stream: self.stream,
            epoch: plan.epoch,
            block,
            first_sequence: plan.first_sequence,
            index: 0,
            count: places.len() as u8,
            time,
        };
        let last = places.last().map_or(0, |last| last.end);
        memory.resize(last + MAX_TRAILER_BYTES, 0);
        // Of each packet, header and sealed body.
        let mut covered: Vec<Range<usize>> = Vec::with_capacity(places.len());
        for (index, place) in (0u8..).zip(places) {
            header.index = index;
            let header_bytes = header.to_bytes();
            let start = place.start - HEADER_BYTES;
            memory[start..place.start].copy_from_slice(&header_bytes);
            let mut end = place.end;
            if let Some(key) = &key {
                let aad = associated_data(&header_bytes, &self.channel);
                let tag = key.seal(index, &aad, &mut memory[place]);
                memory[end..end + TAG_BYTES].copy_from_slice(&tag);
                end += TAG_BYTES;
            }
            covered.push(start..end);
        }
        let packets: Vec<&[u8]> = covered.iter().map(|place| &memory[place.clone()]).collect();
        let leaves = leaf_hashes(self.suite, &packets);
        let tree = Tree::build(self.suite, &block, leaves);
        let signature = self
            .key
            .sign(&signed_statement(self.suite, &self.channel, &header, tree.root()));
        let paths: Vec<Vec<u8>> = (0..covered.len()).map(|index| tree.path(index)).collect();
        let gated: Vec<Gated<'_>> = paths
            .iter()
            .zip(tree.leaves())
            .map(|(path, leaf)| Gated {
                leaf,
                path,
                signature: &signature,
            })
            .collect();
        let tags = gate.tags(&gated);
        let mut ends = Vec::with_capacity(covered.len());
        for ((place, path), tag) in covered.iter().zip(&paths).zip(&tags) {
            let mut end = place.end;
            for part in [&path[..], &signature, tag] {
                memory[end..end + part.len()].copy_from_slice(part);
                end += part.len();
            }
            ends.push(end);
        }
        let memory = Datagram::from(memory);
        covered
            .iter()
            .zip(ends)
            .map(|(place, end)| memory.slice(place.start..end))
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
        self.seal(plan, Bodies::of(&[body.encode()]), &gate, |_, _| None)
            .swap_remove(0)
    }
}
