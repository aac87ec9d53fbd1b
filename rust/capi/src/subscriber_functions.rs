//! The functions of a subscriber. Spec of each: its own words, and the conventions.

use std::sync::Arc;

use crate::end::{self, End};
use crate::event::SealcastEvent;
use crate::handle;
use crate::identity::SealcastIdentity;
use crate::memory::{self, Buffer, SealcastBytes, needs};
use crate::request::SealcastRequest;
use crate::status::{Failure, Outcome, SealcastStatus, call};
use crate::subscriber::{
    SealcastMessage, SealcastSubscriber, SealcastSubscriberCounters, SealcastSubscriberOptions, Subscriber,
    Taking,
};

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
    // SAFETY: as this function's own.
    call(|| unsafe { memory::init_options(options, size) }.map(|()| SealcastStatus::Ok))
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
    // SAFETY: as this function's own.
    call(|| unsafe { end::make::<Subscriber, _>(identity, options, now, subscriber) })
}

/// Free a subscriber: its sockets are closed, and calls that wait return SEALCAST_STATUS_CLOSED.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_subscriber_free(subscriber: *mut SealcastSubscriber) -> SealcastStatus {
    call(|| end::free::<Subscriber>(subscriber as usize))
}

/// Wait until the key server has taken the device in; requests have to be made meanwhile, by another thread.
///
/// Fails with SEALCAST_STATUS_NOT_ALLOWED, SEALCAST_STATUS_UNKNOWN_CHANNEL, SEALCAST_STATUS_REVOKED,
/// SEALCAST_STATUS_CERTIFICATE (which the key server refuses, or its own is refused), SEALCAST_STATUS_INTERFACE; with
/// SEALCAST_STATUS_UNREACHABLE if no answer that holds has come in that time: whoever calls again waits on.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_subscriber_join(
    subscriber: *mut SealcastSubscriber,
    timeout: u64,
) -> SealcastStatus {
    call(|| {
        let subscriber = get(subscriber)?;
        let session = &subscriber.session;
        let joined = session.wait_for(timeout, || {
            if session.has_joined() && !subscriber.is_leaving() {
                subscriber.tend()?;
                return Ok(Some(()));
            }
            subscriber.keep_next();
            session.admission.tell_refusal()?;
            session.admission.tell_distrust()?;
            Ok(None)
        })?;
        joined.map_or_else(
            |status| session.admission.not_joined(status),
            |()| Ok(SealcastStatus::Ok),
        )
    })
}

/// Wait for the next request that the host is to make. Requests are independent: several may be under way at once, and
/// have to be, since one of them waits for news.
///
/// `buffer`: for what `request` points to; SEALCAST_SUBSCRIBER_REQUEST_BYTES hold any. SEALCAST_STATUS_BUFFER_TOO_SMALL: it stays, and
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
    // SAFETY: as this function's own.
    call(|| unsafe {
        end::next_request::<Subscriber>(
            subscriber as usize,
            timeout,
            (buffer, capacity),
            (request, request_size),
        )
    })
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
    // SAFETY: as this function's own.
    call(|| unsafe { end::verify_server::<Subscriber>(subscriber as usize, id, chain, count) })
}

/// Give the answer to a request. `http_status`: 0 where nobody could be reached, or was believed; `body` may then say why, as
/// text of up to 512 bytes, for whoever waits for the join.
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
    // SAFETY: as this function's own.
    call(|| unsafe { end::respond::<Subscriber>(subscriber as usize, id, http_status, body) })
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
            if taken.is_empty() {
                subscriber.session.admission.tell_refusal()?;
            }
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
    // SAFETY: as this function's own.
    call(|| unsafe { end::next_event::<Subscriber>(subscriber as usize, timeout, event, event_size) })
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

/// Leave the channel: a last request tells the key server, and with its answer all waits end with SEALCAST_STATUS_CLOSED. While other
/// subscribers of the device go on, in whatever process, the device stays a member, and there is no request.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_subscriber_leave(subscriber: *mut SealcastSubscriber) -> SealcastStatus {
    call(|| {
        get(subscriber)?.leave();
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
