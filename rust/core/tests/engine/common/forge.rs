//! Packets that no honest sender makes: any header, body, path and signature, with the right gate tag.

use sealcast_core::block::{Hash, Tree, leaf_hashes, sign_input, signed_statement};
use sealcast_core::crypto::{Gated, Secret, SigningKey, Suite};
use sealcast_core::frames::MessageFrame;
use sealcast_core::schedule::{EpochKeys, block_key, stream_id};
use sealcast_core::wire::{BlockId, ChannelId, Epoch, Header, PacketType, StreamId, Time, associated_data};

use super::KeyServer;

/// An insider: the keys of one epoch, and one stream key.
pub struct Forge {
    pub suite: Suite,
    pub channel: ChannelId,
    pub epoch: Epoch,
    pub keys: EpochKeys,
    pub stream: StreamId,
    pub signing: SigningKey,
}

/// A plaintext with one message.
pub fn message(message_id: u64, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let frame = MessageFrame {
        message_id,
        part: None,
        topic: None,
        origin: None,
        data,
    };
    frame.write(&mut out);
    out
}

impl Forge {
    pub fn new(key_server: &KeyServer, epoch: Epoch, seed: &Secret) -> Self {
        let signing = SigningKey::from_seed(seed);
        Self {
            suite: key_server.suite(),
            channel: key_server.channel,
            epoch,
            keys: key_server.epoch_keys(epoch),
            stream: stream_id(signing.public_key()),
            signing,
        }
    }

    /// The header of packet 0 of a data block.
    pub fn data_header(&self, block: u8, first_sequence: u64, count: u8, time: Time) -> Header {
        Header {
            packet_type: PacketType::Data,
            stream: self.stream,
            epoch: self.epoch,
            block: BlockId([block; 16]),
            first_sequence,
            index: 0,
            count,
            time,
        }
    }

    /// Encrypts as the stream would.
    pub fn seal_body(&self, header: &Header, plaintext: &[u8]) -> Vec<u8> {
        let key = match header.packet_type {
            PacketType::Data => block_key(
                self.suite,
                &self.keys.stream_secret(&header.stream).unwrap(),
                &header.block,
            ),
            PacketType::Credential => self.keys.credential_block_key(&header.stream, &header.block),
            _ => return plaintext.to_vec(),
        };
        let mut body = plaintext.to_vec();
        let tag = key.seal(
            header.index,
            &associated_data(&header.to_bytes(), &self.channel),
            &mut body,
        );
        body.extend_from_slice(&tag);
        body
    }

    pub fn leaf(&self, header: &Header, body: &[u8]) -> Hash {
        leaf_hashes(self.suite, &[&[&header.to_bytes()[..], body].concat()])[0]
    }

    pub fn sign(&self, header: &Header, root: &Hash) -> [u8; 64] {
        self.signing
            .sign(&signed_statement(self.suite, &self.channel, header, root))
    }

    /// Puts a datagram together and gates it with the epoch's key.
    pub fn datagram(&self, header: &Header, body: &[u8], path: &[u8], signature: &[u8; 64]) -> Vec<u8> {
        let leaf = &self.leaf(header, body);
        let tags = self.keys.gate.tags(&[Gated {
            leaf,
            path,
            signature,
        }]);
        let parts: [&[u8]; 5] = [&header.to_bytes(), body, path, signature, &tags[0]];
        parts.concat()
    }

    /// A whole block as the stream's owner would seal it; `header` is that of its first packet.
    pub fn block(&self, header: Header, plaintexts: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.block_in_context(header.packet_type.context(), header, plaintexts)
    }

    /// The same, but signed for a use that may not be its own.
    pub fn block_in_context(&self, context: &str, header: Header, plaintexts: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let header_of = |index: usize| Header {
            index: index as u8,
            ..header
        };
        let bodies: Vec<Vec<u8>> = plaintexts
            .iter()
            .enumerate()
            .map(|(index, plaintext)| self.seal_body(&header_of(index), plaintext))
            .collect();
        let leaves = bodies
            .iter()
            .enumerate()
            .map(|(index, body)| self.leaf(&header_of(index), body));
        let tree = Tree::build(self.suite, &header.block, leaves.collect());
        let signed = signed_statement(self.suite, &self.channel, &header, tree.root());
        let statement = &signed[1 + header.packet_type.context().len()..];
        let signature = self.signing.sign(&sign_input(context, statement));
        bodies
            .iter()
            .enumerate()
            .map(|(index, body)| self.datagram(&header_of(index), body, &tree.path(index), &signature))
            .collect()
    }
}
