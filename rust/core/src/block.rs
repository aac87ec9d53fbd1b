//! Blocks: the Merkle tree over a block's packets and the statement that its one signature covers.
//!
//! Spec: wire.md section 3 (DP-7 to DP-10).

use std::sync::LazyLock;

use crate::crypto::{Gated, HashFunction, Suite, sha256};
use crate::lanes::LaneKey;
use crate::wire::{
    BLOCK_ID_BYTES, BlockId, ChannelId, Header, INDEX_BYTE, MAX_DEPTH, NODE_BYTES, PacketView,
};

const LEAF_TAG: u8 = 0;
const NODE_TAG: u8 = 1;
pub type Hash = [u8; 32];

/// The number of siblings on the path of `index` in a block of `count` (DP-9).
pub fn depth(index: u8, count: u8) -> usize {
    let (mut i, mut width, mut depth) = (u32::from(index), u32::from(count), 0);
    while width > 1 {
        depth += usize::from(has_sibling(i, width));
        i /= 2;
        width = width.div_ceil(2);
    }
    depth
}

fn has_sibling(i: u32, width: u32) -> bool {
    width > 1 && (i % 2 == 1 || i + 1 < width)
}

/// What tells the hashes of blocks from all others, and leaves from nodes, in suites that hash with BLAKE3 (DP-7).
const TREE_CONTEXT: &str = "sealcast/1 block tree";

static LEAF_KEY: LazyLock<LaneKey> = LazyLock::new(|| tree_key(LEAF_TAG));
static NODE_KEY: LazyLock<LaneKey> = LazyLock::new(|| tree_key(NODE_TAG));

fn tree_key(tag: u8) -> LaneKey {
    LaneKey::public(TREE_CONTEXT, &[tag, Suite::Aes256GcmBlake3 as u8])
}

/// The leaf of each packet, given as its header and body together (DP-7).
pub fn leaf_hashes(suite: Suite, packets: &[&[u8]]) -> Vec<Hash> {
    let mut leaves = Vec::with_capacity(packets.len());
    match suite.hash() {
        HashFunction::Sha256 => leaves.extend(packets.iter().map(|packet| {
            let (block, index) = (&packet[BLOCK_ID_BYTES], packet[INDEX_BYTE]);
            sha256(&[&[LEAF_TAG, suite as u8], block, &[0, index], packet])
        })),
        HashFunction::Blake3 => LEAF_KEY.hash_padded(packets, &mut leaves),
    }
    leaves
}

impl PacketView<'_> {
    /// What its gate tag covers.
    pub fn gated<'b>(&'b self, leaf: &'b Hash) -> Gated<'b> {
        Gated {
            leaf,
            path: self.path,
            signature: self.signature,
        }
    }

    pub fn leaf_hash(&self, suite: Suite) -> Hash {
        leaf_hashes(suite, &[self.covered])[0]
    }

    /// The root that this packet claims, from its leaf and path.
    pub fn claimed_root(&self, suite: Suite, leaf: &Hash) -> Hash {
        claimed_roots(suite, &[(self, *leaf)])[0]
    }
}

/// A packet's way from its leaf to the root.
struct Climb<'a> {
    block: &'a BlockId,
    path: &'a [u8],
    index: u32,
    width: u32,
    hash: Hash,
}

/// The root that each packet claims, from its leaf and path.
pub fn claimed_roots(suite: Suite, packets: &[(&PacketView<'_>, Hash)]) -> Vec<Hash> {
    let mut climbs: Vec<Climb<'_>> = packets
        .iter()
        .map(|(packet, leaf)| Climb {
            block: &packet.header.block,
            path: packet.path,
            index: packet.header.index.into(),
            width: packet.header.count.into(),
            hash: *leaf,
        })
        .collect();
    let (mut nodes, mut hashes) = (Vec::new(), Vec::new());
    for level in 1..=MAX_DEPTH as u8 {
        nodes.clear();
        hashes.clear();
        for climb in climbs
            .iter_mut()
            .filter(|climb| has_sibling(climb.index, climb.width))
        {
            let (sibling, rest) = climb.path.split_at(NODE_BYTES);
            climb.path = rest;
            let own = &climb.hash[..NODE_BYTES];
            let (left, right) = if climb.index.is_multiple_of(2) {
                (own, sibling)
            } else {
                (sibling, own)
            };
            nodes.push(node_input(
                suite,
                climb.block,
                (level, (climb.index / 2) as u8),
                left,
                right,
            ));
        }
        hash_nodes(suite, &nodes, &mut hashes);
        let mut hashes = hashes.iter();
        for climb in climbs.iter_mut().filter(|climb| climb.width > 1) {
            if has_sibling(climb.index, climb.width)
                && let Some(hash) = hashes.next()
            {
                climb.hash = *hash;
            }
            climb.index /= 2;
            climb.width = climb.width.div_ceil(2);
        }
    }
    climbs.into_iter().map(|climb| climb.hash).collect()
}

/// What stands in a node before its zeros: tag, suite, block id, level, place, both children.
const NODE_INPUT_BYTES: usize = 2 + 16 + 2 + 2 * NODE_BYTES;

type NodeInput = [u8; 64];

fn node_input(
    suite: Suite,
    block: &BlockId,
    (level, index): (u8, u8),
    left: &[u8],
    right: &[u8],
) -> NodeInput {
    let mut input = [0; 64];
    input[0] = NODE_TAG;
    input[1] = suite as u8;
    input[2..18].copy_from_slice(&block.0);
    input[18] = level;
    input[19] = index;
    input[20..20 + NODE_BYTES].copy_from_slice(left);
    input[20 + NODE_BYTES..NODE_INPUT_BYTES].copy_from_slice(right);
    input
}

fn hash_nodes(suite: Suite, nodes: &[NodeInput], out: &mut Vec<Hash>) {
    match suite.hash() {
        HashFunction::Sha256 => out.extend(nodes.iter().map(|node| sha256(&[&node[..NODE_INPUT_BYTES]]))),
        HashFunction::Blake3 => NODE_KEY.hash_equal(nodes, out),
    }
}

/// The tree of a block that is being sealed.
#[derive(Debug)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// `leaves` is not empty and has at most 64 entries.
    pub fn build(suite: Suite, block: &BlockId, leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while levels[levels.len() - 1].len() > 1 {
            let below = &levels[levels.len() - 1];
            let level = levels.len() as u8;
            let (pairs, promoted) = below.as_chunks::<2>();
            let nodes: Vec<NodeInput> = (0u8..)
                .zip(pairs)
                .map(|(at, [left, right])| {
                    node_input(
                        suite,
                        block,
                        (level, at),
                        &left[..NODE_BYTES],
                        &right[..NODE_BYTES],
                    )
                })
                .collect();
            let mut above = Vec::with_capacity(below.len().div_ceil(2));
            hash_nodes(suite, &nodes, &mut above);
            above.extend_from_slice(promoted);
            levels.push(above);
        }
        Self { levels }
    }

    pub fn root(&self) -> &Hash {
        &self.levels[self.levels.len() - 1][0]
    }

    pub fn leaves(&self) -> &[Hash] {
        &self.levels[0]
    }

    pub fn path(&self, index: usize) -> Vec<u8> {
        let mut path = Vec::with_capacity(NODE_BYTES * self.levels.len());
        let mut i = index;
        for level in &self.levels[..self.levels.len() - 1] {
            if let Some(sibling) = level.get(i ^ 1) {
                path.extend_from_slice(&sibling[..NODE_BYTES]);
            }
            i /= 2;
        }
        path
    }
}

/// `sign-input(context, message)` of DP-10.
pub fn sign_input(context: &str, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + context.len() + message.len());
    out.push(context.len() as u8);
    out.extend_from_slice(context.as_bytes());
    out.extend_from_slice(message);
    out
}

/// The statement of DP-10 under the context of the header's type; `index` is no part of it.
pub fn signed_statement(suite: Suite, channel: &ChannelId, header: &Header, root: &Hash) -> Vec<u8> {
    let mut statement = Vec::with_capacity(122);
    statement.push(suite as u8);
    statement.extend_from_slice(&channel.0);
    statement.extend_from_slice(&header.stream.0);
    statement.extend_from_slice(&header.epoch.to_bytes());
    statement.extend_from_slice(&header.block.0);
    statement.extend_from_slice(&header.first_sequence.to_be_bytes());
    statement.push(header.count);
    statement.extend_from_slice(&header.time.to_be_bytes());
    statement.extend_from_slice(root);
    sign_input(header.packet_type.context(), &statement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_a_function_of_index_and_count() {
        assert_eq!(depth(0, 1), 0);
        assert_eq!((depth(0, 3), depth(2, 3)), (2, 1));
        assert_eq!(depth(4, 5), 1);
        assert_eq!(depth(63, 64), 6);
    }

    #[test]
    fn every_path_has_its_depth() {
        for count in 1..=64u8 {
            let leaves: Vec<Hash> = (0..count).map(|i| sha256(&[&[i]])).collect();
            let tree = Tree::build(Suite::Aes256Gcm, &BlockId([9; 16]), leaves);
            for index in 0..count {
                assert_eq!(
                    tree.path(usize::from(index)).len(),
                    NODE_BYTES * depth(index, count)
                );
            }
        }
    }
}
