//! Datagrams by the batch: what is hashed of them is hashed side by side, before their turn.
//!
//! A digest is a function of the datagram and of keys, so working it out early changes nothing; what it means for the state
//! is found one datagram after the other. Spec: wire.md DP-18.

use crate::block::{Hash, claimed_roots, leaf_hashes};
use crate::crypto::Suite;
use crate::keyring::Lookup;
use crate::receiver::{Receiver, Via};
use crate::rejection::Rejection;
use crate::window::Place;
use crate::wire::{PacketType, PacketView, ParseError, Time};

/// Datagrams that are looked at together: a block's worth, which fits the processor's nearest cache.
const BATCH: usize = 64;

/// What the hashes of a packet are; that it is believed does not follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digests {
    pub(super) leaf: Hash,
    /// Whether the gate tag is right, and the claimed root if it is.
    pub(super) gate: Option<bool>,
    pub(super) root: Option<Hash>,
}

impl Digests {
    /// Of a packet that comes alone: the rest is worked out when it is asked for.
    pub(super) fn of(packet: &PacketView<'_>, suite: Suite) -> Self {
        Self {
            leaf: packet.leaf_hash(suite),
            gate: None,
            root: None,
        }
    }

    pub(super) fn root(&self, packet: &PacketView<'_>, suite: Suite) -> Hash {
        self.root
            .unwrap_or_else(|| packet.claimed_root(suite, &self.leaf))
    }
}

impl Receiver {
    /// Takes datagrams from the group, in their order. Never fails: what is refused is counted.
    pub fn receive_datagrams<'a>(&mut self, datagrams: impl IntoIterator<Item = &'a [u8]>, now: Time) {
        self.receive_batches(datagrams, Via::Multicast, now, |_| true);
    }

    /// The same of any way; goes on while `judge` of what became of a datagram says so.
    pub(super) fn receive_batches<'a>(
        &mut self,
        datagrams: impl IntoIterator<Item = &'a [u8]>,
        via: Via,
        now: Time,
        mut judge: impl FnMut(Option<Rejection>) -> bool,
    ) {
        let mut datagrams = datagrams.into_iter();
        loop {
            let batch: Vec<&[u8]> = datagrams.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return;
            }
            let packets: Vec<_> = batch.iter().map(|datagram| PacketView::parse(datagram)).collect();
            let digests = self.digests(&packets, via);
            for ((datagram, packet), digests) in batch.into_iter().zip(packets).zip(digests) {
                if !judge(self.take(datagram, packet, digests, via, now)) {
                    return;
                }
            }
        }
    }

    /// The digests of data packets that may be news, in the order of DP-18: nothing is hashed further than its gate tag is right.
    fn digests(&mut self, packets: &[Result<PacketView<'_>, ParseError>], via: Via) -> Vec<Option<Digests>> {
        let mut digests = vec![None; packets.len()];
        let Some(suite) = self.member.suite() else {
            return digests;
        };
        let is_news = |packet: &PacketView<'_>| {
            packet.header.packet_type == PacketType::Data
                && self
                    .streams
                    .get(&packet.header.stream)
                    .is_some_and(|stream| !stream.window.is_below(packet.header.sequence()))
        };
        let (places, news): (Vec<usize>, Vec<&PacketView<'_>>) = packets
            .iter()
            .enumerate()
            .filter_map(|(at, packet)| Some((at, packet.as_ref().ok().filter(|packet| is_news(packet))?)))
            .unzip();
        let covered: Vec<&[u8]> = news.iter().map(|packet| packet.covered).collect();
        let leaves = leaf_hashes(suite, &covered);
        // The gate of what TLS brings is not looked at (DP-16).
        let gates = match via {
            Via::Multicast => self.gates(&news, &leaves),
            _ => vec![None; news.len()],
        };
        let (passed, climbing): (Vec<usize>, Vec<_>) = (0..news.len())
            .filter(|&at| via != Via::Multicast || gates[at] == Some(true))
            .map(|at| (at, (news[at], leaves[at])))
            .unzip();
        let mut roots = vec![None; news.len()];
        for (at, root) in passed.into_iter().zip(claimed_roots(suite, &climbing)) {
            roots[at] = Some(root);
        }
        for (((place, leaf), gate), root) in places.into_iter().zip(leaves).zip(gates).zip(roots) {
            digests[place] = Some(Digests { leaf, gate, root });
        }
        digests
    }

    /// Whether each packet's gate tag is right; None of what is a duplicate, or of an epoch that is not held.
    fn gates(&mut self, news: &[&PacketView<'_>], leaves: &[Hash]) -> Vec<Option<bool>> {
        let mut gates = vec![None; news.len()];
        let Some(admitted) = self.member.admitted_mut() else {
            return gates;
        };
        let is_open = |at: usize| {
            let place = self
                .streams
                .get(&news[at].header.stream)
                .map(|stream| stream.window.place(news[at].header.sequence(), &leaves[at]));
            !matches!(place, Some(Place::Below | Place::Duplicate))
        };
        let open: Vec<usize> = (0..news.len()).filter(|&at| is_open(at)).collect();
        for run in open.chunk_by(|&a, &b| news[a].header.epoch == news[b].header.epoch) {
            let Lookup::Held(keys) = admitted.keyring.lookup(news[run[0]].header.epoch) else {
                continue;
            };
            let gated: Vec<_> = run.iter().map(|&at| news[at].gated(&leaves[at])).collect();
            let given: Vec<_> = run.iter().map(|&at| *news[at].gate).collect();
            for (&at, holds) in run.iter().zip(keys.gate.hold(&gated, &given)) {
                gates[at] = Some(holds);
            }
        }
        gates
    }
}
