//! What the key of a certificate may do: keyUsage and basicConstraints, which rustls-webpki leaves unread on end
//! entities, on issuers (but for their CRLs) and on anchors.
//!
//! Spec: trust.md TR-6.

use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

/// What a key is to be used for. A certificate without keyUsage leaves each of them open (RFC 5280 section 4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyPurpose {
    /// TLS, stream credentials.
    Signature,
    Certificates,
    /// Certificates and CRLs.
    SiteAuthority,
}

impl KeyPurpose {
    fn is_allowed_by(self, usage: &KeyUsage) -> bool {
        match self {
            Self::Signature => usage.digital_signature(),
            Self::Certificates => usage.key_cert_sign(),
            Self::SiteAuthority => usage.key_cert_sign() && usage.crl_sign(),
        }
    }
}

/// Whether the key of a certificate may be used so; `None` where the certificate does not parse.
pub(crate) fn allows(der: &[u8], purpose: KeyPurpose) -> Option<bool> {
    let certificate = Certificate::from_der(der).ok()?;
    let usage = certificate.tbs_certificate().get_extension::<KeyUsage>().ok()?;
    Some(usage.is_none_or(|(_, usage)| purpose.is_allowed_by(&usage)))
}

/// Whether a certificate says that it is a CA.
pub(crate) fn is_authority(der: &[u8]) -> bool {
    let certificate = Certificate::from_der(der);
    certificate.is_ok_and(|certificate| {
        matches!(
            certificate.tbs_certificate().get_extension::<BasicConstraints>(),
            Ok(Some((_, constraints))) if constraints.ca
        )
    })
}

/// What its own key is to have signed, and the signature, of a certificate that names itself as issuer.
pub(crate) fn self_signed(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let certificate = Certificate::from_der(der).ok()?;
    let tbs = certificate.tbs_certificate();
    if tbs.issuer() != tbs.subject() {
        return None;
    }
    Some((tbs.to_der().ok()?, certificate.signature().as_bytes()?.to_vec()))
}
