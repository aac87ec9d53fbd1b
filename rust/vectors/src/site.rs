//! The site of the cases, as a key server would tell a subscriber of it: what a receiver has to have joined before it
//! takes a packet.
//!
//! Its keys are no secret and its certificates are always the same: those of the folder site/, which tests/site.rs
//! writes. All of them are of Ed25519, by which what is signed here needs no random source either.

use std::collections::BTreeMap;

use sealcast_core::control::{BeaconBody, DocumentVersion};
use sealcast_core::credential::{Credential, encode_bundle};
use sealcast_core::crypto::{Secret, SigningKey, Suite, sha256};
use sealcast_core::fec::Fec;
use sealcast_core::policy::Policy;
use sealcast_core::schedule::{channel_id, commit_generation, commit_slot};
use sealcast_core::sealer::Sealer;
use sealcast_core::signed::{CREDENTIAL_CONTEXT, CborWriter, POLICY_CONTEXT, SignedObject};
use sealcast_core::validator::Validator;
use sealcast_core::wire::{Epoch, SiteId, Time};

use crate::Error;

/// The site and the channel that the cases are of.
pub const SITE: SiteId = SiteId(*b"\x6d\xb5\xee\x09\xff\x92\x32\x87\x81\xb1\x39\xd7\xcf\x68\x4c\xdf");
pub const CHANNEL: &str = "ward-3/vitals";
pub const KEY_SERVER: &str = "keys-1";
pub const PUBLISHER: &str = "publisher";
pub const SUBSCRIBER: &str = "subscriber";

const SECOND: Time = 1_000_000;
const DAY: Time = 86_400 * SECOND;
/// A moment within all that the cases seal.
pub(crate) const NOW: Time = 1_767_225_601 * SECOND;
/// The number in site/crl.der.
const CRL_NUMBER: u64 = 1;
/// Of the registry: Ed25519.
const ALGORITHM: u64 = 2;

static ROOT: &[u8] = include_bytes!("site/root.der");
static AUTHORITY: &[u8] = include_bytes!("site/authority.der");
static CRL: &[u8] = include_bytes!("site/crl.der");
static KEY_SERVER_CERTIFICATE: &[u8] = include_bytes!("site/key-server.der");
static PUBLISHER_CERTIFICATE: &[u8] = include_bytes!("site/publisher.der");

/// The seed of a key of the site: everybody knows it.
pub fn seed(of: &str) -> [u8; 32] {
    sha256(&[b"sealcast known answers: ", of.as_bytes()])
}

fn sign(by: &str, context: &str, tbs: &[u8]) -> Vec<u8> {
    let key = SigningKey::from_seed(&Secret::new(seed(by)));
    let signature = key.sign(&sealcast_core::block::sign_input(context, tbs));
    let object = SignedObject {
        tbs,
        algorithm: ALGORITHM,
        signature: &signature,
    };
    object.encode()
}

/// The site with one channel, whose secrets and whose one stream a case gives.
pub(crate) struct Site {
    pub(crate) policy: Policy,
    /// Without gaps; the first ones given say which slot it is.
    pub(crate) slots: BTreeMap<u32, Secret>,
    pub(crate) generation: (u32, u8, Secret),
    /// Of the stream in the directory.
    pub(crate) stream_key: Option<[u8; 32]>,
    control: Sealer,
    beacons: u64,
}

impl Site {
    /// A site without secrets: nobody can join it yet.
    pub(crate) fn new(suite: Suite) -> Self {
        let channel = channel_id(&SITE, CHANNEL);
        Self {
            policy: Policy {
                site: SITE,
                channel_name: CHANNEL.to_owned(),
                channel,
                version: 1,
                issued: NOW,
                next_update: NOW + 30 * DAY,
                suite,
                group: "239.1.2.3".to_owned(),
                port: 5000,
                interface: None,
                rate: 100_000_000,
                slot_origin_time: NOW,
                slot_origin_number: 0,
                slot_length: DAY,
                retention: 30 * SECOND,
                retention_bytes: 64 << 20,
                publisher_limit: 60 * SECOND,
                fec: Fec::Off,
                publishers: vec![PUBLISHER.to_owned()],
                subscribers: vec![SUBSCRIBER.to_owned()],
            },
            slots: BTreeMap::new(),
            generation: (0, 0, Secret::new([0; 32])),
            stream_key: None,
            control: Sealer::new(&Secret::new(seed("control stream")), suite, channel),
            beacons: 0,
        }
    }

    pub(crate) fn validator(&self) -> Result<Validator, Error> {
        Validator::new(&[ROOT], &[]).ok_or_else(|| Error::fault("the root of the cases is none"))
    }

    fn signed_policy(&self) -> Vec<u8> {
        sign("authority", POLICY_CONTEXT, &self.policy.encode())
    }

    fn credential(&self, device: &str, certificate: &[u8], public_key: [u8; 32]) -> Credential {
        Credential {
            public_key,
            channel: self.policy.channel,
            suite: self.policy.suite,
            site: SITE,
            device: device.to_owned(),
            certificate_hash: sha256(&[certificate]),
            not_before: NOW - DAY,
            not_after: NOW + 30 * DAY,
            start_nonce: [0; 16],
            instance: String::new(),
            succeeds: None,
        }
    }

    fn bundle(&self, device: &str, certificate: &[u8], public_key: [u8; 32]) -> Vec<u8> {
        let credential = self.credential(device, certificate, public_key);
        let signed = sign(device, CREDENTIAL_CONTEXT, &credential.encode());
        encode_bundle(&signed, &[certificate.to_vec(), AUTHORITY.to_vec()])
    }

    /// The credential of a control stream, which nobody has to have verified to try it.
    pub(crate) fn control_credential(&self, public_key: [u8; 32]) -> Credential {
        self.credential(KEY_SERVER, KEY_SERVER_CERTIFICATE, public_key)
    }

    pub(crate) fn control_key(&self) -> [u8; 32] {
        *self.control.public_key()
    }

    fn beacon(&mut self, now: Time) -> Vec<u8> {
        self.beacons += 1;
        let (generation, step, secret) = &self.generation;
        let epoch = Epoch {
            slot: self.policy.slot_at(now),
            generation: *generation,
            step: *step,
        };
        let channel = self.policy.channel;
        let commitments = self
            .slots
            .iter()
            .map(|(slot, secret)| commit_slot(secret, &channel, *slot));
        let body = BeaconBody {
            counter: self.beacons,
            policy: DocumentVersion {
                number: self.policy.version,
                hash: sha256(&[&self.signed_policy()]),
            },
            crl: DocumentVersion {
                number: CRL_NUMBER,
                hash: sha256(&[CRL]),
            },
            bundle: DocumentVersion {
                number: 0,
                hash: [0; 32],
            },
            generation_commitment: commit_generation(secret, &channel, *generation, *step),
            first_slot: self.slots.keys().next().copied().unwrap_or_default(),
            slot_commitments: commitments.collect(),
        };
        let mut randomness = [0; 16];
        randomness[..8].copy_from_slice(&self.beacons.to_be_bytes());
        let slot = self
            .slots
            .get(&epoch.slot)
            .cloned()
            .unwrap_or(Secret::new([0; 32]));
        self.control
            .seal_beacon(epoch, &slot, &body, now, randomness)
            .to_vec()
    }

    /// What joins and replies of keys have in common, four fields.
    fn keys(&mut self, mut writer: CborWriter, now: Time) -> CborWriter {
        writer = writer
            .text("time")
            .uint(now)
            .text("slots")
            .array(self.slots.len());
        for (slot, secret) in &self.slots {
            writer = writer.array(2).uint(u64::from(*slot)).bytes(secret.expose());
        }
        writer = writer.text("beacon").bytes(&self.beacon(now));
        let (generation, step, secret) = &self.generation;
        let writer = writer.text("generation").array(3).uint(u64::from(*generation));
        writer.uint(u64::from(*step)).bytes(secret.expose())
    }

    pub(crate) fn keys_reply(&mut self, now: Time) -> Vec<u8> {
        self.keys(CborWriter::new().map(4), now).finish()
    }

    pub(crate) fn join_reply(&mut self, now: Time) -> Vec<u8> {
        let writer = self.keys(CborWriter::new().map(9), now).text("crl").bytes(CRL);
        let writer = writer.text("policy").bytes(&self.signed_policy());
        let writer = writer.text("issuers").array(1).bytes(AUTHORITY);
        let bundle = self.bundle(KEY_SERVER, KEY_SERVER_CERTIFICATE, self.control_key());
        let writer = writer.text("key-server").bytes(&bundle).text("streams");
        let Some(key) = self.stream_key else {
            return writer.array(0).finish();
        };
        let writer = writer
            .array(1)
            .map(6)
            .text("head")
            .null()
            .text("device")
            .text(PUBLISHER);
        let writer = writer
            .text("stream")
            .bytes(&sealcast_core::schedule::stream_id(&key).0)
            .text("endpoint")
            .array(2)
            .text(PUBLISHER)
            .uint(7000);
        let bundle = self.bundle(PUBLISHER, PUBLISHER_CERTIFICATE, key);
        writer
            .text("instance")
            .text("")
            .text("credential")
            .bytes(&bundle)
            .finish()
    }
}
