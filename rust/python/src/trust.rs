//! The validator, the key schedule and the control stream, for the service and for TLS.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sealcast_core::control::{BeaconBody, DocumentVersion};
use sealcast_core::credential::{Credential, VerifiedCredential};
use sealcast_core::crl::{CrlSet, Signature};
use sealcast_core::crypto::{Secret, Suite, spki_of};
use sealcast_core::policy::Policy;
use sealcast_core::schedule;
use sealcast_core::sealer::Sealer;
use sealcast_core::stream::Heartbeat;
use sealcast_core::validator::{Certificate, Role, Root, Usage, Validator};
use sealcast_core::wire::{ChannelId, Epoch, PacketType, PacketView, SiteId, StreamId};

use crate::error::{invalid_anchors, invalid_chain, invalid_credential, invalid_policy, malformed, unsigned};

/// A lock that a panic elsewhere does not take down with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn secret(bytes: &[u8]) -> PyResult<Secret> {
    Secret::from_slice(bytes).ok_or_else(|| PyValueError::new_err("a secret has 32 bytes"))
}

pub(crate) fn site(bytes: &[u8]) -> PyResult<SiteId> {
    SiteId::from_slice(bytes).ok_or_else(|| PyValueError::new_err("a site id has 16 bytes"))
}

pub(crate) fn sixteen(bytes: &[u8], what: &str) -> PyResult<[u8; 16]> {
    bytes
        .try_into()
        .map_err(|_| PyValueError::new_err(format!("{what} has 16 bytes")))
}

pub(crate) fn thirty_two(bytes: &[u8], what: &str) -> PyResult<[u8; 32]> {
    bytes
        .try_into()
        .map_err(|_| PyValueError::new_err(format!("{what} has 32 bytes")))
}

fn channel(bytes: &[u8]) -> PyResult<ChannelId> {
    ChannelId::from_slice(bytes).ok_or_else(|| PyValueError::new_err("a channel id has 32 bytes"))
}

fn suite(code: u64) -> PyResult<Suite> {
    Suite::from_code(code).ok_or_else(|| PyValueError::new_err(format!("there is no suite {code}")))
}

fn role(word: &str) -> PyResult<Role> {
    Role::parse(word).ok_or_else(|| PyValueError::new_err(format!("there is no role {word:?}")))
}

/// A trust anchor: DER alone, for every site, or with the ids of the sites that it may vouch for.
#[derive(FromPyObject)]
pub(crate) enum AnchorArgument {
    Everywhere(Vec<u8>),
    Scoped(Vec<u8>, Vec<Vec<u8>>),
}

pub(crate) fn validator(
    py: Python<'_>,
    anchors: &[AnchorArgument],
    intermediates: &[Vec<u8>],
) -> PyResult<Validator> {
    let mut scoped: Vec<(&[u8], Vec<SiteId>)> = Vec::with_capacity(anchors.len());
    for anchor in anchors {
        let (der, sites): (&[u8], &[Vec<u8>]) = match anchor {
            AnchorArgument::Everywhere(der) => (der, &[]),
            AnchorArgument::Scoped(der, sites) => (der, sites),
        };
        let sites = sites.iter().map(|id| site(id)).collect::<PyResult<_>>()?;
        scoped.push((der, sites));
    }
    let roots: Vec<Root<'_>> = scoped.iter().map(|(der, sites)| Root { der, sites }).collect();
    let intermediates: Vec<&[u8]> = intermediates.iter().map(Vec::as_slice).collect();
    Validator::scoped(&roots, &intermediates).ok_or_else(|| invalid_anchors(py))
}

/// DP-3.
#[pyfunction]
pub(crate) fn channel_id<'py>(py: Python<'py>, site_id: &[u8], name: &str) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &schedule::channel_id(&site(site_id)?, name).0))
}

/// How many CRLs a document (TR-9) holds.
#[pyfunction]
pub(crate) fn count_crls(py: Python<'_>, der: &[u8]) -> PyResult<usize> {
    let crls = CrlSet::parse(der).ok_or_else(|| malformed(py, "the CRL"))?;
    Ok(crls.count())
}

/// Issuer id, number, thisUpdate and nextUpdate of a list, and whether a site CA that is known has signed it.
type JudgedList<'py> = (Bound<'py, PyBytes>, u64, u64, u64, bool);

/// The lists of a document (TR-9), in order; none may name one of `authorities` without its signature.
#[pyfunction]
pub(crate) fn judge_crls<'py>(
    py: Python<'py>,
    der: &[u8],
    authorities: Vec<Vec<u8>>,
) -> PyResult<Vec<JudgedList<'py>>> {
    let crls = CrlSet::parse(der).ok_or_else(|| malformed(py, "the CRL"))?;
    let authorities: Vec<Certificate> = authorities
        .iter()
        .map(|der| Certificate::parse(der).ok_or_else(|| malformed(py, "a site CA's certificate")))
        .collect::<PyResult<_>>()?;
    let signatures = crls.signatures(&authorities);
    if signatures.contains(&Signature::Forged) {
        return Err(unsigned(py, "the CRL"));
    }
    let judged = crls.versions().zip(signatures).map(|(list, signature)| {
        (
            PyBytes::new(py, &list.issuer),
            list.number,
            list.issued,
            list.next_update,
            signature == Signature::Genuine,
        )
    });
    Ok(judged.collect())
}

/// TR-15: version, time of issue and nextUpdate of a policy. `issuer`: the site CA of a chain that was verified.
#[pyfunction]
#[pyo3(signature = (signed, *, issuer, site_id, channel, known_version, now))]
pub(crate) fn verify_policy(
    py: Python<'_>,
    signed: &[u8],
    issuer: &[u8],
    site_id: &[u8],
    channel: &str,
    known_version: u64,
    now: u64,
) -> PyResult<(u64, u64, u64)> {
    let issuer = Certificate::parse(issuer).ok_or_else(|| malformed(py, "a site CA's certificate"))?;
    let verified = Policy::verify(signed, &issuer, &site(site_id)?, channel, known_version, now);
    let policy = verified.map_err(|error| invalid_policy(py, error))?.policy;
    Ok((policy.version, policy.issued, policy.next_update))
}

/// KM-7.
#[pyfunction]
pub(crate) fn commit_slot<'py>(
    py: Python<'py>,
    slot_secret: &[u8],
    channel_id: &[u8],
    slot: u32,
) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(
        py,
        &schedule::commit_slot(&secret(slot_secret)?, &channel(channel_id)?, slot),
    ))
}

/// KM-7.
#[pyfunction]
pub(crate) fn commit_generation<'py>(
    py: Python<'py>,
    step_secret: &[u8],
    channel_id: &[u8],
    generation: u32,
    step: u8,
) -> PyResult<Bound<'py, PyBytes>> {
    let commitment =
        schedule::commit_generation(&secret(step_secret)?, &channel(channel_id)?, generation, step);
    Ok(PyBytes::new(py, &commitment))
}

/// KM-3.
#[pyfunction]
pub(crate) fn step_secret<'py>(
    py: Python<'py>,
    previous: &[u8],
    channel_id: &[u8],
    generation: u32,
    step: u8,
) -> PyResult<Bound<'py, PyBytes>> {
    let next = schedule::step_secret(&secret(previous)?, &channel(channel_id)?, generation, step);
    Ok(PyBytes::new(py, next.expose()))
}

/// Gate key and credential key of an epoch, from the secrets of its slot and step (KM-21).
#[pyfunction]
#[pyo3(signature = (slot_secret, step_secret, *, suite, channel_id, slot, generation, step))]
#[allow(clippy::too_many_arguments)] // Named in Python.
pub(crate) fn gate_keys<'py>(
    py: Python<'py>,
    slot_secret: &[u8],
    step_secret: &[u8],
    suite: u64,
    channel_id: &[u8],
    slot: u32,
    generation: u32,
    step: u8,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let suite = Suite::from_code(suite).ok_or_else(|| malformed(py, "the suite"))?;
    let epoch = Epoch {
        slot,
        generation,
        step,
    };
    let (gate, credential) = schedule::gate_keys(
        suite,
        &channel(channel_id)?,
        epoch,
        &secret(slot_secret)?,
        &secret(step_secret)?,
    );
    Ok((
        PyBytes::new(py, gate.expose()),
        PyBytes::new(py, credential.expose()),
    ))
}

/// The unverified words of a heartbeat datagram, a block of one: stream id, next sequence, whether it is final.
#[pyfunction]
pub(crate) fn parse_heartbeat<'py>(
    py: Python<'py>,
    datagram: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, u64, bool)> {
    let packet = PacketView::parse(datagram)
        .ok()
        .filter(|p| p.header.packet_type == PacketType::Heartbeat && p.header.count == 1);
    let packet = packet.ok_or_else(|| malformed(py, "the heartbeat"))?;
    let heartbeat = Heartbeat::parse(packet.body).ok_or_else(|| malformed(py, "the heartbeat"))?;
    Ok((
        PyBytes::new(py, &packet.header.stream.0),
        heartbeat.next_sequence,
        heartbeat.is_final,
    ))
}

/// Whom a verified chain speaks for.
#[pyclass(frozen, get_all, module = "sealcast._core")]
pub(crate) struct PeerIdentity {
    site_id: Py<PyBytes>,
    name: String,
    role: &'static str,
    certificate_hash: Py<PyBytes>,
    not_after: u64,
    issuer: Py<PyBytes>,
}

/// What a verified stream credential says.
#[pyclass(name = "VerifiedCredential", frozen, get_all, module = "sealcast._core")]
pub(crate) struct PyVerifiedCredential {
    stream_id: Py<PyBytes>,
    site_id: Py<PyBytes>,
    name: String,
    instance: String,
    succeeds: Option<Py<PyBytes>>,
    not_before: u64,
    not_after: u64,
}

struct Judge {
    validator: Validator,
    crl: Option<Vec<u8>>,
}

/// The one path validator (trust.md section 3).
#[pyclass(name = "Validator", frozen, module = "sealcast._core")]
pub(crate) struct PyValidator(Mutex<Judge>);

impl PyValidator {
    fn with_crl<T>(
        &self,
        py: Python<'_>,
        crl: Option<&[u8]>,
        judge: impl FnOnce(&Validator) -> PyResult<T>,
    ) -> PyResult<T> {
        let mut held = lock(&self.0);
        if held.crl.as_deref() != crl {
            let parse = |der| CrlSet::parse(der).ok_or_else(|| malformed(py, "the CRL"));
            held.validator.set_crls(crl.map(parse).transpose()?);
            held.crl = crl.map(<[u8]>::to_vec);
        }
        judge(&held.validator)
    }
}

#[pymethods]
impl PyValidator {
    #[new]
    fn new(py: Python<'_>, anchors: Vec<AnchorArgument>, intermediates: Vec<Vec<u8>>) -> PyResult<Self> {
        let validator = validator(py, &anchors, &intermediates)?;
        Ok(Self(Mutex::new(Judge { validator, crl: None })))
    }

    #[pyo3(signature = (chain, role, now, crl=None))]
    fn verify_peer(
        &self,
        py: Python<'_>,
        chain: Vec<Vec<u8>>,
        role: &str,
        now: u64,
        crl: Option<&[u8]>,
    ) -> PyResult<PeerIdentity> {
        let role = self::role(role)?;
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let peer = self.with_crl(py, crl, |validator| {
            validator
                .verify_peer(&chain, role, now)
                .map_err(|error| invalid_chain(py, &error))
        })?;
        Ok(PeerIdentity {
            site_id: PyBytes::new(py, &peer.site.0).unbind(),
            name: peer.name,
            role: peer.role.as_str(),
            certificate_hash: PyBytes::new(py, &peer.certificate_hash).unbind(),
            not_after: peer.not_after,
            issuer: PyBytes::new(py, &peer.issuer).unbind(),
        })
    }

    /// RFC 5280 alone, for an end entity of anybody's profile: what the other methods stand on.
    #[pyo3(signature = (chain, *, server, now, crl=None))]
    fn verify_path(
        &self,
        py: Python<'_>,
        chain: Vec<Vec<u8>>,
        server: bool,
        now: u64,
        crl: Option<&[u8]>,
    ) -> PyResult<()> {
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let usage = if server { Usage::Server } else { Usage::Client };
        self.with_crl(py, crl, |validator| {
            validator
                .verify_path(&chain, usage, now)
                .map_err(|error| invalid_chain(py, &error))
        })
    }

    /// TR-14 without the policy, which the caller applies.
    #[pyo3(signature = (bundle, *, role, channel_id, suite, now, crl=None))]
    #[allow(clippy::too_many_arguments)] // Named in Python.
    fn verify_credential(
        &self,
        py: Python<'_>,
        bundle: &[u8],
        role: &str,
        channel_id: &[u8],
        suite: u64,
        now: u64,
        crl: Option<&[u8]>,
    ) -> PyResult<PyVerifiedCredential> {
        let (role, channel, suite) = (self::role(role)?, channel(channel_id)?, self::suite(suite)?);
        let verified = self.with_crl(py, crl, |validator| {
            VerifiedCredential::verify(bundle, validator, role, &channel, suite, now)
                .map_err(|error| invalid_credential(py, &error))
        })?;
        let id = |id: &StreamId| PyBytes::new(py, &id.0).unbind();
        Ok(PyVerifiedCredential {
            stream_id: id(&verified.stream()),
            site_id: PyBytes::new(py, &verified.credential.site.0).unbind(),
            name: verified.credential.device.clone(),
            instance: verified.credential.instance.clone(),
            succeeds: verified.credential.succeeds.as_ref().map(id),
            not_before: verified.credential.not_before,
            not_after: verified.credential.not_after,
        })
    }
}

/// The key server's own stream: seals beacons (KM-15).
#[pyclass(frozen, module = "sealcast._core")]
pub(crate) struct ControlStream {
    sealer: Mutex<Sealer>,
    start_nonce: [u8; 16],
    channel: ChannelId,
    suite: Suite,
}

fn document(version: (u64, Vec<u8>)) -> PyResult<DocumentVersion> {
    Ok(DocumentVersion {
        number: version.0,
        hash: thirty_two(&version.1, "a hash")?,
    })
}

#[pymethods]
impl ControlStream {
    #[new]
    fn new(seed: &[u8], start_nonce: &[u8], channel_id: &[u8], suite: u64) -> PyResult<Self> {
        let (channel, suite) = (channel(channel_id)?, self::suite(suite)?);
        Ok(Self {
            sealer: Mutex::new(Sealer::new(&secret(seed)?, suite, channel)),
            start_nonce: sixteen(start_nonce, "a start nonce")?,
            channel,
            suite,
        })
    }

    #[getter]
    fn stream_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &lock(&self.sealer).stream().0)
    }

    /// SubjectPublicKeyInfo of the stream key, 44 bytes.
    #[getter]
    fn spki<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &spki_of(lock(&self.sealer).public_key()))
    }

    /// What the key server's certificate key has to sign (TR-11).
    #[pyo3(signature = (*, site_id, name, certificate_hash, not_before, not_after))]
    fn credential_tbs<'py>(
        &self,
        py: Python<'py>,
        site_id: &[u8],
        name: &str,
        certificate_hash: &[u8],
        not_before: u64,
        not_after: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let credential = Credential {
            public_key: *lock(&self.sealer).public_key(),
            channel: self.channel,
            suite: self.suite,
            site: site(site_id)?,
            device: name.to_owned(),
            certificate_hash: thirty_two(certificate_hash, "a certificate hash")?,
            not_before,
            not_after,
            start_nonce: self.start_nonce,
            instance: String::new(),
            succeeds: None,
        };
        Ok(PyBytes::new(py, &credential.encode()))
    }

    #[pyo3(signature = (*, slot, generation, step, slot_secret, counter, policy, crl, bundle, generation_commitment,
                        first_slot, slot_commitments, now, randomness))]
    #[allow(clippy::too_many_arguments)] // Named in Python.
    fn seal_beacon<'py>(
        &self,
        py: Python<'py>,
        slot: u32,
        generation: u32,
        step: u8,
        slot_secret: &[u8],
        counter: u64,
        policy: (u64, Vec<u8>),
        crl: (u64, Vec<u8>),
        bundle: (u64, Vec<u8>),
        generation_commitment: &[u8],
        first_slot: u32,
        slot_commitments: Vec<Vec<u8>>,
        now: u64,
        randomness: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        if slot_commitments.is_empty() || slot_commitments.len() > sealcast_core::control::MAX_COMMITMENTS {
            return Err(PyValueError::new_err("a beacon commits to 1 to 32 slots"));
        }
        let body = BeaconBody {
            counter,
            policy: document(policy)?,
            crl: document(crl)?,
            bundle: document(bundle)?,
            generation_commitment: thirty_two(generation_commitment, "a commitment")?,
            first_slot,
            slot_commitments: slot_commitments
                .iter()
                .map(|commitment| thirty_two(commitment, "a commitment"))
                .collect::<PyResult<_>>()?,
        };
        let epoch = Epoch {
            slot,
            generation,
            step,
        };
        let randomness = sixteen(randomness, "the randomness")?;
        let datagram = lock(&self.sealer).seal_beacon(epoch, &secret(slot_secret)?, &body, now, randomness);
        Ok(PyBytes::new(py, &datagram))
    }
}
