//! The functions of a publisher. Spec of each: its own words, and the conventions.

use std::ffi::c_char;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use sealcast_core::sender::{SendError, gather};

use crate::end::{self, End};
use crate::event::SealcastEvent;
use crate::handle;
use crate::identity::SealcastIdentity;
use crate::memory::{self, Buffer, SealcastBytes, needs, too_small};
use crate::publisher::{
    Publisher, SealcastPublisher, SealcastPublisherCounters, SealcastPublisherOptions, not_taken,
};
use crate::request::SealcastRequest;
use crate::session::{Engine, fill_random, lock};
use crate::signal::after;
use crate::status::{Failure, Outcome, SealcastStatus, call};

fn get(handle: *mut SealcastPublisher) -> Outcome<Arc<Publisher>> {
    handle::get(handle as usize)
}

/// Set the defaults. `size`: sizeof(sealcast_publisher_options).
///
/// # Safety
/// `options` is NULL or valid for a write of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_options_init(
    options: *mut SealcastPublisherOptions,
    size: usize,
) -> SealcastStatus {
    // SAFETY: as this function's own.
    call(|| unsafe { memory::init_options(options, size) }.map(|()| SealcastStatus::Ok))
}

/// Make a publisher. Nothing happens before its first request is taken.
///
/// `now`: the time, where the host runs the clock; else it is ignored. What is written to `publisher` is to be freed by
/// sealcast_publisher_free.
///
/// # Safety
/// As the conventions say of handles, options and results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_new(
    identity: *mut SealcastIdentity,
    options: *const SealcastPublisherOptions,
    now: u64,
    publisher: *mut *mut SealcastPublisher,
) -> SealcastStatus {
    // SAFETY: as this function's own.
    call(|| unsafe { end::make::<Publisher, _>(identity, options, now, publisher) })
}

/// Free a publisher: its sockets are closed, and calls that wait return SEALCAST_STATUS_CLOSED. A stream that was not
/// finished ends without a word.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_publisher_free(publisher: *mut SealcastPublisher) -> SealcastStatus {
    call(|| end::free::<Publisher>(publisher as usize))
}

/// Wait until the key server has taken the device in and lists its stream; requests have to be made meanwhile, by another
/// thread.
///
/// Fails with SEALCAST_STATUS_NOT_ALLOWED, SEALCAST_STATUS_UNKNOWN_CHANNEL, SEALCAST_STATUS_REVOKED,
/// SEALCAST_STATUS_CERTIFICATE, SEALCAST_STATUS_SIGNING, SEALCAST_STATUS_INTERFACE; with SEALCAST_STATUS_UNREACHABLE if no
/// answer that holds has come in that time: whoever calls again waits on. A device key that did not sign is asked again.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_publisher_join(publisher: *mut SealcastPublisher, timeout: u64) -> SealcastStatus {
    call(|| {
        let publisher = get(publisher)?;
        publisher.try_key_again();
        let joined = publisher.session.wait_for(timeout, || {
            publisher.tend()?;
            publisher.listen()?;
            if lock(&publisher.session.engine).is_registered() {
                return Ok(Some(()));
            }
            publisher.session.admission.tell_distrust()?;
            Ok(None)
        })?;
        joined.map_or_else(
            |status| publisher.session.admission.not_joined(status),
            |()| Ok(SealcastStatus::Ok),
        )
    })
}

/// Wait for the next request that the host is to make: as sealcast_subscriber_next_request; SEALCAST_PUBLISHER_REQUEST_BYTES hold any.
///
/// # Safety
/// `buffer` is valid for writes of `capacity` bytes, `request` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_next_request(
    publisher: *mut SealcastPublisher,
    timeout: u64,
    buffer: *mut u8,
    capacity: usize,
    request: *mut SealcastRequest,
    request_size: usize,
) -> SealcastStatus {
    // SAFETY: as this function's own.
    call(|| unsafe {
        end::next_request::<Publisher>(
            publisher as usize,
            timeout,
            (buffer, capacity),
            (request, request_size),
        )
    })
}

/// Judge who has answered the connection for a request: as sealcast_subscriber_verify_server.
///
/// # Safety
/// As the conventions say of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_verify_server(
    publisher: *mut SealcastPublisher,
    id: u64,
    chain: *const SealcastBytes,
    count: usize,
) -> SealcastStatus {
    // SAFETY: as this function's own.
    call(|| unsafe { end::verify_server::<Publisher>(publisher as usize, id, chain, count) })
}

/// Give the answer to a request: as sealcast_subscriber_respond.
///
/// # Safety
/// As the conventions say of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_respond(
    publisher: *mut SealcastPublisher,
    id: u64,
    http_status: i32,
    body: SealcastBytes,
) -> SealcastStatus {
    // SAFETY: as this function's own.
    call(|| unsafe { end::respond::<Publisher>(publisher as usize, id, http_status, body) })
}

/// Queue a message; it is copied. SEALCAST_STATUS_QUEUE_FULL: try again after sealcast_publisher_wait_room. Fails when the
/// key server refuses the device, with SEALCAST_STATUS_TOO_LONG, SEALCAST_STATUS_ENDED, SEALCAST_STATUS_EXHAUSTED; with
/// SEALCAST_STATUS_SIGNING once what the device key signed last has ended.
///
/// `topic`: NULL for none, up to 255 bytes, at a small MTU fewer.
///
/// # Safety
/// As the conventions say of bytes and strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_send(
    publisher: *mut SealcastPublisher,
    message: SealcastBytes,
    topic: *const c_char,
) -> SealcastStatus {
    call(|| {
        let publisher = get(publisher)?;
        // SAFETY: as this function's own.
        let message = unsafe { message.get("message") }?;
        // SAFETY: likewise.
        let topic = unsafe { memory::optional_text(topic, "topic") }?;
        publisher.listen()?;
        let (length, limit) = (
            message.len() as u64,
            lock(&publisher.session.engine).max_message_bytes(),
        );
        if length > limit {
            return Err(not_taken(SendError::TooLong { limit }));
        }
        let data = Bytes::copy_from_slice(message);
        let sent = lock(&publisher.session.engine).send(topic, data);
        publisher.note(length, sent)?;
        publisher.wake();
        Ok(SealcastStatus::Ok)
    })
}

/// Queue messages until the queue is full, in order, and write how many were taken, which may be none: a full queue is no
/// failure here. Else as sealcast_publisher_send.
///
/// # Safety
/// As the conventions say of bytes and strings; `taken` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_send_many(
    publisher: *mut SealcastPublisher,
    messages: *const SealcastBytes,
    count: usize,
    topic: *const c_char,
    taken: *mut usize,
) -> SealcastStatus {
    call(|| {
        needs(taken, "taken")?;
        let publisher = get(publisher)?;
        // SAFETY: as this function's own.
        let topic = unsafe { memory::optional_text(topic, "topic") }?;
        // SAFETY: likewise.
        let parts: Vec<&[u8]> = unsafe { memory::list(messages, count, "messages") }?
            .iter()
            // SAFETY: likewise.
            .map(|bytes| unsafe { bytes.get("message") })
            .collect::<Outcome<_>>()?;
        publisher.listen()?;
        let first = parts.first().map_or(0, |part| part.len() as u64);
        let room = lock(&publisher.session.engine).room();
        let parts = gather(&parts, room);
        let done = match lock(&publisher.session.engine).send_many(topic, parts) {
            Ok(done) => done,
            Err(SendError::QueueFull) => {
                publisher.refused.store(first, Ordering::Relaxed);
                0
            }
            Err(error) => return Err(not_taken(error)),
        };
        publisher.wake();
        // SAFETY: likewise.
        unsafe { memory::write(taken, done, "taken") }?;
        Ok(SealcastStatus::Ok)
    })
}

/// Wait until half of the queue is free, and there is room for the message that was refused last.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_publisher_wait_room(
    publisher: *mut SealcastPublisher,
    timeout: u64,
) -> SealcastStatus {
    call(|| {
        let publisher = get(publisher)?;
        let waited = publisher.session.wait_for(timeout, || {
            publisher.listen()?;
            if publisher.has_room() {
                return Ok(Some(()));
            }
            publisher.want_room();
            Ok(None)
        })?;
        Ok(waited.err().unwrap_or(SealcastStatus::Ok))
    })
}

/// Send what is queued and say the end of the stream; then the host goes on with requests for as long as subscribers are to
/// be mended, and frees the publisher. SEALCAST_STATUS_INCOMPLETE: not done in that time, as at a
/// slow rate or without a key; whoever calls again waits on.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_publisher_finish(
    publisher: *mut SealcastPublisher,
    timeout: u64,
) -> SealcastStatus {
    call(|| {
        let publisher = get(publisher)?;
        let now = publisher.session.now();
        publisher.session.engine().finish(None, now);
        publisher.wake();
        let until = after(timeout);
        let finished = publisher.session.wait_for(timeout, || {
            publisher.listen()?;
            Ok(lock(&publisher.session.engine).is_finished().then_some(()))
        })?;
        if finished == Err(SealcastStatus::Timeout) && Instant::now() >= until {
            let text = "the end of the stream could not be said: see whether the key server is running";
            return Err(Failure::new(SealcastStatus::Incomplete, text));
        }
        Ok(finished.err().unwrap_or(SealcastStatus::Ok))
    })
}

/// The stream's id.
///
/// # Safety
/// `stream` is valid for writes of 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_get_stream(
    publisher: *mut SealcastPublisher,
    stream: *mut [u8; 16],
) -> SealcastStatus {
    call(|| {
        let publisher = get(publisher)?;
        let id = lock(&publisher.session.engine).stream().0;
        // SAFETY: as this function's own.
        unsafe { memory::write(stream, id, "stream") }?;
        Ok(SealcastStatus::Ok)
    })
}

/// Wait for the next event. `event_size`: sizeof(sealcast_event).
///
/// # Safety
/// `event` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_next_event(
    publisher: *mut SealcastPublisher,
    timeout: u64,
    event: *mut SealcastEvent,
    event_size: usize,
) -> SealcastStatus {
    // SAFETY: as this function's own.
    call(|| unsafe { end::next_event::<Publisher>(publisher as usize, timeout, event, event_size) })
}

/// What has been counted. `size`: sizeof(sealcast_publisher_counters).
///
/// # Safety
/// `counters` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_get_counters(
    publisher: *mut SealcastPublisher,
    counters: *mut SealcastPublisherCounters,
    size: usize,
) -> SealcastStatus {
    call(|| {
        memory::check_size::<SealcastPublisherCounters>(size, "sealcast_publisher_counters")?;
        let value = get(publisher)?.counters();
        // SAFETY: as this function's own.
        unsafe { memory::write(counters, value, "counters") }?;
        Ok(SealcastStatus::Ok)
    })
}

/// Take one datagram for the group, where the host has the sockets; more is sealed when none is ready.
/// SEALCAST_STATUS_TIMEOUT: there is none now.
///
/// # Safety
/// `buffer` is valid for writes of `capacity` bytes, `length` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_poll_datagram(
    publisher: *mut SealcastPublisher,
    now: u64,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> SealcastStatus {
    call(|| {
        needs(length, "length")?;
        let publisher = get(publisher)?;
        // SAFETY: as this function's own.
        let mut buffer = unsafe { Buffer::new(buffer, capacity) }?;
        publisher.session.set_time(now)?;
        let mut engine = publisher.session.engine();
        if capacity < engine.mtu() {
            return Err(too_small(engine.mtu(), capacity));
        }
        if !engine.has_transmit() && engine.has_queued() {
            let mut randomness = [0; 16];
            fill_random(&mut randomness);
            engine.seal_block(publisher.session.now(), randomness);
        }
        let Some(datagram) = engine.poll_transmit() else {
            return Ok(SealcastStatus::Timeout);
        };
        buffer
            .put(&datagram)
            .ok_or_else(|| too_small(datagram.len(), capacity))?;
        // SAFETY: likewise.
        unsafe { memory::write(length, datagram.len(), "length") }?;
        Ok(SealcastStatus::Ok)
    })
}

/// Do what is due, where the host runs the clock, and write when the next thing is: UINT64_MAX: nothing is.
///
/// # Safety
/// `deadline` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_publisher_handle_deadline(
    publisher: *mut SealcastPublisher,
    now: u64,
    deadline: *mut u64,
) -> SealcastStatus {
    call(|| {
        needs(deadline, "deadline")?;
        let publisher = get(publisher)?;
        publisher.session.set_time(now)?;
        // What keeps it from sealing is an event, and fails a join.
        let _ = publisher.tend();
        let now = publisher.session.now();
        let next = {
            let mut engine = publisher.session.engine();
            Engine::handle_deadline(&mut *engine, now);
            engine.next_deadline()
        };
        publisher.session.raise();
        // SAFETY: as this function's own.
        unsafe { memory::write(deadline, next.unwrap_or(u64::MAX), "deadline") }?;
        Ok(SealcastStatus::Ok)
    })
}
