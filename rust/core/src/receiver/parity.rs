//! What a subscriber does with parity, and with the packets that it brings.
//!
//! Spec: wire.md section 11 (DP-40).

use crate::crypto::Suite;
use crate::fec::{MAX_PARITY_BLOCK, Parity, read_symbol};
use crate::keyring::Lookup;
use crate::receiver::batch::Digests;
use crate::receiver::{Receiver, Via, is_stale};
use crate::rejection::Rejection;
use crate::window::Place;
use crate::wire::{PacketView, StreamId, Time};

impl Receiver {
    pub(super) fn receive_parity(
        &mut self,
        packet: &PacketView<'_>,
        suite: Suite,
        via: Via,
        now: Time,
    ) -> Result<(), Rejection> {
        let header = &packet.header;
        if header.count > MAX_PARITY_BLOCK {
            return Err(Rejection::Malformed);
        }
        let parity = Parity::parse(packet.body).ok_or(Rejection::Malformed)?;
        // Who serves packets to others needs them as they were sent, with path and signature.
        if self.store.is_some() {
            return Err(Rejection::Duplicate);
        }
        let group = parity.group;
        let stream = self.streams.get(&header.stream).ok_or(Rejection::UnknownStream)?;
        if stream.end_before(group.last()).is_some() {
            return Err(Rejection::BeyondWindow);
        }
        // What nobody misses is not worth a signature check.
        if !stream.fec.is_wanted(&parity, &stream.window) {
            return Err(Rejection::Duplicate);
        }
        let admitted = self.member.admitted_mut().ok_or(Rejection::NotJoined)?;
        if !matches!(admitted.keyring.lookup(header.epoch), Lookup::Held(_)) {
            return Err(Rejection::EpochNotOurs);
        }
        if is_stale(admitted, header) {
            return Err(Rejection::StaleGeneration);
        }
        self.authenticate(packet, suite, &Digests::of(packet, suite), via, now)?;
        let stream = self
            .streams
            .get_mut(&header.stream)
            .ok_or(Rejection::UnknownStream)?;
        stream.hear(now);
        // All packets of the group have been sent.
        stream.window.raise_head(group.last() + 1, now);
        stream.fec.take(&parity, &stream.window, now);
        if stream.fec.is_beyond_mending(&group, &stream.window) {
            stream.schedule.released(now, &mut self.member.jitter);
        }
        self.mend(header.stream, group.first_sequence, now);
        Ok(())
    }

    /// Takes what parity brings of the groups that a sequence is in. It comes out of verified packets and nothing else, so its
    /// publisher has vouched for it.
    pub(super) fn mend(&mut self, id: StreamId, sequence: u64, now: Time) {
        let Some(suite) = self.member.suite() else { return };
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        for (sequence, symbol) in stream.fec.mend(sequence, &stream.window) {
            let Some(covered) = read_symbol(&symbol, &id) else {
                continue;
            };
            let Ok(packet) = PacketView::rebuilt(&covered) else {
                continue;
            };
            let Some(stream) = self.streams.get_mut(&id) else {
                return;
            };
            // A publisher may sign nonsense; the packet itself can still come.
            if packet.header.sequence() != sequence || !stream.is_in_force(packet.header.time) {
                continue;
            }
            let leaf = packet.leaf_hash(suite);
            let place = stream.window.place(sequence, &leaf);
            if place != Place::New {
                continue;
            }
            stream.fec.keep(sequence, &covered);
            let taken = self.take_data(&packet, &leaf, None, place, now);
            self.counters.rebuilt += u64::from(taken.is_ok());
        }
    }
}
