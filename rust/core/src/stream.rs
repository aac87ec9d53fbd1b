//! One stream as a subscriber sees it: verified blocks, window, order of delivery, end.
//!
//! Spec: wire.md sections 5, 7, 9 and 10.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::block::{Hash, signed_statement};
use crate::budget::Budget;
use crate::credential::{Publisher, VerifiedCredential};
use crate::crypto::{BlockKey, Secret, Suite};
pub use crate::delivery::Delivery;
use crate::digest_map::DigestMap;
use crate::event::{Event, Evidence, Message, Source};
use crate::fingerprint::Fingerprint;
use crate::frames::Frames;
use crate::groups::FecGroups;
pub use crate::heartbeat::{HEARTBEAT_BYTES, Heartbeat};
use crate::plaintexts::Plaintexts;
use crate::reassembly::{Abandoned, Complete, Reassembler};
use crate::repair::{RepairSchedule, RepairTiming};
use crate::schedule::{EpochKeys, block_key};
use crate::window::{MOMENT, Window};
use crate::wire::{
    BlockId, ChannelId, Epoch, Header, PacketType, PacketView, StreamId, Time, associated_data,
};

mod beginning;
mod copies;

pub use beginning::{Beginning, Start};
use copies::{Copies, Verdict};

const SECOND: u64 = 1_000_000;
/// A publisher sends a heartbeat a second (DP-28): this many in a row are not lost by chance.
const SILENCE: u64 = 5 * SECOND;
const SILENCE_MAX: u64 = 60 * SECOND;
/// Block keys kept set up; those of older blocks are derived again when a late packet needs one.
const BLOCK_KEYS: usize = 256;

/// Bounds of one stream (design invariant 10).
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    pub delivery: Delivery,
    /// Sequences beyond the first gap that are taken.
    pub window_packets: u64,
    /// Resolved sequences whose leaf is kept, to tell duplicates from equivocation.
    pub history_packets: u64,
    /// Plaintext that waits for a gap to be mended, and parts of messages, besides one message of the greatest length.
    pub buffer_bytes: u64,
    pub max_message_bytes: u64,
    pub max_partial_messages: usize,
    /// Verified blocks of data that are remembered: as many as the history has packets, so that both sides of an
    /// equivocation can be shown. About 250 bytes each.
    pub verified_blocks: usize,
    /// Failed signatures a second that a claimed stream may cause (DP-21).
    pub failed_signatures: u64,
    /// Verified packets and parity that are kept to mend losses, of a stream that has parity.
    pub fec_bytes: usize,
    pub repair: RepairTiming,
}

impl StreamLimits {
    /// What a stream holds of plaintext at most.
    fn max_bytes(&self) -> u64 {
        self.buffer_bytes.saturating_add(self.max_message_bytes)
    }
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            delivery: Delivery::Reliable,
            window_packets: 65_536,
            history_packets: 4_096,
            buffer_bytes: 64 << 20,
            max_message_bytes: 16 << 20,
            max_partial_messages: 64,
            verified_blocks: 4_096,
            failed_signatures: 200,
            fec_bytes: 2 << 20,
            repair: RepairTiming::default(),
        }
    }
}

struct VerifiedBlock {
    header: Header,
    signature: [u8; 64],
    key: Option<BlockKey>,
}

/// What a packet proves whose signature has been verified.
pub fn evidence_of(suite: Suite, channel: &ChannelId, packet: &PacketView<'_>, root: &Hash) -> Evidence {
    let is_heartbeat = packet.header.packet_type == PacketType::Heartbeat;
    Evidence {
        statement: signed_statement(suite, channel, &packet.header, root),
        signature: *packet.signature,
        index: packet.header.index,
        body: packet.body.iter().copied().filter(|_| is_heartbeat).collect(),
    }
}

pub struct Stream {
    pub publisher: Arc<Publisher>,
    pub credential: VerifiedCredential,
    pub window: Window,
    pub fec: FecGroups,
    pub schedule: RepairSchedule,
    pub sources: Vec<Source>,
    /// Failed signatures, and verified conflicts, each with a budget of its own.
    pub failed: Budget,
    pub conflicts: Budget,
    limits: StreamLimits,
    blocks: DigestMap<(BlockId, Hash), VerifiedBlock>,
    block_order: VecDeque<(BlockId, Hash)>,
    /// The blocks whose keys are set up, in that order.
    key_order: VecDeque<(BlockId, Hash)>,
    secrets: VecDeque<(Epoch, Secret)>,
    plaintexts: Plaintexts,
    reassembler: Reassembler,
    /// The head told at joining, while it is being found out where below it the stream begins for us.
    sought_below: Option<u64>,
    copies: Copies,
    /// Everything below has been handed to the reassembler or reported.
    delivered: u64,
    waiting: BTreeMap<u64, (Header, Bytes)>,
    waiting_bytes: u64,
    heartbeat: Option<Heartbeat>,
    /// The final heartbeat, for whoever speaks after it.
    end: Option<Evidence>,
    end_told: bool,
    is_succeeded: bool,
    pub last_heard: Time,
    /// Packets that have come by multicast.
    pub arrived: u64,
    /// Whether it has spoken since we know it.
    heard: bool,
    /// Not before this is the directory asked again about a silent publisher.
    ask_again: Time,
}

impl core::fmt::Debug for Stream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Stream({:?}, next {}, head {})",
            self.publisher.stream,
            self.window.next(),
            self.window.head()
        )
    }
}

impl Stream {
    pub fn new(credential: VerifiedCredential, begins: Beginning, limits: StreamLimits, now: Time) -> Self {
        let start = begins.sequence;
        Self {
            publisher: credential.publisher.clone(),
            credential,
            window: Window::new(start, limits.history_packets, limits.window_packets)
                .with_moment(limits.delivery.moment(MOMENT)),
            fec: FecGroups::new(limits.fec_bytes),
            schedule: RepairSchedule::new(limits.delivery.repair_timing(limits.repair)),
            sources: Vec::new(),
            failed: Budget::new(limits.failed_signatures, limits.failed_signatures),
            conflicts: Budget::new(1, 8),
            limits,
            blocks: DigestMap::default(),
            block_order: VecDeque::new(),
            key_order: VecDeque::new(),
            secrets: VecDeque::new(),
            plaintexts: Plaintexts::default(),
            reassembler: Reassembler::new(
                limits.max_message_bytes,
                limits.max_partial_messages,
                limits.max_bytes(),
                limits.delivery.is_in_order(),
                begins.is_midway,
            ),
            sought_below: begins.sought_below,
            copies: Copies::new(begins.wants_copies, begins.copies_below),
            delivered: start,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            heartbeat: None,
            end: None,
            end_told: false,
            is_succeeded: false,
            last_heard: now,
            arrived: 0,
            heard: false,
            ask_again: now,
        }
    }

    // -- whom to believe -----------------------------------------------------------------------------------------------

    /// DP-20: whether this root has been verified before, signature bytes and all.
    pub fn knows_root(&self, packet: &PacketView<'_>, root: &Hash) -> bool {
        self.blocks
            .get(&(packet.header.block, *root))
            .is_some_and(|known| {
                known.header
                    == Header {
                        index: 0,
                        ..packet.header
                    }
                    && known.signature == *packet.signature
            })
    }

    /// Checks the block signature and the credential's life; true makes the root known.
    #[must_use]
    pub fn verify_block(
        &mut self,
        suite: Suite,
        channel: &ChannelId,
        packet: &PacketView<'_>,
        root: &Hash,
    ) -> bool {
        if !self.is_in_force(packet.header.time) {
            return false;
        }
        let statement = signed_statement(suite, channel, &packet.header, root);
        if !self.credential.key.verifies(&statement, packet.signature) {
            return false;
        }
        if packet.header.packet_type == PacketType::Heartbeat {
            // A heartbeat stands alone, and is known again by its counter.
            return true;
        }
        let key = (packet.header.block, *root);
        let header = Header {
            index: 0,
            ..packet.header
        };
        let block = VerifiedBlock {
            header,
            signature: *packet.signature,
            key: None,
        };
        if self.blocks.insert(key, block).is_none() {
            self.block_order.push_back(key);
        }
        if self.block_order.len() > self.limits.verified_blocks
            && let Some(oldest) = self.block_order.pop_front()
        {
            self.blocks.remove(&oldest);
        }
        true
    }

    /// Whether the credential speaks for what was sealed then.
    pub fn is_in_force(&self, time: Time) -> bool {
        let granted = &self.credential.credential;
        (granted.not_before..=granted.not_after).contains(&time)
    }

    /// What the first, still known, block over `sequence` proves, `other` aside; for an equivocation report.
    pub fn evidence_for(&self, sequence: u64, other: Option<(BlockId, Hash)>) -> Option<Evidence> {
        let (&(_, root), block) = self.blocks.iter().find(|((id, root), block)| {
            Some((*id, *root)) != other
                && block.header.packet_type == PacketType::Data
                && (block.header.first_sequence..block.header.first_sequence + u64::from(block.header.count))
                    .contains(&sequence)
        })?;
        let granted = &self.credential.credential;
        Some(Evidence {
            statement: signed_statement(granted.suite, &granted.channel, &block.header, &root),
            signature: block.signature,
            index: (sequence - block.header.first_sequence) as u8,
            body: Vec::new(),
        })
    }

    /// Tells of a signed word that contradicts an earlier one.
    pub fn report_conflict(
        &self,
        sequence: u64,
        first: Option<Evidence>,
        second: Evidence,
        events: &mut VecDeque<Event>,
    ) {
        events.push_back(Event::Equivocation {
            publisher: self.publisher.clone(),
            sequence,
            first,
            second,
        });
    }

    /// Opens a packet of a known root. The block's key is derived at its first packet and kept with the root.
    pub fn open(
        &mut self,
        suite: Suite,
        channel: &ChannelId,
        keys: &EpochKeys,
        packet: &PacketView<'_>,
        root: &Hash,
    ) -> Option<Bytes> {
        let at = (packet.header.block, *root);
        if self.blocks.get(&at)?.key.is_none() {
            self.set_up_key(suite, keys, packet.header.epoch, at);
        }
        let key = self.blocks.get(&at)?.key.as_ref()?;
        let aad = associated_data(packet.header_bytes, channel);
        self.plaintexts.open(key, packet.header.index, &aad, packet.body)
    }

    /// Opens a packet that parity has told, whatever is known of its block.
    pub fn open_rebuilt(
        &mut self,
        suite: Suite,
        channel: &ChannelId,
        keys: &EpochKeys,
        packet: &PacketView<'_>,
    ) -> Option<Bytes> {
        let key = block_key(
            suite,
            self.secret(keys, packet.header.epoch)?,
            &packet.header.block,
        );
        let aad = associated_data(packet.header_bytes, channel);
        self.plaintexts.open(&key, packet.header.index, &aad, packet.body)
    }

    fn set_up_key(&mut self, suite: Suite, keys: &EpochKeys, epoch: Epoch, at: (BlockId, Hash)) {
        let Some(secret) = self.secret(keys, epoch) else {
            return;
        };
        let key = block_key(suite, secret, &at.0);
        if let Some(block) = self.blocks.get_mut(&at) {
            block.key = Some(key);
        }
        self.key_order.push_back(at);
        if self.key_order.len() > BLOCK_KEYS
            && let Some(oldest) = self.key_order.pop_front()
            && let Some(block) = self.blocks.get_mut(&oldest)
        {
            block.key = None;
        }
    }

    fn secret(&mut self, keys: &EpochKeys, epoch: Epoch) -> Option<&Secret> {
        if !self.secrets.iter().any(|(held, _)| *held == epoch) {
            let secret = keys.stream_secret(&self.publisher.stream)?;
            self.secrets.push_back((epoch, secret));
            if self.secrets.len() > 4 {
                self.secrets.pop_front();
            }
        }
        let held = self.secrets.iter().find(|(held, _)| *held == epoch);
        held.map(|(_, secret)| secret)
    }

    // -- taking packets ------------------------------------------------------------------------------------------------

    /// Whether there is room for one more out-of-order packet; the next one in order always has room.
    pub fn has_room(&self, sequence: u64) -> bool {
        sequence == self.window.next() || self.buffered_bytes() < self.limits.max_bytes()
    }

    /// Takes an opened packet; `None` is one that was sealed before our admission, or that cannot be read.
    pub fn accept(
        &mut self,
        header: &Header,
        leaf: &Hash,
        plaintext: Option<Bytes>,
        now: Time,
        events: &mut VecDeque<Event>,
    ) {
        let sequence = header.sequence();
        self.window.receive(sequence, leaf, now);
        if let Some(plaintext) = plaintext {
            if !self.limits.delivery.is_in_order() || sequence == self.delivered {
                self.deliver(header, &plaintext, events);
            } else {
                self.waiting_bytes += plaintext.len() as u64;
                self.waiting.insert(sequence, (*header, plaintext));
            }
        }
        self.drain(events);
    }

    /// Takes a packet that was vouched for and that nothing will ever open: its place is resolved, and told as lost.
    pub fn accept_unreadable(
        &mut self,
        header: &Header,
        leaf: &Hash,
        now: Time,
        events: &mut VecDeque<Event>,
    ) {
        self.accept(header, leaf, None, now, events);
        let sequence = header.sequence();
        events.push_back(Event::Gap {
            publisher: self.publisher.clone(),
            first: sequence,
            last: Some(sequence),
        });
    }

    /// Delivers what has become contiguous.
    fn drain(&mut self, events: &mut VecDeque<Event>) {
        let next = self.window.next();
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() >= next {
                break;
            }
            let (header, plaintext) = entry.remove();
            self.waiting_bytes -= plaintext.len() as u64;
            self.deliver(&header, &plaintext, events);
        }
        self.delivered = self.delivered.max(next);
        self.tell_end(events);
    }

    fn deliver(&mut self, header: &Header, plaintext: &Bytes, events: &mut VecDeque<Event>) {
        let sequence = header.sequence();
        for frame in Frames::new(plaintext) {
            let Ok(frame) = frame else {
                // The publisher signed nonsense: what stood there is lost, and told.
                events.push_back(Event::Gap {
                    publisher: self.publisher.clone(),
                    first: sequence,
                    last: Some(sequence),
                });
                return;
            };
            match self.reassembler.accept(&frame, plaintext) {
                Ok(Some(whole)) if !self.is_for_us(&whole, events) => {}
                Ok(Some(whole)) => events.push_back(Event::Message(Message {
                    publisher: self.publisher.clone(),
                    sequence,
                    message_id: whole.message_id,
                    epoch: header.epoch,
                    time: header.time,
                    topic: whole.topic,
                    origin: whole.origin,
                    data: whole.data,
                })),
                Ok(None) => {}
                Err((message_id, reason)) => self.message_lost(message_id, reason, events),
            }
        }
    }

    /// Whether a message is to be delivered; of copies only those whose original did not come to us (DP-45).
    fn is_for_us(&mut self, whole: &Complete, events: &mut VecDeque<Event>) -> bool {
        let Some(origin) = &whole.origin else {
            return true;
        };
        let stream = self.publisher.stream;
        match self.copies.judge(stream, origin, whole.topic.as_deref()) {
            Verdict::Deliver => true,
            Verdict::PassOver => false,
            Verdict::Foreign => {
                events.push_back(Event::MessageLost {
                    publisher: self.publisher.clone(),
                    message_id: whole.message_id,
                    reason: "a last value of a stream that this one does not continue",
                });
                false
            }
        }
    }

    fn message_lost(&self, message_id: u64, reason: Abandoned, events: &mut VecDeque<Event>) {
        let reason = match reason {
            Abandoned::TooLong => "longer than this subscriber takes",
            Abandoned::Inconsistent => "its parts contradict each other",
            Abandoned::Evicted => "its missing parts were lost",
        };
        events.push_back(Event::MessageLost {
            publisher: self.publisher.clone(),
            message_id,
            reason,
        });
    }

    /// When what is missing longest is given up, where publishers hold packets for `retention`.
    pub fn give_up_at(&self, retention: u64) -> Option<Time> {
        let patience = self.limits.delivery.patience(retention);
        let since = self.window.missing_since()?;
        Some(since.saturating_add(patience).saturating_add(1))
    }

    /// What is missing for longer than it is waited for (DP-33, DP-43): first and last sequence, the lowest first.
    pub fn overdue(&self, retention: u64, now: Time) -> Vec<(u64, u64)> {
        let patience = self.limits.delivery.patience(retention);
        self.window.overdue(now.saturating_sub(patience))
    }

    /// Gives up `first..=last` and reports it, in its place in the order.
    pub fn give_up(&mut self, first: u64, last: u64, events: &mut VecDeque<Event>) {
        let told = Event::Gap {
            publisher: self.publisher.clone(),
            first,
            last: Some(last),
        };
        // What stands before the gap is delivered before it is told.
        self.window.give_up(first, last + 1);
        let before = self.waiting.range(..first).next().is_some();
        if before {
            self.drain_below(first, events);
        }
        events.push_back(told);
        self.drain(events);
    }

    fn drain_below(&mut self, limit: u64, events: &mut VecDeque<Event>) {
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() >= limit.min(self.window.next()) {
                break;
            }
            let (header, plaintext) = entry.remove();
            self.waiting_bytes -= plaintext.len() as u64;
            self.deliver(&header, &plaintext, events);
        }
    }

    // -- heads and ends ------------------------------------------------------------------------------------------------

    /// Whether a heartbeat is no newer than the last verified one, or comes after the final one (DP-27).
    pub fn has_heard(&self, heartbeat: &Heartbeat) -> bool {
        self.heartbeat
            .is_some_and(|last| last.is_final || heartbeat.counter <= last.counter)
    }

    /// Takes a verified heartbeat; an older one than the last is ignored (DP-27). False if it ends the stream before what has
    /// been vouched for: the first word stands.
    pub fn take_heartbeat(
        &mut self,
        heartbeat: Heartbeat,
        evidence: Evidence,
        now: Time,
        events: &mut VecDeque<Event>,
    ) -> bool {
        if self.has_heard(&heartbeat) {
            return true;
        }
        if heartbeat.is_final {
            let head = self.window.head();
            if heartbeat.next_sequence < head {
                if self.conflicts.take(now) {
                    let first = self.evidence_for(head - 1, None);
                    self.report_conflict(head - 1, first, evidence, events);
                }
                return false;
            }
            self.end = Some(evidence);
        }
        self.window.raise_head(heartbeat.next_sequence, now);
        self.heartbeat = Some(heartbeat);
        self.tell_end(events);
        true
    }

    /// The final heartbeat, if it ends the stream at or before `sequence`.
    pub fn end_before(&self, sequence: u64) -> Option<&Evidence> {
        let end = self.heartbeat.filter(|heartbeat| heartbeat.is_final)?;
        self.end.as_ref().filter(|_| sequence >= end.next_sequence)
    }

    /// Whom the signed end of the stream names as its successor.
    pub fn named_successor(&self) -> Option<StreamId> {
        self.heartbeat
            .filter(|heartbeat| heartbeat.is_final)
            .and_then(|heartbeat| heartbeat.successor)
    }

    fn tell_end(&mut self, events: &mut VecDeque<Event>) {
        let Some(end) = self.heartbeat.filter(|heartbeat| heartbeat.is_final) else {
            return;
        };
        if self.end_told || self.window.has_missing() || self.window.next() < end.next_sequence {
            return;
        }
        self.end_told = true;
        for message_id in self.reassembler.abandon_all() {
            self.message_lost(message_id, Abandoned::Evicted, events);
        }
        events.push_back(Event::StreamEnded {
            publisher: self.publisher.clone(),
            next_sequence: end.next_sequence,
            successor: end.successor,
        });
    }

    /// Nothing of the stream that this one continues was ever delivered to us: its last values are new.
    pub fn take_copies_of(&mut self, predecessor: StreamId) {
        self.copies.set_predecessor(predecessor);
    }

    /// It has spoken, or spoke just before we came.
    pub fn hear(&mut self, now: Time) {
        self.last_heard = now;
        self.heard = true;
    }

    /// The stream goes on in another one: without a signed end, what it still had to say is a gap of unknown end.
    pub fn succeeded(&mut self, events: &mut VecDeque<Event>) {
        self.is_succeeded = true;
        // One that was over before we came owes us nothing.
        if self.heard && !self.heartbeat.is_some_and(|heartbeat| heartbeat.is_final) {
            events.push_back(Event::Gap {
                publisher: self.publisher.clone(),
                first: self.window.head(),
                last: None,
            });
        }
    }

    /// Plaintext that waits for a gap to be mended or for the rest of its message.
    pub fn buffered_bytes(&self) -> u64 {
        self.waiting_bytes + self.reassembler.buffered_bytes()
    }

    pub fn is_succeeded(&self) -> bool {
        self.is_succeeded
    }

    /// Gives up whatever is missing, and says that more may have been; returns how many sequences that were.
    pub fn abandon(&mut self, events: &mut VecDeque<Event>) -> u64 {
        self.give_up_seeking(events);
        let mut lost = 0;
        for (first, last) in self.window.missing_below(self.window.head()) {
            lost += last - first + 1;
            self.give_up(first, last, events);
        }
        if !self.end_told && !self.is_succeeded {
            self.succeeded(events);
        }
        lost
    }

    pub fn is_finished(&self) -> bool {
        self.end_told
    }

    /// When the directory is to be asked what became of a publisher that is not heard.
    pub fn silence_due(&self) -> Time {
        self.ask_again.max(self.last_heard.saturating_add(SILENCE))
    }

    /// The next time is later the longer the silence has lasted.
    pub fn asked_about_silence(&mut self, now: Time) {
        let silent = now.saturating_sub(self.last_heard);
        self.ask_again = now.saturating_add(silent.clamp(SILENCE, SILENCE_MAX));
    }

    /// All state that a packet may change; budgets aside, and what can be derived again.
    pub fn fingerprint(&self, into: &mut Fingerprint) {
        into.bytes(&self.publisher.stream.0)
            .bytes(&self.credential.bundle);
        self.window.fingerprint(into);
        self.fec.fingerprint(into);
        self.schedule.fingerprint(into);
        into.number(self.sources.len() as u64);
        for source in &self.sources {
            into.bytes(&source.site.0)
                .bytes(source.device.as_bytes())
                .bytes(source.host.as_bytes())
                .number(source.port);
        }
        into.number(self.blocks.len() as u64);
        for at @ (id, root) in &self.block_order {
            into.bytes(&id.0).bytes(root);
            if let Some(block) = self.blocks.get(at) {
                into.bytes(&block.header.to_bytes())
                    .bytes(&block.signature)
                    .number(block.key.is_some());
            }
        }
        into.number(self.key_order.len() as u64);
        into.number(self.secrets.len() as u64);
        for (epoch, _) in &self.secrets {
            into.bytes(&epoch.to_bytes());
        }
        self.reassembler.fingerprint(into);
        into.optional(self.sought_below);
        self.copies.fingerprint(into);
        into.number(self.delivered).number(self.waiting.len() as u64);
        for (sequence, (header, plaintext)) in &self.waiting {
            into.number(*sequence)
                .number(header.time)
                .bytes(&header.epoch.to_bytes())
                .bytes(plaintext);
        }
        if let Some(heartbeat) = &self.heartbeat {
            into.bytes(&heartbeat.encode());
        }
        for told in [self.end.is_some(), self.end_told, self.is_succeeded, self.heard] {
            into.number(told);
        }
        into.number(self.last_heard).number(self.ask_again);
    }
}
