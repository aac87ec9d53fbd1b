//! Stream credentials: a device says "this stream key speaks for me on this channel until then".
//!
//! Spec: trust.md TR-11, TR-12, TR-14.

use std::sync::Arc;

use crate::crypto::{Suite, VerifyingKey, public_key_of, sha256, spki_of};
use crate::schedule::stream_id;
use crate::signed::{CREDENTIAL_CONTEXT, CborReader, CborWriter, MalformedObject, SignedObject};
use crate::validator::{Certificate, InvalidChain, Role, Validator, is_device_name};
use crate::wire::{ChannelId, SiteId, StreamId, Time};

const VERSION: u64 = 1;
pub const MAX_CHAIN: usize = 4;
/// Most credential packets that a bundle is cut into (DP-29).
pub const MAX_PARTS: u8 = 8;
/// TR-12: what as many packets of the usual size hold.
pub const MAX_BUNDLE_BYTES: usize = MAX_PARTS as usize * 1204;

/// The signed content of a credential (TR-11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub public_key: [u8; 32],
    pub channel: ChannelId,
    pub suite: Suite,
    pub site: SiteId,
    pub device: String,
    pub certificate_hash: [u8; 32],
    pub not_before: Time,
    pub not_after: Time,
    pub start_nonce: [u8; 16],
    pub instance: String,
    pub succeeds: Option<StreamId>,
}

impl Credential {
    pub fn encode(&self) -> Vec<u8> {
        CborWriter::new()
            .array(12)
            .uint(VERSION)
            .bytes(&spki_of(&self.public_key))
            .bytes(&self.channel.0)
            .uint(self.suite as u64)
            .bytes(&self.site.0)
            .text(&self.device)
            .bytes(&self.certificate_hash)
            .uint(self.not_before)
            .uint(self.not_after)
            .bytes(&self.start_nonce)
            .text(&self.instance)
            .optional_bytes(self.succeeds.as_ref().map(|id| &id.0[..]))
            .finish()
    }

    pub fn parse(tbs: &[u8]) -> Result<Self, MalformedObject> {
        let mut r = CborReader::new(tbs);
        r.array_of(12)?;
        if r.uint()? != VERSION {
            return Err(MalformedObject);
        }
        let credential = Self {
            public_key: public_key_of(r.bytes()?).ok_or(MalformedObject)?,
            channel: ChannelId(r.fixed()?),
            suite: Suite::from_code(r.uint()?).ok_or(MalformedObject)?,
            site: SiteId(r.fixed()?),
            device: r.text()?.to_owned(),
            certificate_hash: r.fixed()?,
            not_before: r.uint()?,
            not_after: r.uint()?,
            start_nonce: r.fixed()?,
            instance: r.text()?.to_owned(),
            succeeds: r.optional(CborReader::fixed)?.map(StreamId),
        };
        r.end()?;
        let is_instance = credential.instance.is_empty() || is_device_name(&credential.instance);
        if !is_device_name(&credential.device) || !is_instance || credential.encode() != tbs {
            return Err(MalformedObject);
        }
        Ok(credential)
    }

    pub fn stream_id(&self) -> StreamId {
        stream_id(&self.public_key)
    }
}

/// `[signed credential, [certificates]]` of TR-12.
pub fn encode_bundle(signed: &[u8], chain: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = CborWriter::new().array(2).bytes(signed).array(chain.len());
    for certificate in chain {
        writer = writer.bytes(certificate);
    }
    writer.finish()
}

/// Who publishes, as a verified credential says; one value for all messages of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    pub stream: StreamId,
    pub site: SiteId,
    pub device: String,
    pub instance: String,
}

/// A credential whose chain, signature and binding to its stream key have been checked.
#[derive(Clone, Debug)]
pub struct VerifiedCredential {
    pub publisher: Arc<Publisher>,
    pub credential: Credential,
    pub key: VerifyingKey,
    /// The bundle as received, for others and for later re-verification.
    pub bundle: Vec<u8>,
}

/// Why a credential is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialError {
    Malformed,
    Chain(InvalidChain),
    Signature,
    /// Names in credential and certificate differ.
    Identity,
    /// Made for another channel or suite.
    Channel,
    NotInForce,
    /// The policy does not list the device as a publisher.
    NotAllowed,
}

impl core::fmt::Display for CredentialError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Chain(chain) => chain.fmt(f),
            Self::Malformed => f.write_str("malformed"),
            Self::Signature => f.write_str("signature"),
            Self::Identity => f.write_str("wrong-identity"),
            Self::Channel => f.write_str("wrong-channel"),
            Self::NotInForce => f.write_str("expired"),
            Self::NotAllowed => f.write_str("not-allowed"),
        }
    }
}

impl From<MalformedObject> for CredentialError {
    fn from(_: MalformedObject) -> Self {
        Self::Malformed
    }
}

impl VerifiedCredential {
    /// TR-14, but for the policy, which the caller applies.
    pub fn verify(
        bundle: &[u8],
        validator: &Validator,
        role: Role,
        channel: &ChannelId,
        suite: Suite,
        now: Time,
    ) -> Result<Self, CredentialError> {
        if bundle.len() > MAX_BUNDLE_BYTES {
            return Err(CredentialError::Malformed);
        }
        let mut r = CborReader::new(bundle);
        r.array_of(2)?;
        let signed = SignedObject::parse(r.bytes()?)?;
        let chain = r.list(MAX_CHAIN, CborReader::bytes)?;
        r.end()?;
        let (&leaf, _) = chain.split_first().ok_or(CredentialError::Malformed)?;
        let peer = validator
            .verify_peer(&chain, role, now)
            .map_err(CredentialError::Chain)?;
        let certificate = Certificate::parse(leaf).ok_or(CredentialError::Malformed)?;
        let tbs = signed
            .verify(CREDENTIAL_CONTEXT, &certificate)
            .ok_or(CredentialError::Signature)?;
        let credential = Credential::parse(tbs)?;
        if credential.certificate_hash != sha256(&[leaf])
            || credential.site != peer.site
            || credential.device != peer.name
        {
            return Err(CredentialError::Identity);
        }
        if credential.channel != *channel || credential.suite != suite {
            return Err(CredentialError::Channel);
        }
        if now < credential.not_before || now > credential.not_after {
            return Err(CredentialError::NotInForce);
        }
        let key = VerifyingKey::new(&credential.public_key).ok_or(CredentialError::Signature)?;
        let publisher = Arc::new(Publisher {
            stream: credential.stream_id(),
            site: credential.site,
            device: credential.device.clone(),
            instance: credential.instance.clone(),
        });
        Ok(Self {
            publisher,
            credential,
            key,
            bundle: bundle.to_vec(),
        })
    }

    pub fn stream(&self) -> StreamId {
        self.publisher.stream
    }
}
