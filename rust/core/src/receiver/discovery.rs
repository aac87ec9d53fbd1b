//! How a subscriber learns of streams: credentials in-band, and the directory.
//!
//! Spec: wire.md sections 8 and 9; trust.md TR-14; side-channel.md SC-5.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::credential::{CredentialError, MAX_PARTS, Publisher, VerifiedCredential};
use crate::crypto::{Suite, sha256};
use crate::event::{Event, Evidence, Source};
use crate::keyring::Lookup;
use crate::member::{Purpose, Purposes};
use crate::messages::Directory;
use crate::policy::parse_member;
use crate::receiver::Receiver;
use crate::receiver::closed::ENDED;
use crate::rejection::Rejection;
use crate::stream::{Beginning, Heartbeat, Stream, evidence_of};
use crate::validator::InvalidChain;
use crate::wire::{PacketType, PacketView, SiteId, StreamId, Time};

const MAX_CREDENTIAL_BLOCKS: usize = 16;
/// A stream that lives says so every second (DP-28); after this it may give its place to another.
const SILENCE: u64 = 30 * SECOND;
/// A head in the directory is renewed every two seconds; an older one is of a publisher that had gone.
const FRESH_HEAD: u64 = 5 * SECOND;
const SECOND: u64 = 1_000_000;

/// A credential block of which parts are still missing.
pub(super) struct CredentialBlock {
    pub(super) parts: BTreeMap<u8, Vec<u8>>,
    pub(super) since: Time,
}

/// A heartbeat from the directory whose signature is the stream's.
struct Head {
    heartbeat: Heartbeat,
    time: Time,
    evidence: Evidence,
}

impl Receiver {
    /// DP-30.
    pub(super) fn receive_credential(
        &mut self,
        packet: &PacketView<'_>,
        suite: Suite,
        now: Time,
    ) -> Result<(), Rejection> {
        let header = packet.header;
        if header.count > MAX_PARTS {
            return Err(Rejection::Malformed);
        }
        if self.has_ended(&header.stream) {
            return Err(Rejection::Duplicate);
        }
        let leaf = packet.leaf_hash(suite);
        let channel = *self.member.channel();
        let admitted = self.member.admitted_mut().ok_or(Rejection::NotJoined)?;
        let Lookup::Held(keys) = admitted.keyring.lookup(header.epoch) else {
            return Err(Rejection::EpochNotOurs);
        };
        if !keys.gate.holds(packet.gated(&leaf), packet.gate) {
            return Err(Rejection::Gate);
        }
        // Repetitions, genuine or recorded and sent again, must not keep new streams from being learned of.
        let is_known =
            self.streams.contains_key(&header.stream) || self.closed.next(&header.stream).is_some();
        let budget = if is_known {
            &mut self.renewal_budget
        } else {
            &mut self.credential_budget
        };
        if !budget.take(now) {
            self.unheard_credentials |= !is_known;
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
        self.admit(verified, Beginning::at(0), now);
        self.find_successor(header.stream);
        if !is_known {
            // Where to ask for repairs is in the directory.
            self.member.want(Purposes::Directory, now);
        }
        Ok(())
    }

    fn admit(&mut self, credential: VerifiedCredential, begins: Beginning, now: Time) {
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
        if let Some(mut stream) = self.suspended.remove(&id)
            && credential.publisher == stream.publisher
        {
            // Accepted again, as after a renewal whose old certificate was revoked at once: it goes on where it stood.
            let publisher = stream.publisher.clone();
            let succeeds = self.settle_succession(&credential);
            stream.credential = credential;
            self.streams.insert(id, stream);
            self.member
                .events
                .push_back(Event::StreamStarted { publisher, succeeds });
            return;
        }
        if !self.make_room(&credential.publisher, now) {
            if self.closed.next(&id).is_none() {
                let publisher = credential.publisher.clone();
                let reason = "too many streams".to_owned();
                self.member
                    .events
                    .push_back(Event::StreamClosed { publisher, reason });
            }
            self.remember_closed(id, begins.owed_from(), &credential.publisher);
            return;
        }
        // Where we stood in an earlier run, or when we let go of it, rather than where it stands now.
        let begins = self.closed.next(&id).map_or(begins, Beginning::at);
        let succeeds = self.settle_succession(&credential);
        let publisher = credential.publisher.clone();
        let unknown = credential.credential.succeeds.filter(|before| {
            !self.streams.contains_key(before)
                && !self.suspended.contains_key(before)
                && self.closed.next(before).is_none()
        });
        let mut stream = Stream::new(credential, begins, self.limits, now);
        if let Some(before) = unknown {
            stream.take_copies_of(before);
        }
        self.streams.insert(id, stream);
        self.member
            .events
            .push_back(Event::StreamStarted { publisher, succeeds });
    }

    fn close(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(&id) {
            let next = if stream.is_finished() {
                ENDED
            } else {
                stream.window.next()
            };
            self.remember_closed(id, next, &stream.publisher);
        }
    }

    pub(super) fn remember_closed(&mut self, id: StreamId, next: u64, publisher: &Arc<Publisher>) {
        self.let_successor_go(&id);
        if let Some(forgotten) = self.closed.remember(id, next, publisher) {
            self.successors.remove(&forgotten);
        }
    }

    fn has_ended(&self, id: &StreamId) -> bool {
        self.closed.next(id) == Some(ENDED)
    }

    /// Makes room for another stream where there is none. One that is over gives its place; else a silent one of the same
    /// device, or of a device that holds more places; else any of a device that holds many. False if nobody has to.
    fn make_room(&mut self, newcomer: &Publisher, now: Time) -> bool {
        if self.streams.len() + self.suspended.len() < self.max_streams {
            return true;
        }
        let mut places: HashMap<(SiteId, &str), usize> = HashMap::new();
        let all = || self.streams.values().chain(self.suspended.values());
        for stream in all() {
            *places.entry(device_of(&stream.publisher)).or_default() += 1;
        }
        let own = places.get(&device_of(newcomer)).copied().unwrap_or(0);
        let rank = |stream: &Stream| {
            let id = stream.publisher.stream;
            let theirs = places[&device_of(&stream.publisher)];
            let is_own = device_of(&stream.publisher) == device_of(newcomer);
            let is_over = stream.is_finished() || (stream.is_succeeded() && !stream.window.has_missing());
            let is_silent =
                self.suspended.contains_key(&id) || now.saturating_sub(stream.last_heard) > SILENCE;
            let order = match () {
                () if stream.is_finished() => 0,
                () if is_over => 1,
                () if is_silent && is_own => 2,
                () if is_silent && theirs > own => 3,
                // Nobody's many streams keep others out.
                () if theirs > own + 1 => 4,
                () => return None,
            };
            Some((order, self.max_streams - theirs, stream.last_heard, id))
        };
        let Some((order, _, _, id)) = all().filter_map(rank).min() else {
            return false;
        };
        if let Some(mut stream) = self.suspended.remove(&id) {
            self.counters.lost += stream.abandon(&mut self.member.events);
            self.remember_closed(id, stream.window.head(), &stream.publisher);
            return true;
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            if order == 4 {
                let reason = "too many streams of its device".to_owned();
                let publisher = stream.publisher.clone();
                self.member
                    .events
                    .push_back(Event::StreamClosed { publisher, reason });
            }
            self.counters.lost += stream.abandon(&mut self.member.events);
        }
        self.close(id);
        true
    }

    /// Takes the directory: new streams begin at the head told (first time), known ones get their endpoints.
    pub(super) fn take_directory(&mut self, directory: &Directory<'_>, now: Time) {
        let Some(suite) = self.member.suite() else { return };
        let channel = *self.member.channel();
        self.take_repair_nodes(directory, now);
        for entry in &directory.streams {
            let Some((site, device)) = parse_member(&self.member.config.site, entry.device) else {
                continue;
            };
            // SC-50: one that does not listen asks the repair nodes itself.
            let outbound = (self.member.config.purpose == Purpose::Repair).then_some(("", 0));
            let source = entry.endpoint.or(outbound).map(|(host, port)| Source {
                site,
                device: device.to_owned(),
                host: host.to_owned(),
                port,
            });
            let is_known = self.streams.contains_key(&entry.stream);
            if self.has_ended(&entry.stream) {
                continue;
            }
            if self
                .streams
                .get(&entry.stream)
                .is_none_or(|stream| stream.credential.bundle != entry.bundle)
            {
                let Ok(verified) = self.member.verify_stream(entry.bundle, now) else {
                    continue;
                };
                if verified.stream() != entry.stream || device_of(&verified.publisher) != (site, device) {
                    continue;
                }
                let head = entry
                    .head
                    .and_then(|head| verify_head(&verified, suite, &channel, head));
                if let Some(head) = &head
                    && head.heartbeat.is_final
                    && !is_known
                    && !self.directory_known
                {
                    // It ended before we came; a replay of it must not start it again.
                    self.remember_closed(entry.stream, ENDED, &verified.publisher);
                    continue;
                }
                let begins = head
                    .filter(|_| !self.directory_known)
                    .map_or(Beginning::at(0), |head| {
                        Beginning::joining(self.start, head.heartbeat.next_sequence)
                    });
                self.admit(verified, begins, now);
            }
            if let Some(stream) = self.streams.get_mut(&entry.stream) {
                if let Some(source) = source
                    && device_of(&stream.publisher) == (site, device)
                {
                    stream.sources = vec![source];
                }
                let head = entry
                    .head
                    .and_then(|head| verify_head(&stream.credential, suite, &channel, head));
                if let Some(head) = head {
                    let events = &mut self.member.events;
                    stream.take_heartbeat(head.heartbeat, head.evidence, now, events);
                    if self.member.date(now).saturating_sub(head.time) < FRESH_HEAD {
                        stream.hear(stream.last_heard);
                    }
                }
                self.heed_named_successor(entry.stream);
                self.find_successor(entry.stream);
            }
        }
        self.directory_known = true;
    }

    /// Whoever is no subscriber by the policy is asked for nothing.
    fn take_repair_nodes(&mut self, directory: &Directory<'_>, now: Time) {
        let member = &self.member;
        let nodes = directory.repair_nodes.iter().filter_map(|node| {
            let (site, device) = parse_member(&member.config.site, node.device)?;
            let is_listed = member
                .policy()
                .is_some_and(|policy| policy.may_subscribe(&site, device));
            (is_listed && !member.is_self(node.device)).then(|| Source {
                site,
                device: device.to_owned(),
                host: node.host.to_owned(),
                port: node.port,
            })
        });
        let nodes = nodes.collect();
        self.sources.set_nodes(nodes, now);
    }

    /// Policy or CRL changed: every running stream is judged again. A list that is late, as one of another site that is away,
    /// stops none that runs.
    pub(super) fn judge_streams(&mut self, now: Time) {
        self.suspend_unless(now, |error| {
            matches!(error, CredentialError::Chain(InvalidChain::RevocationStale))
        });
    }

    /// Suspends streams whose certificate or credential has run out. Documents that are late stop no running stream: they
    /// may only be late because the authority is away.
    pub(super) fn judge_expiry(&mut self, now: Time) {
        self.suspend_unless(now, |error| {
            matches!(
                error,
                CredentialError::NotAllowed
                    | CredentialError::Chain(InvalidChain::RevocationUnknown | InvalidChain::RevocationStale)
            )
        });
    }

    fn suspend_unless(&mut self, now: Time, is_forgiven: impl Fn(&CredentialError) -> bool) {
        for id in self.sorted_streams() {
            let Some(stream) = self.streams.get(&id) else {
                continue;
            };
            let error = match self.member.verify_stream(&stream.credential.bundle, now) {
                Err(error) if !is_forgiven(&error) => error,
                _ => continue,
            };
            let publisher = stream.publisher.clone();
            self.member.events.push_back(Event::StreamClosed {
                publisher,
                reason: error.to_string(),
            });
            let Some(mut stream) = self.streams.remove(&id) else {
                continue;
            };
            if stream.is_succeeded() {
                // No new credential will come for it: what it still owed is told.
                self.counters.lost += stream.abandon(&mut self.member.events);
                self.remember_closed(id, stream.window.head(), &stream.publisher);
            } else {
                self.suspended.insert(id, stream);
            }
        }
    }

    /// When a stream will have been silent for too long.
    pub(super) fn silence_due(&self) -> Option<Time> {
        let running = self
            .streams
            .values()
            .filter(|stream| !stream.is_finished() && !stream.is_succeeded());
        running.map(Stream::silence_due).min()
    }

    /// A publisher that lives is heard every second (DP-28). Of one that is not, the directory may know the end: a loss that
    /// nobody told must not stay unnoticed.
    pub(super) fn ask_about_silent(&mut self, now: Time) {
        let mut is_wanted = false;
        for stream in self.streams.values_mut() {
            if !stream.is_finished() && !stream.is_succeeded() && stream.silence_due() <= now {
                stream.asked_about_silence(now);
                is_wanted = true;
            }
        }
        if is_wanted {
            self.member.want(Purposes::Directory, now);
        }
    }
}

/// Places are shared out by device.
fn device_of(publisher: &Publisher) -> (SiteId, &str) {
    (publisher.site, &publisher.device)
}

/// A head from the directory: a heartbeat datagram whose signature is the stream's. Its gate is of an epoch that may not be
/// ours; it came over TLS.
fn verify_head(
    credential: &VerifiedCredential,
    suite: Suite,
    channel: &crate::wire::ChannelId,
    datagram: &[u8],
) -> Option<Head> {
    let packet = PacketView::parse(datagram).ok()?;
    let header = packet.header;
    if header.packet_type != PacketType::Heartbeat
        || header.count != 1
        || header.stream != credential.stream()
    {
        return None;
    }
    let leaf = packet.leaf_hash(suite);
    let evidence = evidence_of(suite, channel, &packet, &leaf);
    if !credential.key.verifies(&evidence.statement, packet.signature) {
        return None;
    }
    Some(Head {
        heartbeat: Heartbeat::parse(packet.body)?,
        time: header.time,
        evidence,
    })
}
