//! The subscriber's engine: datagrams and answers in; messages, gaps and requests out.
//!
//! The order of checks is DP-18; nothing but counters and budgets changes before a signature has held (invariant 1).
//! Spec: wire.md sections 5, 8, 9, 10.

use std::collections::{BTreeMap, HashMap};

use crate::block::Hash;
use crate::budget::Budget;
use crate::crypto::Suite;
use crate::digest_map::DigestMap;
use crate::event::{Claim, Event, Message, Response};
use crate::fingerprint::Fingerprint;
use crate::keyring::Lookup;
use crate::member::{Admitted, Member, MemberConfig, Outcome, Purpose, Purposes};
use crate::packet_store::PacketStore;
use crate::rejection::{Counters, Rejection};
use crate::stream::{Heartbeat, Start, Stream, StreamLimits, evidence_of};
use crate::validator::Validator;
use crate::window::Place;
use crate::wire::{Header, PacketType, PacketView, ParseError, StreamId, Time};

/// How often running streams are looked at for certificates and credentials that have run out.
const JUDGE_INTERVAL: u64 = 30_000_000;

mod batch;
mod closed;
mod discovery;
mod following;
mod held;
mod keeping;
mod mending;
mod parity;
mod reporting;
mod sources;
mod succession;

use batch::Digests;
use closed::ClosedStreams;
use discovery::CredentialBlock;
use following::Following;
pub use following::Path;
use held::HeldPackets;
pub use keeping::KeepLimits;
pub(crate) use reporting::REPORT_INTERVALS;
use reporting::Reporting;
use sources::Sources;

/// What a subscriber is made from.
#[derive(Debug)]
pub struct ReceiverConfig {
    pub member: MemberConfig,
    pub stream: StreamLimits,
    pub max_streams: usize,
    /// Sealed packets of epochs whose key is on its way.
    pub held_bytes: usize,
    /// Messages that the application has not taken yet.
    pub queue_bytes: u64,
    /// Where an earlier run of this subscriber stood ([`Receiver::positions`]): its streams go on from there.
    pub resume: Vec<(StreamId, u64)>,
    pub start: Start,
    pub path: Path,
}

impl ReceiverConfig {
    pub fn new(member: MemberConfig) -> Self {
        Self {
            member,
            stream: StreamLimits::default(),
            max_streams: 64,
            held_bytes: 4 << 20,
            queue_bytes: 64 << 20,
            resume: Vec::new(),
            start: Start::Now,
            path: Path::Multicast,
        }
    }
}

/// How a packet came: what is checked differs (DP-16), not what must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Multicast,
    Repair,
    /// In the place of multicast.
    Follow,
    /// Its signature was verified when it came; only its key was not there.
    Held,
}

pub struct Receiver {
    member: Member,
    limits: StreamLimits,
    start: Start,
    max_streams: usize,
    queue_limit: u64,
    streams: DigestMap<StreamId, Stream>,
    /// Streams that policy or CRL do not accept any more; one that is accepted again goes on where it stood.
    suspended: DigestMap<StreamId, Stream>,
    closed: ClosedStreams,
    /// Who continues a stream that runs, or that we let go of.
    successors: HashMap<StreamId, Claim>,
    credentials: BTreeMap<Hash, CredentialBlock>,
    held: HeldPackets,
    /// Of a repair node.
    store: Option<PacketStore>,
    sources: Sources,
    /// Of a subscriber without multicast.
    following: Option<Following>,
    reporting: Reporting,
    unknown_epoch: Budget,
    credential_budget: Budget,
    renewal_budget: Budget,
    counters: Counters,
    /// What the queued events that have been counted hold, and how many those are.
    queue_bytes: u64,
    accounted: usize,
    directory_known: bool,
    /// Credentials of streams we do not know that the budget left unheard.
    unheard_credentials: bool,
    judged: Time,
}

impl core::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Receiver({} streams)", self.streams.len())
    }
}

impl Receiver {
    pub fn new(mut config: ReceiverConfig, now: Time) -> Self {
        config.member.purpose = Purpose::Subscribe;
        let mut member = Member::new(config.member, now);
        member.wants_since_admission = config.start == Start::Oldest;
        let following = (config.path == Path::SideChannel).then(Following::default);
        if following.is_some() {
            member.follow_directory();
        }
        Self {
            member,
            limits: config.stream,
            start: config.start,
            max_streams: config.max_streams,
            queue_limit: config.queue_bytes,
            streams: DigestMap::default(),
            suspended: DigestMap::default(),
            closed: ClosedStreams::resumed(config.resume),
            successors: HashMap::new(),
            credentials: BTreeMap::new(),
            held: HeldPackets::new(config.held_bytes),
            store: None,
            sources: Sources::default(),
            following,
            reporting: Reporting::default(),
            unknown_epoch: Budget::new(10, 10),
            credential_budget: Budget::new(50, 50),
            renewal_budget: Budget::new(50, 50),
            counters: Counters::default(),
            queue_bytes: 0,
            accounted: 0,
            directory_known: false,
            unheard_credentials: false,
            judged: now,
        }
    }

    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Believes in other anchors from now on; running streams are judged by them at once (TR-21).
    pub fn set_trust(&mut self, anchors: Validator, now: Time) {
        self.member.set_trust(anchors, now);
        self.judge_streams(now);
    }

    pub fn member_mut(&mut self) -> &mut Member {
        &mut self.member
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values()
    }

    /// For a later run to resume at: the sequence of each stream below which everything has been delivered or reported, once
    /// all events have been taken. Not for unordered delivery, which runs ahead of it.
    pub fn positions(&self) -> impl Iterator<Item = (StreamId, u64)> {
        let running = self
            .streams
            .iter()
            .chain(&self.suspended)
            .filter(|(_, stream)| !stream.is_seeking())
            .map(|(&id, stream)| (id, stream.window.next()));
        running.chain(self.closed.iter())
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.account();
        let event = self.member.events.pop_front()?;
        self.accounted -= 1;
        self.queue_bytes -= queued_size(&event);
        Some(event)
    }

    /// Messages and events that wait to be taken.
    pub fn waiting(&self) -> usize {
        self.member.events.len()
    }

    /// The next message, unless something else is to be told before it.
    pub fn poll_message(&mut self) -> Option<Message> {
        match self.member.events.front() {
            Some(Event::Message(_)) => match self.poll_event() {
                Some(Event::Message(message)) => Some(message),
                _ => None,
            },
            _ => None,
        }
    }

    /// Counts what has been queued for the application since the last count.
    fn account(&mut self) {
        let new = self.member.events.iter().skip(self.accounted);
        self.queue_bytes += new.map(queued_size).sum::<u64>();
        self.accounted = self.member.events.len();
    }

    fn is_queue_full(&mut self) -> bool {
        self.account();
        self.queue_bytes >= self.queue_limit
    }

    /// Whether there is an event or a command to take.
    pub fn has_output(&self) -> bool {
        !self.member.events.is_empty() || !self.member.commands.is_empty() || self.has_fresh()
    }

    pub fn poll_command(&mut self) -> Option<crate::event::Command> {
        self.member.commands.pop_front()
    }

    // -- datagrams -----------------------------------------------------------------------------------------------------

    /// Takes a datagram from the group. Never fails: what is refused is counted.
    pub fn receive_datagram(&mut self, datagram: &[u8], now: Time) -> Option<Rejection> {
        self.receive(datagram, Via::Multicast, now)
    }

    fn receive(&mut self, datagram: &[u8], via: Via, now: Time) -> Option<Rejection> {
        self.take(datagram, PacketView::parse(datagram), None, via, now)
    }

    fn take(
        &mut self,
        datagram: &[u8],
        packet: Result<PacketView<'_>, ParseError>,
        digests: Option<Digests>,
        via: Via,
        now: Time,
    ) -> Option<Rejection> {
        let result = self.dispatch(datagram, packet, digests, via, now);
        self.account();
        match result {
            Ok(()) => {
                self.counters.accepted += 1;
                None
            }
            Err(reason) => {
                self.counters.count(reason);
                Some(reason)
            }
        }
    }

    fn dispatch(
        &mut self,
        datagram: &[u8],
        packet: Result<PacketView<'_>, ParseError>,
        digests: Option<Digests>,
        via: Via,
        now: Time,
    ) -> Result<(), Rejection> {
        let packet = packet.map_err(|error| match error {
            ParseError::Malformed => Rejection::Malformed,
            ParseError::UnknownType => Rejection::UnknownType,
        })?;
        let suite = self.member.suite().ok_or(Rejection::NotJoined)?;
        match packet.header.packet_type {
            PacketType::Data => self.receive_data(datagram, (&packet, digests), suite, via, now),
            PacketType::Heartbeat => {
                let is_final = self.receive_heartbeat(&packet, suite, via, now)?;
                self.keep_head((packet.header.stream, is_final), datagram, now);
                Ok(())
            }
            PacketType::Credential => self.receive_credential(&packet, suite, now),
            PacketType::Beacon => {
                self.member
                    .receive_beacon(datagram, now)
                    .map_err(|_| Rejection::Beacon)?;
                self.open_held(now);
                Ok(())
            }
            PacketType::Parity => self.receive_parity(&packet, suite, via, now),
            PacketType::Rekey | PacketType::Root => Err(Rejection::ReservedType),
        }
    }

    fn receive_data(
        &mut self,
        datagram: &[u8],
        (packet, digests): (&PacketView<'_>, Option<Digests>),
        suite: Suite,
        via: Via,
        now: Time,
    ) -> Result<(), Rejection> {
        let header = &packet.header;
        let sequence = header.sequence();
        let stream = self
            .streams
            .get_mut(&header.stream)
            .ok_or(Rejection::UnknownStream)?;
        if stream.window.is_below(sequence) {
            return Err(Rejection::BelowWindow);
        }
        let digests = digests.unwrap_or_else(|| Digests::of(packet, suite));
        let leaf = digests.leaf;
        let place = stream.window.place(sequence, &leaf);
        match place {
            Place::Below => return Err(Rejection::BelowWindow),
            Place::Duplicate => return Err(Rejection::Duplicate),
            Place::Conflict | Place::New | Place::Beyond => {}
        }
        let is_conflict = place == Place::Conflict || stream.end_before(sequence).is_some();
        if is_conflict && !stream.conflicts.has_one(now) {
            return Err(Rejection::SignatureBudget);
        }
        let (root, ahead) = self.authenticate(packet, suite, &digests, via, now)?;
        // From here on the publisher has vouched for the packet.
        let channel = *self.member.channel();
        let Some(stream) = self.streams.get_mut(&header.stream) else {
            return Err(Rejection::UnknownStream);
        };
        stream.hear(now);
        stream.arrived += u64::from(via == Via::Multicast);
        if is_conflict {
            stream.conflicts.take(now);
            let first = match stream.end_before(sequence) {
                Some(end) => Some(end.clone()),
                None => stream.evidence_for(sequence, Some((header.block, root))),
            };
            let second = evidence_of(suite, &channel, packet, &root);
            stream.report_conflict(sequence, first, second, &mut self.member.events);
            return Err(Rejection::Equivocation);
        }
        if self.store.is_none() && self.following.is_none() {
            stream.fec.keep(sequence, packet.covered);
        }
        if ahead {
            let Some(admitted) = self.member.admitted_mut() else {
                return Err(Rejection::NotJoined);
            };
            admitted.keyring.keep(header.epoch);
            self.held.push(header.stream, &leaf, datagram);
            self.member.want(Purposes::Keys, now);
            return Err(Rejection::UnknownEpoch);
        }
        let taken = self.take_data(packet, &leaf, Some((&root, datagram)), place, now);
        self.counters.repaired += u64::from(taken.is_ok() && via == Via::Repair);
        self.counters.followed += u64::from(taken.is_ok() && via == Via::Follow);
        self.mend(header.stream, sequence, now);
        taken
    }

    /// Takes a packet that the publisher has vouched for: by a root and as it was sent, or else by its parity.
    fn take_data(
        &mut self,
        packet: &PacketView<'_>,
        leaf: &Hash,
        sent: Option<(&Hash, &[u8])>,
        place: Place,
        now: Time,
    ) -> Result<(), Rejection> {
        let header = &packet.header;
        let sequence = header.sequence();
        let channel = *self.member.channel();
        let suite = self.member.suite().ok_or(Rejection::NotJoined)?;
        let stream = self
            .streams
            .get_mut(&header.stream)
            .ok_or(Rejection::UnknownStream)?;
        let Some(admitted) = self.member.admitted_mut() else {
            return Err(Rejection::NotJoined);
        };
        admitted.keyring.keep(header.epoch);
        let is_stale = is_stale(admitted, header);
        // It exists: unless it is taken here and now it is missing, whatever is said of it below.
        if place == Place::Beyond {
            stream.window.raise_head(sequence + 1, now);
            return Err(Rejection::BeyondWindow);
        }
        let before_admission = admitted.keyring.is_before_admission(header.epoch);
        if is_stale && !before_admission {
            // It bears this time for ever: no repair brings another one for its place.
            stream.accept_unreadable(header, leaf, now, &mut self.member.events);
            self.counters.lost += 1;
            return Err(Rejection::StaleGeneration);
        }
        if let Some((_, datagram)) = sent
            && self.keep(header, leaf, datagram, now)
        {
            return Ok(());
        }
        let (Some(stream), Some(admitted)) =
            (self.streams.get_mut(&header.stream), self.member.admitted_mut())
        else {
            return Err(Rejection::UnknownStream);
        };
        let is_current = admitted.keyring.is_current();
        let plaintext = match admitted.keyring.lookup(header.epoch) {
            Lookup::Held(keys) => {
                if !stream.has_room(sequence) || self.queue_bytes >= self.queue_limit {
                    stream.window.raise_head(sequence + 1, now);
                    return Err(Rejection::NoRoom);
                }
                let opened = match sent {
                    Some((root, _)) => stream.open(suite, &channel, keys, packet, root),
                    None => stream.open_rebuilt(suite, &channel, keys, packet),
                };
                match opened {
                    Some(plaintext) => Some(plaintext),
                    None => {
                        stream.accept_unreadable(header, leaf, now, &mut self.member.events);
                        self.counters.lost += 1;
                        return Err(Rejection::Open);
                    }
                }
            }
            // Only repair brings such packets so far: they are not for us and no loss (DP-34).
            _ if before_admission => {
                stream.was_before_admission(sequence);
                None
            }
            // Vouched for, of a generation that turned while we were out of reach, and no key of it comes any more.
            Lookup::NotOurs if is_current => {
                stream.accept_unreadable(header, leaf, now, &mut self.member.events);
                self.counters.lost += 1;
                return Err(Rejection::EpochNotOurs);
            }
            _ => {
                stream.window.raise_head(sequence + 1, now);
                return Err(Rejection::EpochNotOurs);
            }
        };
        stream.accept(header, leaf, plaintext, now, &mut self.member.events);
        Ok(())
    }

    /// Gate and signature, in that order, within the budgets. Gives the root, and whether the epoch is ahead of our keys.
    fn authenticate(
        &mut self,
        packet: &PacketView<'_>,
        suite: Suite,
        digests: &Digests,
        via: Via,
        now: Time,
    ) -> Result<(Hash, bool), Rejection> {
        let channel = *self.member.channel();
        let stream = self
            .streams
            .get_mut(&packet.header.stream)
            .ok_or(Rejection::UnknownStream)?;
        let admitted = self.member.admitted_mut().ok_or(Rejection::NotJoined)?;
        let ahead = match admitted.keyring.lookup(packet.header.epoch) {
            Lookup::Held(keys) => {
                let holds = || keys.gate.holds(packet.gated(&digests.leaf), packet.gate);
                if via == Via::Multicast && !digests.gate.unwrap_or_else(holds) {
                    return Err(Rejection::Gate);
                }
                false
            }
            Lookup::Ahead => true,
            // Over TLS it may be from before our admission, which only its signature can tell.
            Lookup::NotOurs if matches!(via, Via::Repair | Via::Follow) => false,
            Lookup::NotOurs => return Err(Rejection::EpochNotOurs),
        };
        let root = digests.root(packet, suite);
        if stream.knows_root(packet, &root) {
            return Ok((root, ahead));
        }
        if via == Via::Multicast {
            if ahead && !self.unknown_epoch.take(now) {
                return Err(Rejection::SignatureBudget);
            }
            if !stream.failed.has_one(now) {
                return Err(Rejection::SignatureBudget);
            }
        }
        self.counters.signatures += 1;
        if !stream.verify_block(suite, &channel, packet, &root) {
            if via == Via::Multicast {
                stream.failed.take(now);
            }
            return Err(Rejection::Signature);
        }
        Ok((root, ahead))
    }

    /// Whether it is the stream's last word.
    fn receive_heartbeat(
        &mut self,
        packet: &PacketView<'_>,
        suite: Suite,
        via: Via,
        now: Time,
    ) -> Result<bool, Rejection> {
        if packet.header.count != 1 {
            return Err(Rejection::Malformed);
        }
        let heartbeat = Heartbeat::parse(packet.body).ok_or(Rejection::Malformed)?;
        let stream = self
            .streams
            .get(&packet.header.stream)
            .ok_or(Rejection::UnknownStream)?;
        // One that says nothing new is not worth a signature check (DP-27).
        if stream.has_heard(&heartbeat) {
            return Err(Rejection::Duplicate);
        }
        let (root, _) = self.authenticate(packet, suite, &Digests::of(packet, suite), via, now)?;
        let channel = *self.member.channel();
        let stream = self
            .streams
            .get_mut(&packet.header.stream)
            .ok_or(Rejection::UnknownStream)?;
        stream.hear(now);
        let (evidence, is_final) = (evidence_of(suite, &channel, packet, &root), heartbeat.is_final);
        if !stream.take_heartbeat(heartbeat, evidence, now, &mut self.member.events) {
            return Err(Rejection::Equivocation);
        }
        self.heed_named_successor(packet.header.stream);
        self.counters.heartbeats += 1;
        Ok(is_final)
    }

    /// Takes the packets again whose key was on its way.
    fn open_held(&mut self, now: Time) {
        for datagram in self.held.take() {
            self.receive(&datagram, Via::Held, now);
        }
    }

    // -- answers -------------------------------------------------------------------------------------------------------

    /// Takes the answer to a command.
    pub fn handle_response(&mut self, id: u64, response: Response<'_>, now: Time) {
        match self.member.handle_response(id, response, now) {
            Outcome::Nothing => {}
            Outcome::Joined(entries) => {
                self.take_directory(&entries, now);
                self.judge_streams(now);
                self.open_held(now);
            }
            Outcome::Directory(entries) => self.take_directory(&entries, now),
            Outcome::TrustChanged => {
                self.judge_streams(now);
                // A stream that was refused before may be allowed now.
                self.member.want(Purposes::Directory, now);
            }
            Outcome::KeysChanged => {
                self.open_held(now);
                self.following
                    .iter_mut()
                    .for_each(|following| following.go_on(now));
            }
            Outcome::Other(Purposes::Repair(stream), response) => self.repair_came(stream, response, now),
            Outcome::Other(Purposes::Follow(stream), response) => self.follow_came(stream, response, now),
            Outcome::Other(Purposes::ReportLoss(stream), response) => self.report_came(stream, response, now),
            Outcome::Other(..) => {}
        }
        self.schedule_repairs(now);
        self.follow_streams(now);
    }

    // -- time ----------------------------------------------------------------------------------------------------------

    pub fn next_deadline(&self) -> Option<Time> {
        let repairs = self
            .streams
            .values()
            .filter_map(|stream| stream.schedule.deadline())
            .min();
        let retention = self.member.policy().map_or(0, |policy| policy.retention);
        // A full queue holds reports of losses back too; the application that drains it wakes us.
        let is_full = self.queue_bytes >= self.queue_limit;
        let overdue = self
            .streams
            .values()
            .filter_map(|stream| stream.give_up_at(retention).filter(|_| !is_full))
            .min();
        let follow = self.following.as_ref().and_then(Following::deadline);
        [
            self.member.next_deadline(),
            repairs,
            overdue,
            self.silence_due(),
            follow,
            self.reporting.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what has become due; to be called at or after [`Self::next_deadline`], and after each batch of datagrams.
    pub fn handle_deadline(&mut self, now: Time) {
        self.ask_about_silent(now);
        self.member.handle_deadline(now);
        if now.saturating_sub(self.judged) >= JUDGE_INTERVAL {
            self.judged = now;
            self.judge_expiry(now);
            if core::mem::take(&mut self.unheard_credentials) {
                // Somebody floods the channel with credentials; the directory tells of streams all the same.
                let jitter = self.member.jitter.below(JUDGE_INTERVAL / 4);
                self.member.want(Purposes::Directory, now + jitter);
            }
        }
        self.give_up_overdue(now);
        self.schedule_repairs(now);
        self.follow_streams(now);
        self.report_losses(now);
    }

    fn sorted_streams(&self) -> Vec<StreamId> {
        let mut ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// A digest of all state that a packet may change (invariant 1): equal before and after whatever was refused. Counters
    /// and budgets are no part of it, nor what they leave undone.
    pub fn fingerprint(&self) -> Hash {
        let mut into = Fingerprint::new();
        for streams in [&self.streams, &self.suspended] {
            let mut streams: Vec<&Stream> = streams.values().collect();
            streams.sort_by_key(|stream| stream.publisher.stream);
            into.number(streams.len() as u64);
            for stream in streams {
                stream.fingerprint(&mut into);
            }
        }
        self.closed.fingerprint(&mut into);
        let mut successors: Vec<_> = self.successors.iter().collect();
        successors.sort_unstable_by_key(|(predecessor, _)| **predecessor);
        into.number(successors.len() as u64);
        for (predecessor, claim) in successors {
            into.bytes(&predecessor.0).bytes(&claim.stream.0);
            into.bytes(claim.credential.as_deref().unwrap_or_default());
        }
        into.number(self.credentials.len() as u64);
        for (at, block) in &self.credentials {
            into.bytes(at).number(block.since);
            for (index, part) in &block.parts {
                into.number(*index).bytes(part);
            }
        }
        self.held.fingerprint(&mut into);
        self.member.fingerprint(&mut into);
        into.number(self.queue_bytes).number(self.directory_known);
        into.finish()
    }
}

/// Sealed under an older generation than the present one, later than a publisher may be late in learning of it.
fn is_stale(admitted: &Admitted, header: &Header) -> bool {
    admitted.keyring.announced().is_some_and(|(generation, _)| {
        let limit = admitted.policy.policy.publisher_limit;
        let until = admitted.generation_since.saturating_add(limit);
        header.epoch.generation < generation && header.time > until
    })
}

fn queued_size(event: &Event) -> u64 {
    // What a queued event costs besides a message's data.
    const BESIDES: u64 = 256;
    match event {
        Event::Message(message) => message.data.len() as u64 + BESIDES,
        _ => BESIDES,
    }
}
