//! Answers on what is signed: credentials, their bundles, policies.

use sealcast_core::block::sign_input;
use sealcast_core::credential::{Credential, CredentialError, VerifiedCredential};
use sealcast_core::crypto::{VerifyingKey, spki_of};
use sealcast_core::fec::Fec;
use sealcast_core::policy::{Policy, PolicyError};
use sealcast_core::signed::SignedObject;
use sealcast_core::validator::{Certificate, Role, Validator};
use sealcast_core::wire::ChannelId;

use crate::functions::suite;
use crate::site::{CHANNEL, SITE};
use crate::value::{Value, hex, map};
use crate::{Answered, Error, Reason, invalid, valid};

/// Of algorithm 2 (registry.md), which the cases are signed by.
fn read_credential(signed: &[u8], context: &str, key: &VerifyingKey) -> Result<Credential, Reason> {
    let object = SignedObject::parse(signed).map_err(|_| "malformed")?;
    let signature = object.signature.try_into().map_err(|_| "signature")?;
    if object.algorithm != 2 || !key.verifies(&sign_input(context, object.tbs), signature) {
        return Err("signature");
    }
    Credential::parse(object.tbs).map_err(|_| "malformed")
}

pub(crate) fn credential(case: &Value) -> Answered {
    let key = VerifyingKey::new(&case.fixed("devicePublicKey")?)
        .ok_or_else(|| Error::case("'devicePublicKey': no key of Ed25519"))?;
    let credential = match read_credential(&case.bytes("signed")?, case.text("context")?, &key) {
        Ok(credential) => credential,
        Err(reason) => return Ok(invalid(reason)),
    };
    let fields = map(vec![
        ("spki", hex(&spki_of(&credential.public_key))),
        ("channelId", hex(&credential.channel.0)),
        ("suite", (credential.suite as u64).into()),
        ("siteId", hex(&credential.site.0)),
        ("device", credential.device.as_str().into()),
        ("certificateHash", hex(&credential.certificate_hash)),
        ("notBefore", credential.not_before.into()),
        ("notAfter", credential.not_after.into()),
        ("startNonce", hex(&credential.start_nonce)),
        ("instance", credential.instance.as_str().into()),
        ("succeeds", credential.succeeds.map(|id| hex(&id.0)).into()),
    ]);
    Ok(valid(vec![
        ("tbs", hex(&credential.encode())),
        ("fields", fields),
    ]))
}

/// A bundle for a stream at a time, on the channel of the case's policy (TR-14).
fn judge_bundle(case: &Value) -> Result<Result<(), Reason>, Error> {
    let anchors = case.all_bytes("anchors")?;
    let anchors: Vec<&[u8]> = anchors.iter().map(Vec::as_slice).collect();
    let validator = Validator::new(&anchors, &[]).ok_or_else(|| Error::case("'anchors': one is no root"))?;
    let policy = case.bytes("policy")?;
    let policy = SignedObject::parse(&policy)
        .and_then(|object| Policy::parse(object.tbs))
        .map_err(|_| Error::case("'policy': malformed"))?;
    let role = case.text("role")?;
    let role = Role::parse(role).ok_or_else(|| Error::case(format!("'role': '{role}' is none")))?;
    let channel = ChannelId(case.fixed("channelId")?);
    let (bundle, now) = (case.bytes("bundle")?, case.number("now")?);
    let (stream, time) = (case.fixed("streamId")?, case.number("packetTime")?);
    let verified = match VerifiedCredential::verify(&bundle, &validator, role, &channel, suite(case)?, now) {
        Ok(verified) => verified,
        Err(error) => {
            return Ok(Err(match error {
                CredentialError::Malformed => "malformed",
                CredentialError::Chain(_) => "chain",
                CredentialError::Signature => "signature",
                CredentialError::Identity => "certificate",
                CredentialError::Channel => "channel",
                CredentialError::NotInForce => "time",
                CredentialError::NotAllowed => "policy",
            }));
        }
    };
    let (publisher, credential) = (&verified.publisher, &verified.credential);
    let may_publish = role == Role::KeyServer || policy.may_publish(&publisher.site, &publisher.device);
    Ok(if verified.stream().0 != stream {
        Err("stream-id")
    } else if !(credential.not_before..=credential.not_after).contains(&time) {
        Err("time")
    } else if !may_publish {
        Err("policy")
    } else {
        Ok(())
    })
}

pub(crate) fn bundle(case: &Value) -> Answered {
    Ok(judge_bundle(case)?.map_or_else(invalid, |()| valid(Vec::new())))
}

pub(crate) fn policy(case: &Value) -> Answered {
    let issuers = case.all_bytes("issuers")?;
    let issuer = issuers
        .first()
        .and_then(|der| Certificate::parse(der))
        .ok_or_else(|| Error::case("'issuers': the first is no certificate"))?;
    let (known, now) = (case.number("knownVersion")?, case.number("now")?);
    let policy = match Policy::verify(&case.bytes("signed")?, &issuer, &SITE, CHANNEL, known, now) {
        Ok(verified) => verified.policy,
        Err(error) => {
            return Ok(invalid(match error {
                PolicyError::Malformed => "malformed",
                PolicyError::Signature => "signature",
                PolicyError::Channel => "channel",
                PolicyError::Backwards => "version",
                PolicyError::Stale => "time",
            }));
        }
    };
    let fec = match policy.fec {
        Fec::Off => Value::Null,
        Fec::Adaptive => Value::List(Vec::new()),
        Fec::Fixed(ratio) => Value::List(vec![ratio.sources.into(), ratio.parities.into()]),
    };
    let names = |names: &[String]| -> Value { names.iter().map(|name| name.as_str().into()).collect() };
    let fields = map(vec![
        ("siteId", hex(&policy.site.0)),
        ("channel", policy.channel_name.as_str().into()),
        ("channelId", hex(&policy.channel.0)),
        ("version", policy.version.into()),
        ("issued", policy.issued.into()),
        ("nextUpdate", policy.next_update.into()),
        ("suite", (policy.suite as u64).into()),
        ("group", policy.group.as_str().into()),
        ("port", policy.port.into()),
        ("interface", policy.interface.as_deref().into()),
        ("rate", policy.rate.into()),
        ("originTime", policy.slot_origin_time.into()),
        ("originNumber", policy.slot_origin_number.into()),
        ("slotLength", policy.slot_length.into()),
        ("retention", policy.retention.into()),
        ("retentionBytes", policy.retention_bytes.into()),
        ("publisherLimit", policy.publisher_limit.into()),
        ("fec", fec),
        ("publishers", names(&policy.publishers)),
        ("subscribers", names(&policy.subscribers)),
    ]);
    Ok(valid(vec![("tbs", hex(&policy.encode())), ("fields", fields)]))
}
