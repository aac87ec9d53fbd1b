//! What a publisher says besides messages: its credential, its heartbeats, its entry in the directory.
//!
//! Spec: wire.md DP-26 to DP-31; side-channel.md SC-5.

use super::{Certified, FINAL_HEARTBEATS, HEARTBEAT_FIRST, SECOND, Sender};
use crate::credential::{Credential, MAX_BUNDLE_BYTES, MAX_PARTS, encode_bundle};
use crate::event::Target;
use crate::member::{Outgoing, Purposes};
use crate::messages::put_stream_request;
use crate::sealer::{BlockPlan, Bodies};
use crate::stream::Heartbeat;
use crate::wire::{IP_UDP_BYTES, OVERHEAD_BYTES, PacketType, SiteId, StreamId, Time};

/// Heartbeats come at growing intervals up to this (DP-28).
const HEARTBEAT_MAX: u64 = SECOND;
/// Repetitions of the credential: quickly at first, for those who lost one, then steadily (DP-31).
const CREDENTIAL_INTERVALS: [u64; 3] = [SECOND / 10, SECOND / 4, SECOND];
/// With so many of the heartbeats that say the end the credential is repeated (DP-31).
const FINAL_CREDENTIALS: u32 = 3;
const CREDENTIAL_MAX: u64 = 2 * SECOND;
const PUT_TIMEOUT: u64 = 10 * SECOND;

/// Why a credential was not taken: no subscriber could make use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnfitCredential {
    /// With its chain it is longer than any subscriber accepts (TR-12).
    TooLong { bytes: usize },
    /// It would take more than eight packets of this MTU (DP-29).
    MtuTooSmall { mtu: usize, needed: usize },
}

impl core::fmt::Display for UnfitCredential {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(
                f,
                "the stream credential with its certificates has {bytes} bytes, more than {MAX_BUNDLE_BYTES}"
            ),
            Self::MtuTooSmall { mtu, needed } => write!(
                f,
                "the stream credential with its certificates needs an MTU of {needed} bytes, more than {mtu}"
            ),
        }
    }
}

impl Sender {
    /// What the device key has to sign, once joined (TR-11). `site`, `device` are the certificate's.
    pub fn credential_tbs(
        &self,
        site: SiteId,
        device: &str,
        certificate_hash: [u8; 32],
        not_before: Time,
        not_after: Time,
        succeeds: Option<StreamId>,
    ) -> Option<Vec<u8>> {
        let credential = Credential {
            public_key: self.public_key,
            channel: *self.member.channel(),
            suite: self.member.suite()?,
            site,
            device: device.to_owned(),
            certificate_hash,
            not_before,
            not_after,
            start_nonce: self.start_nonce,
            instance: self.instance.clone(),
            succeeds,
        };
        Some(credential.encode())
    }

    /// Takes the signed credential and its chain; from now on the stream can speak.
    pub fn set_credential(
        &mut self,
        signed: &[u8],
        chain: &[Vec<u8>],
        not_after: Time,
        now: Time,
    ) -> Result<(), UnfitCredential> {
        let bundle = encode_bundle(signed, chain);
        if bundle.len() > MAX_BUNDLE_BYTES {
            return Err(UnfitCredential::TooLong { bytes: bundle.len() });
        }
        let part = bundle.len().div_ceil(usize::from(MAX_PARTS));
        if part > self.payload_limit {
            let mtu = |payload| payload + IP_UDP_BYTES + OVERHEAD_BYTES + self.parity.payload_bytes();
            return Err(UnfitCredential::MtuTooSmall {
                mtu: mtu(self.payload_limit),
                needed: mtu(part),
            });
        }
        self.certified = Some(Certified { bundle, not_after });
        self.member.note_renewal(now);
        self.credential_due = Some(now);
        self.credentials_sent = 0;
        self.heartbeat_due = Some(now);
        self.directory_due = Some(now);
        Ok(())
    }

    pub(super) fn send_credential(&mut self, now: Time, randomness: [u8; 16]) {
        let wait = CREDENTIAL_INTERVALS
            .get(self.credentials_sent)
            .copied()
            .unwrap_or(CREDENTIAL_MAX);
        let epoch = self.epoch_to_seal(now);
        self.credential_due = Some(now + wait);
        let (Some(epoch), Some(certified)) = (epoch, &self.certified) else {
            return;
        };
        let parts: Vec<Vec<u8>> = certified
            .bundle
            .chunks(self.payload_limit)
            .map(<[u8]>::to_vec)
            .collect();
        let plan = BlockPlan {
            packet_type: PacketType::Credential,
            epoch,
            first_sequence: 0,
            time: self.time_to_seal(now),
            randomness,
        };
        let datagrams = self.seal(plan, Bodies::of(&parts));
        self.credentials_sent += 1;
        self.queue_datagrams(datagrams);
    }

    pub(super) fn send_heartbeat(&mut self, now: Time, randomness: [u8; 16]) {
        self.heartbeat_due = Some(now + self.heartbeat_interval);
        self.heartbeat_interval = (self.heartbeat_interval * 2).min(HEARTBEAT_MAX);
        let Some(epoch) = self.epoch_to_seal(now) else {
            return;
        };
        // The end is said only when everything before it has been sealed.
        let end = self.end.filter(|_| self.queue.is_empty());
        let heartbeat = Heartbeat {
            counter: self.heartbeat_counter,
            next_sequence: self.next_sequence,
            is_final: end.is_some(),
            successor: end.and_then(|(successor, _)| successor),
        };
        let plan = BlockPlan {
            packet_type: PacketType::Heartbeat,
            epoch,
            first_sequence: 0,
            time: self.time_to_seal(now),
            randomness,
        };
        let datagrams = self.seal(plan, Bodies::of(&[heartbeat.encode()]));
        let Some(datagram) = datagrams.first() else { return };
        let first_end = end.is_some_and(|(_, told)| told == 0);
        if self.head.is_none() || first_end {
            self.directory_due = Some(now);
        }
        self.is_fresh |= first_end && self.is_awaited;
        self.head = Some(datagram.clone());
        self.heartbeat_counter += 1;
        if end.is_some()
            && let Some((_, told)) = &mut self.end
        {
            *told += 1;
            // Who has missed every announcement of a short stream so far hears of it now, while it can still be mended.
            if *told <= FINAL_CREDENTIALS {
                self.credential_due = Some(now);
            }
            self.heartbeat_due = (*told < FINAL_HEARTBEATS).then_some(now + HEARTBEAT_FIRST);
        }
        self.queue_datagrams(datagrams);
    }

    pub(super) fn put_stream(&mut self, now: Time) {
        let Some(certified) = &self.certified else { return };
        if self.head.is_none() || self.member.policy().is_none() {
            self.directory_due = Some(now + SECOND / 20);
            return;
        }
        self.directory_due = Some(now + PUT_TIMEOUT);
        let endpoint = self.endpoint.as_ref().map(|(host, port)| (host.as_str(), *port));
        let body = put_stream_request(&certified.bundle, self.head.as_deref(), endpoint);
        let path = self
            .member
            .key_server_path(&format!("streams/{}", self.stream.hex()));
        let outgoing = Outgoing {
            target: Target::KeyServer,
            method: "PUT",
            path,
            body,
            timeout: PUT_TIMEOUT,
        };
        self.member.request(Purposes::PutStream, outgoing, now);
    }
}
