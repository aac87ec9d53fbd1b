//! The receiving end of a channel.

use std::ffi::c_char;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sealcast_core::event::{Command, Message, Response};
use sealcast_core::member::{Member, Purpose};
use sealcast_core::receiver::{Path, Receiver, ReceiverConfig};
use sealcast_core::rejection::Rejection;
use sealcast_core::stream::{Delivery, Start};
use sealcast_core::validator::Validator;
use sealcast_net::{Presence, ReceiveDriver};

use crate::end::{End, beginning, place};
use crate::event::SealcastEvent;
use crate::handle::Handled;
use crate::identity::Identity;
use crate::memory::{self, Buffer, Options, too_small};
use crate::route::{Route, no_socket, parse_address};
use crate::session::{Engine, Session, lock, member_config};
use crate::status::{Failure, Outcome, SealcastStatus};

/// A subscriber. Made by sealcast_subscriber_new.
#[derive(Debug)]
pub struct SealcastSubscriber {
    _opaque: [u8; 0],
}

/// In what order messages come, and whether they wait for what is lost.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealcastDelivery {
    /// All of them, in order.
    Reliable = 0,
    /// In order; what is not there `deadline` after it was sent is passed over.
    Realtime = 1,
    /// All of them, as they come.
    Unordered = 2,
}

/// From where on streams that run already are delivered.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealcastStart {
    /// From now on.
    Now = 0,
    /// The last value of each topic first, where publishers retain them.
    Last = 1,
    /// From the beginning, as far as publishers retain it and this device was a member.
    Start = 2,
}

/// How a subscriber receives. sealcast_subscriber_options_init sets the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SealcastSubscriberOptions {
    /// sizeof(sealcast_subscriber_options).
    pub size: usize,
    /// Name of the channel.
    pub channel: *const c_char,
    /// The channel's site; all zeros: the device's own.
    pub site_id: [u8; 16],
    /// The site's key server; NULL: that of the device's own site.
    pub keys_url: *const c_char,
    /// Name or address of the network interface; NULL: the policy's, or loopback where the key server is there.
    pub interface_name: *const c_char,
    /// "ADDR:PORT" to receive on in place of the policy's group; NULL: the policy's.
    pub listen: *const c_char,
    /// The only host that is listened to (source-specific multicast); NULL: any.
    pub source: *const c_char,
    /// A sealcast_delivery.
    pub delivery: i32,
    /// A sealcast_start.
    pub start: i32,
    /// Microseconds, with SEALCAST_DELIVERY_REALTIME alone.
    pub deadline: u64,
    /// The longest message that is taken.
    pub max_message_bytes: u64,
    /// What may wait to be taken.
    pub buffer_bytes: u64,
    /// Bytes of the socket's receive buffer.
    pub socket_buffer_bytes: u64,
    /// Not 0: no multicast; everything comes by requests.
    pub side_channel: i32,
    /// Not 0: the host has sockets and clock of its own, and calls sealcast_subscriber_receive_datagrams and
    /// sealcast_subscriber_handle_deadline.
    pub host_sockets: i32,
}

// SAFETY: `repr(C)`, the size first, pointers that may be NULL, and numbers.
unsafe impl Options for SealcastSubscriberOptions {
    const NAME: &'static str = "sealcast_subscriber_options";
    fn default_values() -> Self {
        Self {
            size: size_of::<Self>(),
            channel: std::ptr::null(),
            site_id: [0; 16],
            keys_url: std::ptr::null(),
            interface_name: std::ptr::null(),
            listen: std::ptr::null(),
            source: std::ptr::null(),
            delivery: SealcastDelivery::Reliable as i32,
            start: SealcastStart::Now as i32,
            deadline: 0,
            max_message_bytes: 16 << 20,
            buffer_bytes: 64 << 20,
            socket_buffer_bytes: 16 << 20,
            side_channel: 0,
            host_sockets: 0,
        }
    }
}

/// A verified message. What is pointed to lies in the host's buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SealcastMessage {
    /// What was sent.
    pub data: *const u8,
    /// Its bytes.
    pub length: usize,
    /// NUL-terminated; NULL where there is none.
    pub topic: *const c_char,
    /// The publisher as the policy writes it: its name, or "<site id>:<name>" of another site.
    pub publisher: *const c_char,
    /// Id of the publisher's stream.
    pub stream: [u8; 16],
    /// Sequence of the packet that completed it.
    pub sequence: u64,
    /// Its number in the stream.
    pub message_id: u64,
    /// When it was sealed, microseconds since 1970.
    pub time: u64,
}

/// What a subscriber has counted since it was made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SealcastSubscriberCounters {
    /// Packets that were taken.
    pub accepted: u64,
    /// Of these, by repair.
    pub repaired: u64,
    /// Of these, made from parity.
    pub rebuilt: u64,
    /// Packets that are lost for good.
    pub lost: u64,
    /// Packets that were refused, whatever the reason.
    pub rejected: u64,
    /// Of these, whose signature is not their publisher's.
    pub rejected_signature: u64,
    /// Datagrams that the socket received.
    pub datagrams: u64,
    /// Datagrams that the system dropped because nobody took them.
    pub dropped_by_kernel: u64,
    /// Events that nobody took.
    pub dropped_events: u64,
    /// Streams that run.
    pub streams: u64,
}

impl SealcastMessage {
    /// What says how long a buffer has to be.
    pub(crate) fn needing(bytes: usize) -> Self {
        Self {
            data: std::ptr::null(),
            length: bytes,
            topic: std::ptr::null(),
            publisher: std::ptr::null(),
            stream: [0; 16],
            sequence: 0,
            message_id: 0,
            time: 0,
        }
    }
}

impl Engine for Receiver {
    fn member(&self) -> &Member {
        self.member()
    }
    fn member_mut(&mut self) -> &mut Member {
        self.member_mut()
    }
    fn poll_command(&mut self) -> Option<Command> {
        self.poll_command()
    }
    fn handle_response(&mut self, id: u64, response: Response<'_>, now: u64) {
        self.handle_response(id, response, now);
    }
    fn next_deadline(&self) -> Option<u64> {
        self.next_deadline()
    }
    fn handle_deadline(&mut self, now: u64) {
        self.handle_deadline(now);
    }
    fn set_trust(&mut self, validator: Validator, now: u64) {
        self.set_trust(validator, now);
    }
}

/// Where the host wants to receive.
#[derive(Debug)]
struct Wanted {
    interface: Option<String>,
    listen: Option<std::net::SocketAddr>,
    source: Option<IpAddr>,
    socket_buffer_bytes: usize,
    has_driver: bool,
}

pub(crate) struct Subscriber {
    pub(crate) session: Session<Receiver>,
    wanted: Wanted,
    /// None once it has left.
    presence: Mutex<Option<Presence>>,
    driver: Mutex<Option<(Route, ReceiveDriver)>>,
    /// Taken from the engine, and too long for the buffer of the call that it was for.
    pub(crate) kept: Mutex<Option<Message>>,
    pub(crate) is_taking: AtomicBool,
}

impl Handled for Subscriber {
    const NAME: &'static str = "subscriber";
}

impl End for Subscriber {
    type Engine = Receiver;
    type Options = SealcastSubscriberOptions;

    unsafe fn new(identity: Arc<Identity>, options: &SealcastSubscriberOptions, now: u64) -> Outcome<Self> {
        let now = beginning(options.host_sockets, now);
        // SAFETY: as this function's own.
        let place = unsafe { place(&identity, &options.site_id, options.keys_url, options.channel) }?;
        let optional = |text: *const c_char, name: &str| {
            // SAFETY: likewise.
            unsafe { memory::optional_text(text, name) }
        };
        let interface = optional(options.interface_name, "interface_name")?;
        let listen = optional(options.listen, "listen")?;
        let source = optional(options.source, "source")?;
        let host_time = (options.host_sockets != 0).then_some(now);
        let (member, generation) = member_config(&identity, &place, Purpose::Subscribe, host_time)?;
        let mut config = ReceiverConfig::new(member);
        config.stream.delivery = match (options.delivery, options.deadline) {
            (0, 0) => Delivery::Reliable,
            (1, deadline) if deadline > 0 => Delivery::Realtime { deadline },
            (2, 0) => Delivery::Unordered,
            (delivery, deadline) => {
                let text = format!("there is no delivery {delivery} with a deadline of {deadline}");
                return Err(Failure::invalid(text));
            }
        };
        config.start = match options.start {
            0 => Start::Now,
            1 => Start::Last,
            2 => Start::Oldest,
            other => return Err(Failure::invalid(format!("there is no start {other}"))),
        };
        if options.side_channel != 0 {
            config.path = Path::SideChannel;
        }
        config.stream.max_message_bytes =
            memory::in_range("max_message_bytes", options.max_message_bytes, 1, 1 << 30)?;
        config.queue_bytes = memory::in_range("buffer_bytes", options.buffer_bytes, 1 << 16, 1 << 40)?;
        config.stream.buffer_bytes = config.queue_bytes;
        let wanted = Wanted {
            interface: interface.map(str::to_owned),
            listen: listen.map(|text| parse_address(text, "listen")).transpose()?,
            source: source.map(parse_source).transpose()?,
            socket_buffer_bytes: usize::try_from(options.socket_buffer_bytes).unwrap_or(usize::MAX),
            has_driver: options.host_sockets == 0 && options.side_channel == 0,
        };
        let presence = Presence::enter(&identity.folder, &place.id)
            .map_err(|error| Failure::storage(&identity.folder, error))?;
        let receiver = Receiver::new(config, now);
        Ok(Self {
            session: Session::new(identity, place, receiver, generation, host_time),
            wanted,
            presence: Mutex::new(Some(presence)),
            driver: Mutex::new(None),
            kept: Mutex::new(None),
            is_taking: AtomicBool::new(false),
        })
    }

    fn session(&self) -> &Session<Receiver> {
        &self.session
    }

    /// Listens where the policy says, as soon as there is one; while that stays the same nothing changes.
    fn tend(&self) -> Outcome<()> {
        if !self.wanted.has_driver || self.session.is_closed() {
            return Ok(());
        }
        let Some(policy) = self.session.new_policy() else {
            return Ok(());
        };
        let wanted = &self.wanted;
        let keys_url = &self.session.place.keys_url;
        let route = Route::of(&policy, wanted.listen, wanted.interface.as_deref(), keys_url)?;
        let mut driver = lock(&self.driver);
        if driver.as_ref().is_some_and(|(now, _)| *now == route) {
            self.session.note_policy(policy.version);
            return Ok(());
        }
        let mut config = sealcast_net::ReceiverConfig::new(route.address, route.resolve()?);
        config.source = wanted.source;
        config.receive_buffer_bytes = wanted.socket_buffer_bytes;
        let engine = Arc::clone(&self.session.engine);
        let notifier = Arc::clone(&self.session.notifier);
        let made = ReceiveDriver::start(engine, config, notifier).map_err(no_socket)?;
        self.session.note_policy(policy.version);
        self.session.is_driven.store(true, Ordering::Release);
        let before = driver.replace((route, made));
        drop(driver);
        // Its thread ends here; what it missed meanwhile comes by repair.
        drop(before);
        Ok(())
    }

    fn wake(&self) {
        if let Some((_, driver)) = &*lock(&self.driver) {
            driver.wake();
        }
    }

    fn next_event(&self) -> Outcome<Option<SealcastEvent>> {
        let told = self.session.next_event();
        if told.is_some() {
            return Ok(told);
        }
        self.keep_next();
        Ok(self.session.next_event())
    }

    fn close(&self) {
        self.session.close();
        drop(lock(&self.driver).take());
    }
}

/// One thread at a time takes messages, or their order would be nobody's.
pub(crate) struct Taking<'a>(&'a AtomicBool);

impl<'a> Taking<'a> {
    pub(crate) fn begin(flag: &'a AtomicBool) -> Outcome<Self> {
        if flag.swap(true, Ordering::AcqRel) {
            let text = "another thread takes messages of this subscriber";
            return Err(Failure::new(SealcastStatus::InUse, text));
        }
        Ok(Self(flag))
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Subscriber {
    /// Has the key server told that the device leaves, unless others subscribe for it.
    pub(crate) fn leave(&self) {
        let Some(presence) = lock(&self.presence).take() else {
            return;
        };
        if presence.is_last() {
            self.session.leave(presence);
        } else {
            self.session.close();
        }
    }

    pub(crate) fn is_leaving(&self) -> bool {
        lock(&self.presence).is_none()
    }

    /// Writes as many messages as fit, after the events before each have been filed; the first that does not fit is kept.
    pub(crate) fn fill(
        &self,
        buffer: &mut Buffer,
        messages: &mut Vec<SealcastMessage>,
        limit: usize,
    ) -> Outcome<()> {
        let mut kept = lock(&self.kept);
        let mut engine = self.session.engine();
        let mut last: Option<([u8; 16], *const c_char)> = None;
        while messages.len() < limit {
            let message = match kept.take() {
                Some(message) => message,
                None => match self.next_of(&mut engine) {
                    Some(message) => message,
                    None => return Ok(()),
                },
            };
            let stream = message.publisher.stream.0;
            let known = last.filter(|(of, _)| *of == stream).map(|(_, name)| name);
            let name = known
                .is_none()
                .then(|| engine.member().name_of(&message.publisher));
            let topic = message.topic.as_deref();
            let needed = message.data.len()
                + topic.map_or(0, |topic| topic.len() + 1)
                + name.as_ref().map_or(0, |name| name.len() + 1);
            if needed > buffer.room() {
                *kept = Some(message);
                if messages.is_empty() {
                    return Err(too_small(needed, buffer.room()));
                }
                return Ok(());
            }
            let publisher = known.or_else(|| buffer.put_text(name.as_deref().unwrap_or_default()));
            let topic = topic.map_or(Some(std::ptr::null()), |topic| buffer.put_text(topic));
            let (Some(publisher), Some(topic), Some(data)) = (publisher, topic, buffer.put(&message.data))
            else {
                return Err(Failure::new(
                    SealcastStatus::Internal,
                    "there was room, and is none",
                ));
            };
            last = Some((stream, publisher));
            messages.push(SealcastMessage {
                data,
                length: message.data.len(),
                topic,
                publisher,
                stream,
                sequence: message.sequence,
                message_id: message.message_id,
                time: message.time,
            });
        }
        Ok(())
    }

    /// The next message, after the events before it have been filed.
    fn next_of(&self, engine: &mut Receiver) -> Option<Message> {
        loop {
            if let Some(message) = engine.poll_message() {
                return Some(message);
            }
            self.session.file(engine.poll_event()?, engine);
        }
    }

    /// Files the events before the next message, which waits to be taken.
    pub(crate) fn keep_next(&self) {
        let mut kept = lock(&self.kept);
        if kept.is_none() {
            *kept = self.next_of(&mut self.session.engine());
        }
    }

    pub(crate) fn counters(&self) -> SealcastSubscriberCounters {
        let (datagrams, dropped_by_kernel) = lock(&self.driver).as_ref().map_or((0, 0), |(_, driver)| {
            (driver.datagrams(), driver.dropped_by_kernel())
        });
        let engine = lock(&self.session.engine);
        let counters = engine.counters();
        SealcastSubscriberCounters {
            accepted: counters.accepted,
            repaired: counters.repaired,
            rebuilt: counters.rebuilt,
            lost: counters.lost,
            rejected: Rejection::ALL
                .iter()
                .map(|reason| counters.rejected(*reason))
                .sum(),
            rejected_signature: counters.rejected(Rejection::Signature),
            datagrams,
            dropped_by_kernel,
            dropped_events: self.session.dropped_events(),
            streams: engine.streams().count() as u64,
        }
    }
}

fn parse_source(text: &str) -> Outcome<IpAddr> {
    let parsed = text.parse();
    parsed.map_err(|_| Failure::invalid(format!("source: {text:?} is no address of a host")))
}
