//! What happens besides messages, told one by one.

use std::ffi::c_char;

use sealcast_core::credential::Publisher;
use sealcast_core::event::Event;

use crate::folder::hex;
use crate::memory::fixed;

/// What an event is about. A host passes over those that it does not know.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealcastEventKind {
    /// The key server took the device in.
    Joined = 1,
    /// The packets `first` to `last` of a stream are lost, for good; `last` is UINT64_MAX where its publisher is gone.
    Gap = 2,
    /// The message `first` will not be delivered, though its packets came or were told of.
    MessageLost = 3,
    StreamStarted = 4,
    /// It ended as its publisher wished; `first`: the sequence behind its last packet.
    StreamEnded = 5,
    /// A running stream is not accepted any more: its publisher was removed, or its certificate has ended.
    StreamClosed = 6,
    /// Two signed words for the packet `first` of a stream: an alarm.
    Equivocation = 7,
    /// A second successor of a stream: an alarm.
    SuccessionConflict = 8,
    /// Packets are sealed under other keys.
    EpochChanged = 9,
    /// A secret is not what the key server signed for: an alarm.
    CommitmentMismatch = 10,
    /// `first`: its version.
    PolicyChanged = 11,
    /// The key server refuses the device.
    Refused = 12,
    /// No word of the key server since `first`, in microseconds since 1970.
    OutOfContact = 13,
    /// A source of repair did not give what it should hold.
    SourcePassedOver = 14,
    /// A publisher cannot seal just now, or its device key did not sign.
    Blocked = 15,
}

/// One fact. Numbers that a kind does not use are 0, texts empty.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SealcastEvent {
    /// A sealcast_event_kind.
    pub kind: i32,
    /// Its id.
    pub stream: [u8; 16],
    /// What the kind says.
    pub first: u64,
    /// What the kind says.
    pub last: u64,
    /// Whose stream it is: the device's name as the policy writes it.
    pub publisher: [c_char; 128],
    /// One line for a person, without secrets.
    pub text: [c_char; 256],
}

impl SealcastEvent {
    fn new(kind: SealcastEventKind, text: String) -> Self {
        Self {
            kind: kind as i32,
            stream: [0; 16],
            first: 0,
            last: 0,
            publisher: [0; 128],
            text: fixed(&text),
        }
    }

    pub(crate) fn blocked(text: String) -> Self {
        Self::new(SealcastEventKind::Blocked, text)
    }

    fn of(mut self, publisher: &Publisher, name: &str) -> Self {
        self.stream = publisher.stream.0;
        self.publisher = fixed(name);
        self
    }

    fn range(mut self, first: u64, last: u64) -> Self {
        (self.first, self.last) = (first, last);
        self
    }
}

/// Tells an event that is no message. `name_of`: a publisher as the policy writes it.
pub(crate) fn told(event: Event, name_of: impl Fn(&Publisher) -> String) -> Option<SealcastEvent> {
    use SealcastEventKind as Kind;
    let told = match event {
        // Files are sent and received by the Python package alone.
        Event::Message(_) | Event::FileReport { .. } => return None,
        Event::Joined { epoch } => {
            let text = format!("joined, generation {}, slot {}", epoch.generation, epoch.slot);
            SealcastEvent::new(Kind::Joined, text)
        }
        Event::Gap {
            publisher,
            first,
            last,
        } => {
            let name = name_of(&publisher);
            let text = match last {
                Some(last) => format!("packets {first} to {last} of {name} are lost"),
                None => format!("what {name} sent after packet {first} is lost"),
            };
            SealcastEvent::new(Kind::Gap, text)
                .of(&publisher, &name)
                .range(first, last.unwrap_or(u64::MAX))
        }
        Event::MessageLost {
            publisher,
            message_id,
            reason,
        } => {
            let name = name_of(&publisher);
            let text = format!("message {message_id} of {name} is lost: {reason}");
            SealcastEvent::new(Kind::MessageLost, text)
                .of(&publisher, &name)
                .range(message_id, message_id)
        }
        Event::StreamStarted { publisher, succeeds } => {
            let name = name_of(&publisher);
            let text = match succeeds {
                Some(before) => format!("{name} goes on after stream {}", hex(&before.0)),
                None => format!("{name} began a stream"),
            };
            SealcastEvent::new(Kind::StreamStarted, text).of(&publisher, &name)
        }
        Event::StreamEnded {
            publisher,
            next_sequence,
            ..
        } => {
            let name = name_of(&publisher);
            SealcastEvent::new(Kind::StreamEnded, format!("{name} ended its stream"))
                .of(&publisher, &name)
                .range(next_sequence, next_sequence)
        }
        Event::StreamClosed { publisher, reason } => {
            let name = name_of(&publisher);
            let text = format!("the stream of {name} is not accepted any more: {reason}");
            SealcastEvent::new(Kind::StreamClosed, text).of(&publisher, &name)
        }
        Event::Equivocation {
            publisher, sequence, ..
        } => {
            let name = name_of(&publisher);
            let text = format!("{name} signed two packets with the number {sequence}; the first stands");
            SealcastEvent::new(Kind::Equivocation, text)
                .of(&publisher, &name)
                .range(sequence, sequence)
        }
        Event::SuccessionConflict { predecessor, .. } => {
            let text = format!(
                "two streams claim to follow {}; the first stands",
                hex(&predecessor.0)
            );
            let mut told = SealcastEvent::new(Kind::SuccessionConflict, text);
            told.stream = predecessor.0;
            told
        }
        Event::EpochChanged { epoch } => {
            let text = format!("generation {}, slot {}", epoch.generation, epoch.slot);
            SealcastEvent::new(Kind::EpochChanged, text)
        }
        Event::CommitmentMismatch { detail } => SealcastEvent::new(Kind::CommitmentMismatch, detail),
        Event::PolicyChanged { version } => {
            SealcastEvent::new(Kind::PolicyChanged, format!("policy version {version}"))
                .range(version, version)
        }
        Event::Refused { reason } => SealcastEvent::new(Kind::Refused, reason),
        Event::OutOfContact { since } => {
            SealcastEvent::new(Kind::OutOfContact, "no word of the key server".to_owned()).range(since, since)
        }
        Event::SourcePassedOver { source, reason } => {
            let text = format!("{} at {}:{}: {reason}", source.device, source.host, source.port);
            SealcastEvent::new(Kind::SourcePassedOver, text)
        }
        Event::Blocked { reason } => SealcastEvent::blocked(reason.to_owned()),
    };
    Some(told)
}
