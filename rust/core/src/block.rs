//! Blocks: the Merkle tree over a block's packets and the statement that its one signature covers.
//!
//! Spec: wire.md section 3 (DP-7 to DP-10).

use crate::crypto::{Suite, sha256};
use crate::wire::{BlockId, ChannelId, Header, NODE_BYTES, PacketView};

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
    i % 2 == 1 || i + 1 < width
}

pub fn leaf_hash(suite: Suite, header: &Header, header_bytes: &[u8], body: &[u8]) -> Hash {
    sha256(&[
        &[LEAF_TAG, suite as u8],
        &header.block.0,
        &[0, header.index],
        header_bytes,
        body,
    ])
}

impl PacketView<'_> {
    pub fn leaf_hash(&self, suite: Suite) -> Hash {
        leaf_hash(suite, &self.header, self.header_bytes, self.body)
    }

    /// The root that this packet claims, from its leaf and path.
    pub fn claimed_root(&self, suite: Suite, leaf: &Hash) -> Hash {
        let (mut i, mut width) = (u32::from(self.header.index), u32::from(self.header.count));
        let (mut hash, mut path, mut level) = (*leaf, self.path, 1u8);
        while width > 1 {
            if has_sibling(i, width) {
                let (sibling, rest) = path.split_at(NODE_BYTES);
                path = rest;
                let own = &hash[..NODE_BYTES];
                let (left, right) = if i % 2 == 0 {
                    (own, sibling)
                } else {
                    (sibling, own)
                };
                hash = node_hash(suite, &self.header.block, level, (i / 2) as u8, left, right);
            }
            i /= 2;
            width = width.div_ceil(2);
            level += 1;
        }
        hash
    }
}

fn node_hash(suite: Suite, block: &BlockId, level: u8, index: u8, left: &[u8], right: &[u8]) -> Hash {
    let mut input = [0; 2 + 16 + 2 + 2 * NODE_BYTES];
    input[0] = NODE_TAG;
    input[1] = suite as u8;
    input[2..18].copy_from_slice(&block.0);
    input[18] = level;
    input[19] = index;
    input[20..20 + NODE_BYTES].copy_from_slice(left);
    input[20 + NODE_BYTES..].copy_from_slice(right);
    sha256(&[&input])
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
            let above = below
                .chunks(2)
                .enumerate()
                .map(|(j, pair)| match pair {
                    [left, right] => node_hash(
                        suite,
                        block,
                        level,
                        j as u8,
                        &left[..NODE_BYTES],
                        &right[..NODE_BYTES],
                    ),
                    _ => pair[0],
                })
                .collect();
            levels.push(above);
        }
        Self { levels }
    }

    pub fn root(&self) -> &Hash {
        &self.levels[self.levels.len() - 1][0]
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
