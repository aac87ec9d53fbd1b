//! The CRLs that revocation is judged by: those of every site CA in force, as one document.
//!
//! Spec: trust.md TR-9, TR-29; keys.md KM-15, KM-19.

use std::collections::BTreeMap;
use std::sync::Arc;

use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_cert::Certificate;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::oid::{AssociatedOid, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Header, Reader, SliceReader};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlNumber, SubjectKeyIdentifier};

use crate::control::DocumentVersion;
use crate::crypto::sha256;
use crate::validator;
use crate::wire::Time;

/// Site CAs of a rotation, and of the other sites that a channel's policy lists.
const MAX_LISTS: usize = 64;

/// Issuers whose numbers are remembered: far above those that a site ever hears of.
const MAX_ISSUERS: usize = 1024;

/// SHA-256 of an issuer's name (DER) and its key identifier: who numbers a series of lists (TR-29).
pub type IssuerId = [u8; 32];

/// What a list says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListVersion {
    pub issuer: IssuerId,
    pub number: u64,
    /// thisUpdate.
    pub issued: Time,
    /// Past it the list says only who is revoked; the greatest time where there is none.
    pub next_update: Time,
}

/// Whether one of the site CAs that are known has signed a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    Genuine,
    /// By a site CA that is not known.
    Unknown,
    /// It names one that is known, whose key has not made it.
    Forged,
}

/// The highest number of each issuer that was seen: none goes back (TR-29).
#[derive(Clone, Debug, Default)]
pub struct ListNumbers(BTreeMap<IssuerId, u64>);

impl ListNumbers {
    pub fn new(seen: impl IntoIterator<Item = (IssuerId, u64)>) -> Self {
        Self(seen.into_iter().take(MAX_ISSUERS).collect())
    }

    pub fn permits(&self, crls: &CrlSet) -> bool {
        let known = |list: &ListVersion| self.0.get(&list.issuer).copied().unwrap_or(0);
        crls.versions().all(|list| list.number >= known(&list))
    }

    pub fn take(&mut self, crls: &CrlSet) {
        for list in crls.versions() {
            if self.0.len() < MAX_ISSUERS || self.0.contains_key(&list.issuer) {
                let known = self.0.entry(list.issuer).or_default();
                *known = list.number.max(*known);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&IssuerId, &u64)> {
        self.0.iter()
    }
}

/// What tells a list from others.
#[derive(Clone, Debug)]
struct Facts {
    /// The issuer's name, DER.
    issuer: Vec<u8>,
    /// Its key, as authorityKeyIdentifier says: site CAs of a rotation, and of two sites of one name, have one name.
    key_id: Option<Vec<u8>>,
    number: u64,
    /// thisUpdate.
    issued: Time,
    next_update: Time,
}

/// Lists that parse and have numbers; their signatures are judged with each chain.
#[derive(Clone, Debug)]
pub struct CrlSet {
    lists: Arc<Vec<CertRevocationList<'static>>>,
    facts: Vec<Facts>,
    hash: [u8; 32],
    der: Vec<u8>,
}

impl CrlSet {
    /// One or more DER CRLs, one after the other; the site's own, that of the CA which issues now, is the first.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (mut lists, mut facts) = (Vec::new(), Vec::new());
        let mut rest = SliceReader::new(der).ok()?;
        while !rest.is_finished() {
            let list = rest.tlv_bytes().ok()?;
            if lists.len() == MAX_LISTS {
                return None;
            }
            lists.push(OwnedCertRevocationList::from_der(list).ok()?.into());
            facts.push(facts_of(list)?);
        }
        (!lists.is_empty()).then(|| Self {
            lists: Arc::new(lists),
            facts,
            hash: sha256(&[der]),
            der: der.to_vec(),
        })
    }

    /// When the first list was signed.
    pub fn issued(&self) -> Time {
        self.facts.first().map_or(0, |facts| facts.issued)
    }

    /// The first list's own CRLNumber, and the hash of all, as beacons name them (KM-15).
    pub fn version(&self) -> DocumentVersion {
        DocumentVersion {
            number: self.facts.first().map_or(0, |first| first.number),
            hash: self.hash,
        }
    }

    /// What each list says of itself, in order.
    pub fn versions(&self) -> impl Iterator<Item = ListVersion> {
        self.facts.iter().map(|facts| ListVersion {
            issuer: issuer_id(&facts.issuer, facts.key_id.as_deref()),
            number: facts.number,
            issued: facts.issued,
            next_update: facts.next_update,
        })
    }

    /// For each list, in order, whether one of `authorities` has signed it; with each chain that is judged anyway, and here
    /// for what is to be stored.
    pub fn signatures(&self, authorities: &[validator::Certificate]) -> Vec<Signature> {
        let mut rest = SliceReader::new(&self.der).ok();
        let named: Vec<_> = authorities
            .iter()
            .filter_map(|authority| Some((subject_id(authority.der())?, authority)))
            .collect();
        self.versions()
            .map(|version| {
                let list = rest.as_mut().and_then(|rest| rest.tlv_bytes().ok());
                let mut keys = named.iter().filter(|(id, _)| *id == version.issuer).peekable();
                if keys.peek().is_none() {
                    return Signature::Unknown;
                }
                if keys.any(|(_, authority)| list.is_some_and(|list| is_signed(list, authority))) {
                    Signature::Genuine
                } else {
                    Signature::Forged
                }
            })
            .collect()
    }

    /// Whether no list of an issuer is older than the one held: a list that is missing only refuses more.
    pub fn may_replace(&self, held: &Self) -> bool {
        held.facts.iter().all(|known| {
            let is_same = |facts: &&Facts| (&facts.issuer, &facts.key_id) == (&known.issuer, &known.key_id);
            let mut same = self.facts.iter().filter(is_same);
            same.all(|facts| facts.number >= known.number)
        })
    }

    /// How many lists it holds; never none.
    pub fn count(&self) -> usize {
        self.lists.len()
    }

    pub fn lists(&self) -> Vec<&CertRevocationList<'static>> {
        self.lists.iter().collect()
    }

    /// Those that may speak of an end entity. Of issuers of one name only the names are compared later, so lists by another
    /// key than the one that its certificate names are left out where there is a better one; signatures have the last word.
    pub fn lists_for(&self, end_entity: &[u8]) -> Vec<&CertRevocationList<'static>> {
        let issuer = key_of_issuer(end_entity);
        let is_other = |facts: &Facts| issuer.is_some() && facts.key_id.is_some() && issuer != facts.key_id;
        let known = self.lists.iter().zip(&self.facts);
        let fit: Vec<_> = known
            .filter(|(_, facts)| !is_other(facts))
            .map(|(list, _)| list)
            .collect();
        if fit.is_empty() { self.lists() } else { fit }
    }

    /// The bytes that were parsed.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

fn issuer_id(name: &[u8], key_id: Option<&[u8]>) -> IssuerId {
    sha256(&[name, key_id.unwrap_or_default()])
}

/// The id of the series of lists that a site CA numbers.
fn subject_id(certificate: &[u8]) -> Option<IssuerId> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let certificate = certificate.tbs_certificate();
    let mut extensions = certificate.extensions()?.iter();
    let found = extensions.find(|found| found.extn_id == SubjectKeyIdentifier::OID)?;
    let key_id = SubjectKeyIdentifier::from_der(found.extn_value.as_bytes()).ok()?;
    Some(issuer_id(
        &certificate.subject().to_der().ok()?,
        Some(key_id.0.as_bytes()),
    ))
}

/// Signature algorithms of RFC 5280 by their codes of registry.md.
const ALGORITHMS: [(ObjectIdentifier, u64); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), 1),
    (ObjectIdentifier::new_unwrap("1.3.101.112"), 2),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), 3),
];

fn is_signed(list: &[u8], authority: &validator::Certificate) -> bool {
    let signed = || {
        let mut reader = SliceReader::new(list).ok()?;
        Header::decode(&mut reader).ok()?;
        let tbs = reader.tlv_bytes().ok()?;
        let list = CertificateList::<Rfc5280>::from_der(list).ok()?;
        let used = list.signature_algorithm.oid;
        let (_, algorithm) = ALGORITHMS.iter().find(|(oid, _)| *oid == used)?;
        Some(authority.verifies(*algorithm, tbs, list.signature.as_bytes()?))
    };
    signed().unwrap_or(false)
}

/// The keyIdentifier of a certificate's authorityKeyIdentifier.
fn key_of_issuer(certificate: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    key_id(certificate.tbs_certificate().extensions()?)
}

fn key_id(extensions: &[Extension]) -> Option<Vec<u8>> {
    let found = extensions
        .iter()
        .find(|found| found.extn_id == AuthorityKeyIdentifier::OID)?;
    let identifier = AuthorityKeyIdentifier::from_der(found.extn_value.as_bytes()).ok()?;
    Some(identifier.key_identifier?.as_bytes().to_vec())
}

/// Issuer, key, and the one CRLNumber (RFC 5280 section 5.2.3), if it fits 64 bits.
fn facts_of(der: &[u8]) -> Option<Facts> {
    let list = CertificateList::<Rfc5280>::from_der(der).ok()?;
    let issuer = list.tbs_cert_list.issuer.to_der().ok()?;
    let issued = list.tbs_cert_list.this_update.to_unix_duration().as_micros();
    let next_update = list.tbs_cert_list.next_update;
    let next_update = next_update.map(|time| time.to_unix_duration().as_micros());
    let extensions = list.tbs_cert_list.crl_extensions?;
    let mut numbers = extensions.iter().filter(|found| found.extn_id == CrlNumber::OID);
    let number = numbers.next().filter(|found| !found.critical)?;
    let number = CrlNumber::from_der(number.extn_value.as_bytes()).ok()?;
    let bytes = number.0.as_bytes();
    let fits = numbers.next().is_none() && bytes.len() <= 8;
    fits.then(|| {
        let number = bytes.iter().fold(0, |value, &b| (value << 8) | u64::from(b));
        Facts {
            issuer,
            key_id: key_id(&extensions),
            number,
            issued: Time::try_from(issued).unwrap_or(Time::MAX),
            next_update: next_update
                .and_then(|time| Time::try_from(time).ok())
                .unwrap_or(Time::MAX),
        }
    })
}
