//! `libsealcast`: the engine and the driver of its sockets behind a C interface.
//!
//! A host opens an identity, makes publishers and subscribers from it, takes requests and makes them by HTTPS, and sends and
//! receives. Nothing here but the drivers runs a thread of its own. The conventions that every function keeps, and what a
//! host has to keep, are in sdk/c/CONVENTIONS.md; the header sdk/c/include/sealcast.h is made from this crate.

#![allow(clippy::missing_safety_doc)] // The conventions say it once for all; what is special stands at the function.

use std::ffi::c_char;

mod abi; // Read by build.rs, too.
mod admission;
mod certification;
mod end;
mod event;
mod folder;
mod handle;
mod identity;
mod known_answer;
mod memory;
mod publisher;
mod publisher_functions;
mod request;
mod route;
mod session;
mod signal;
mod signing;
mod sizes;
mod status;
mod subscriber;
mod subscriber_functions;

pub use abi::SEALCAST_ABI_VERSION;
pub use event::{SealcastEvent, SealcastEventKind};
pub use identity::{
    SealcastIdentity, SealcastIdentityInfo, SealcastIdentityOptions, sealcast_identity_free,
    sealcast_identity_get_authority, sealcast_identity_get_certificate, sealcast_identity_get_info,
    sealcast_identity_open, sealcast_identity_sign,
};
pub use known_answer::sealcast_known_answer;
pub use memory::SealcastBytes;
pub use publisher::*;
pub use publisher_functions::*;
pub use request::SealcastRequest;
pub use signal::SEALCAST_FOREVER;
pub use signing::{SealcastAlgorithm, SealcastSign};
pub use sizes::*;
pub use status::{
    SealcastCategory, SealcastStatus, sealcast_last_error, sealcast_status_category, sealcast_status_name,
};
pub use subscriber::*;
pub use subscriber_functions::*;

/// The interface that the library has: to be compared with SEALCAST_ABI_VERSION before anything else.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_abi_version() -> u32 {
    SEALCAST_ABI_VERSION
}

/// The library's version, NUL-terminated: "0.1.0". It lives as long as the library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Microseconds by a clock that is never set: the time that the library goes by where it runs the clock.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_now() -> u64 {
    sealcast_net::steady_clock()
}
