//! The device key: in the folder, or wherever the host's callback finds it (PKCS#11, the platform's store).

use std::ffi::c_void;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};

use sealcast_core::validator::Certificate;

use crate::folder::{Credentials, private_key};
use crate::status::{Failure, Outcome, SealcastStatus, in_callback};

/// Longer than any signature of the registry.
const MAX_SIGNATURE_BYTES: usize = 144;

/// Signs `message` with the device key: writes the signature and its length, and returns 0, or anything else on failure.
///
/// `signature` has room for `*signature_length` bytes. ECDSA signatures are in DER (X9.62), over SHA-256 for P-256 and SHA-384
/// for P-384; those of Ed25519 have 64 bytes. It must not call the library.
pub type SealcastSign = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        message: *const u8,
        message_length: usize,
        signature: *mut u8,
        signature_length: *mut usize,
    ) -> i32,
>;

/// The algorithm of the device key (registry.md).
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealcastAlgorithm {
    EcdsaP256 = 1,
    Ed25519 = 2,
    EcdsaP384 = 3,
}

/// Where signatures come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signer {
    /// The key file of the folder, read for each signature: there are two a day.
    File,
    Host(Callback),
}

/// A function of the host and what it is to be given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Callback {
    function: unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut u8, *mut usize) -> i32,
    context: *mut c_void,
    algorithm: u64,
}

// SAFETY: the conventions have the host give a function and a context that any thread may use.
unsafe impl Send for Callback {}
// SAFETY: likewise.
unsafe impl Sync for Callback {}

impl Signer {
    pub(crate) fn new(sign: SealcastSign, context: *mut c_void, algorithm: i32) -> Outcome<Self> {
        let Some(function) = sign else {
            return Ok(Self::File);
        };
        if !(1..=3).contains(&algorithm) {
            let text = format!("{algorithm} is no algorithm of a device key: see sealcast_algorithm");
            return Err(Failure::invalid(text));
        }
        Ok(Self::Host(Callback {
            function,
            context,
            algorithm: algorithm as u64,
        }))
    }

    /// Returns the algorithm of the registry, and a signature over `message` that holds by the device's certificate.
    ///
    /// Others refuse any other signature without a word that helps.
    pub(crate) fn sign(&self, held: &Credentials, message: &[u8]) -> Outcome<(u64, Vec<u8>)> {
        let (algorithm, signature) = match self {
            Self::File => sign_by_file(&held.key_file, message)?,
            Self::Host(callback) => callback.sign(message)?,
        };
        let own = Certificate::parse(&held.chain[0]);
        if own.is_some_and(|own| own.verifies(algorithm, message, &signature)) {
            return Ok((algorithm, signature));
        }
        let text = match self {
            Self::File => format!(
                "{}: is not the key of the certificate beside it; restore the folder, or enrol again with a token",
                held.key_file.display()
            ),
            Self::Host(_) => format!(
                "the callback that signs gave no signature by the key of {}: see which key it finds, and whether \
                 `algorithm` and the signature's encoding are that key's",
                held.certificate_file.display()
            ),
        };
        Err(Failure::new(SealcastStatus::Signing, text))
    }
}

impl Callback {
    fn sign(&self, message: &[u8]) -> Outcome<(u64, Vec<u8>)> {
        let mut signature = vec![0; MAX_SIGNATURE_BYTES];
        let mut length = signature.len();
        let Self {
            function, context, ..
        } = *self;
        let code = in_callback(|| {
            // SAFETY: the host's own function, called as its type says.
            unsafe {
                function(
                    context,
                    message.as_ptr(),
                    message.len(),
                    signature.as_mut_ptr(),
                    &raw mut length,
                )
            }
        });
        if code != 0 || length == 0 || length > signature.len() {
            let text = if code == 0 {
                format!("the callback that signs gave {length} bytes, which are no signature")
            } else {
                format!("the callback that signs says {code}")
            };
            return Err(Failure::new(SealcastStatus::Signing, text));
        }
        signature.truncate(length);
        Ok((self.algorithm, signature))
    }
}

fn sign_by_file(path: &Path, message: &[u8]) -> Outcome<(u64, Vec<u8>)> {
    let key = private_key(path)?;
    let failed = || {
        Failure::new(
            SealcastStatus::Signing,
            format!("{}: the key does not sign", path.display()),
        )
    };
    let random = SystemRandom::new();
    for (code, algorithm) in [
        (1, &ECDSA_P256_SHA256_ASN1_SIGNING),
        (3, &ECDSA_P384_SHA384_ASN1_SIGNING),
    ] {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, &key) {
            let signature = pair.sign(&random, message).map_err(|_| failed())?;
            return Ok((code, signature.as_ref().to_vec()));
        }
    }
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key).map_err(|_| {
        let text = format!("{}: the key is none of P-256, P-384 and Ed25519", path.display());
        Failure::new(SealcastStatus::Signing, text)
    })?;
    Ok((2, pair.sign(message).as_ref().to_vec()))
}
