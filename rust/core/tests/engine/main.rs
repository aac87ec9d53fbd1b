//! The engine from outside, in one program: with one for each file, linking them would be most of the tests' time.
//!
//! `abuse_*`: what attackers do. `scenario_*`: what networks and members do. [`mutation`], [`fingerprint`]: nothing that is
//! refused changes the state. [`common`]: what they stand on.

mod abuse_exhaustion;
mod abuse_fec;
mod abuse_insider;
mod abuse_outsider;
mod abuse_policy;
mod abuse_replay;
mod common;
mod fingerprint;
mod mutation;
mod scenario_delivery;
mod scenario_fec;
mod scenario_first;
mod scenario_members;
mod scenario_network;
mod scenario_sites;
mod scenario_streams;
mod scenario_succession;
