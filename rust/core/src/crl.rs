//! The CRLs that revocation is judged by: those of every site CA in force, as one document.
//!
//! Spec: trust.md TR-9; keys.md KM-15, KM-19.

use std::sync::Arc;

use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, Encode, Reader, SliceReader, oid::AssociatedOid};
use x509_cert::ext::pkix::CrlNumber;

use crate::control::DocumentVersion;
use crate::crypto::sha256;

/// Site CAs of a rotation, and of the other sites that a channel's policy lists.
const MAX_LISTS: usize = 64;

/// Lists that parse and have numbers; their signatures are judged with each chain.
#[derive(Clone, Debug)]
pub struct CrlSet {
    lists: Arc<Vec<CertRevocationList<'static>>>,
    /// Of each list: its issuer's name, DER, and its number.
    numbers: Vec<(Vec<u8>, u64)>,
    hash: [u8; 32],
    der: Vec<u8>,
}

impl CrlSet {
    /// One or more DER CRLs, one after the other; the site's own, that of the CA which issues now, is the first.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (mut lists, mut numbers) = (Vec::new(), Vec::new());
        let mut rest = SliceReader::new(der).ok()?;
        while !rest.is_finished() {
            let list = rest.tlv_bytes().ok()?;
            if lists.len() == MAX_LISTS {
                return None;
            }
            lists.push(OwnedCertRevocationList::from_der(list).ok()?.into());
            numbers.push(issuer_and_number(list)?);
        }
        (!lists.is_empty()).then(|| Self {
            lists: Arc::new(lists),
            numbers,
            hash: sha256(&[der]),
            der: der.to_vec(),
        })
    }

    /// The first list's own CRLNumber, and the hash of all, as beacons name them (KM-15).
    pub fn version(&self) -> DocumentVersion {
        DocumentVersion {
            number: self.numbers.first().map_or(0, |(_, number)| *number),
            hash: self.hash,
        }
    }

    /// Whether no list of an issuer is older than the one held: a list that is missing only refuses more.
    pub fn may_replace(&self, held: &Self) -> bool {
        held.numbers.iter().all(|(issuer, known)| {
            let mut same = self.numbers.iter().filter(|(name, _)| name == issuer);
            same.all(|(_, number)| number >= known)
        })
    }

    pub fn lists(&self) -> impl Iterator<Item = &CertRevocationList<'static>> {
        self.lists.iter()
    }

    /// The bytes that were parsed.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

/// The issuer, and the one CRLNumber (RFC 5280 section 5.2.3), if it fits 64 bits.
fn issuer_and_number(der: &[u8]) -> Option<(Vec<u8>, u64)> {
    let list = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der).ok()?;
    let issuer = list.tbs_cert_list.issuer.to_der().ok()?;
    let extensions = list.tbs_cert_list.crl_extensions?;
    let mut numbers = extensions.iter().filter(|found| found.extn_id == CrlNumber::OID);
    let number = numbers.next().filter(|found| !found.critical)?;
    let number = CrlNumber::from_der(number.extn_value.as_bytes()).ok()?;
    let bytes = number.0.as_bytes();
    let fits = numbers.next().is_none() && bytes.len() <= 8;
    fits.then(|| {
        let number = bytes.iter().fold(0, |value, &b| (value << 8) | u64::from(b));
        (issuer, number)
    })
}
