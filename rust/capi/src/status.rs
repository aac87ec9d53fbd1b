//! What every function returns, and what stands behind it.
//!
//! A status keeps its number for ever. Hosts that only want to know what they can do look at the category, which is the exit
//! code of the command line.

use std::cell::RefCell;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What became of a call. 0 is success; 1 and 2 are no errors either.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealcastStatus {
    /// Done.
    Ok = 0,
    /// Nothing came in the time that was given.
    Timeout = 1,
    /// It has ended: nothing will come any more.
    Closed = 2,
    /// A pointer that must not be NULL is.
    NullArgument = 10,
    /// No such handle: it has been freed, or it is one of another kind.
    InvalidHandle = 11,
    /// The `size` of a struct is none that this library knows.
    WrongSize = 12,
    /// A value is out of its range.
    InvalidArgument = 13,
    /// A string is no UTF-8.
    InvalidText = 14,
    /// The buffer is too small; what it should have held is still there, and how long it is has been written.
    BufferTooSmall = 15,
    /// Another thread is in a call of this handle that only one may be in.
    InUse = 16,
    /// A callback must not call the library.
    Reentrant = 17,
    /// The queue of messages is full: try again when some have been sent.
    QueueFull = 19,
    /// The message or topic is too long.
    TooLong = 20,
    /// There is no such request: it has been answered, or given up.
    UnknownRequest = 21,
    /// The stream has used up its numbers.
    Exhausted = 22,
    /// The stream has been ended: nothing more can be sent on it.
    Ended = 23,
    /// The network interface or address cannot be used.
    Interface = 30,
    /// The folder holds no device.
    NoDevice = 40,
    /// The certificate is refused, of this device or of another side.
    Certificate = 50,
    /// The device has been removed from its site.
    Revoked = 51,
    /// The device key did not sign.
    Signing = 52,
    /// The policy does not let the device do this.
    NotAllowed = 60,
    /// The site has no such channel.
    UnknownChannel = 61,
    /// Nobody answers.
    Unreachable = 71,
    /// A file or folder cannot be read or written, or is damaged.
    Storage = 80,
    /// Not everything could be done, as an end that nobody could be told.
    Incomplete = 90,
    /// A fault of the library.
    Internal = 100,
}

/// What a caller can do about it: the exit codes of the command line.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealcastCategory {
    /// No error.
    None = 0,
    /// A fault of the library.
    Internal = 1,
    /// The caller's.
    Usage = 2,
    /// Configuration, interface.
    Configuration = 3,
    /// Enrolment.
    Enrolment = 4,
    /// Certificate, trust.
    Certificate = 5,
    /// The channel is unknown or not allowed.
    Channel = 6,
    /// Network, unreachable.
    Network = 7,
    /// Storage.
    Storage = 8,
    /// Incomplete.
    Incomplete = 9,
}

use SealcastCategory as Category;
use SealcastStatus as Status;

impl Status {
    const ALL: [Self; 27] = [
        Self::Ok,
        Self::Timeout,
        Self::Closed,
        Self::NullArgument,
        Self::InvalidHandle,
        Self::WrongSize,
        Self::InvalidArgument,
        Self::InvalidText,
        Self::BufferTooSmall,
        Self::InUse,
        Self::Reentrant,
        Self::QueueFull,
        Self::TooLong,
        Self::UnknownRequest,
        Self::Exhausted,
        Self::Ended,
        Self::Interface,
        Self::NoDevice,
        Self::Certificate,
        Self::Revoked,
        Self::Signing,
        Self::NotAllowed,
        Self::UnknownChannel,
        Self::Unreachable,
        Self::Storage,
        Self::Incomplete,
        Self::Internal,
    ];

    fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as i32 == code)
    }

    /// NUL-terminated.
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok\0",
            Self::Timeout => "timeout\0",
            Self::Closed => "closed\0",
            Self::NullArgument => "null-argument\0",
            Self::InvalidHandle => "invalid-handle\0",
            Self::WrongSize => "wrong-size\0",
            Self::InvalidArgument => "invalid-argument\0",
            Self::InvalidText => "invalid-text\0",
            Self::BufferTooSmall => "buffer-too-small\0",
            Self::InUse => "in-use\0",
            Self::Reentrant => "reentrant\0",
            Self::QueueFull => "queue-full\0",
            Self::TooLong => "too-long\0",
            Self::UnknownRequest => "unknown-request\0",
            Self::Exhausted => "exhausted\0",
            Self::Ended => "ended\0",
            Self::Interface => "interface\0",
            Self::NoDevice => "no-device\0",
            Self::Certificate => "certificate\0",
            Self::Revoked => "revoked\0",
            Self::Signing => "signing\0",
            Self::NotAllowed => "not-allowed\0",
            Self::UnknownChannel => "unknown-channel\0",
            Self::Unreachable => "unreachable\0",
            Self::Storage => "storage\0",
            Self::Incomplete => "incomplete\0",
            Self::Internal => "internal\0",
        }
    }

    fn category(self) -> Category {
        match self {
            Self::Ok | Self::Timeout | Self::Closed => Category::None,
            Self::NullArgument
            | Self::InvalidHandle
            | Self::WrongSize
            | Self::InvalidArgument
            | Self::InvalidText
            | Self::BufferTooSmall
            | Self::InUse
            | Self::Reentrant
            | Self::QueueFull
            | Self::TooLong
            | Self::UnknownRequest
            | Self::Ended => Category::Usage,
            Self::Interface => Category::Configuration,
            Self::NoDevice => Category::Enrolment,
            Self::Certificate | Self::Revoked | Self::Signing => Category::Certificate,
            Self::NotAllowed | Self::UnknownChannel => Category::Channel,
            Self::Unreachable => Category::Network,
            Self::Storage => Category::Storage,
            Self::Incomplete | Self::Exhausted => Category::Incomplete,
            Self::Internal => Category::Internal,
        }
    }
}

/// A status that is no success, with what a person should read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) text: String,
    /// Of a buffer that is too small: how many bytes would do.
    pub(crate) needed: usize,
}

impl Failure {
    pub(crate) fn new(status: Status, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            needed: 0,
        }
    }

    pub(crate) fn null(name: &str) -> Self {
        Self::new(Status::NullArgument, format!("{name} is NULL"))
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(Status::InvalidArgument, text)
    }

    pub(crate) fn storage(path: &std::path::Path, error: impl core::fmt::Display) -> Self {
        Self::new(Status::Storage, format!("{}: {error}", path.display()))
    }
}

pub(crate) type Outcome<T> = Result<T, Failure>;

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
    static IN_CALLBACK: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs what a C function does: no panic leaves it, and what failed can be asked for on this thread.
pub(crate) fn call(work: impl FnOnce() -> Outcome<Status>) -> Status {
    if IN_CALLBACK.get() {
        remember("a callback must not call the library".to_owned());
        return Status::Reentrant;
    }
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(status)) => {
            if status != Status::Ok {
                // A wait that ended has nothing to say, and what failed before is not why.
                remember(String::new());
            }
            status
        }
        Ok(Err(failure)) => {
            remember(failure.text);
            failure.status
        }
        Err(panic) => {
            let said = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned());
            remember(format!("a fault of the library: {}", said.unwrap_or_default()));
            Status::Internal
        }
    }
}

/// Runs a callback of the host, from which no call of the library gets through.
pub(crate) fn in_callback<T>(work: impl FnOnce() -> T) -> T {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            IN_CALLBACK.set(false);
        }
    }
    IN_CALLBACK.set(true);
    let _leave = Leave;
    work()
}

/// Of a thread that is ending, whose own is gone, nobody asks any more.
fn remember(text: String) {
    let _ = LAST.try_with(|last| *last.borrow_mut() = text);
}

/// Name of a status, such as "timeout"; NULL of a number that is none. It lives as long as the library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_status_name(status: i32) -> *const c_char {
    Status::from_code(status).map_or(std::ptr::null(), |status| status.name().as_ptr().cast())
}

/// What a caller can do about a status; of a number that is none SEALCAST_CATEGORY_INTERNAL.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_status_category(status: i32) -> SealcastCategory {
    Status::from_code(status).map_or(Category::Internal, Status::category)
}

/// Write what the last failed call of this thread has to say, NUL-terminated and cut to `capacity`, and return how long
/// it is without the NUL. It is one line without secrets. `buffer` may be NULL with a `capacity` of 0.
///
/// # Safety
/// `buffer` is valid for writes of `capacity` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_last_error(buffer: *mut c_char, capacity: usize) -> usize {
    let write = |last: &RefCell<String>| {
        let last = last.borrow();
        if !buffer.is_null() && capacity > 0 {
            let mut length = last.len().min(capacity - 1);
            while !last.is_char_boundary(length) {
                length -= 1;
            }
            // SAFETY: the caller gives `capacity` bytes, and `length` is below it.
            let out = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length + 1) };
            out[..length].copy_from_slice(&last.as_bytes()[..length]);
            out[length] = 0;
        }
        last.len()
    };
    LAST.try_with(write).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_and_its_words_can_be_asked_for() {
        let status = call(|| panic!("a wheel came off"));
        assert_eq!(status, Status::Internal);
        let mut text = [0u8; 64];
        // SAFETY: the buffer is as long as is said.
        let length = unsafe { sealcast_last_error(text.as_mut_ptr().cast(), text.len()) };
        assert!(
            std::str::from_utf8(&text[..length])
                .unwrap()
                .ends_with("a wheel came off")
        );
    }

    #[test]
    fn a_callback_does_not_get_into_the_library() {
        assert_eq!(in_callback(|| call(|| Ok(Status::Ok))), Status::Reentrant);
        assert_eq!(call(|| Ok(Status::Ok)), Status::Ok);
    }
}
