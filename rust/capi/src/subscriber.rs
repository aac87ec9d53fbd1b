//! The receiving end of a channel.

use std::ffi::c_char;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sealcast_core::event::{Command, Event, Message, Response};
use sealcast_core::member::{Member, Purpose};
use sealcast_core::receiver::{Path, Receiver, ReceiverConfig};
use sealcast_core::rejection::Rejection;
use sealcast_core::stream::{Delivery, Start};
use sealcast_core::validator::Validator;
use sealcast_net::ReceiveDriver;

use crate::event::SealcastEvent;
use crate::handle::{self, Handled};
use crate::identity::{Identity, SealcastIdentity, site_of};
use crate::memory::{self, Buffer, Options, SealcastBytes, needs, too_small};
use crate::request::SealcastRequest;
use crate::route::{Route, no_socket, parse_address};
use crate::session::{Engine, Place, Session, lock, member_config};
use crate::status::{Failure, Outcome, SealcastStatus, call};

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
    pub data: *const u8,
    pub length: usize,
    /// NUL-terminated; NULL where there is none.
    pub topic: *const c_char,
    /// The publisher as the policy writes it: its name, or "<site id>:<name>" of another site.
    pub publisher: *const c_char,
    pub stream: [u8; 16],
    /// Sequence of the packet that completed it.
    pub sequence: u64,
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
    /// Datagrams that the socket received, and that the system dropped because nobody took them.
    pub datagrams: u64,
    pub dropped_by_kernel: u64,
    /// Events that nobody took.
    pub dropped_events: u64,
    /// Streams that run.
    pub streams: u64,
}

impl SealcastMessage {
    /// What says how long a buffer has to be.
    fn needing(bytes: usize) -> Self {
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

struct Subscriber {
    session: Session<Receiver>,
    wanted: Wanted,
    driver: Mutex<Option<(Route, ReceiveDriver)>>,
    /// Taken from the engine, and too long for the buffer of the call that it was for.
    kept: Mutex<Option<Message>>,
    is_taking: AtomicBool,
    is_left: AtomicBool,
}

impl Handled for Subscriber {
    const NAME: &'static str = "subscriber";
}

/// One thread at a time takes messages, or their order would be nobody's.
struct Taking<'a>(&'a AtomicBool);

impl<'a> Taking<'a> {
    fn begin(flag: &'a AtomicBool) -> Outcome<Self> {
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
    /// # Safety
    /// The pointers of `options` are NULL or what their descriptions say.
    unsafe fn new(identity: Arc<Identity>, options: &SealcastSubscriberOptions, now: u64) -> Outcome<Self> {
        // SAFETY: as this function's own.
        let channel = unsafe { memory::text(options.channel, "channel") }?;
        let optional = |text: *const c_char, name: &str| {
            // SAFETY: likewise.
            unsafe { memory::optional_text(text, name) }
        };
        let keys_url = optional(options.keys_url, "keys_url")?;
        let interface = optional(options.interface_name, "interface_name")?;
        let listen = optional(options.listen, "listen")?;
        let source = optional(options.source, "source")?;
        let (held, _) = identity.held();
        let site = site_of(&options.site_id, held.site);
        let place = Place::new(site, keys_url.unwrap_or(&held.keys_url), channel)?;
        let (member, generation) = member_config(&identity, &place, Purpose::Subscribe)?;
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
        if !(1..=1 << 30).contains(&options.max_message_bytes) {
            let text = format!("max_message_bytes is {}: 1 to 1 GiB", options.max_message_bytes);
            return Err(Failure::invalid(text));
        }
        if !(1 << 16..=1 << 40).contains(&options.buffer_bytes) {
            let text = format!("buffer_bytes is {}: 64 KiB to 1 TiB", options.buffer_bytes);
            return Err(Failure::invalid(text));
        }
        if options.side_channel != 0 {
            config.path = Path::SideChannel;
        }
        config.stream.max_message_bytes = options.max_message_bytes;
        config.stream.buffer_bytes = options.buffer_bytes;
        config.queue_bytes = options.buffer_bytes;
        let wanted = Wanted {
            interface: interface.map(str::to_owned),
            listen: listen.map(|text| parse_address(text, "listen")).transpose()?,
            source: source.map(parse_source).transpose()?,
            socket_buffer_bytes: usize::try_from(options.socket_buffer_bytes).unwrap_or(usize::MAX),
            has_driver: options.host_sockets == 0 && options.side_channel == 0,
        };
        let receiver = Receiver::new(config, now);
        let host_time = (options.host_sockets != 0).then_some(now);
        Ok(Self {
            session: Session::new(identity, place, receiver, generation, host_time),
            wanted,
            driver: Mutex::new(None),
            kept: Mutex::new(None),
            is_taking: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
        })
    }

    /// Listens where the policy says, as soon as there is one; while that stays the same nothing changes.
    fn drive(&self) -> Outcome<()> {
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

    /// Writes as many messages as fit, after the events before each have been filed; the first that does not fit is kept.
    fn fill(&self, buffer: &mut Buffer, messages: &mut Vec<SealcastMessage>, limit: usize) -> Outcome<()> {
        let mut kept = lock(&self.kept);
        let mut engine = self.session.engine();
        let mut last: Option<([u8; 16], *const c_char)> = None;
        while messages.len() < limit {
            let message = match kept.take() {
                Some(message) => message,
                None => match self.next_of(&mut engine) {
                    Ok(Some(message)) => message,
                    Ok(None) => return Ok(()),
                    // What is here is not lost by it: the next call is told.
                    Err(_) if !messages.is_empty() => return Ok(()),
                    Err(failure) => return Err(failure),
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

    /// The next message, after the events before it have been filed. Fails where one of them is a refusal.
    fn next_of(&self, engine: &mut Receiver) -> Outcome<Option<Message>> {
        loop {
            if let Some(message) = engine.poll_message() {
                return Ok(Some(message));
            }
            let Some(event) = engine.poll_event() else {
                return Ok(None);
            };
            let is_refusal = matches!(event, Event::Refused { .. });
            self.session.file(event, engine);
            if is_refusal && let Some(failure) = self.session.refused() {
                return Err(failure);
            }
        }
    }

    fn counters(&self) -> SealcastSubscriberCounters {
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

    fn free(&self) {
        self.session.close();
        drop(lock(&self.driver).take());
    }
}

fn parse_source(text: &str) -> Outcome<IpAddr> {
    let parsed = text.parse();
    parsed.map_err(|_| Failure::invalid(format!("source: {text:?} is no address of a host")))
}

fn get(handle: *mut SealcastSubscriber) -> Outcome<Arc<Subscriber>> {
    handle::get(handle as usize)
}

/// Set the defaults. `size`: sizeof(sealcast_subscriber_options).
///
/// # Safety
/// `options` is NULL or valid for a write of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_subscriber_options_init(
    options: *mut SealcastSubscriberOptions,
    size: usize,
) -> SealcastStatus {
    call(|| {
        memory::check_size::<SealcastSubscriberOptions>(size, SealcastSubscriberOptions::NAME)?;
        // SAFETY: as this function's own.
        unsafe { memory::write(options, Options::default_values(), "options") }?;
        Ok(SealcastStatus::Ok)
    })
}

/// Make a subscriber. Nothing happens before its first request is taken.
///
/// `now`: the time, where the host runs the clock; else it is ignored. What is written to `subscriber` is to be freed by
/// sealcast_subscriber_free.
///
/// # Safety
/// As the conventions say of handles, options and results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_subscriber_new(
    identity: *mut SealcastIdentity,
    options: *const SealcastSubscriberOptions,
    now: u64,
    subscriber: *mut *mut SealcastSubscriber,
) -> SealcastStatus {
    call(|| {
        needs(subscriber, "subscriber")?;
        let identity = handle::get::<Identity>(identity as usize)?;
        // SAFETY: as this function's own.
        let options = unsafe { memory::options(options) }?;
        let now = if options.host_sockets == 0 {
            sealcast_net::steady_clock()
        } else {
            now
        };
        // SAFETY: likewise.
        let made = handle::put(unsafe { Subscriber::new(identity, &options, now) }?);
        // SAFETY: likewise.
        unsafe { memory::write(subscriber, made as *mut SealcastSubscriber, "subscriber") }?;
        Ok(SealcastStatus::Ok)
    })
}

/// Free a subscriber: its sockets are closed, and calls that wait return SEALCAST_STATUS_CLOSED.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_subscriber_free(subscriber: *mut SealcastSubscriber) -> SealcastStatus {
    call(|| {
        handle::take::<Subscriber>(subscriber as usize)?.free();
        Ok(SealcastStatus::Ok)
    })
}

/// Wait until the key server has taken the device in; requests have to be made meanwhile, by another thread.
///
/// Fails with SEALCAST_STATUS_NOT_ALLOWED, SEALCAST_STATUS_UNKNOWN_CHANNEL, SEALCAST_STATUS_REVOKED,
/// SEALCAST_STATUS_CERTIFICATE, SEALCAST_STATUS_INTERFACE; with SEALCAST_STATUS_UNREACHABLE in place of
/// SEALCAST_STATUS_TIMEOUT where the last request got no answer. Whoever calls again waits on.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_subscriber_join(
    subscriber: *mut SealcastSubscriber,
    timeout: u64,
) -> SealcastStatus {
    call(|| {
        let subscriber = get(subscriber)?;
        let session = &subscriber.session;
        let joined = session.wait_for(timeout, || {
            if session.has_joined() {
                subscriber.drive()?;
                return Ok(Some(()));
            }
            // Before the join there is nothing to tell but that it is refused.
            let mut kept = lock(&subscriber.kept);
            if kept.is_none() {
                *kept = subscriber.next_of(&mut subscriber.session.engine())?;
            }
            Ok(None)
        })?;
        joined.map_or_else(|status| session.not_joined(status), |()| Ok(SealcastStatus::Ok))
    })
}

/// Wait for the next request that the host is to make. Requests are independent: several may be under way at once, and
/// have to be, since one of them waits for news.
///
/// `buffer`: for what `request` points to; 64 KiB and 1 KiB more hold any. SEALCAST_STATUS_BUFFER_TOO_SMALL: it stays, and
/// `request->body_length` is the capacity that it needs. Call it again and again: it also does what time
/// brings. SEALCAST_STATUS_CLOSED: there will be none any more. `request_size`: sizeof(sealcast_request).
///
/// # Safety
/// `buffer` is valid for writes of `capacity` bytes, `request` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_subscriber_next_request(
    subscriber: *mut SealcastSubscriber,
    timeout: u64,
    buffer: *mut u8,
    capacity: usize,
    request: *mut SealcastRequest,
    request_size: usize,
) -> SealcastStatus {
    call(|| {
        needs(request, "request")?;
        memory::check_size::<SealcastRequest>(request_size, "sealcast_request")?;
        let subscriber = get(subscriber)?;
        // SAFETY: as this function's own.
        let mut buffer = unsafe { Buffer::new(buffer, capacity) }?;
        let found = subscriber.session.wait_for_work(timeout, || {
            // What keeps it from listening is told by the join; here it is tried again.
            let _ = subscriber.drive();
            subscriber.session.next_request(&mut buffer)
        });
        // SAFETY: likewise.
        unsafe { tell_request(found, request) }
    })
}

/// # Safety
/// `request` is valid for a write.
pub(crate) unsafe fn tell_request(
    found: Outcome<Result<SealcastRequest, SealcastStatus>>,
    request: *mut SealcastRequest,
) -> Outcome<SealcastStatus> {
    let (told, result) = match found {
        Ok(Ok(found)) => (found, Ok(SealcastStatus::Ok)),
        Ok(Err(status)) => return Ok(status),
        Err(failure) if failure.status == SealcastStatus::BufferTooSmall => {
            (SealcastRequest::needing(failure.needed), Err(failure))
        }
        Err(failure) => return Err(failure),
    };
    // SAFETY: as this function's own.
    unsafe { memory::write(request, told, "request") }?;
    result
}

/// Judge who has answered the connection for a request: before a byte of it is sent.
///
/// `chain`: DER, as the other side has shown it, its own certificate first. It proves who that is; that it holds the key the
/// host's TLS has proven. SEALCAST_STATUS_CERTIFICATE: end the connection, and answer the request with `http_status` 0.
///
/// # Safety
/// As the conventions say of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_subscriber_verify_server(
    subscriber: *mut SealcastSubscriber,
    id: u64,
    chain: *const SealcastBytes,
    count: usize,
) -> SealcastStatus {
    call(|| {
        let subscriber = get(subscriber)?;
        // SAFETY: as this function's own.
        let chain = unsafe { chain_of(chain, count) }?;
        subscriber.session.verify_server(id, &chain)?;
        Ok(SealcastStatus::Ok)
    })
}

/// # Safety
/// As the conventions say of bytes.
pub(crate) unsafe fn chain_of<'a>(chain: *const SealcastBytes, count: usize) -> Outcome<Vec<&'a [u8]>> {
    // SAFETY: as this function's own.
    let chain = unsafe { memory::list(chain, count, "chain") }?;
    if chain.is_empty() || chain.len() > 16 {
        return Err(Failure::invalid(format!(
            "a chain has 1 to 16 certificates, not {}",
            chain.len()
        )));
    }
    chain
        .iter()
        // SAFETY: likewise.
        .map(|bytes| unsafe { bytes.get("certificate") })
        .collect()
}

/// Give the answer to a request. `http_status`: 0 where nobody could be reached, or was believed.
///
/// # Safety
/// As the conventions say of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_subscriber_respond(
    subscriber: *mut SealcastSubscriber,
    id: u64,
    http_status: i32,
    body: SealcastBytes,
) -> SealcastStatus {
    call(|| {
        let subscriber = get(subscriber)?;
        // SAFETY: as this function's own.
        let answer = unsafe { answer_of(http_status, body) }?;
        subscriber.session.respond(id, answer)?;
        subscriber.wake();
        Ok(SealcastStatus::Ok)
    })
}

/// # Safety
/// As the conventions say of bytes.
pub(crate) unsafe fn answer_of(http_status: i32, body: SealcastBytes) -> Outcome<Option<(u16, Vec<u8>)>> {
    if http_status == 0 {
        return Ok(None);
    }
    let status = u16::try_from(http_status)
        .ok()
        .filter(|status| (100..1000).contains(status));
    let status = status.ok_or_else(|| Failure::invalid(format!("{http_status} is no HTTP status")))?;
    // SAFETY: as this function's own.
    let body = unsafe { body.get("body") }?;
    Ok(Some((status, body.to_vec())))
}

/// Wait for messages, and write as many as are there and fit, at most `limit`.
///
/// `buffer`: for what they point to. SEALCAST_STATUS_BUFFER_TOO_SMALL: the next message alone is longer; it stays, and
/// `messages[0].length` is the capacity that it needs. SEALCAST_STATUS_CLOSED: it has left. One thread at a time: another gets
/// SEALCAST_STATUS_IN_USE. Fails as sealcast_subscriber_join when the key server refuses the device from now on; whoever
/// calls again waits for it to be admitted anew. `message_size`: sizeof(sealcast_message).
///
/// # Safety
/// `buffer` is valid for writes of `capacity` bytes, `messages` of `limit` messages, `count` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_subscriber_recv_many(
    subscriber: *mut SealcastSubscriber,
    timeout: u64,
    buffer: *mut u8,
    capacity: usize,
    messages: *mut SealcastMessage,
    message_size: usize,
    limit: usize,
    count: *mut usize,
) -> SealcastStatus {
    call(|| {
        needs(messages, "messages")?;
        needs(count, "count")?;
        memory::check_size::<SealcastMessage>(message_size, "sealcast_message")?;
        if limit == 0 {
            return Err(Failure::invalid("limit is 0"));
        }
        let subscriber = get(subscriber)?;
        let _taking = Taking::begin(&subscriber.is_taking)?;
        // SAFETY: as this function's own.
        let mut buffer = unsafe { Buffer::new(buffer, capacity) }?;
        let mut taken: Vec<SealcastMessage> = Vec::with_capacity(limit.min(1024));
        let found = subscriber.session.wait_for(timeout, || {
            subscriber.fill(&mut buffer, &mut taken, limit)?;
            Ok((!taken.is_empty()).then_some(()))
        });
        if let Err(failure) = &found
            && failure.status == SealcastStatus::BufferTooSmall
        {
            let place = SealcastMessage::needing(failure.needed);
            // SAFETY: likewise.
            unsafe { memory::write(messages, place, "messages") }?;
        }
        let found = found?;
        for (place, message) in taken.iter().enumerate() {
            // SAFETY: the host has `limit` places.
            let place = unsafe { messages.add(place) };
            // SAFETY: likewise.
            unsafe { memory::write(place, *message, "messages") }?;
        }
        // SAFETY: likewise.
        unsafe { memory::write(count, taken.len(), "count") }?;
        Ok(found.err().unwrap_or(SealcastStatus::Ok))
    })
}

/// Wait for one message: sealcast_subscriber_recv_many with a limit of 1.
///
/// # Safety
/// `buffer` is valid for writes of `capacity` bytes, `message` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_subscriber_recv(
    subscriber: *mut SealcastSubscriber,
    timeout: u64,
    buffer: *mut u8,
    capacity: usize,
    message: *mut SealcastMessage,
    message_size: usize,
) -> SealcastStatus {
    let mut count = 0;
    // SAFETY: as this function's own.
    unsafe {
        sealcast_subscriber_recv_many(
            subscriber,
            timeout,
            buffer,
            capacity,
            message,
            message_size,
            1,
            &raw mut count,
        )
    }
}

/// Wait for the next event. They are told in their order among messages, once the messages before them have been taken.
/// `event_size`: sizeof(sealcast_event).
///
/// # Safety
/// `event` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_subscriber_next_event(
    subscriber: *mut SealcastSubscriber,
    timeout: u64,
    event: *mut SealcastEvent,
    event_size: usize,
) -> SealcastStatus {
    call(|| {
        needs(event, "event")?;
        memory::check_size::<SealcastEvent>(event_size, "sealcast_event")?;
        let subscriber = get(subscriber)?;
        let session = &subscriber.session;
        let found = session.wait_for(timeout, || {
            let told = session.next_event();
            if told.is_some() {
                return Ok(told);
            }
            let mut kept = lock(&subscriber.kept);
            if kept.is_none() {
                // A refusal is an event here, and no failure.
                *kept = subscriber
                    .next_of(&mut subscriber.session.engine())
                    .unwrap_or_default();
            }
            Ok(session.next_event())
        })?;
        match found {
            Ok(found) => {
                // SAFETY: as this function's own.
                unsafe { memory::write(event, found, "event") }?;
                Ok(SealcastStatus::Ok)
            }
            Err(status) => Ok(status),
        }
    })
}

/// What has been counted. `size`: sizeof(sealcast_subscriber_counters).
///
/// # Safety
/// `counters` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_subscriber_get_counters(
    subscriber: *mut SealcastSubscriber,
    counters: *mut SealcastSubscriberCounters,
    size: usize,
) -> SealcastStatus {
    call(|| {
        memory::check_size::<SealcastSubscriberCounters>(size, "sealcast_subscriber_counters")?;
        let value = get(subscriber)?.counters();
        // SAFETY: as this function's own.
        unsafe { memory::write(counters, value, "counters") }?;
        Ok(SealcastStatus::Ok)
    })
}

/// Leave the channel: a last request tells the key server, and with its answer all waits end with SEALCAST_STATUS_CLOSED.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_subscriber_leave(subscriber: *mut SealcastSubscriber) -> SealcastStatus {
    call(|| {
        let subscriber = get(subscriber)?;
        if !subscriber.is_left.swap(true, Ordering::AcqRel) {
            subscriber.session.leave();
        }
        Ok(SealcastStatus::Ok)
    })
}

/// Give datagrams that came from the group, where the host has the sockets. What is refused is counted.
///
/// # Safety
/// As the conventions say of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_subscriber_receive_datagrams(
    subscriber: *mut SealcastSubscriber,
    datagrams: *const SealcastBytes,
    count: usize,
    now: u64,
) -> SealcastStatus {
    call(|| {
        let subscriber = get(subscriber)?;
        // SAFETY: as this function's own.
        let datagrams: Vec<&[u8]> = unsafe { memory::list(datagrams, count, "datagrams") }?
            .iter()
            // SAFETY: likewise.
            .map(|bytes| unsafe { bytes.get("datagram") })
            .collect::<Outcome<_>>()?;
        subscriber.session.set_time(now)?;
        let now = subscriber.session.now();
        subscriber.session.engine().receive_datagrams(datagrams, now);
        subscriber.session.raise();
        Ok(SealcastStatus::Ok)
    })
}

/// Do what is due, where the host runs the clock, and write when the next thing is: UINT64_MAX: nothing is.
///
/// # Safety
/// `deadline` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_subscriber_handle_deadline(
    subscriber: *mut SealcastSubscriber,
    now: u64,
    deadline: *mut u64,
) -> SealcastStatus {
    call(|| {
        needs(deadline, "deadline")?;
        let subscriber = get(subscriber)?;
        subscriber.session.set_time(now)?;
        let now = subscriber.session.now();
        let next = {
            let mut engine = subscriber.session.engine();
            engine.handle_deadline(now);
            engine.next_deadline()
        };
        subscriber.session.raise();
        // SAFETY: as this function's own.
        unsafe { memory::write(deadline, next.unwrap_or(u64::MAX), "deadline") }?;
        Ok(SealcastStatus::Ok)
    })
}
