//! What a repair node keeps: verified packets of many streams, byte for byte, within bytes and age.
//!
//! Spec: wire.md DP-17; side-channel.md SC-8, SC-42.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;

use crate::retention::{Datagram, MAX_ANSWER_BYTES, MAX_ANSWER_PACKETS};
use crate::stream::Heartbeat;
use crate::wire::{Epoch, PacketType, PacketView, StreamId, Time};

/// What a kept packet takes besides its bytes.
const BESIDES: u64 = 128;
/// A joiner is told of a head that is at most this old (SC-5, and some more): what was sealed since lets it pass over what is not
/// for it by signatures, and opens to it no more than it did.
const HEAD_AGE: u64 = 15_000_000;

/// From when on a member may be served packets (SC-42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    pub generation: u32,
    pub step: u8,
    /// When it joined.
    pub joined: Time,
}

impl Admission {
    fn covers(&self, packet: &Kept) -> bool {
        packet.epoch.membership() >= (self.generation, self.step)
            || packet.sealed.saturating_add(HEAD_AGE) >= self.joined
    }
}

/// Where a packet lies that is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Later packets have no lower one.
    pub segment: u64,
    pub offset: u32,
    /// Of the datagram, in bytes.
    pub length: u32,
}

/// What keeps the packets of a store outside of memory. It never waits for a disk, but to read.
pub trait Shelf: Send + Sync + Debug {
    /// None: it takes none at the moment.
    fn put(&self, datagram: &[u8], now: Time) -> Option<Place>;
    /// None: it has been lost.
    fn get(&self, place: Place) -> Option<Datagram>;
    /// No packet of an earlier segment is wanted any more.
    fn drop_before(&self, segment: u64);
}

#[derive(Clone, Debug)]
enum Body {
    Held(Datagram),
    Shelved(Place),
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Self::Held(datagram) => datagram.len(),
            Self::Shelved(place) => place.length as usize,
        }
    }
}

#[derive(Debug)]
struct Kept {
    body: Body,
    epoch: Epoch,
    sealed: Time,
}

#[derive(Debug, Default)]
struct KeptStream {
    packets: BTreeMap<u64, Kept>,
    /// The latest heartbeat, as it came.
    head: Option<Datagram>,
    has_ended: bool,
    heard: Time,
}

/// What is served of one stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Served {
    pub packets: Vec<Datagram>,
    /// The lowest sequence still kept; 0 of a stream of which only the head is.
    pub oldest: u64,
    pub head: Option<Datagram>,
}

/// What was found of one stream, some of it not read yet.
#[derive(Debug)]
pub struct Found {
    bodies: Vec<Body>,
    oldest: u64,
    head: Option<Datagram>,
    shelf: Option<Arc<dyn Shelf>>,
}

impl Found {
    /// Reads what lies outside of memory; what cannot be read is left out.
    pub fn read(self) -> Served {
        let shelf = self.shelf.as_deref();
        let read = |body| match body {
            Body::Held(datagram) => Some(datagram),
            Body::Shelved(place) => shelf?.get(place),
        };
        Served {
            packets: self.bodies.into_iter().filter_map(read).collect(),
            oldest: self.oldest,
            head: self.head,
        }
    }
}

#[derive(Debug)]
pub struct PacketStore {
    /// In memory without one.
    shelf: Option<Arc<dyn Shelf>>,
    /// Packets that the shelf has not taken.
    unkept: u64,
    streams: HashMap<StreamId, KeptStream>,
    /// In order of arrival: when, whose, which.
    order: VecDeque<(Time, StreamId, u64)>,
    bytes: u64,
    max_bytes: u64,
    max_age: u64,
    swept: Time,
    /// Somebody waits for more, and of what there is more since.
    is_awaited: bool,
    fresh: BTreeSet<StreamId>,
}

impl PacketStore {
    /// `max_age` in microseconds.
    pub fn new(max_bytes: u64, max_age: u64) -> Self {
        Self {
            shelf: None,
            unkept: 0,
            streams: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            max_bytes,
            max_age,
            swept: 0,
            is_awaited: false,
            fresh: BTreeSet::new(),
        }
    }

    /// Keeps a packet whose signature has been verified; the first one for a sequence stands.
    pub fn keep(
        &mut self,
        (stream, sequence): (StreamId, u64),
        (epoch, sealed): (Epoch, Time),
        datagram: &[u8],
        now: Time,
    ) {
        let kept = self.streams.entry(stream).or_default();
        kept.heard = now;
        if kept.packets.contains_key(&sequence) {
            return;
        }
        let body = match &self.shelf {
            None => Body::Held(Datagram::copy_from_slice(datagram)),
            Some(shelf) => {
                let Some(place) = shelf.put(datagram, now) else {
                    self.unkept += 1;
                    return;
                };
                Body::Shelved(place)
            }
        };
        self.insert((stream, sequence), (epoch, sealed), body, now);
        self.note_fresh(stream);
        self.expire(now);
    }

    fn insert(
        &mut self,
        (stream, sequence): (StreamId, u64),
        (epoch, sealed): (Epoch, Time),
        body: Body,
        now: Time,
    ) {
        self.bytes += body.len() as u64 + BESIDES;
        let packet = Kept { body, epoch, sealed };
        let kept = self.streams.entry(stream).or_default();
        kept.heard = kept.heard.max(now);
        kept.packets.insert(sequence, packet);
        self.order.push_back((now, stream, sequence));
    }

    /// Keeps packets there from now on; it is empty, or what lies on it is told of by [`Self::restore`] next.
    pub fn use_shelf(&mut self, shelf: Arc<dyn Shelf>) {
        self.shelf = Some(shelf);
    }

    /// Lets the shelf go, and forgets what there was.
    pub fn leave_shelf(&mut self) {
        self.shelf = None;
        self.streams.clear();
        self.order.clear();
        self.bytes = 0;
    }

    /// A packet lies on the shelf since an earlier start. It was verified then, is as it was, and is verified by who is served.
    pub fn restore(&mut self, place: Place, arrived: Time, datagram: &[u8]) {
        let Ok(packet) = PacketView::parse(datagram) else {
            return;
        };
        let header = &packet.header;
        match header.packet_type {
            PacketType::Data => {
                let key = (header.stream, header.sequence());
                let is_new = self
                    .streams
                    .get(&key.0)
                    .is_none_or(|kept| !kept.packets.contains_key(&key.1));
                if is_new {
                    self.insert(key, (header.epoch, header.time), Body::Shelved(place), arrived);
                }
            }
            PacketType::Heartbeat => {
                let kept = self.streams.entry(header.stream).or_default();
                kept.heard = kept.heard.max(arrived);
                kept.head = Some(Datagram::copy_from_slice(datagram));
                kept.has_ended |= Heartbeat::parse(packet.body).is_some_and(|heartbeat| heartbeat.is_final);
            }
            _ => {}
        }
    }

    /// How many packets the shelf has not taken.
    pub fn unkept(&self) -> u64 {
        self.unkept
    }

    /// Keeps a verified heartbeat in place of the one before.
    pub fn keep_head(&mut self, (stream, is_final): (StreamId, bool), datagram: &[u8], now: Time) {
        let kept = self.streams.entry(stream).or_default();
        (kept.heard, kept.head) = (now, Some(Datagram::copy_from_slice(datagram)));
        if is_final && !kept.has_ended {
            kept.has_ended = true;
            if let Some(shelf) = &self.shelf {
                shelf.put(datagram, now);
            }
            self.note_fresh(stream);
        }
    }

    /// One above the highest sequence that is kept, and whether the stream's end is; None: nothing is known of the stream.
    pub fn reach(&self, stream: &StreamId) -> Option<(u64, bool)> {
        let kept = self.streams.get(stream)?;
        let next = kept.packets.last_key_value().map_or(0, |(last, _)| last + 1);
        Some((next, kept.has_ended))
    }

    pub fn await_fresh(&mut self) {
        self.is_awaited = true;
    }

    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// The streams of which more has been kept since that was awaited, and whether it `goes_on` to be.
    pub fn take_fresh(&mut self, goes_on: bool) -> Vec<StreamId> {
        self.is_awaited = goes_on;
        core::mem::take(&mut self.fresh).into_iter().collect()
    }

    fn note_fresh(&mut self, stream: StreamId) {
        if self.is_awaited {
            self.fresh.insert(stream);
        }
    }

    /// Drops what is over the bounds at `now`, the oldest first.
    pub fn expire(&mut self, now: Time) {
        let before = self.order.len();
        while let Some(&(arrived, stream, sequence)) = self.order.front() {
            if self.bytes <= self.max_bytes && now.saturating_sub(arrived) <= self.max_age {
                break;
            }
            self.order.pop_front();
            let kept = self.streams.get_mut(&stream);
            if let Some(packet) = kept.and_then(|kept| kept.packets.remove(&sequence)) {
                self.bytes -= packet.body.len() as u64 + BESIDES;
            }
        }
        if let Some(shelf) = &self.shelf
            && (self.order.len() < before || self.order.is_empty())
        {
            shelf.drop_before(self.first_segment());
        }
        if now.saturating_sub(self.swept) > self.max_age {
            self.swept = now;
            self.streams
                .retain(|_, kept| !kept.packets.is_empty() || now.saturating_sub(kept.heard) <= self.max_age);
        }
    }

    /// The kept packets of `ranges` (first, last included), lowest first and each once, from the caller's admission on and
    /// within the bounds of one answer. None: nothing is known of the stream.
    pub fn answer(&self, stream: &StreamId, ranges: &[(u64, u64)], admission: &Admission) -> Option<Found> {
        let kept = self.streams.get(stream)?;
        let mut ranges = ranges.to_vec();
        ranges.sort_unstable();
        let (mut bodies, mut bytes, mut from) = (Vec::new(), 0, 0);
        'ranges: for (first, last) in ranges {
            let first = first.max(from);
            if first > last {
                continue;
            }
            for (_, packet) in kept.packets.range(first..=last) {
                if !admission.covers(packet) {
                    continue;
                }
                bytes += packet.body.len();
                if bodies.len() == MAX_ANSWER_PACKETS || bytes > MAX_ANSWER_BYTES {
                    break 'ranges;
                }
                bodies.push(packet.body.clone());
            }
            from = last.saturating_add(1);
        }
        Some(Found {
            bodies,
            oldest: kept.packets.keys().next().copied().unwrap_or(0),
            head: kept.head.clone(),
            shelf: self.shelf.clone(),
        })
    }

    /// Of the oldest packet that is kept; above all there are, if there is none.
    fn first_segment(&self) -> u64 {
        let Some((_, stream, sequence)) = self.order.front() else {
            return u64::MAX;
        };
        let first = self
            .streams
            .get(stream)
            .and_then(|kept| kept.packets.get(sequence));
        match first.map(|packet| &packet.body) {
            Some(Body::Shelved(place)) => place.segment,
            _ => 0,
        }
    }

    /// Packets and bytes that are kept, what they take besides included.
    pub fn size(&self) -> (u64, u64) {
        (self.order.len() as u64, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId([1; 16]);
    const EVERYTHING: Admission = Admission {
        generation: 0,
        step: 0,
        joined: 0,
    };

    fn epoch(generation: u32, step: u8) -> Epoch {
        Epoch {
            slot: 1,
            generation,
            step,
        }
    }

    fn first_bytes(store: &PacketStore, ranges: &[(u64, u64)], admission: &Admission) -> Vec<u8> {
        let served = store.answer(&STREAM, ranges, admission).unwrap().read();
        served.packets.iter().map(|datagram| datagram[0]).collect()
    }

    #[test]
    fn bounded_by_bytes_and_age_over_all_streams() {
        let mut store = PacketStore::new(3 * (100 + BESIDES), 1000);
        for n in 0..5u8 {
            let stream = StreamId([n % 2; 16]);
            store.keep(
                (stream, u64::from(n)),
                (epoch(1, 0), 0),
                &[n; 100],
                u64::from(n) * 10,
            );
        }
        assert_eq!(store.size(), (3, 3 * (100 + BESIDES)));
        assert_eq!(first_bytes(&store, &[(0, 9)], &EVERYTHING), [3]);
        store.keep_head((STREAM, false), &[9; 105], 1500);
        store.expire(1500);
        assert_eq!(store.size(), (0, 0));
        let served = store.answer(&STREAM, &[(0, 9)], &EVERYTHING).unwrap().read();
        assert_eq!(
            (served.packets.len(), served.oldest, served.head.is_some()),
            (0, 0, true)
        );
        store.expire(5000);
        assert!(store.answer(&STREAM, &[(0, 9)], &EVERYTHING).is_none());
    }

    #[test]
    fn d5_absurd_ranges_cost_no_more_than_what_is_kept() {
        let mut store = PacketStore::new(1 << 20, 1000);
        for n in 0..4u8 {
            store.keep((STREAM, u64::from(n)), (epoch(1, 0), 0), &[n; 10], 0);
        }
        let overlapping = [(0, u64::MAX), (2, 2), (1, u64::MAX), (0, 3), (9, 3)];
        assert_eq!(first_bytes(&store, &overlapping, &EVERYTHING), [0, 1, 2, 3]);
        assert_eq!(first_bytes(&store, &[(9, 3)], &EVERYTHING), []);
        assert_eq!(first_bytes(&store, &[(3, 3), (1, 1)], &EVERYTHING), [1, 3]);
    }

    #[test]
    fn nothing_from_before_the_admission_is_served() {
        let (mut store, hour) = (PacketStore::new(1 << 20, 1 << 40), 3_600_000_000);
        for (n, sealed, epoch) in [
            (0u8, 0, epoch(1, 3)),
            (1, hour - HEAD_AGE, epoch(1, 3)),
            (2, 0, epoch(1, 4)),
            (3, 0, epoch(2, 0)),
        ] {
            store.keep((STREAM, u64::from(n)), (epoch, sealed), &[n; 10], hour);
        }
        let admission = Admission {
            generation: 1,
            step: 4,
            joined: hour,
        };
        assert_eq!(first_bytes(&store, &[(0, 9)], &admission), [1, 2, 3]);
    }

    #[test]
    fn more_is_told_once_to_whoever_awaits_it() {
        let mut store = PacketStore::new(1 << 20, 1000);
        assert_eq!(store.reach(&STREAM), None);
        store.keep((STREAM, 7), (epoch(1, 0), 0), &[7; 10], 0);
        assert_eq!(
            (store.has_fresh(), store.reach(&STREAM)),
            (false, Some((8, false)))
        );
        store.await_fresh();
        store.keep_head((STREAM, false), &[9; 105], 1);
        assert!(!store.has_fresh(), "nothing new to serve");
        store.keep_head((STREAM, true), &[9; 105], 1);
        assert_eq!(
            (store.take_fresh(false), store.reach(&STREAM)),
            (vec![STREAM], Some((8, true)))
        );
        store.keep((STREAM, 8), (epoch(1, 0), 0), &[8; 10], 2);
        assert!(!store.has_fresh(), "nobody awaits it any more");
    }

    #[test]
    fn the_first_packet_of_a_sequence_stands() {
        let mut store = PacketStore::new(1 << 20, 1000);
        for n in [7u8, 8] {
            store.keep((STREAM, 5), (epoch(1, 0), 0), &[n; 10], 0);
        }
        assert_eq!(first_bytes(&store, &[(5, 5)], &EVERYTHING), [7]);
        assert_eq!(store.size().0, 1);
    }
}
