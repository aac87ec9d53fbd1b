//! The Sealcast engine: a state machine without sockets, clocks, threads or unsafe code.
//!
//! Datagrams, side-channel responses, time and randomness go in; [`event::Event`]s (facts for the application),
//! [`event::Command`]s (requests for the side channel), datagrams and the next deadline come out.
//!
//! From the bottom up: [`crypto`], [`lanes`], [`wire`] and [`fingerprint`] know bytes; [`block`], [`schedule`], [`frames`] know what the bytes mean;
//! [`validator`], [`credential`], [`policy`], [`trust_bundle`] decide whom to believe, by [`date`]; [`keyring`], [`window`], [`repair`] each own one piece of
//! state; [`member`] is what publishers and subscribers share; [`sender`] and [`receiver`] wire it all.

#![forbid(unsafe_code)]

pub mod block;
pub mod budget;
pub mod control;
pub mod credential;
pub mod crl;
pub mod crypto;
pub mod date;
pub mod delivery;
pub mod digest_map;
pub mod event;
pub mod fec;
pub mod fingerprint;
pub mod frames;
pub mod groups;
pub mod heartbeat;
mod key_usage;
pub mod keyring;
pub mod lanes;
pub mod member;
pub mod messages;
pub mod packet_store;
mod plaintexts;
pub mod policy;
pub mod reassembly;
pub mod receiver;
pub mod rejection;
pub mod repair;
pub mod retention;
pub mod schedule;
pub mod sealer;
pub mod sender;
pub mod signed;
pub mod stream;
pub mod trust_bundle;
pub mod validator;
pub mod window;
pub mod wire;
