//! The certificates of the cases' site are what this makes: SEALCAST_WRITE=1 writes them anew, and else they are
//! compared.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
    SerialNumber, date_time_ymd,
};
use sealcast_vectors::site::{KEY_SERVER, PUBLISHER, SITE, seed};

/// PKCS #8 of an Ed25519 key, up to its seed.
const PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

fn key(of: &str) -> KeyPair {
    let der = [&PKCS8[..], &seed(of)].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&der.as_slice().into(), &PKCS_ED25519).unwrap()
}

fn params(name: &str, serial: u8, uri: Option<String>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
    params.serial_number = Some(SerialNumber::from_slice(&[0x51, 0, 0, 0, 0, 0, 0, serial]));
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = uri
        .map(|uri| SanType::URI(uri.try_into().unwrap()))
        .into_iter()
        .collect();
    params
}

fn authority(
    name: &str,
    serial: u8,
    uri: Option<String>,
    constraints: BasicConstraints,
) -> CertificateParams {
    let mut params = params(name, serial, uri);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn device(role: &str, name: &str, serial: u8, issuer: &CertifiedIssuer<'_, KeyPair>) -> Vec<u8> {
    let mut params = params(
        name,
        serial,
        Some(format!("sealcast:{role}:{}:{name}", SITE.hex())),
    );
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    params.signed_by(&key(name), issuer).unwrap().der().to_vec()
}

#[test]
fn the_certificates_are_what_this_makes() {
    let root = authority(
        "root of the known answers",
        1,
        None,
        BasicConstraints::Unconstrained,
    );
    let root = CertifiedIssuer::self_signed(root, key("root")).unwrap();
    let uri = format!("sealcast:site:{}", SITE.hex());
    let site = authority(
        "site CA of the known answers",
        2,
        Some(uri),
        BasicConstraints::Constrained(0),
    );
    let site = CertifiedIssuer::signed_by(site, key("authority"), &root).unwrap();
    let crl = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 1, 1),
        next_update: date_time_ymd(2045, 1, 1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let made = [
        ("root", root.der().to_vec()),
        ("authority", site.der().to_vec()),
        ("crl", crl.signed_by(&site).unwrap().der().to_vec()),
        ("key-server", device("key-server", KEY_SERVER, 3, &site)),
        ("publisher", device("device", PUBLISHER, 4, &site)),
    ];
    for (name, der) in made {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/site/{name}.der"));
        if std::env::var_os("SEALCAST_WRITE").is_some() {
            std::fs::write(&path, &der).unwrap();
        }
        let cure = "run: SEALCAST_WRITE=1 cargo test -p sealcast-vectors --test site";
        assert!(
            std::fs::read(&path).unwrap_or_default() == der,
            "{name}.der is not what this makes; {cure}"
        );
    }
}
