//! The one path validator: whom a certificate chain names, and whether to believe it.
//!
//! Path building, signatures, validity and CRL checks are rustls-webpki's (RFC 5280); this file adds what a site means.
//!
//! Spec: trust.md section 3 (TR-5 to TR-9).

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_cert::der::Decode;

use crate::crl::CrlSet;
use crate::crypto::sha256;
use crate::key_usage::{self, KeyPurpose};
use crate::wire::{SiteId, Time};

const SECOND: u64 = 1_000_000;

/// Certificates in a chain that is shown: a device, its site CA, and cross certificates. More could be tried in so many
/// orders that one verdict costs 50 ms (the library's own limit is 200,000 attempts); with these it is below 3 ms.
const MAX_CHAIN: usize = 8;

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
    Admin,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Device => "device",
            Self::KeyServer => "key-server",
            Self::Admin => "admin",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        [Self::Site, Self::Device, Self::KeyServer, Self::Admin]
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
    /// The CRL is missing for this issuer, or not signed by it.
    RevocationUnknown,
    /// The CRL of this issuer is past its nextUpdate, and the certificate is not on it.
    RevocationStale,
    /// No single `sealcast:` URI of the required role.
    WrongRole,
    /// The device's site is not that of the CA which issued it.
    WrongSite,
    /// A key did what its certificate's keyUsage leaves out.
    WrongUsage,
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
            Self::RevocationUnknown | Self::RevocationStale => "revocation-unknown",
            Self::WrongRole => "wrong-role",
            Self::WrongSite => "wrong-site",
            Self::WrongUsage => "wrong-usage",
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
            E::CrlExpired { .. } => Self::RevocationStale,
            E::UnknownRevocationStatus
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
            Role::Device | Role::KeyServer | Role::Admin => is_device_name(name),
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

    /// From when until when it is valid.
    pub fn validity(&self) -> Option<(Time, Time)> {
        validity(&self.der)
    }

    /// Whether subject and issuer are the same and its own key has signed it.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        key_usage::self_signed(&self.der).is_some_and(|(message, signature)| {
            // Of the algorithms, the one that goes with the key.
            (1..=3).any(|algorithm| self.verifies(algorithm, &message, &signature))
        })
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

/// A trust anchor, and what it may vouch for (TR-21).
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    pub der: &'a [u8],
    /// The sites whose site CAs it may vouch for; none: every site.
    pub sites: &'a [SiteId],
}

#[derive(Clone)]
struct Anchor {
    anchor: TrustAnchor<'static>,
    not_after: Time,
    sites: Vec<SiteId>,
    /// A site CA that is trusted by itself: its site, and its certificate. It vouches for that site alone.
    authority: Option<(SiteId, Vec<u8>)>,
}

impl Anchor {
    fn new(root: &Root<'_>) -> Option<Self> {
        let owned = CertificateDer::from(root.der.to_vec());
        let anchor = webpki::anchor_from_trusted_cert(&owned).ok()?.to_owned();
        let uri = EndEntityCert::try_from(&owned)
            .ok()
            .and_then(|parsed| only_uri(parsed.valid_uri_names()))
            .filter(|uri| uri.role == Role::Site);
        let purpose = match uri {
            Some(_) => KeyPurpose::SiteAuthority,
            None => KeyPurpose::Certificates,
        };
        if !key_usage::is_authority(root.der) || !key_usage::allows(root.der, purpose)? {
            return None;
        }
        Some(Self {
            anchor,
            not_after: not_after(root.der)?,
            sites: root.sites.to_vec(),
            authority: uri.map(|uri| (uri.site, root.der.to_vec())),
        })
    }

    fn is(&self, other: &TrustAnchor<'_>) -> bool {
        self.anchor.subject == other.subject
            && self.anchor.subject_public_key_info == other.subject_public_key_info
    }

    fn covers(&self, site: &SiteId) -> bool {
        self.sites.is_empty() || self.sites.contains(site)
    }
}

/// What a certificate is used for, where it says so (extendedKeyUsage).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
}

impl Usage {
    fn key_usage(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        }
    }
}

/// A set of anchors, known intermediates and, once there are some, the CRLs of the site CAs.
#[derive(Clone)]
pub struct Validator {
    anchors: Vec<Anchor>,
    intermediates: Vec<CertificateDer<'static>>,
    crls: Option<CrlSet>,
}

impl core::fmt::Debug for Validator {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Validator({} anchors, {} intermediates, CRL {:?})",
            self.anchors.len(),
            self.intermediates.len(),
            self.crls.as_ref().map(|crls| crls.version().number)
        )
    }
}

impl Validator {
    /// `anchors` are self-signed root certificates, DER, for every site. `None` if one does not parse or is no CA.
    pub fn new(anchors: &[&[u8]], intermediates: &[&[u8]]) -> Option<Self> {
        let everywhere = |der: &&'_ [u8]| Anchor::new(&Root { der, sites: &[] });
        Self::with_anchors(anchors.iter().map(everywhere), intermediates)
    }

    /// As [`Self::new`], with the scope of each anchor.
    pub fn scoped(roots: &[Root<'_>], intermediates: &[&[u8]]) -> Option<Self> {
        Self::with_anchors(roots.iter().map(Anchor::new), intermediates)
    }

    fn with_anchors(anchors: impl Iterator<Item = Option<Anchor>>, intermediates: &[&[u8]]) -> Option<Self> {
        let intermediates = intermediates
            .iter()
            .map(|der| Certificate::parse(der).map(|certificate| certificate.der))
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            anchors: anchors.collect::<Option<Vec<_>>>()?,
            intermediates,
            crls: None,
        })
    }

    /// From now on revocation is judged by these CRLs (TR-9); `None`: not at all, as before the first ones.
    pub fn set_crls(&mut self, crls: Option<CrlSet>) {
        self.crls = crls;
    }

    /// The CRLs that revocation is judged by.
    pub fn crls(&self) -> Option<&CrlSet> {
        self.crls.as_ref()
    }

    /// Believes in other anchors from now on, and knows other intermediates; the CRLs stay.
    pub fn replace_anchors(&mut self, other: Self) {
        self.anchors = other.anchors;
        self.intermediates = other.intermediates;
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
        let mut issuer = None;
        let depth = RevocationCheckDepth::EndEntity;
        self.build_path(&end_entity, rest, Usage::Client, depth, now, &mut |path| {
            issuer = self.site_ca(path, &uri.site);
            issuer.is_some()
        })?;
        Ok(VerifiedPeer {
            site: uri.site,
            name: uri.name,
            role,
            certificate_hash: sha256(&[leaf]),
            not_after: leaf_not_after,
            issuer: issuer.ok_or(InvalidChain::WrongSite)?,
        })
    }

    /// RFC 5280 alone, for an end entity of anybody's profile; revocation is judged along the whole chain. What
    /// [`Self::verify_peer`] adds is what a site means.
    pub fn verify_path(&self, chain: &[&[u8]], usage: Usage, now: Time) -> Result<(), InvalidChain> {
        let (&leaf, rest) = chain.split_first().ok_or(InvalidChain::Malformed)?;
        let leaf_der = CertificateDer::from(leaf);
        let end_entity = EndEntityCert::try_from(&leaf_der)?;
        let depth = RevocationCheckDepth::Chain;
        self.build_path(&end_entity, rest, usage, depth, now, &mut |_| true)
    }

    /// Tries every path; `accept` has the last word on each.
    fn build_path(
        &self,
        end_entity: &EndEntityCert<'_>,
        rest: &[&[u8]],
        usage: Usage,
        depth: RevocationCheckDepth,
        now: Time,
        accept: &mut dyn FnMut(&VerifiedPath<'_>) -> bool,
    ) -> Result<(), InvalidChain> {
        if rest.len() >= MAX_CHAIN {
            return Err(InvalidChain::Other(format!("more than {MAX_CHAIN} certificates")));
        }
        match key_usage::allows(&end_entity.der(), KeyPurpose::Signature) {
            Some(true) => {}
            Some(false) => return Err(InvalidChain::WrongUsage),
            None => return Err(InvalidChain::Malformed),
        }
        let mut verdict =
            |expiration| self.try_paths(end_entity, rest, usage, (depth, expiration), now, accept);
        match verdict(ExpirationPolicy::Enforce) {
            // What an old list says of a certificate stays true.
            Err(InvalidChain::RevocationStale) => match verdict(ExpirationPolicy::Ignore) {
                Err(InvalidChain::Revoked) => Err(InvalidChain::Revoked),
                _ => Err(InvalidChain::RevocationStale),
            },
            other => other,
        }
    }

    fn try_paths(
        &self,
        end_entity: &EndEntityCert<'_>,
        rest: &[&[u8]],
        usage: Usage,
        (depth, expiration): (RevocationCheckDepth, ExpirationPolicy),
        now: Time,
        accept: &mut dyn FnMut(&VerifiedPath<'_>) -> bool,
    ) -> Result<(), InvalidChain> {
        let known = self
            .intermediates
            .iter()
            .map(|der| CertificateDer::from(&der[..]));
        // The known ones first, so that a member's path is found before anything that is shown is tried.
        let shown = rest.iter().map(|der| CertificateDer::from(*der));
        let intermediates: Vec<CertificateDer<'_>> = known.chain(shown).collect();
        let anchors: Vec<TrustAnchor<'_>> = self
            .anchors
            .iter()
            // As for every certificate of the path: seconds, the last one included.
            .filter(|a| a.not_after / SECOND >= now / SECOND)
            .map(|a| a.anchor.clone())
            .collect();
        let crls: Vec<&CertRevocationList<'_>> = match (&self.crls, depth) {
            (None, _) => Vec::new(),
            (Some(crls), RevocationCheckDepth::EndEntity) => crls.lists_for(&end_entity.der()),
            (Some(crls), RevocationCheckDepth::Chain) => crls.lists(),
        };
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|builder| {
            builder
                .with_depth(depth)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(expiration)
                .build()
        });
        let accept = core::cell::RefCell::new(accept);
        let refused = core::cell::Cell::new(None);
        let judge = |path: &VerifiedPath<'_>| {
            let mut issuers = path.intermediate_certificates();
            let may_issue = |der: &[u8]| key_usage::allows(der, KeyPurpose::Certificates) == Some(true);
            if !issuers.all(|issuer| may_issue(&issuer.der())) {
                refused.set(Some(InvalidChain::WrongUsage));
            } else if (accept.borrow_mut())(path) {
                return Ok(());
            } else {
                refused.set(Some(InvalidChain::WrongSite));
            }
            // Any error makes the library try other paths.
            Err(webpki::Error::NameConstraintViolation)
        };
        end_entity
            .verify_for_usage(
                CHAIN_ALGORITHMS,
                &anchors,
                &intermediates,
                UnixTime::since_unix_epoch(core::time::Duration::from_secs(now / SECOND)),
                usage.key_usage(),
                revocation,
                Some(&judge),
            )
            .map(|_| ())
            .map_err(|error| match (error, refused.take()) {
                // A path was there, and its anchor may not vouch for this site, or an issuer for anybody.
                (
                    webpki::Error::NameConstraintViolation
                    | webpki::Error::UnknownIssuer
                    | webpki::Error::InvalidSignatureForPublicKey,
                    Some(refusal),
                ) => refusal,
                (other, _) => InvalidChain::from(other),
            })
    }

    /// The certificate of the site CA that stands behind a path's end entity, if it is one of `site`, and if the path's
    /// anchor may vouch for that site.
    fn site_ca(&self, path: &VerifiedPath<'_>, site: &SiteId) -> Option<Vec<u8>> {
        let anchor = self.anchors.iter().find(|known| known.is(path.anchor()))?;
        let (named, der) = match path.intermediate_certificates().next() {
            Some(issuer) => {
                let uri = only_uri(issuer.valid_uri_names()).filter(|uri| uri.role == Role::Site)?;
                (uri.site, issuer.der().to_vec())
            }
            None => anchor.authority.clone()?,
        };
        // A site CA that is an anchor stands for its own site, whoever it might certify.
        let vouches = match &anchor.authority {
            Some((own, _)) => own == site,
            None => anchor.covers(site),
        };
        (named == *site && vouches).then_some(der)
    }
}

fn not_after(der: &[u8]) -> Option<Time> {
    Some(validity(der)?.1)
}

fn validity(der: &[u8]) -> Option<(Time, Time)> {
    let certificate = x509_cert::Certificate::from_der(der).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let time = |at: &x509_cert::time::Time| at.to_unix_duration().as_secs().saturating_mul(SECOND);
    Some((time(&validity.not_before), time(&validity.not_after)))
}
