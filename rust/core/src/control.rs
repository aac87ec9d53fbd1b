//! The control stream: what the key server states, signed by a stream of its own.
//!
//! Spec: keys.md section 3 (KM-15 to KM-17).

use crate::block::signed_statement;
use crate::credential::VerifiedCredential;
use crate::crypto::{GateKey, Suite};
use crate::fingerprint::Fingerprint;
use crate::wire::{ChannelId, Epoch, PacketType, PacketView, Time};

pub const MAX_COMMITMENTS: usize = 32;
/// By how much the clocks of key server and member may differ, the way between them included (KM-16).
pub const CLOCK_ALLOWANCE: u64 = 60_000_000;

/// Number and SHA-256 of a signed document that the beacon names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentVersion {
    pub number: u64,
    pub hash: [u8; 32],
}

/// The clear body of a beacon (KM-15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeaconBody {
    pub counter: u64,
    pub policy: DocumentVersion,
    pub crl: DocumentVersion,
    pub bundle: DocumentVersion,
    pub generation_commitment: [u8; 32],
    pub first_slot: u32,
    pub slot_commitments: Vec<[u8; 32]>,
}

const FIXED_BYTES: usize = 8 + 3 * 40 + 32 + 3 + 1;

impl BeaconBody {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_BYTES + 32 * self.slot_commitments.len());
        out.extend_from_slice(&self.counter.to_be_bytes());
        for document in [&self.policy, &self.crl, &self.bundle] {
            out.extend_from_slice(&document.number.to_be_bytes());
            out.extend_from_slice(&document.hash);
        }
        out.extend_from_slice(&self.generation_commitment);
        out.extend_from_slice(&self.first_slot.to_be_bytes()[1..]);
        out.push(self.slot_commitments.len() as u8);
        for commitment in &self.slot_commitments {
            out.extend_from_slice(commitment);
        }
        out
    }

    pub fn parse(body: &[u8]) -> Option<Self> {
        fn number(bytes: &[u8]) -> u64 {
            bytes.iter().fold(0, |value, &b| (value << 8) | u64::from(b))
        }
        let (fixed, commitments) = body.split_at_checked(FIXED_BYTES)?;
        let count = usize::from(fixed[FIXED_BYTES - 1]);
        if count == 0 || count > MAX_COMMITMENTS || commitments.len() != 32 * count {
            return None;
        }
        let document = |at: usize| {
            let hash = fixed[at + 8..at + 40].try_into().ok()?;
            Some(DocumentVersion {
                number: number(&fixed[at..at + 8]),
                hash,
            })
        };
        Some(Self {
            counter: number(&fixed[..8]),
            policy: document(8)?,
            crl: document(48)?,
            bundle: document(88)?,
            generation_commitment: fixed[128..160].try_into().ok()?,
            first_slot: number(&fixed[160..163]) as u32,
            slot_commitments: commitments.chunks(32).filter_map(|c| c.try_into().ok()).collect(),
        })
    }

    pub fn slot_commitment(&self, slot: u32) -> Option<&[u8; 32]> {
        self.slot_commitments
            .get(slot.checked_sub(self.first_slot)? as usize)
    }
}

/// A beacon whose signature and credential have been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedBeacon {
    pub epoch: Epoch,
    pub time: Time,
    pub body: BeaconBody,
}

impl VerifiedBeacon {
    /// Whether it was sealed about now. One that was held up says how things stood, not that they still do.
    pub fn is_fresh(&self, now: Time) -> bool {
        now.abs_diff(self.time) <= CLOCK_ALLOWANCE
    }
}

/// Why a beacon is not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeaconError {
    Malformed,
    /// Of another stream than the key server's.
    UnknownStream,
    Gate,
    Signature,
    /// Its time is outside the control credential's.
    NotInForce,
    /// Not ahead of the last one.
    Stale,
    /// Too many in this second.
    Budget,
}

/// The member's view of the control stream: verifies beacons, remembers the last.
#[derive(Debug)]
pub struct ControlState {
    credential: VerifiedCredential,
    suite: Suite,
    channel: ChannelId,
    last: Option<VerifiedBeacon>,
}

impl ControlState {
    pub fn new(credential: VerifiedCredential, suite: Suite, channel: ChannelId) -> Self {
        Self {
            credential,
            suite,
            channel,
            last: None,
        }
    }

    pub fn last(&self) -> Option<&VerifiedBeacon> {
        self.last.as_ref()
    }

    /// The same for a control stream of another credential (a key server that restarted): what is known stays.
    pub fn with_credential(&self, credential: VerifiedCredential) -> Self {
        Self {
            credential,
            suite: self.suite,
            channel: self.channel,
            last: self.last.clone(),
        }
    }

    fn parse<'a>(&self, datagram: &'a [u8]) -> Result<(PacketView<'a>, BeaconBody), BeaconError> {
        let packet = PacketView::parse(datagram).map_err(|_| BeaconError::Malformed)?;
        if packet.header.packet_type != PacketType::Beacon || packet.header.count != 1 {
            return Err(BeaconError::Malformed);
        }
        if packet.header.stream != self.credential.stream() {
            return Err(BeaconError::UnknownStream);
        }
        let body = BeaconBody::parse(packet.body).ok_or(BeaconError::Malformed)?;
        Ok((packet, body))
    }

    /// What can be said of a beacon that came by multicast before its signature is checked: whether it would be news, and
    /// whether a member gated it. `gate` gives the control gate key of a slot.
    pub fn screen(
        &self,
        datagram: &[u8],
        gate: impl FnOnce(u32) -> Option<GateKey>,
    ) -> Result<(), BeaconError> {
        let (packet, body) = self.parse(datagram)?;
        if self
            .last
            .as_ref()
            .is_some_and(|last| body.counter <= last.body.counter)
        {
            return Err(BeaconError::Stale);
        }
        let key = gate(packet.header.epoch.slot).ok_or(BeaconError::Gate)?;
        if !key.holds(packet.gated(&packet.leaf_hash(self.suite)), packet.gate) {
            return Err(BeaconError::Gate);
        }
        Ok(())
    }

    /// Checks a beacon's stream, signature and time. What it says about secrets (commitments) then holds, even if newer
    /// beacons are known.
    pub fn verify(&self, datagram: &[u8]) -> Result<VerifiedBeacon, BeaconError> {
        let (packet, body) = self.parse(datagram)?;
        let header = packet.header;
        let leaf = packet.leaf_hash(self.suite);
        let statement = signed_statement(self.suite, &self.channel, &header, &leaf);
        if !self.credential.key.verifies(&statement, packet.signature) {
            return Err(BeaconError::Signature);
        }
        let granted = &self.credential.credential;
        if header.time < granted.not_before || header.time > granted.not_after {
            return Err(BeaconError::NotInForce);
        }
        Ok(VerifiedBeacon {
            epoch: header.epoch,
            time: header.time,
            body,
        })
    }

    pub fn fingerprint(&self, into: &mut Fingerprint) {
        into.bytes(&self.credential.bundle);
        if let Some(last) = &self.last {
            into.bytes(&last.epoch.to_bytes())
                .number(last.time)
                .bytes(&last.body.encode());
        }
    }

    /// Whether a verified beacon is ahead of the last one (KM-16).
    pub fn is_ahead(&self, beacon: &VerifiedBeacon) -> bool {
        self.last.as_ref().is_none_or(|last| {
            let (told, known) = (&beacon.body, &last.body);
            told.counter > known.counter
                && beacon.epoch.membership() >= last.epoch.membership()
                && told.policy.number >= known.policy.number
                && told.crl.number >= known.crl.number
                && told.bundle.number >= known.bundle.number
        })
    }

    /// Obeys a verified beacon if it is ahead of the last one; false if it is not.
    pub fn advance(&mut self, beacon: &VerifiedBeacon) -> bool {
        let ahead = self.is_ahead(beacon);
        if ahead {
            self.last = Some(beacon.clone());
        }
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beacon_body_round_trips_and_has_one_length() {
        let document = DocumentVersion {
            number: 7,
            hash: [3; 32],
        };
        let body = BeaconBody {
            counter: 9,
            policy: document,
            crl: document,
            bundle: DocumentVersion {
                number: 0,
                hash: [0; 32],
            },
            generation_commitment: [5; 32],
            first_slot: 77,
            slot_commitments: vec![[1; 32], [2; 32]],
        };
        let mut bytes = body.encode();
        assert_eq!(BeaconBody::parse(&bytes).as_ref(), Some(&body));
        assert_eq!(body.slot_commitment(78), Some(&[2; 32]));
        assert_eq!(body.slot_commitment(79), None);
        bytes.push(0);
        assert_eq!(BeaconBody::parse(&bytes), None);
    }
}
