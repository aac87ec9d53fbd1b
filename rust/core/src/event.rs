//! What comes out of the engine: facts for the application, requests for the side channel.

use std::sync::Arc;

use bytes::Bytes;

use crate::credential::Publisher;
use crate::frames::Origin;
use crate::wire::{Epoch, SiteId, StreamId, Time};

/// A verified message (DP-25), with who sent it and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub publisher: Arc<Publisher>,
    /// Sequence of the packet that completed it.
    pub sequence: u64,
    pub message_id: u64,
    pub epoch: Epoch,
    /// Time of sealing.
    pub time: Time,
    pub topic: Option<String>,
    pub origin: Option<Origin>,
    /// A part of the packet that it came in, as a rule.
    pub data: Bytes,
}

/// One side of an equivocation: enough to prove to a third party what the stream key signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The signed statement with its context (DP-10).
    pub statement: Vec<u8>,
    pub signature: [u8; 64],
    /// Place of the contested packet in the statement's block.
    pub index: u8,
    /// The clear body of a heartbeat, whose hash with the header is the statement's root; of data nothing.
    pub body: Vec<u8>,
}

/// Who claims to continue a stream, and by what: the credential bundle (TR-12), signed by the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub stream: StreamId,
    /// None of one that is only named by the end of its predecessor, or that was let go of long ago.
    pub credential: Option<Vec<u8>>,
}

/// A fact. What was lost is always told (invariant 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key server took us in.
    Joined {
        epoch: Epoch,
    },
    Message(Message),
    /// Sequences `first..=last` are lost; `last` is `None` when a predecessor ended without a word.
    Gap {
        publisher: Arc<Publisher>,
        first: u64,
        last: Option<u64>,
    },
    /// A message that will not be delivered though its packets came or were reported.
    MessageLost {
        publisher: Arc<Publisher>,
        message_id: u64,
        reason: &'static str,
    },
    StreamStarted {
        publisher: Arc<Publisher>,
        succeeds: Option<StreamId>,
    },
    StreamEnded {
        publisher: Arc<Publisher>,
        next_sequence: u64,
        successor: Option<StreamId>,
    },
    /// A running stream is no longer accepted.
    StreamClosed {
        publisher: Arc<Publisher>,
        reason: String,
    },
    /// Two signed words for one sequence: two packets, or a packet and an end of the stream before it. The first stands.
    Equivocation {
        publisher: Arc<Publisher>,
        sequence: u64,
        /// None if the first block is so long ago that only the hash of its packet is left.
        first: Option<Evidence>,
        second: Evidence,
    },
    /// A second successor of one stream; the first stands, which is the one that the predecessor's end names, if it does.
    SuccessionConflict {
        predecessor: StreamId,
        first: Claim,
        second: Claim,
    },
    /// The membership or slot that packets are sealed under, or announced, has changed.
    EpochChanged {
        epoch: Epoch,
    },
    /// A secret is not what the key server signed for: nothing is opened under it.
    CommitmentMismatch {
        detail: String,
    },
    PolicyChanged {
        version: u64,
    },
    /// The key server refuses us; the reason is its own word.
    Refused {
        reason: String,
    },
    /// No verified word of the key server since then: removals and new policies may be unknown here.
    OutOfContact {
        since: Time,
    },
    /// Somebody who should hold packets did not give them, and another source was asked.
    SourcePassedOver {
        source: Source,
        reason: &'static str,
    },
    /// A device tells by way of a repair node what it has of files (SC-48, SC-50): the body of its report.
    FileReport {
        device: String,
        report: Vec<u8>,
    },
    /// A publisher cannot seal just now (no key for the slot, no credential, no contact).
    Blocked {
        reason: &'static str,
    },
}

/// A peer that may hold packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The site and the device name that must be proven in TLS.
    pub site: SiteId,
    pub device: String,
    pub host: String,
    pub port: u16,
}

/// Whom a request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    KeyServer,
    /// In order: the next one is tried when one does not answer.
    Peers(Vec<Source>),
}

/// A request on the side channel. The host sends it and gives the answer, or the failure, back with `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub id: u64,
    pub target: Target,
    pub method: &'static str,
    pub path: String,
    pub body: Vec<u8>,
    /// Microseconds after which the host gives up.
    pub timeout: u64,
}

/// What became of a command.
#[derive(Clone, Copy, Debug)]
pub enum Response<'a> {
    Answer {
        status: u16,
        body: &'a [u8],
    },
    /// Nobody could be reached.
    Failed,
}
