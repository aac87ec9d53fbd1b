//! The subscriber's engine: datagrams and answers in; messages, gaps and requests out.
//!
//! The order of checks is DP-18; nothing but counters and budgets changes before a signature has held (invariant 1).
//! Spec: wire.md sections 5, 8, 9, 10.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::block::Hash;
use crate::budget::Budget;
use crate::credential::VerifiedCredential;
use crate::crypto::{Suite, sha256};
use crate::event::{Event, Evidence, Response, Source, Target};
use crate::keyring::Lookup;
use crate::member::{Member, MemberConfig, Outcome, Outgoing, Purpose, Purposes};
use crate::messages::{StreamEntry, parse_repair_reply, repair_request};
use crate::rejection::{Counters, Rejection};
use crate::stream::{Heartbeat, Stream, StreamLimits};
use crate::window::Place;
use crate::wire::{PacketType, PacketView, ParseError, StreamId, Time};

const SECOND: u64 = 1_000_000;
/// Most ranges and packets in one repair request (side-channel.md).
const MAX_RANGES: usize = 64;
const MAX_REPAIR_PACKETS: u64 = 1024;
/// How far a peer's clock may be ahead when its credential's life is judged.
const MAX_CREDENTIAL_PARTS: u8 = 8;
/// A repair answer with this many packets that fail is not read further: its peer is at fault.
const MAX_BAD_REPAIRS: usize = 3;

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
}

impl ReceiverConfig {
    pub fn new(member: MemberConfig) -> Self {
        Self {
            member,
            stream: StreamLimits::default(),
            max_streams: 64,
            held_bytes: 4 << 20,
            queue_bytes: 64 << 20,
        }
    }
}

/// How a packet came: what is checked differs (DP-16), not what must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Multicast,
    Repair,
}

/// A credential block of which parts are still missing.
struct CredentialBlock {
    parts: BTreeMap<u8, Vec<u8>>,
    since: Time,
}

pub struct Receiver {
    member: Member,
    limits: StreamLimits,
    max_streams: usize,
    held_limit: usize,
    queue_limit: u64,
    streams: HashMap<StreamId, Stream>,
    /// Where streams that we let go of stood, so that a replay does not start them again.
    closed: VecDeque<(StreamId, u64)>,
    successors: HashMap<StreamId, StreamId>,
    credentials: BTreeMap<Hash, CredentialBlock>,
    held: VecDeque<Vec<u8>>,
    held_bytes: usize,
    unknown_epoch: Budget,
    credential_budget: Budget,
    renewal_budget: Budget,
    counters: Counters,
    queue_bytes: u64,
    directory_known: bool,
}

impl core::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Receiver({} streams)", self.streams.len())
    }
}

const MAX_CLOSED: usize = 4096;
const MAX_CREDENTIAL_BLOCKS: usize = 16;

impl Receiver {
    pub fn new(mut config: ReceiverConfig, now: Time) -> Self {
        config.member.purpose = Purpose::Subscribe;
        Self {
            member: Member::new(config.member, now),
            limits: config.stream,
            max_streams: config.max_streams,
            held_limit: config.held_bytes,
            queue_limit: config.queue_bytes,
            streams: HashMap::new(),
            closed: VecDeque::new(),
            successors: HashMap::new(),
            credentials: BTreeMap::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            unknown_epoch: Budget::new(10, 10),
            credential_budget: Budget::new(50, 50),
            renewal_budget: Budget::new(50, 50),
            counters: Counters::default(),
            queue_bytes: 0,
            directory_known: false,
        }
    }

    pub fn member(&self) -> &Member {
        &self.member
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

    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.member.events.pop_front()?;
        if let Event::Message(message) = &event {
            self.queue_bytes = self.queue_bytes.saturating_sub(queued_size(message.data.len()));
        }
        Some(event)
    }

    /// Whether there is an event or a command to take.
    pub fn has_output(&self) -> bool {
        !self.member.events.is_empty() || !self.member.commands.is_empty()
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
        let queued = self.member.events.len();
        let result = self.dispatch(datagram, via, now);
        for event in self.member.events.iter().skip(queued) {
            if let Event::Message(message) = event {
                self.queue_bytes += queued_size(message.data.len());
            }
        }
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

    fn dispatch(&mut self, datagram: &[u8], via: Via, now: Time) -> Result<(), Rejection> {
        let packet = PacketView::parse(datagram).map_err(|error| match error {
            ParseError::Malformed => Rejection::Malformed,
            ParseError::UnknownType => Rejection::UnknownType,
        })?;
        let suite = self.member.suite().ok_or(Rejection::NotJoined)?;
        match packet.header.packet_type {
            PacketType::Data => self.receive_data(datagram, &packet, suite, via, now),
            PacketType::Heartbeat => self.receive_heartbeat(&packet, suite, via, now),
            PacketType::Credential => self.receive_credential(&packet, suite, now),
            PacketType::Beacon => {
                self.member
                    .receive_beacon(datagram, now)
                    .map_err(|_| Rejection::Beacon)?;
                self.open_held(now);
                Ok(())
            }
            PacketType::Parity | PacketType::Rekey | PacketType::Root => Err(Rejection::ReservedType),
        }
    }

    fn receive_data(
        &mut self,
        datagram: &[u8],
        packet: &PacketView<'_>,
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
        let leaf = packet.leaf_hash(suite);
        let place = stream.window.place(sequence, &leaf);
        match place {
            Place::Below => return Err(Rejection::BelowWindow),
            Place::Duplicate => return Err(Rejection::Duplicate),
            Place::Conflict if !stream.conflicts.has_one(now) => return Err(Rejection::SignatureBudget),
            Place::Conflict | Place::New | Place::Beyond => {}
        }
        let root = packet.claimed_root(suite, &leaf);
        let ahead = self.authenticate(packet, suite, &leaf, &root, via, now)?;
        // From here on the publisher has vouched for the packet.
        let channel = *self.member.channel();
        let Some(stream) = self.streams.get_mut(&header.stream) else {
            return Err(Rejection::UnknownStream);
        };
        stream.last_heard = now;
        if place == Place::Conflict {
            stream.conflicts.take(now);
            let first = stream.evidence_against(suite, &channel, sequence, packet, &root);
            let second = Evidence {
                statement: crate::block::signed_statement(suite, &channel, header, &root),
                signature: *packet.signature,
                index: header.index,
            };
            if let Some(first) = first {
                let publisher = stream.publisher.clone();
                self.member.events.push_back(Event::Equivocation {
                    publisher,
                    sequence,
                    first,
                    second,
                });
            }
            return Err(Rejection::Equivocation);
        }
        let Some(admitted) = self.member.admitted_mut() else {
            return Err(Rejection::NotJoined);
        };
        admitted.keyring.keep(header.epoch);
        if let Some((generation, _)) = admitted.keyring.announced() {
            let limit = admitted
                .generation_since
                .saturating_add(admitted.policy.policy.publisher_limit);
            if header.epoch.generation < generation && header.time > limit {
                return Err(Rejection::StaleGeneration);
            }
        }
        if ahead {
            self.hold(datagram);
            self.member.want(Purposes::Keys, now);
            return Err(Rejection::UnknownEpoch);
        }
        stream.window.raise_head(sequence + 1, now);
        if place == Place::Beyond {
            return Err(Rejection::BeyondWindow);
        }
        let before_admission = admitted.keyring.is_before_admission(header.epoch);
        let plaintext = match admitted.keyring.lookup(header.epoch) {
            Lookup::Held(keys) => {
                if !stream.has_room(sequence) || self.queue_bytes >= self.queue_limit {
                    return Err(Rejection::NoRoom);
                }
                match stream.open(suite, &channel, keys, packet, &root) {
                    Some(plaintext) => Some(plaintext),
                    None => {
                        let events = &mut self.member.events;
                        stream.accept(header, &leaf, None, now, events);
                        let publisher = stream.publisher.clone();
                        events.push_back(Event::Gap {
                            publisher,
                            first: sequence,
                            last: Some(sequence),
                        });
                        self.counters.lost += 1;
                        return Err(Rejection::Open);
                    }
                }
            }
            // Only repair brings such packets so far: they are not for us and no loss (DP-34).
            _ if before_admission => None,
            _ => return Err(Rejection::EpochNotOurs),
        };
        stream.accept(header, &leaf, plaintext, now, &mut self.member.events);
        if via == Via::Repair {
            self.counters.repaired += 1;
        }
        Ok(())
    }

    /// Gate and signature, in that order, within the budgets. True if the epoch is ahead of our keys.
    fn authenticate(
        &mut self,
        packet: &PacketView<'_>,
        suite: Suite,
        leaf: &Hash,
        root: &Hash,
        via: Via,
        now: Time,
    ) -> Result<bool, Rejection> {
        let channel = *self.member.channel();
        let stream = self
            .streams
            .get_mut(&packet.header.stream)
            .ok_or(Rejection::UnknownStream)?;
        let admitted = self.member.admitted_mut().ok_or(Rejection::NotJoined)?;
        let ahead = match admitted.keyring.lookup(packet.header.epoch) {
            Lookup::Held(keys) => {
                if via == Via::Multicast && !keys.gate.holds(leaf, packet.path, packet.signature, packet.gate)
                {
                    return Err(Rejection::Gate);
                }
                false
            }
            Lookup::Ahead => true,
            // By repair it may be from before our admission, which only its signature can tell.
            Lookup::NotOurs if via == Via::Repair => false,
            Lookup::NotOurs => return Err(Rejection::EpochNotOurs),
        };
        if stream.knows_root(packet, root) {
            return Ok(ahead);
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
        if !stream.verify_block(suite, &channel, packet, root) {
            if via == Via::Multicast {
                stream.failed.take(now);
            }
            return Err(Rejection::Signature);
        }
        Ok(ahead)
    }

    fn receive_heartbeat(
        &mut self,
        packet: &PacketView<'_>,
        suite: Suite,
        via: Via,
        now: Time,
    ) -> Result<(), Rejection> {
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
        let leaf = packet.leaf_hash(suite);
        let root = packet.claimed_root(suite, &leaf);
        self.authenticate(packet, suite, &leaf, &root, via, now)?;
        let stream = self
            .streams
            .get_mut(&packet.header.stream)
            .ok_or(Rejection::UnknownStream)?;
        stream.last_heard = now;
        stream.take_heartbeat(heartbeat, now, &mut self.member.events);
        self.counters.heartbeats += 1;
        Ok(())
    }

    // -- sealed packets whose key is on its way ------------------------------------------------------------------------

    fn hold(&mut self, datagram: &[u8]) {
        if self.held_bytes + datagram.len() <= self.held_limit {
            self.held_bytes += datagram.len();
            self.held.push_back(datagram.to_vec());
        }
    }

    fn open_held(&mut self, now: Time) {
        self.held_bytes = 0;
        for datagram in core::mem::take(&mut self.held) {
            self.receive(&datagram, Via::Multicast, now);
        }
    }

    // -- credentials and streams ---------------------------------------------------------------------------------------

    /// DP-30.
    fn receive_credential(
        &mut self,
        packet: &PacketView<'_>,
        suite: Suite,
        now: Time,
    ) -> Result<(), Rejection> {
        let header = packet.header;
        if header.count > MAX_CREDENTIAL_PARTS {
            return Err(Rejection::Malformed);
        }
        let leaf = packet.leaf_hash(suite);
        let channel = *self.member.channel();
        let admitted = self.member.admitted_mut().ok_or(Rejection::NotJoined)?;
        let Lookup::Held(keys) = admitted.keyring.lookup(header.epoch) else {
            return Err(Rejection::EpochNotOurs);
        };
        if !keys.gate.holds(&leaf, packet.path, packet.signature, packet.gate) {
            return Err(Rejection::Gate);
        }
        // Repetitions, genuine or recorded and sent again, must not keep new streams from being learned of.
        let is_known = self.streams.contains_key(&header.stream)
            || self.closed.iter().any(|(closed, _)| *closed == header.stream);
        let budget = if is_known {
            &mut self.renewal_budget
        } else {
            &mut self.credential_budget
        };
        if !budget.take(now) {
            return Err(Rejection::SignatureBudget);
        }
        let aad = crate::wire::associated_data(packet.header_bytes, &channel);
        let key = keys.credential_block_key(&header.stream, &header.block);
        let part = key.open(header.index, &aad, packet.body).ok_or(Rejection::Open)?;
        let root = packet.claimed_root(suite, &leaf);
        // A block is told apart by all that its signature covers, and the signature: a forged part spoils no genuine one.
        let statement = crate::block::signed_statement(suite, &channel, &header, &root);
        let at = sha256(&[&statement, packet.signature]);
        if !self.credentials.contains_key(&at) && self.credentials.len() >= MAX_CREDENTIAL_BLOCKS {
            let oldest = self
                .credentials
                .iter()
                .min_by_key(|(_, block)| block.since)
                .map(|(&at, _)| at);
            oldest.map(|at| self.credentials.remove(&at));
        }
        let entry = self.credentials.entry(at).or_insert_with(|| CredentialBlock {
            parts: BTreeMap::new(),
            since: now,
        });
        entry.parts.insert(header.index, part);
        if entry.parts.len() < usize::from(header.count) {
            return Ok(());
        }
        let bundle = entry.parts.values().flatten().copied().collect::<Vec<u8>>();
        self.credentials.remove(&at);
        if let Some(stream) = self.streams.get(&header.stream)
            && stream.credential.bundle == bundle
        {
            return Err(Rejection::Duplicate);
        }
        let verified = self
            .member
            .verify_stream(&bundle, now)
            .map_err(|_| Rejection::Credential)?;
        if verified.stream() != header.stream {
            return Err(Rejection::Credential);
        }
        self.counters.signatures += 1;
        if !verified.key.verifies(&statement, packet.signature) {
            return Err(Rejection::Signature);
        }
        // Not told at joining: it began after our admission, or what came before can't be opened by us (DP-34).
        self.admit(verified, 0, now);
        if !is_known {
            // Where to ask for repairs is in the directory.
            self.member.want(Purposes::Directory, now);
        }
        Ok(())
    }

    fn admit(&mut self, credential: VerifiedCredential, start: u64, now: Time) {
        let id = credential.stream();
        if let Some(stream) = self.streams.get_mut(&id) {
            // The device renewed its certificate, or the stream its term; key, device and place are the same.
            if credential.publisher == stream.publisher
                && credential.credential.not_after >= stream.credential.credential.not_after
            {
                stream.credential = credential;
            }
            return;
        }
        if self.streams.len() >= self.max_streams {
            let idle = self
                .streams
                .iter()
                .filter(|(_, s)| s.is_finished())
                .min_by_key(|(_, s)| s.last_heard);
            let Some((&idle, _)) = idle else { return };
            self.close(idle);
        }
        let start = self
            .closed
            .iter()
            .find(|(closed, _)| *closed == id)
            .map_or(start, |&(_, next)| next.max(start));
        let succeeds = credential.credential.succeeds;
        let publisher = credential.publisher.clone();
        self.streams
            .insert(id, Stream::new(credential, start, self.limits, now));
        if let Some(predecessor) = succeeds {
            match self.successors.get(&predecessor) {
                Some(&first) if first != id => {
                    self.member.events.push_back(Event::SuccessionConflict {
                        predecessor,
                        first,
                        second: id,
                    });
                }
                Some(_) => {}
                None => {
                    if let Some(old) = self.streams.get_mut(&predecessor)
                        && (old.publisher.site, &old.publisher.device, &old.publisher.instance)
                            == (publisher.site, &publisher.device, &publisher.instance)
                    {
                        self.successors.insert(predecessor, id);
                        old.succeeded(&mut self.member.events);
                    }
                }
            }
        }
        self.member
            .events
            .push_back(Event::StreamStarted { publisher, succeeds });
    }

    fn close(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(&id) {
            self.closed.push_back((id, stream.window.head()));
            self.successors.retain(|old, _| *old != id);
            if self.closed.len() > MAX_CLOSED {
                self.closed.pop_front();
            }
        }
    }

    /// Takes the directory: new streams begin at the head told (first time), known ones get their endpoints.
    fn take_directory(&mut self, entries: &[StreamEntry<'_>], now: Time) {
        let Some(suite) = self.member.suite() else { return };
        let channel = *self.member.channel();
        for entry in entries {
            let source = entry.endpoint.map(|(host, port)| Source {
                device: entry.device.to_owned(),
                host: host.to_owned(),
                port,
            });
            let is_known = self.streams.contains_key(&entry.stream);
            if self
                .streams
                .get(&entry.stream)
                .is_none_or(|stream| stream.credential.bundle != entry.bundle)
            {
                let Ok(verified) = self.member.verify_stream(entry.bundle, now) else {
                    continue;
                };
                if verified.stream() != entry.stream || verified.publisher.device != entry.device {
                    continue;
                }
                let head = entry
                    .head
                    .and_then(|head| verify_head(&verified, suite, &channel, head));
                let is_over = head.is_some_and(|head| head.is_final);
                if is_over && !is_known && !self.directory_known {
                    // It ended before we came.
                    continue;
                }
                let start = head
                    .filter(|_| !self.directory_known)
                    .map_or(0, |head| head.next_sequence);
                self.admit(verified, start, now);
            }
            if let (Some(stream), Some(source)) = (self.streams.get_mut(&entry.stream), source) {
                if stream.publisher.device == source.device {
                    stream.sources = vec![source];
                }
                let head = entry
                    .head
                    .and_then(|head| verify_head(&stream.credential, suite, &channel, head));
                if let Some(head) = head {
                    stream.take_heartbeat(head, now, &mut self.member.events);
                }
            }
        }
        self.directory_known = true;
    }

    /// Policy or CRL changed: every running stream is judged again.
    fn judge_streams(&mut self, now: Time) {
        let mut ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(stream) = self.streams.get(&id) else {
                continue;
            };
            if let Err(error) = self.member.verify_stream(&stream.credential.bundle, now) {
                let publisher = stream.publisher.clone();
                self.member.events.push_back(Event::StreamClosed {
                    publisher,
                    reason: format!("{error:?}"),
                });
                self.close(id);
            }
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
            Outcome::KeysChanged => self.open_held(now),
            Outcome::Other(Purposes::Repair(stream), response) => self.repair_came(stream, response, now),
            Outcome::Other(..) => {}
        }
        self.schedule_repairs(now);
    }

    fn repair_came(&mut self, id: StreamId, response: Response<'_>, now: Time) {
        let before = self.counters.repaired;
        let mut oldest = None;
        if let Response::Answer { status: 200, body } = response
            && let Ok(reply) = parse_repair_reply(body)
        {
            let mut bad = 0;
            for datagram in &reply.packets {
                let refused = self.receive(datagram, Via::Repair, now);
                bad += usize::from(matches!(
                    refused,
                    Some(Rejection::Malformed | Rejection::Signature)
                ));
                if bad > MAX_BAD_REPAIRS {
                    break;
                }
            }
            if let Some(head) = reply.head {
                self.receive(head, Via::Repair, now);
            }
            if bad == 0 {
                oldest = Some(reply.oldest);
            }
        }
        let mended = (self.counters.repaired - before) as usize;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.schedule.answered(mended, now, &mut self.member.jitter);
        // The source is the publisher itself: what it no longer holds will not come back.
        if let Some(oldest) = oldest {
            for (first, last) in stream.window.missing_below(oldest) {
                self.counters.lost += last - first + 1;
                stream.give_up(first, last, &mut self.member.events);
            }
        }
    }

    // -- time ----------------------------------------------------------------------------------------------------------

    pub fn next_deadline(&self) -> Option<Time> {
        let repairs = self
            .streams
            .values()
            .filter_map(|stream| stream.schedule.deadline())
            .min();
        let retention = self.member.policy().map_or(0, |policy| policy.retention);
        let overdue = self
            .streams
            .values()
            .filter_map(|stream| stream.window.missing_since())
            .min()
            .map(|t| t + retention + 1);
        [self.member.next_deadline(), repairs, overdue]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what has become due; to be called at or after [`Self::next_deadline`], and after each batch of datagrams.
    pub fn handle_deadline(&mut self, now: Time) {
        self.member.handle_deadline(now);
        self.give_up_overdue(now);
        self.schedule_repairs(now);
    }

    fn sorted_streams(&self) -> Vec<StreamId> {
        let mut ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    fn give_up_overdue(&mut self, now: Time) {
        let Some(retention) = self.member.policy().map(|policy| policy.retention) else {
            return;
        };
        let cutoff = now.saturating_sub(retention);
        for stream in self.streams.values_mut() {
            if stream.window.missing_since().is_none_or(|since| since >= cutoff) {
                continue;
            }
            for (first, last) in stream.window.overdue(cutoff) {
                self.counters.lost += last - first + 1;
                stream.give_up(first, last, &mut self.member.events);
            }
        }
    }

    fn schedule_repairs(&mut self, now: Time) {
        for id in self.sorted_streams() {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let Some(since) = stream.window.missing_since() else {
                stream.schedule.settled();
                continue;
            };
            stream
                .schedule
                .noticed(since.max(now.saturating_sub(SECOND)), &mut self.member.jitter);
            if !stream.schedule.is_due(now) || self.queue_bytes >= self.queue_limit {
                continue;
            }
            if stream.sources.is_empty() {
                stream.schedule.postponed(now, &mut self.member.jitter);
                self.member.want(Purposes::Directory, now);
                continue;
            }
            let by = stream.schedule.noticed_by(now);
            let ranges = stream.window.repairable(by, MAX_RANGES, MAX_REPAIR_PACKETS);
            if ranges.is_empty() {
                stream.schedule.postponed(now, &mut self.member.jitter);
                continue;
            }
            stream.schedule.requested();
            let (target, timeout) = (Target::Peers(stream.sources.clone()), stream.schedule.timeout());
            let body = repair_request(self.member.channel(), &id, &ranges);
            let path = "/v1/repair".to_owned();
            self.counters.requests += 1;
            let outgoing = Outgoing {
                target,
                method: "POST",
                path,
                body,
                timeout,
            };
            self.member.request(Purposes::Repair(id), outgoing, now);
        }
    }

    /// A digest of all state that a packet may change (invariant 1).
    pub fn fingerprint(&self) -> Hash {
        let mut bytes = Vec::new();
        for id in self.sorted_streams() {
            bytes.extend_from_slice(&id.0);
            bytes.extend_from_slice(&self.streams[&id].fingerprint());
        }
        let held = (self.held.len() as u64).to_be_bytes();
        let assembling = (self.credentials.len() as u64).to_be_bytes();
        sha256(&[
            &bytes,
            &held,
            &assembling,
            &(self.member.commands.len() as u64).to_be_bytes(),
        ])
    }
}

fn queued_size(data: usize) -> u64 {
    // What a queued message costs besides its data.
    data as u64 + 128
}

/// A head from the directory: a heartbeat datagram whose signature is the stream's. Its gate is of an epoch that may not be
/// ours; it came over TLS.
fn verify_head(
    credential: &VerifiedCredential,
    suite: Suite,
    channel: &crate::wire::ChannelId,
    datagram: &[u8],
) -> Option<Heartbeat> {
    let packet = PacketView::parse(datagram).ok()?;
    let header = packet.header;
    if header.packet_type != PacketType::Heartbeat
        || header.count != 1
        || header.stream != credential.stream()
    {
        return None;
    }
    let leaf = packet.leaf_hash(suite);
    let statement = crate::block::signed_statement(suite, channel, &header, &leaf);
    credential
        .key
        .verifies(&statement, packet.signature)
        .then(|| Heartbeat::parse(packet.body))?
}
