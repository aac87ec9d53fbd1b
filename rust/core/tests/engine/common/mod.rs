//! A site, its key server and a network to try the engine in: real certificates, virtual time, one seed.
//!
//! [`site`] makes certificates and signed objects, [`key_server`] answers the side channel as spec/side-channel.md says,
//! [`world`] moves datagrams, requests and time, [`forge`] makes the packets that an attacker would.

// `pub` says what the tests may use; a program exports nothing.
#![allow(unreachable_pub)]

pub mod forge;
pub mod key_server;
pub mod site;
pub mod world;

pub use forge::Forge;
pub use key_server::KeyServer;
pub use world::{Link, World, payload};

use sealcast_core::wire::Time;

pub const MILLI: Time = 1_000;
pub const SECOND: Time = 1_000_000;
pub const MINUTE: Time = 60 * SECOND;
pub const HOUR: Time = 60 * MINUTE;
pub const DAY: Time = 24 * HOUR;
/// When every simulation begins: 2027-01-15T08:00:00Z, well within the life of all certificates.
pub const START: Time = 1_800_000_000 * SECOND;
pub const CHANNEL: &str = "ward-3/vitals";
