//! The publisher's engine: messages in; sealed datagrams, heartbeats, credentials and requests out.
//!
//! Spec: wire.md DP-13, sections 6 to 9; keys.md KM-11.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::crypto::{Secret, Suite};
use crate::event::{Event, Response};
use crate::fec::Fec;
use crate::frames::MAX_TOPIC_BYTES;
use crate::member::{Member, MemberConfig, Outcome, Purpose, Purposes};
use crate::retention::{Datagram, Retention};
use crate::sealer::Sealer;
use crate::wire::{Epoch, IP_UDP_BYTES, MAX_COUNT, MAX_SEQUENCE, OVERHEAD_BYTES, StreamId, Time};

const SECOND: u64 = 1_000_000;
/// The first heartbeat after the last packet (DP-28).
const HEARTBEAT_FIRST: u64 = SECOND / 20;
const DIRECTORY_INTERVAL: u64 = 2 * SECOND;
/// What every IPv4 path carries; less would leave no room for frames.
const MIN_MTU: usize = 576;
/// The longest fields of a message frame besides its topic, and some data.
const FRAME_ROOM: usize = 72;
const FINAL_HEARTBEATS: u32 = 5;
const FEC_DELAY: u64 = SECOND / 10;

mod announcing;
mod last_values;
mod outbound;
mod parity;
mod queue;
mod reports;
mod sealing;

pub use announcing::UnfitCredential;
use last_values::LastValues;
pub use last_values::RetainLimits;
use outbound::Outbound;
use parity::ParityMaker;
pub use queue::{LARGE_BYTES, gather};
use queue::{Queue, Queued};
use reports::LossReports;

/// What a publisher is made from.
#[derive(Debug)]
pub struct SenderConfig {
    pub member: MemberConfig,
    /// The seed of the stream key; 32 fresh random bytes (DP-2).
    pub seed: Secret,
    pub start_nonce: [u8; 16],
    /// One of several publishers of a device on a channel; may be empty.
    pub instance: String,
    /// Bytes of the path's MTU, at least 576; IPv6 and UDP headers are taken off it.
    pub mtu: usize,
    /// Packets in a block at most, 1 to 64.
    pub max_block: u8,
    pub max_message_bytes: u64,
    /// Messages that wait for sealing, up to [`LARGE_BYTES`] long; as many of longer ones may wait beside them.
    pub queue_bytes: u64,
    /// `None`: what the channel's policy says.
    pub fec: Option<Fec>,
    /// Microseconds from a packet to the parity of its group, at most.
    pub fec_delay: u64,
    /// Last values that are kept and sealed again for newcomers, who get them from before their admission by that.
    pub retain: RetainLimits,
    /// Whether less is sent where many lose much (DP-46).
    pub adaptive_rate: bool,
}

impl SenderConfig {
    pub fn new(member: MemberConfig, seed: Secret, start_nonce: [u8; 16]) -> Self {
        Self {
            member,
            seed,
            start_nonce,
            instance: String::new(),
            mtu: 1500,
            max_block: MAX_COUNT,
            max_message_bytes: 16 << 20,
            queue_bytes: 64 << 20,
            fec: None,
            fec_delay: FEC_DELAY,
            retain: RetainLimits::default(),
            adaptive_rate: true,
        }
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    TooLong {
        limit: u64,
    },
    TopicTooLong {
        limit: usize,
    },
    /// Come back when the queue has drained.
    QueueFull,
    Ended,
    /// The stream has no number left for it; what was taken before still goes out (DP-47).
    Exhausted,
}

struct Certified {
    bundle: Vec<u8>,
    not_after: Time,
}

/// What a publisher has counted since its start.
#[derive(Clone, Debug, Default)]
pub struct SenderCounters {
    pub messages: u64,
    /// Of these, dropped before they were sealed, or cut.
    pub abandoned: u64,
    pub packets: u64,
    /// Of these, parity.
    pub parity: u64,
    pub blocks: u64,
    /// Bytes of all datagrams.
    pub bytes: u64,
    pub repairs_served: u64,
}

pub struct Sender {
    member: Member,
    seed: Secret,
    sealer: Option<Sealer>,
    public_key: [u8; 32],
    stream: StreamId,
    start_nonce: [u8; 16],
    instance: String,
    mtu: usize,
    payload_limit: usize,
    max_block: u8,
    max_message_bytes: u64,
    /// Parity is what the policy says.
    follows_fec: bool,
    queue: Queue,
    last_values: LastValues,
    next_message: u64,
    next_sequence: u64,
    retention: Option<Retention>,
    parity: ParityMaker,
    reports: LossReports,
    certified: Option<Certified>,
    credential_due: Option<Time>,
    credentials_sent: usize,
    heartbeat_counter: u64,
    heartbeat_due: Option<Time>,
    heartbeat_interval: u64,
    head: Option<Datagram>,
    end: Option<(Option<StreamId>, u32)>,
    endpoint: Option<(String, u16)>,
    outbound: Option<Outbound>,
    directory_due: Option<Time>,
    registered: bool,
    predecessor: Option<StreamId>,
    transmit: VecDeque<Datagram>,
    last_epoch: Option<Epoch>,
    last_sealed: Option<Time>,
    last_time: Time,
    blocked: Option<&'static str>,
    /// Somebody waits for more to be retained, and whether there is more since.
    is_awaited: bool,
    is_fresh: bool,
    counters: SenderCounters,
}

impl core::fmt::Debug for Sender {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Sender({:?}, next {})", self.stream, self.next_sequence)
    }
}

/// DP-6: fixed per stream, from the join on; until then it is the lowest that it may come to.
fn payload_limit(mtu: usize, parity: &ParityMaker) -> usize {
    mtu - (IP_UDP_BYTES + OVERHEAD_BYTES + parity.payload_bytes())
}

impl Sender {
    pub fn new(mut config: SenderConfig, now: Time) -> Self {
        config.member.purpose = Purpose::Publish;
        let member = Member::new(config.member, now);
        // The stream id does not depend on the suite, which only the policy tells.
        let probe = Sealer::new(&config.seed, Suite::Aes256Gcm, *member.channel());
        let parity = ParityMaker::new(config.fec, config.fec_delay);
        let mtu = config.mtu.max(MIN_MTU);
        Self {
            public_key: *probe.public_key(),
            stream: probe.stream(),
            member,
            seed: config.seed,
            sealer: None,
            start_nonce: config.start_nonce,
            instance: config.instance,
            mtu,
            payload_limit: payload_limit(mtu, &parity),
            max_block: config.max_block.clamp(1, MAX_COUNT),
            max_message_bytes: config.max_message_bytes,
            follows_fec: config.fec.is_none(),
            queue: Queue::new(config.queue_bytes, config.retain.topics > 0),
            last_values: LastValues::new(config.retain),
            next_message: 0,
            next_sequence: 0,
            retention: None,
            parity,
            reports: LossReports::new(config.adaptive_rate),
            certified: None,
            credential_due: None,
            credentials_sent: 0,
            heartbeat_counter: 0,
            heartbeat_due: None,
            heartbeat_interval: HEARTBEAT_FIRST,
            head: None,
            end: None,
            endpoint: None,
            outbound: None,
            directory_due: None,
            registered: false,
            predecessor: None,
            transmit: VecDeque::new(),
            last_epoch: None,
            last_sealed: None,
            last_time: 0,
            blocked: None,
            is_awaited: false,
            is_fresh: false,
            counters: SenderCounters::default(),
        }
    }

    pub fn member(&self) -> &Member {
        &self.member
    }

    pub fn member_mut(&mut self) -> &mut Member {
        &mut self.member
    }

    pub fn stream(&self) -> StreamId {
        self.stream
    }

    pub fn counters(&self) -> &SenderCounters {
        &self.counters
    }

    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Of the path: the largest packet with its headers of IP and UDP.
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    pub fn payload_limit(&self) -> usize {
        self.payload_limit
    }

    /// The numbers of the first packet and message, before the join: for tests of what happens where numbers end.
    #[doc(hidden)]
    pub fn begin_at(&mut self, sequence: u64, message_id: u64) {
        (self.next_sequence, self.next_message) = (sequence, message_id);
    }

    pub fn queued_bytes(&self) -> u64 {
        self.queue.bytes()
    }

    /// Bytes of messages of one kind, up to [`LARGE_BYTES`] long or longer, that may wait before [`SendError::QueueFull`].
    pub fn queue_limit(&self) -> u64 {
        self.queue.limit()
    }

    /// Whether a message of this length would be taken.
    pub fn has_room(&self, length: u64) -> bool {
        self.queue.has_room(length)
    }

    /// How many more bytes of messages up to [`LARGE_BYTES`] long may wait.
    pub fn room(&self) -> u64 {
        self.queue.limit().saturating_sub(self.queue.small_bytes())
    }

    /// Whether the directory has our entry, so that who joins from now on is told of us.
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// The stream that the directory says this device and instance published last.
    pub fn predecessor(&self) -> Option<StreamId> {
        self.predecessor
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.member.events.pop_front()
    }

    /// Whether there is an event or a command to take.
    pub fn has_output(&self) -> bool {
        !self.member.events.is_empty() || !self.member.commands.is_empty() || self.is_fresh
    }

    pub fn poll_command(&mut self) -> Option<crate::event::Command> {
        self.member.commands.pop_front()
    }

    /// The parity of the packets that come.
    pub fn fec(&self) -> Fec {
        self.parity.fec()
    }

    /// Where repair requests reach us.
    pub fn set_endpoint(&mut self, host: String, port: u16) {
        self.endpoint = Some((host, port));
    }

    fn follow_fec(&mut self) {
        if self.follows_fec
            && let Some(policy) = self.member.policy()
        {
            self.parity.go_on_with(policy.fec);
        }
    }

    // -- messages ------------------------------------------------------------------------------------------------------

    /// Queues a message; it is sealed with the next block. Returns its id.
    pub fn send(&mut self, topic: Option<&str>, data: impl Into<Bytes>) -> Result<u64, SendError> {
        self.enqueue(topic.map(Arc::from), data.into())
    }

    /// Queues messages of one topic until the queue is full; returns how many were taken. An error is of the first one.
    pub fn send_many(
        &mut self,
        topic: Option<&str>,
        messages: impl IntoIterator<Item = Bytes>,
    ) -> Result<usize, SendError> {
        let topic: Option<Arc<str>> = topic.map(Arc::from);
        let mut taken = 0;
        for data in messages {
            match self.enqueue(topic.clone(), data) {
                Ok(_) => taken += 1,
                Err(error) if taken == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    pub fn max_message_bytes(&self) -> u64 {
        self.max_message_bytes
    }

    fn enqueue(&mut self, topic: Option<Arc<str>>, data: Bytes) -> Result<u64, SendError> {
        if self.end.is_some() {
            return Err(SendError::Ended);
        }
        if data.len() as u64 > self.max_message_bytes {
            return Err(SendError::TooLong {
                limit: self.max_message_bytes,
            });
        }
        // A topic stands in one packet, with its frame's fields and some of the data.
        let topic_limit = MAX_TOPIC_BYTES.min(self.payload_limit - FRAME_ROOM);
        if topic.as_ref().is_some_and(|topic| topic.len() > topic_limit) {
            return Err(SendError::TopicTooLong { limit: topic_limit });
        }
        if !self.has_numbers_for(data.len() as u64) {
            return Err(SendError::Exhausted);
        }
        if !self.queue.has_room(data.len() as u64) {
            return Err(SendError::QueueFull);
        }
        let message_id = self.next_message;
        self.next_message += 1;
        self.queue.push(Queued {
            message_id,
            topic,
            origin: None,
            data,
            sent: 0,
        });
        self.counters.messages += 1;
        Ok(message_id)
    }

    /// DP-47: whether sequences suffice for what is queued and one more message, and message ids for that.
    fn has_numbers_for(&self, length: u64) -> bool {
        let packets = self.queue.packets_with(length, self.payload_limit);
        self.next_message < MAX_SEQUENCE && packets <= MAX_SEQUENCE - self.next_sequence
    }

    /// The next datagram to send to the group.
    pub fn poll_transmit(&mut self) -> Option<Datagram> {
        self.transmit.pop_front()
    }

    pub fn has_transmit(&self) -> bool {
        !self.transmit.is_empty()
    }

    /// The stream's latest signed heartbeat.
    pub fn head(&self) -> Option<&Datagram> {
        self.head.as_ref()
    }

    // -- repair --------------------------------------------------------------------------------------------------------

    /// What is still held of `ranges` (first, last included), and the oldest sequence held (SC-8).
    pub fn repair(&mut self, ranges: &[(u64, u64)], now: Time) -> (Vec<Datagram>, u64) {
        let Some(retention) = &mut self.retention else {
            return (Vec::new(), 0);
        };
        retention.expire(now);
        let packets = retention.answer(ranges);
        self.counters.repairs_served += packets.len() as u64;
        (packets, retention.oldest())
    }

    /// One above the highest sequence that is retained, and whether the end has been said.
    pub fn reach(&self) -> (u64, bool) {
        (self.next_sequence, self.end.is_some_and(|(_, told)| told > 0))
    }

    /// Have it told when there is more to serve ([`Self::take_fresh`]).
    pub fn await_fresh(&mut self) {
        self.is_awaited = true;
    }

    /// Whether more has been sealed, or the end been said, since that was awaited; whether it `goes_on` to be awaited.
    pub fn take_fresh(&mut self, goes_on: bool) -> bool {
        self.is_awaited = goes_on;
        core::mem::take(&mut self.is_fresh)
    }

    // -- end -----------------------------------------------------------------------------------------------------------

    /// Ends the stream when all that is queued has been sealed: signs the final sequence and the successor (DP-26).
    pub fn finish(&mut self, successor: Option<StreamId>, now: Time) {
        if self.end.is_none() {
            self.end = Some((successor, 0));
            self.heartbeat_due = Some(now);
            if self.queue.is_empty() {
                self.parity.close();
            }
        }
    }

    /// Whether the end has been said often enough.
    pub fn is_finished(&self) -> bool {
        self.end.is_some_and(|(_, told)| told >= FINAL_HEARTBEATS) && self.transmit.is_empty()
    }

    // -- answers and time ----------------------------------------------------------------------------------------------

    /// Takes the answer to a command.
    pub fn handle_response(&mut self, id: u64, response: Response<'_>, now: Time) {
        match self.member.handle_response(id, response, now) {
            Outcome::Directory(directory) => self.take_nodes(&directory, now),
            Outcome::Joined(directory) => {
                self.take_nodes(&directory, now);
                // The directory lists the latest last.
                let own = directory.streams.iter().rev().find(|entry| {
                    self.member.is_self(entry.device)
                        && entry.instance == self.instance
                        && entry.stream != self.stream
                });
                self.predecessor = self.predecessor.or(own.map(|entry| entry.stream));
                if self.retention.is_none()
                    && let Some(policy) = self.member.policy()
                {
                    self.retention = Some(Retention::new(
                        self.next_sequence,
                        policy.retention_bytes,
                        policy.retention,
                    ));
                    if self.follows_fec {
                        self.parity.begin_with(policy.fec);
                        self.payload_limit = payload_limit(self.mtu, &self.parity);
                    }
                }
                self.follow_fec();
            }
            Outcome::TrustChanged => {
                if let (Some(retention), Some(policy)) = (&mut self.retention, self.member.policy()) {
                    retention.set_bounds(policy.retention_bytes, policy.retention, now);
                }
                self.follow_fec();
            }
            Outcome::KeysChanged if self.certified.is_some() => {
                // A membership that turned is followed at once, also by a silent publisher.
                self.heartbeat_due = Some(now);
            }
            Outcome::Other(Purposes::PutStream, response) => {
                let taken = matches!(response, Response::Answer { status: 200, .. });
                self.registered |= taken;
                let wait = if taken { DIRECTORY_INTERVAL } else { SECOND / 2 };
                self.directory_due = Some(now + wait);
            }
            Outcome::Other(Purposes::Wanted(place), response) => self.node_answered(place, response, now),
            _ => {}
        }
    }

    pub fn next_deadline(&self) -> Option<Time> {
        let always = [
            self.member.next_deadline(),
            self.parity.deadline(),
            self.reports.deadline(),
        ];
        // Nothing is said before a credential vouches for it.
        let certified = self.certified.as_ref().map_or([None; 5], |_| {
            [
                self.credential_due,
                self.heartbeat_due,
                self.directory_due,
                self.last_values.deadline(),
                self.outbound.as_ref().and_then(Outbound::deadline),
            ]
        });
        always.into_iter().chain(certified).flatten().min()
    }

    /// Does what has become due. `randomness` are fresh bytes of the operating system, for the two blocks that this may seal.
    pub fn handle_deadline(&mut self, now: Time, randomness: [[u8; 16]; 2]) {
        let [for_credential, for_heartbeat] = randomness;
        self.member.handle_deadline(now);
        if let Some(retention) = &mut self.retention {
            retention.expire(now);
        }
        self.parity.close_due(now);
        self.look_at_reports(now);
        if self.certified.is_none() {
            return;
        }
        if self.last_values.deadline().is_some_and(|at| at <= now) {
            self.send_last_values(now);
        }
        if self.credential_due.is_some_and(|at| at <= now) {
            self.send_credential(now, for_credential);
        }
        if self.heartbeat_due.is_some_and(|at| at <= now) {
            self.send_heartbeat(now, for_heartbeat);
        }
        if self.directory_due.is_some_and(|at| at <= now) {
            self.put_stream(now);
        }
        self.ask_nodes(now);
    }
}
