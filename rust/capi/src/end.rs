//! What a host does with either end, publisher or subscriber: the bodies of functions that C has one of for each.

use std::ffi::c_char;
use std::sync::Arc;

use crate::event::SealcastEvent;
use crate::handle::{self, Handled};
use crate::identity::{Identity, SealcastIdentity, site_of};
use crate::memory::{self, Buffer, Options, SealcastBytes, needs};
use crate::request::SealcastRequest;
use crate::session::{Engine, Place, Session};
use crate::status::{Failure, Outcome, SealcastStatus};

const MAX_REASON_BYTES: usize = 512;

/// A publisher or a subscriber.
pub(crate) trait End: Handled + Sized {
    type Engine: Engine;
    type Options: Options;

    /// # Safety
    /// The pointers of `options` are NULL or what their descriptions say.
    unsafe fn new(identity: Arc<Identity>, options: &Self::Options, now: u64) -> Outcome<Self>;
    fn session(&self) -> &Session<Self::Engine>;
    /// Does what follows from the join, from a policy and from time.
    fn tend(&self) -> Outcome<()>;
    /// An answer has come.
    fn wake(&self);
    /// The next event, of those that the engine has to tell by now.
    fn next_event(&self) -> Outcome<Option<SealcastEvent>>;
    /// Ends everything.
    fn close(&self);
}

/// The time that an end begins at, by the library's clock or by the host's.
pub(crate) fn beginning(host_sockets: i32, now: u64) -> u64 {
    if host_sockets == 0 {
        sealcast_net::steady_clock()
    } else {
        now
    }
}

/// The channel that an end is made for: of the device's own site and its key server, unless others are given.
///
/// # Safety
/// `keys_url` and `channel` are NULL or NUL-terminated.
pub(crate) unsafe fn place(
    identity: &Identity,
    site: &[u8; 16],
    keys_url: *const c_char,
    channel: *const c_char,
) -> Outcome<Place> {
    // SAFETY: as this function's own.
    let channel = unsafe { memory::text(channel, "channel") }?;
    // SAFETY: likewise.
    let keys_url = unsafe { memory::optional_text(keys_url, "keys_url") }?;
    let (held, _) = identity.held();
    Place::new(
        site_of(site, held.site),
        keys_url.unwrap_or(&held.keys_url),
        channel,
    )
}

/// # Safety
/// As the conventions say of handles, options and results.
pub(crate) unsafe fn make<T: End, H>(
    identity: *mut SealcastIdentity,
    options: *const T::Options,
    now: u64,
    out: *mut *mut H,
) -> Outcome<SealcastStatus> {
    needs(out, T::NAME)?;
    let identity = handle::get::<Identity>(identity as usize)?;
    // SAFETY: as this function's own.
    let options = unsafe { memory::options(options) }?;
    // SAFETY: likewise.
    let made = handle::put(unsafe { T::new(identity, &options, now) }?);
    // SAFETY: likewise.
    unsafe { memory::write(out, made as *mut H, T::NAME) }?;
    Ok(SealcastStatus::Ok)
}

pub(crate) fn free<T: End>(handle: usize) -> Outcome<SealcastStatus> {
    handle::take::<T>(handle)?.close();
    Ok(SealcastStatus::Ok)
}

/// # Safety
/// `buffer` is valid for writes of `capacity` bytes, `request` for one.
pub(crate) unsafe fn next_request<T: End>(
    handle: usize,
    timeout: u64,
    (buffer, capacity): (*mut u8, usize),
    (request, request_size): (*mut SealcastRequest, usize),
) -> Outcome<SealcastStatus> {
    needs(request, "request")?;
    memory::check_size::<SealcastRequest>(request_size, "sealcast_request")?;
    let end = handle::get::<T>(handle)?;
    // SAFETY: as this function's own.
    let mut buffer = unsafe { Buffer::new(buffer, capacity) }?;
    let found = end.session().wait_for_work(timeout, || {
        // What keeps it from its sockets is told by the join; here it is tried again.
        let _ = end.tend();
        end.session().next_request(&mut buffer)
    });
    let (told, result) = match found {
        Ok(Ok(found)) => (found, Ok(SealcastStatus::Ok)),
        Ok(Err(status)) => return Ok(status),
        Err(failure) if failure.status == SealcastStatus::BufferTooSmall => {
            (SealcastRequest::needing(failure.needed), Err(failure))
        }
        Err(failure) => return Err(failure),
    };
    // SAFETY: likewise.
    unsafe { memory::write(request, told, "request") }?;
    result
}

/// # Safety
/// As the conventions say of bytes.
pub(crate) unsafe fn verify_server<T: End>(
    handle: usize,
    id: u64,
    chain: *const SealcastBytes,
    count: usize,
) -> Outcome<SealcastStatus> {
    let end = handle::get::<T>(handle)?;
    // SAFETY: as this function's own.
    let chain = unsafe { memory::list(chain, count, "chain") }?;
    if chain.is_empty() || chain.len() > 16 {
        return Err(Failure::invalid(format!(
            "a chain has 1 to 16 certificates, not {}",
            chain.len()
        )));
    }
    let chain: Vec<&[u8]> = chain
        .iter()
        // SAFETY: likewise.
        .map(|bytes| unsafe { bytes.get("certificate") })
        .collect::<Outcome<_>>()?;
    end.session().verify_server(id, &chain)?;
    Ok(SealcastStatus::Ok)
}

/// # Safety
/// As the conventions say of bytes.
pub(crate) unsafe fn respond<T: End>(
    handle: usize,
    id: u64,
    http_status: i32,
    body: SealcastBytes,
) -> Outcome<SealcastStatus> {
    let end = handle::get::<T>(handle)?;
    // SAFETY: as this function's own.
    let body = unsafe { body.get("body") }?;
    let answer = if http_status == 0 {
        Err(one_line(body))
    } else {
        let status = u16::try_from(http_status)
            .ok()
            .filter(|status| (100..1000).contains(status));
        let status = status.ok_or_else(|| Failure::invalid(format!("{http_status} is no HTTP status")))?;
        Ok((status, body.to_vec()))
    };
    end.session().respond(id, answer)?;
    end.wake();
    Ok(SealcastStatus::Ok)
}

/// The host's word of what went wrong, as it may stand in a line of ours.
fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(MAX_REASON_BYTES)]);
    text.trim().replace(char::is_control, " ")
}

/// # Safety
/// `event` is NULL or valid for a write.
pub(crate) unsafe fn next_event<T: End>(
    handle: usize,
    timeout: u64,
    event: *mut SealcastEvent,
    event_size: usize,
) -> Outcome<SealcastStatus> {
    needs(event, "event")?;
    memory::check_size::<SealcastEvent>(event_size, "sealcast_event")?;
    let end: Arc<T> = handle::get(handle)?;
    match end.session().wait_for(timeout, || end.next_event())? {
        Ok(found) => {
            // SAFETY: as this function's own.
            unsafe { memory::write(event, found, "event") }?;
            Ok(SealcastStatus::Ok)
        }
        Err(status) => Ok(status),
    }
}
