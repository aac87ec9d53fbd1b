//! How a subscriber learns of streams: credentials in-band, and the directory.
//!
//! Spec: wire.md sections 8 and 9; trust.md TR-14; side-channel.md SC-5.

use std::collections::BTreeMap;

use crate::credential::{CredentialError, VerifiedCredential};
use crate::crypto::{Suite, sha256};
use crate::event::{Event, Source};
use crate::keyring::Lookup;
use crate::member::Purposes;
use crate::messages::StreamEntry;
use crate::receiver::Receiver;
use crate::rejection::Rejection;
use crate::stream::{Heartbeat, Stream};
use crate::validator::InvalidChain;
use crate::wire::{MAX_SEQUENCE, PacketType, PacketView, StreamId, Time};

/// DP-29.
const MAX_CREDENTIAL_PARTS: u8 = 8;
const MAX_CREDENTIAL_BLOCKS: usize = 16;
/// Streams that we let go of and still know the place of.
const MAX_CLOSED: usize = 4096;
/// The place of a stream that has ended and been delivered to its end.
const ENDED: u64 = MAX_SEQUENCE;
/// A stream that lives says so every second (DP-28); after this it may give its place to another.
const SILENCE: u64 = 30 * SECOND;
/// A head in the directory is renewed every two seconds; an older one is of a publisher that had gone.
const FRESH_HEAD: u64 = 5 * SECOND;
const SECOND: u64 = 1_000_000;

/// A credential block of which parts are still missing.
pub(super) struct CredentialBlock {
    parts: BTreeMap<u8, Vec<u8>>,
    since: Time,
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
        if header.count > MAX_CREDENTIAL_PARTS {
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
        self.admit(verified, 0, now);
        self.find_successor(header.stream);
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
        if let Some(mut stream) = self.suspended.remove(&id)
            && credential.publisher == stream.publisher
        {
            // Accepted again, as after a renewal whose old certificate was revoked at once: it goes on where it stood.
            let (publisher, succeeds) = (stream.publisher.clone(), credential.credential.succeeds);
            stream.credential = credential;
            self.streams.insert(id, stream);
            self.member
                .events
                .push_back(Event::StreamStarted { publisher, succeeds });
            return;
        }
        if self.streams.len() + self.suspended.len() >= self.max_streams && !self.close_idle(now) {
            if !self.closed.iter().any(|(closed, _)| *closed == id) {
                let publisher = credential.publisher;
                let reason = "too many streams".to_owned();
                self.member
                    .events
                    .push_back(Event::StreamClosed { publisher, reason });
            }
            self.remember_closed(id, start);
            return;
        }
        // Where we stood in an earlier run, or when we let go of it, rather than where it stands now.
        let resumed = self.closed.iter().find(|(closed, _)| *closed == id);
        let start = resumed.map_or(start, |&(_, next)| next);
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
                    } else if let Some(mut old) = self.suspended.remove(&predecessor) {
                        // Nobody will speak for it any more: what it still owed is told.
                        self.counters.lost += old.abandon(&mut self.member.events);
                        self.remember_closed(predecessor, old.window.head());
                    }
                }
            }
        }
        self.member
            .events
            .push_back(Event::StreamStarted { publisher, succeeds });
    }

    /// A stream may be learned of after the one that succeeds it: its end is then as unknown as in the other order.
    fn find_successor(&mut self, id: StreamId) {
        if self.successors.contains_key(&id) {
            return;
        }
        let Some(old) = self.streams.get(&id) else { return };
        let continues = |stream: &&Stream| {
            let (one, other) = (&old.publisher, &stream.publisher);
            stream.credential.credential.succeeds == Some(id)
                && (one.site, &one.device, &one.instance) == (other.site, &other.device, &other.instance)
        };
        let successors = self.streams.values().filter(continues);
        let Some(first) = successors.map(|stream| stream.publisher.stream).min() else {
            return;
        };
        self.successors.insert(id, first);
        if let Some(old) = self.streams.get_mut(&id) {
            old.succeeded(&mut self.member.events);
        }
    }

    fn close(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(&id) {
            let next = if stream.is_finished() {
                ENDED
            } else {
                stream.window.next()
            };
            self.remember_closed(id, next);
            self.successors.retain(|old, _| *old != id);
        }
    }

    fn remember_closed(&mut self, id: StreamId, next: u64) {
        if let Some((_, known)) = self.closed.iter_mut().find(|(closed, _)| *closed == id) {
            *known = next.max(*known);
            return;
        }
        self.closed.push_back((id, next));
        if self.closed.len() > MAX_CLOSED {
            self.closed.pop_front();
        }
    }

    fn has_ended(&self, id: &StreamId) -> bool {
        self.closed.contains(&(*id, ENDED))
    }

    /// Makes room for another stream: one that is over, or that nobody has heard of for long. False if there is none.
    fn close_idle(&mut self, now: Time) -> bool {
        let unaccepted = self
            .suspended
            .iter()
            .min_by_key(|(id, stream)| (stream.last_heard, **id))
            .map(|(&id, _)| id);
        if let Some(id) = unaccepted
            && let Some(mut stream) = self.suspended.remove(&id)
        {
            self.counters.lost += stream.abandon(&mut self.member.events);
            self.remember_closed(id, stream.window.head());
            return true;
        }
        let is_idle = |stream: &Stream| {
            stream.is_finished()
                || (stream.is_succeeded() && !stream.window.has_missing())
                || now.saturating_sub(stream.last_heard) > SILENCE
        };
        let idle = self
            .streams
            .iter()
            .filter(|(_, stream)| is_idle(stream))
            .min_by_key(|(id, stream)| (!stream.is_finished(), stream.last_heard, **id))
            .map(|(&id, _)| id);
        let Some(id) = idle else { return false };
        if let Some(stream) = self.streams.get_mut(&id) {
            self.counters.lost += stream.abandon(&mut self.member.events);
        }
        self.close(id);
        true
    }

    /// Takes the directory: new streams begin at the head told (first time), known ones get their endpoints.
    pub(super) fn take_directory(&mut self, entries: &[StreamEntry<'_>], now: Time) {
        let Some(suite) = self.member.suite() else { return };
        let channel = *self.member.channel();
        for entry in entries {
            let source = entry.endpoint.map(|(host, port)| Source {
                device: entry.device.to_owned(),
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
                if verified.stream() != entry.stream || verified.publisher.device != entry.device {
                    continue;
                }
                let head = entry
                    .head
                    .and_then(|head| verify_head(&verified, suite, &channel, head));
                if let Some((head, _)) = head
                    && head.is_final
                    && !is_known
                    && !self.directory_known
                {
                    // It ended before we came; a replay of it must not start it again.
                    self.remember_closed(entry.stream, ENDED);
                    continue;
                }
                let start = head
                    .filter(|_| !self.directory_known)
                    .map_or(0, |(head, _)| head.next_sequence);
                self.admit(verified, start, now);
            }
            if let Some(stream) = self.streams.get_mut(&entry.stream) {
                if let Some(source) = source
                    && stream.publisher.device == source.device
                {
                    stream.sources = vec![source];
                }
                let head = entry
                    .head
                    .and_then(|head| verify_head(&stream.credential, suite, &channel, head));
                if let Some((head, told)) = head {
                    stream.take_heartbeat(head, now, &mut self.member.events);
                    if now.saturating_sub(told) < FRESH_HEAD {
                        stream.hear(stream.last_heard);
                    }
                }
                self.find_successor(entry.stream);
            }
        }
        self.directory_known = true;
    }

    /// Policy or CRL changed: every running stream is judged again.
    pub(super) fn judge_streams(&mut self, now: Time) {
        self.suspend_unless(now, |_| false);
    }

    /// Suspends streams whose certificate or credential has run out. Documents that are late stop no running stream: they
    /// may only be late because the authority is away.
    pub(super) fn judge_expiry(&mut self, now: Time) {
        self.suspend_unless(now, |error| {
            matches!(
                error,
                CredentialError::NotAllowed | CredentialError::Chain(InvalidChain::RevocationUnknown)
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
                self.remember_closed(id, stream.window.head());
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

/// A head from the directory: a heartbeat datagram whose signature is the stream's. Its gate is of an epoch that may not be
/// ours; it came over TLS.
fn verify_head(
    credential: &VerifiedCredential,
    suite: Suite,
    channel: &crate::wire::ChannelId,
    datagram: &[u8],
) -> Option<(Heartbeat, Time)> {
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
        .map(|heartbeat| (heartbeat, header.time))
}
