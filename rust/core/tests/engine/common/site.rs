//! A throw-away site with the certificate profiles of spec/trust.md section 2.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    RevokedCertParams, SanType, SerialNumber, SigningKey, date_time_ymd,
};
use sealcast_core::credential::{Credential, encode_bundle};
use sealcast_core::crypto::sha256;
use sealcast_core::signed::{CREDENTIAL_CONTEXT, SignedObject};
use sealcast_core::validator::{Role, Validator};
use sealcast_core::wire::SiteId;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// A root, one site CA and its CRL.
pub struct Site {
    pub id: SiteId,
    root: Issuer,
    ca: Issuer,
    serial: u64,
    crl_number: u64,
    revoked: Vec<u64>,
    crl: Vec<u8>,
    /// CRLs of other sites, handed out with its own.
    pub others: Vec<u8>,
    pub other_roots: Vec<Vec<u8>>,
    /// Whether CRLs are made that are past their nextUpdate.
    pub is_late: bool,
}

/// A device or key server: its certificate, the chain up to the root, and the key that stays with it.
pub struct Identity {
    pub site: SiteId,
    pub name: String,
    /// End entity first, then the site CA.
    pub chain: Vec<Vec<u8>>,
    pub serial: u64,
    key: KeyPair,
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn serial_number(serial: u64) -> SerialNumber {
    let mut bytes = vec![0x51; 16];
    bytes[8..].copy_from_slice(&serial.to_be_bytes());
    SerialNumber::from_slice(&bytes)
}

fn params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2036, 1, 1);
    params.serial_number = Some(serial_number(serial));
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn ca_params(name: &str, serial: u64, constraints: BasicConstraints) -> CertificateParams {
    let mut params = params(name, serial);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

pub fn uri(role: Role, site: SiteId, name: &str) -> String {
    match role {
        Role::Site => format!("sealcast:site:{}", site.hex()),
        _ => format!("sealcast:{}:{}:{name}", role.as_str(), site.hex()),
    }
}

/// Signs as TR-10 says, with ECDSA on P-256 (algorithm 1).
fn sign_object(key: &KeyPair, context: &str, tbs: &[u8]) -> Vec<u8> {
    let input = sealcast_core::block::sign_input(context, tbs);
    let signature = key.sign(&input).unwrap();
    let object = SignedObject {
        tbs,
        algorithm: 1,
        signature: &signature,
    };
    object.encode()
}

impl Site {
    pub fn new(id: SiteId) -> Self {
        let root = ca_params("test root", 1, BasicConstraints::Unconstrained);
        let root = Issuer::self_signed(root, new_key()).unwrap();
        let mut ca = ca_params("test site CA", 2, BasicConstraints::Constrained(0));
        ca.subject_alt_names = vec![SanType::URI(uri(Role::Site, id, "").try_into().unwrap())];
        let ca = Issuer::signed_by(ca, new_key(), &root).unwrap();
        let mut site = Self {
            id,
            root,
            ca,
            serial: 10,
            crl_number: 1,
            revoked: Vec::new(),
            crl: Vec::new(),
            others: Vec::new(),
            other_roots: Vec::new(),
            is_late: false,
        };
        site.crl = site.new_crl();
        site
    }

    pub fn root_der(&self) -> Vec<u8> {
        self.root.der().to_vec()
    }

    pub fn ca_der(&self) -> Vec<u8> {
        self.ca.der().to_vec()
    }

    pub fn issue(&mut self, role: Role, name: &str) -> Identity {
        self.serial += 1;
        let mut params = params(name, self.serial);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = vec![SanType::URI(uri(role, self.id, name).try_into().unwrap())];
        let key = new_key();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        Identity {
            site: self.id,
            name: name.to_owned(),
            chain: vec![certificate.der().to_vec(), self.ca_der()],
            serial: self.serial,
            key,
        }
    }

    pub fn revoke(&mut self, serial: u64) {
        self.revoked.push(serial);
        self.renew_crl();
    }

    pub fn renew_crl(&mut self) {
        self.crl_number += 1;
        self.crl = self.new_crl();
    }

    /// Puts an older CRL in force again, as a restored backup or a thief of the key server would.
    pub fn roll_crl_back(&mut self, crl: Vec<u8>, number: u64) {
        (self.crl, self.crl_number) = (crl, number);
    }

    pub fn crl_number(&self) -> u64 {
        self.crl_number
    }

    /// The DER CRLs of this moment.
    pub fn crl(&self) -> Vec<u8> {
        [&self.crl[..], &self.others].concat()
    }

    fn new_crl(&self) -> Vec<u8> {
        let revoked = self.revoked.iter().map(|&serial| RevokedCertParams {
            serial_number: serial_number(serial),
            revocation_time: date_time_ymd(2027, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(if self.is_late { 2026 } else { 2036 }, 1, 2),
            crl_number: SerialNumber::from_slice(&self.crl_number.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.ca).unwrap().der().to_vec()
    }

    /// A signed object of the site CA.
    pub fn sign(&self, context: &str, tbs: &[u8]) -> Vec<u8> {
        sign_object(self.ca.key(), context, tbs)
    }

    pub fn validator(&self) -> Validator {
        let roots = [&[self.root_der()], &self.other_roots[..]].concat();
        let roots: Vec<&[u8]> = roots.iter().map(Vec::as_slice).collect();
        Validator::new(&roots, &[]).unwrap()
    }
}

impl Identity {
    pub fn certificate_hash(&self) -> [u8; 32] {
        sha256(&[&self.chain[0]])
    }

    pub fn sign(&self, context: &str, tbs: &[u8]) -> Vec<u8> {
        sign_object(&self.key, context, tbs)
    }

    /// The bundle (TR-12) of a credential that this identity signs.
    pub fn bundle(&self, credential: &Credential) -> Vec<u8> {
        encode_bundle(&self.sign(CREDENTIAL_CONTEXT, &credential.encode()), &self.chain)
    }
}
