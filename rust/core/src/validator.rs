//! The one path validator: whom a certificate chain names, and whether to believe it.
//!
//! Path building, signatures, validity and CRL checks are rustls-webpki's (RFC 5280); this file adds what a site means.
//!
//! Spec: trust.md section 3 (TR-5 to TR-9).

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, oid::AssociatedOid};
use x509_cert::ext::pkix::CrlNumber;

use crate::control::DocumentVersion;
use crate::crypto::sha256;
use crate::wire::{SiteId, Time};

const SECOND: u64 = 1_000_000;

/// What a device chain may be signed with: the profile's keys, and RSA roots that were made elsewhere.
static CHAIN_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::aws_lc_rs::ECDSA_P256_SHA256,
    webpki::aws_lc_rs::ECDSA_P384_SHA384,
    webpki::aws_lc_rs::ECDSA_P256_SHA384,
    webpki::aws_lc_rs::ECDSA_P384_SHA256,
    webpki::aws_lc_rs::ED25519,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA256,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA384,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA512,
];

/// The second word of a `sealcast:` URI (TR-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Site,
    Device,
    KeyServer,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Device => "device",
            Self::KeyServer => "key-server",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        [Self::Site, Self::Device, Self::KeyServer]
            .into_iter()
            .find(|role| role.as_str() == word)
    }
}

/// Why a chain is refused. Closed, so that every caller can say what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidChain {
    Malformed,
    /// No path to an anchor that is in force.
    UnknownIssuer,
    Expired,
    NotYetValid,
    Revoked,
    /// The CRL is missing for this issuer, past its nextUpdate, or not signed by it.
    RevocationUnknown,
    /// No single `sealcast:` URI of the required role.
    WrongRole,
    /// The device's site is not that of the CA which issued it.
    WrongSite,
    /// Anything else that RFC 5280 forbids, in the library's words.
    Other(String),
}

impl core::fmt::Display for InvalidChain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::UnknownIssuer => "unknown-issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation-unknown",
            Self::WrongRole => "wrong-role",
            Self::WrongSite => "wrong-site",
            Self::Other(detail) => detail,
        })
    }
}

impl From<webpki::Error> for InvalidChain {
    fn from(error: webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::CertExpired { .. } => Self::Expired,
            E::CertNotValidYet { .. } => Self::NotYetValid,
            // A namesake of the issuer with another key is an unknown issuer too.
            E::UnknownIssuer | E::InvalidSignatureForPublicKey => Self::UnknownIssuer,
            E::CertRevoked => Self::Revoked,
            E::UnknownRevocationStatus
            | E::CrlExpired { .. }
            | E::InvalidCrlSignatureForPublicKey
            | E::UnsupportedCrlSignatureAlgorithmContext(_)
            | E::IssuerNotCrlSigner => Self::RevocationUnknown,
            E::BadDer | E::BadDerTime => Self::Malformed,
            other => Self::Other(format!("{other:?}")),
        }
    }
}

/// A certificate that parses; says nothing about trust.
#[derive(Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
}

/// Role, site and name from a `sealcast:` URI (TR-3); the name is empty for a site.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SealcastUri {
    role: Role,
    site: SiteId,
    name: String,
}

impl SealcastUri {
    fn parse(uri: &str) -> Option<Self> {
        let mut words = uri.strip_prefix("sealcast:")?.split(':');
        let role = Role::parse(words.next()?)?;
        let site = parse_site(words.next()?)?;
        let name = words.next().unwrap_or_default();
        let named = match role {
            Role::Site => name.is_empty(),
            Role::Device | Role::KeyServer => is_device_name(name),
        };
        (named && words.next().is_none()).then(|| Self {
            role,
            site,
            name: name.to_owned(),
        })
    }
}

/// 32 lower-case hexadecimal digits (TR-1).
pub fn parse_site(text: &str) -> Option<SiteId> {
    if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut site = [0; 16];
    for (byte, pair) in site.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(SiteId(site))
}

/// TR-2.
pub fn is_device_name(name: &str) -> bool {
    name.len() <= 63
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// TR-2.
pub fn is_channel_name(name: &str) -> bool {
    name.len() <= 127
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
}

impl Certificate {
    pub fn parse(der: &[u8]) -> Option<Self> {
        let der = CertificateDer::from(der.to_vec());
        EndEntityCert::try_from(&der).ok()?;
        Some(Self { der })
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether this certificate's key made `signature`, by the algorithms of registry.md.
    #[must_use]
    pub fn verifies(&self, algorithm: u64, message: &[u8], signature: &[u8]) -> bool {
        let algorithm = match algorithm {
            1 => webpki::aws_lc_rs::ECDSA_P256_SHA256,
            2 => webpki::aws_lc_rs::ED25519,
            3 => webpki::aws_lc_rs::ECDSA_P384_SHA384,
            _ => return false,
        };
        EndEntityCert::try_from(&self.der)
            .is_ok_and(|parsed| parsed.verify_signature(algorithm, message, signature).is_ok())
    }
}

fn only_uri<'a>(uris: impl Iterator<Item = &'a str>) -> Option<SealcastUri> {
    let mut ours = uris.filter(|uri| uri.starts_with("sealcast:"));
    let uri = SealcastUri::parse(ours.next()?)?;
    ours.next().is_none().then_some(uri)
}

/// A peer whose chain has been verified for a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    pub site: SiteId,
    pub name: String,
    pub role: Role,
    /// SHA-256 of the DER certificate.
    pub certificate_hash: [u8; 32],
    pub not_after: Time,
    /// The site CA certificate that issued it, DER.
    pub issuer: Vec<u8>,
}

/// A CRL that parses and has a number; its signature is judged with each chain.
#[derive(Clone, Debug)]
pub struct Crl {
    list: Arc<CertRevocationList<'static>>,
    version: DocumentVersion,
    der: Vec<u8>,
}

impl Crl {
    pub fn parse(der: &[u8]) -> Option<Self> {
        let list = OwnedCertRevocationList::from_der(der).ok()?;
        Some(Self {
            list: Arc::new(list.into()),
            version: DocumentVersion {
                number: crl_number(der)?,
                hash: sha256(&[der]),
            },
            der: der.to_vec(),
        })
    }

    /// Its own CRLNumber and hash, as beacons name it (KM-15).
    pub fn version(&self) -> DocumentVersion {
        self.version
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

/// The one CRLNumber (RFC 5280 section 5.2.3), if it fits 64 bits.
fn crl_number(der: &[u8]) -> Option<u64> {
    let list = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der).ok()?;
    let extensions = list.tbs_cert_list.crl_extensions?;
    let mut numbers = extensions.iter().filter(|found| found.extn_id == CrlNumber::OID);
    let number = CrlNumber::from_der(numbers.next()?.extn_value.as_bytes()).ok()?;
    let bytes = number.0.as_bytes();
    let fits = numbers.next().is_none() && bytes.len() <= 8;
    fits.then(|| bytes.iter().fold(0, |value, &b| (value << 8) | u64::from(b)))
}

#[derive(Clone)]
struct Anchor {
    anchor: TrustAnchor<'static>,
    not_after: Time,
}

/// A set of anchors, known intermediates and, once there is one, the site's CRL.
#[derive(Clone)]
pub struct Validator {
    anchors: Vec<Anchor>,
    intermediates: Vec<CertificateDer<'static>>,
    crl: Option<Crl>,
}

impl core::fmt::Debug for Validator {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Validator({} anchors, {} intermediates, CRL {:?})",
            self.anchors.len(),
            self.intermediates.len(),
            self.crl.as_ref().map(|crl| crl.version.number)
        )
    }
}

impl Validator {
    /// `anchors` are self-signed root certificates, DER. `None` if one does not parse.
    pub fn new(anchors: &[&[u8]], intermediates: &[&[u8]]) -> Option<Self> {
        let anchors = anchors
            .iter()
            .map(|der| {
                let owned = CertificateDer::from(der.to_vec());
                let anchor = webpki::anchor_from_trusted_cert(&owned).ok()?.to_owned();
                Some(Anchor {
                    anchor,
                    not_after: not_after(der)?,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        let intermediates = intermediates
            .iter()
            .map(|der| Certificate::parse(der).map(|certificate| certificate.der))
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            anchors,
            intermediates,
            crl: None,
        })
    }

    /// From now on revocation is judged by this CRL (TR-9); `None`: not at all, as before the first one.
    pub fn set_crl(&mut self, crl: Option<Crl>) {
        self.crl = crl;
    }

    /// The CRL that revocation is judged by.
    pub fn crl(&self) -> Option<&Crl> {
        self.crl.as_ref()
    }

    /// TR-6 to TR-9 for the end entity `chain[0]`; the rest of `chain` are further intermediates.
    pub fn verify_peer(&self, chain: &[&[u8]], role: Role, now: Time) -> Result<VerifiedPeer, InvalidChain> {
        let (&leaf, rest) = chain.split_first().ok_or(InvalidChain::Malformed)?;
        let leaf_der = CertificateDer::from(leaf);
        let leaf_not_after = not_after(leaf).ok_or(InvalidChain::Malformed)?;
        let end_entity = EndEntityCert::try_from(&leaf_der)?;
        let uri = only_uri(end_entity.valid_uri_names())
            .filter(|uri| uri.role == role)
            .ok_or(InvalidChain::WrongRole)?;
        let mut intermediates: Vec<CertificateDer<'_>> =
            rest.iter().map(|der| CertificateDer::from(*der)).collect();
        intermediates.extend(
            self.intermediates
                .iter()
                .map(|der| CertificateDer::from(&der[..])),
        );
        let anchors: Vec<TrustAnchor<'_>> = self
            .anchors
            .iter()
            .filter(|a| a.not_after >= now)
            .map(|a| a.anchor.clone())
            .collect();
        let crls: Vec<&CertRevocationList<'_>> = self.crl.iter().map(|crl| &*crl.list).collect();
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|builder| {
            builder
                .with_depth(RevocationCheckDepth::EndEntity)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let same_site = |path: &VerifiedPath<'_>| match site_ca(path) {
            Some((site, _)) if site == uri.site => Ok(()),
            // Any error makes the library try other paths; this one is told apart below.
            _ => Err(webpki::Error::NameConstraintViolation),
        };
        let path = end_entity
            .verify_for_usage(
                CHAIN_ALGORITHMS,
                &anchors,
                &intermediates,
                UnixTime::since_unix_epoch(core::time::Duration::from_secs(now / SECOND)),
                KeyUsage::client_auth(),
                revocation,
                Some(&same_site),
            )
            .map_err(|error| match error {
                webpki::Error::NameConstraintViolation => InvalidChain::WrongSite,
                other => InvalidChain::from(other),
            })?;
        let (_, issuer) = site_ca(&path).ok_or(InvalidChain::WrongSite)?;
        Ok(VerifiedPeer {
            site: uri.site,
            name: uri.name,
            role,
            certificate_hash: sha256(&[leaf]),
            not_after: leaf_not_after,
            issuer,
        })
    }
}

/// The issuer of the path's end entity, if it is an intermediate that names a site.
fn site_ca(path: &VerifiedPath<'_>) -> Option<(SiteId, Vec<u8>)> {
    let issuer = path.intermediate_certificates().next()?;
    let uri = only_uri(issuer.valid_uri_names()).filter(|uri| uri.role == Role::Site)?;
    Some((uri.site, issuer.der().to_vec()))
}

fn not_after(der: &[u8]) -> Option<Time> {
    let certificate = x509_cert::Certificate::from_der(der).ok()?;
    let seconds = certificate
        .tbs_certificate()
        .validity()
        .not_after
        .to_unix_duration()
        .as_secs();
    Some(seconds.saturating_mul(SECOND))
}
