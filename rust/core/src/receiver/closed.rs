//! Streams that we let go of: where each stood, so that a replay does not start it again (invariant 4).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::credential::Publisher;
use crate::fingerprint::Fingerprint;
use crate::wire::{MAX_SEQUENCE, SiteId, StreamId};

/// Beyond this the device with the most of them loses its oldest, so that nobody's many streams displace another's.
const MAX_CLOSED: usize = 4096;
/// The place of a stream that has ended and been delivered to its end.
pub(super) const ENDED: u64 = MAX_SEQUENCE;

/// Whose stream it is; `None` where only an earlier run knew.
type Device = Option<(SiteId, String)>;

#[derive(Debug)]
struct Closed {
    next: u64,
    publisher: Option<Arc<Publisher>>,
}

#[derive(Debug, Default)]
pub(super) struct ClosedStreams {
    by_id: HashMap<StreamId, Closed>,
    /// The oldest of each device first.
    by_device: BTreeMap<Device, VecDeque<StreamId>>,
}

fn device_of(publisher: Option<&Arc<Publisher>>) -> Device {
    publisher.map(|publisher| (publisher.site, publisher.device.clone()))
}

impl ClosedStreams {
    /// What an earlier run told ([`super::Receiver::positions`]).
    pub(super) fn resumed(places: Vec<(StreamId, u64)>) -> Self {
        let mut closed = Self::default();
        for (id, next) in places {
            closed.put(id, next, None);
        }
        closed
    }

    /// The sequence that the stream stood at.
    pub(super) fn next(&self, id: &StreamId) -> Option<u64> {
        self.by_id.get(id).map(|closed| closed.next)
    }

    pub(super) fn publisher(&self, id: &StreamId) -> Option<&Arc<Publisher>> {
        self.by_id.get(id)?.publisher.as_ref()
    }

    /// Remembers a stream; never moves its place back. Gives the stream that had to be forgotten for it.
    pub(super) fn remember(
        &mut self,
        id: StreamId,
        next: u64,
        publisher: &Arc<Publisher>,
    ) -> Option<StreamId> {
        self.put(id, next, Some(publisher.clone()))
    }

    fn put(&mut self, id: StreamId, next: u64, publisher: Option<Arc<Publisher>>) -> Option<StreamId> {
        let device = device_of(publisher.as_ref());
        if let Some(known) = self.by_id.get_mut(&id) {
            known.next = known.next.max(next);
            if known.publisher.is_some() || publisher.is_none() {
                return None;
            }
            known.publisher = publisher;
            if let Some(unowned) = self.by_device.get_mut(&None) {
                unowned.retain(|other| *other != id);
            }
        } else {
            self.by_id.insert(id, Closed { next, publisher });
        }
        self.by_device.entry(device.clone()).or_default().push_back(id);
        (self.by_id.len() > MAX_CLOSED).then(|| self.forget_one(&device))?
    }

    fn forget_one(&mut self, newcomer: &Device) -> Option<StreamId> {
        let most = self
            .by_device
            .iter_mut()
            .max_by_key(|(device, ids)| (ids.len(), *device == newcomer));
        let oldest = most?.1.pop_front()?;
        self.by_device.retain(|_, ids| !ids.is_empty());
        self.by_id.remove(&oldest);
        Some(oldest)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (StreamId, u64)> {
        let ids = self.by_device.values().flatten();
        ids.filter_map(|id| Some((*id, self.next(id)?)))
    }

    pub(super) fn fingerprint(&self, into: &mut Fingerprint) {
        into.number(self.by_id.len() as u64);
        for (id, next) in self.iter() {
            into.bytes(&id.0).number(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher(device: &str) -> Arc<Publisher> {
        Arc::new(Publisher {
            stream: StreamId([0; 16]),
            site: SiteId([1; 16]),
            device: device.to_owned(),
            instance: String::new(),
        })
    }

    fn id(device: u8, n: usize) -> StreamId {
        let mut id = [device; 16];
        id[8..].copy_from_slice(&(n as u64).to_be_bytes());
        StreamId(id)
    }

    #[test]
    fn who_has_many_streams_displaces_its_own() {
        let mut closed = ClosedStreams::resumed(vec![(id(0, 0), 7)]);
        let (quiet, busy) = (publisher("quiet"), publisher("busy"));
        for n in 0..10 {
            assert_eq!(closed.remember(id(1, n), ENDED, &quiet), None);
        }
        for n in 0..3 * MAX_CLOSED {
            let forgotten = closed.remember(id(2, n), 5, &busy);
            assert_eq!(forgotten, n.checked_sub(MAX_CLOSED - 11).map(|n| id(2, n)));
        }
        assert_eq!(closed.iter().count(), MAX_CLOSED);
        assert_eq!(closed.next(&id(0, 0)), Some(7));
        assert!((0..10).all(|n| closed.next(&id(1, n)) == Some(ENDED)));
    }

    #[test]
    fn a_place_never_moves_back_and_a_resumed_stream_gets_its_owner() {
        let mut closed = ClosedStreams::resumed(vec![(id(0, 0), 7)]);
        let owner = publisher("owner");
        assert_eq!(closed.remember(id(0, 0), 3, &owner), None);
        assert_eq!(closed.publisher(&id(0, 0)), Some(&owner));
        assert_eq!(closed.iter().collect::<Vec<_>>(), [(id(0, 0), 7)]);
    }
}
