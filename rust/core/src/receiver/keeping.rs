//! A receiver that keeps what it verifies, for others, and opens nothing: the engine of a repair node.
//!
//! Spec: keys.md KM-21; side-channel.md SC-42.

use std::sync::Arc;

use crate::block::Hash;
use crate::member::Purpose;
use crate::packet_store::{Admission, Found, PacketStore, Place, Shelf};
use crate::receiver::{Receiver, ReceiverConfig};
use crate::wire::{Header, StreamId, Time};

/// Bounds on what a repair node keeps.
#[derive(Clone, Copy, Debug)]
pub struct KeepLimits {
    pub bytes: u64,
    /// Microseconds.
    pub age: u64,
}

impl Receiver {
    /// An engine that verifies and keeps packets, and never holds a key that opens one.
    pub fn repair_node(config: ReceiverConfig, limits: KeepLimits, now: Time) -> Self {
        let mut receiver = Self::new(config, now);
        receiver.member.config.purpose = Purpose::Repair;
        receiver.store = Some(PacketStore::new(limits.bytes, limits.age));
        receiver
    }

    /// Has a repair node keep packets on a shelf; what lies there already is told of by [`Self::restore`].
    pub fn use_shelf(&mut self, shelf: Arc<dyn Shelf>) {
        if let Some(store) = &mut self.store {
            store.use_shelf(shelf);
        }
    }

    pub fn restore(&mut self, place: Place, arrived: Time, datagram: &[u8]) {
        if let Some(store) = &mut self.store {
            store.restore(place, arrived, datagram);
        }
    }

    /// Lets the shelf go, and all that was kept.
    pub fn leave_shelf(&mut self) {
        if let Some(store) = &mut self.store {
            store.leave_shelf();
        }
    }

    /// Drops what is kept beyond its time.
    pub fn expire_kept(&mut self, now: Time) {
        if let Some(store) = &mut self.store {
            store.expire(now);
        }
    }

    /// Packets that were to be kept, and that the shelf has not taken.
    pub fn unkept(&self) -> u64 {
        self.store.as_ref().map_or(0, PacketStore::unkept)
    }

    /// What is kept of a stream, for a member of that admission; None: nothing is known of it here.
    pub fn served(
        &mut self,
        stream: &StreamId,
        ranges: &[(u64, u64)],
        admission: &Admission,
        now: Time,
    ) -> Option<Found> {
        let store = self.store.as_mut()?;
        store.expire(now);
        store.answer(stream, ranges, admission)
    }

    /// Packets and bytes that are kept for others.
    pub fn kept(&self) -> (u64, u64) {
        self.store.as_ref().map_or((0, 0), PacketStore::size)
    }

    /// Takes a packet that its publisher has vouched for as it is. False: this receiver is there to open it.
    pub(super) fn keep(&mut self, header: &Header, leaf: &Hash, datagram: &[u8], now: Time) -> bool {
        let (Some(store), Some(stream)) = (&mut self.store, self.streams.get_mut(&header.stream)) else {
            return false;
        };
        store.keep(
            (header.stream, header.sequence()),
            (header.epoch, header.time),
            datagram,
            now,
        );
        stream.accept(header, leaf, None, now, &mut self.member.events);
        true
    }

    pub(super) fn keep_head(&mut self, (stream, is_final): (StreamId, bool), datagram: &[u8], now: Time) {
        if let Some(store) = &mut self.store {
            store.keep_head((stream, is_final), datagram, now);
        }
    }

    /// One above the highest sequence that is kept of a stream, and whether its end is; None: nothing is known of it here.
    pub fn reach(&self, stream: &StreamId) -> Option<(u64, bool)> {
        self.store.as_ref()?.reach(stream)
    }

    /// Have it told of which streams there is more to serve ([`Self::take_fresh`]).
    pub fn await_fresh(&mut self) {
        if let Some(store) = &mut self.store {
            store.await_fresh();
        }
    }

    /// The streams of which more has been kept since that was awaited, and whether it `goes_on` to be.
    pub fn take_fresh(&mut self, goes_on: bool) -> Vec<StreamId> {
        let store = self.store.as_mut();
        store.map_or(Vec::new(), |store| store.take_fresh(goes_on))
    }

    pub(super) fn has_fresh(&self) -> bool {
        self.store.as_ref().is_some_and(PacketStore::has_fresh)
    }
}
