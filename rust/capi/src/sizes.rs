//! How long things are: macros for C, and functions for languages that do not read its header.

use crate::event::SealcastEvent;
use crate::identity::{SealcastIdentityInfo, SealcastIdentityOptions};
use crate::publisher::{SealcastPublisherCounters, SealcastPublisherOptions};
use crate::request::SealcastRequest;
use crate::subscriber::{SealcastMessage, SealcastSubscriberCounters, SealcastSubscriberOptions};

/// Bytes of a stream's id, and of a site's.
pub const SEALCAST_ID_BYTES: usize = 16;
/// Bytes of a buffer that holds any datagram.
pub const SEALCAST_DATAGRAM_BYTES: usize = 65507;
/// Bytes of a buffer that holds any request of a subscriber.
pub const SEALCAST_SUBSCRIBER_REQUEST_BYTES: usize = 66560;
/// Bytes of a buffer that holds any request of a publisher.
pub const SEALCAST_PUBLISHER_REQUEST_BYTES: usize = 1049600;

const _: () = {
    assert!(SEALCAST_ID_BYTES == size_of::<sealcast_core::wire::StreamId>());
    assert!(SEALCAST_ID_BYTES == size_of::<sealcast_core::wire::SiteId>());
    assert!(SEALCAST_DATAGRAM_BYTES == sealcast_core::wire::MAX_DATAGRAM_BYTES);
};

/// SEALCAST_ID_BYTES of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_id_bytes() -> usize {
    SEALCAST_ID_BYTES
}

/// SEALCAST_DATAGRAM_BYTES of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_datagram_bytes() -> usize {
    SEALCAST_DATAGRAM_BYTES
}

/// SEALCAST_SUBSCRIBER_REQUEST_BYTES of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_subscriber_request_bytes() -> usize {
    SEALCAST_SUBSCRIBER_REQUEST_BYTES
}

/// SEALCAST_PUBLISHER_REQUEST_BYTES of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_publisher_request_bytes() -> usize {
    SEALCAST_PUBLISHER_REQUEST_BYTES
}

/// sizeof(sealcast_identity_options) of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_identity_options_size() -> usize {
    size_of::<SealcastIdentityOptions>()
}

/// sizeof(sealcast_identity_info) of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_identity_info_size() -> usize {
    size_of::<SealcastIdentityInfo>()
}

/// sizeof(sealcast_request) of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_request_size() -> usize {
    size_of::<SealcastRequest>()
}

/// sizeof(sealcast_event) of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_event_size() -> usize {
    size_of::<SealcastEvent>()
}

/// sizeof(sealcast_message) of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_message_size() -> usize {
    size_of::<SealcastMessage>()
}

/// sizeof(sealcast_subscriber_options) of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_subscriber_options_size() -> usize {
    size_of::<SealcastSubscriberOptions>()
}

/// sizeof(sealcast_subscriber_counters) of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_subscriber_counters_size() -> usize {
    size_of::<SealcastSubscriberCounters>()
}

/// sizeof(sealcast_publisher_options) of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_publisher_options_size() -> usize {
    size_of::<SealcastPublisherOptions>()
}

/// sizeof(sealcast_publisher_counters) of this library.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_publisher_counters_size() -> usize {
    size_of::<SealcastPublisherCounters>()
}
