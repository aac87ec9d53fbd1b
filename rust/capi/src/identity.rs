//! Who a device is: its folder, read and kept fresh, and where its signatures come from.

use std::ffi::{c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sealcast_core::validator::Validator;
use sealcast_core::wire::SiteId;

use crate::folder::{self, Credentials};
use crate::handle::{self, Handled};
use crate::memory::{self, Options, SealcastBytes, copy_out, fixed, needs};
use crate::signing::{SealcastSign, Signer};
use crate::status::{Failure, Outcome, SealcastStatus, call};

/// The device whose folder this is. Made by sealcast_identity_open.
#[derive(Debug)]
pub struct SealcastIdentity {
    _opaque: [u8; 0],
}

/// How a device signs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SealcastIdentityOptions {
    /// sizeof(sealcast_identity_options).
    pub size: usize,
    /// Signs with the device key, wherever that is; NULL: the key file in the folder is read.
    pub sign: SealcastSign,
    /// Is given to `sign`. Both have to be fit for any thread, and live until the identity and all that was made from it
    /// are freed.
    pub sign_context: *mut c_void,
    /// A sealcast_algorithm: what `sign` makes. Ignored without it.
    pub algorithm: i32,
}

// SAFETY: `repr(C)`, the size first; a function pointer may be NULL, and the host has set the others.
unsafe impl Options for SealcastIdentityOptions {
    const NAME: &'static str = "sealcast_identity_options";
    fn default_values() -> Self {
        Self {
            size: size_of::<Self>(),
            sign: None,
            sign_context: std::ptr::null_mut(),
            algorithm: 0,
        }
    }
}

/// What a device is called, and what its HTTPS client needs. All texts are NUL-terminated UTF-8.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SealcastIdentityInfo {
    /// Name of the device.
    pub name: [c_char; 64],
    /// Its site.
    pub site_id: [u8; 16],
    /// The site's key server, "https://host:port".
    pub keys_url: [c_char; 512],
    /// The device's certificate and its issuers, PEM.
    pub certificate_file: [c_char; 4096],
    /// The device's key, PKCS#8 in PEM, without a passphrase. It may be absent where the host signs.
    pub key_file: [c_char; 4096],
    /// Changes with every renewal: an HTTPS client begins anew with the files that are named then.
    pub generation: u64,
}

/// The device, as it was at its last look at the folder.
pub(crate) struct Identity {
    pub(crate) folder: PathBuf,
    pub(crate) signer: Signer,
    state: Mutex<State>,
}

struct State {
    held: Arc<Credentials>,
    generation: u64,
}

impl Handled for Identity {
    const NAME: &'static str = "identity";
}

impl Identity {
    pub(crate) fn open(folder: &Path, signer: Signer) -> Outcome<Self> {
        let held = read(folder, &signer)?;
        Ok(Self {
            folder: folder.to_owned(),
            signer,
            state: Mutex::new(State {
                held: Arc::new(held),
                generation: 1,
            }),
        })
    }

    /// What is held, and a number that changes with it.
    pub(crate) fn held(&self) -> (Arc<Credentials>, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&state.held), state.generation)
    }

    /// Looks whether a renewal or a trust bundle has come. What cannot be read leaves all as it is.
    pub(crate) fn refresh(&self) -> Outcome<()> {
        let (held, _) = self.held();
        if folder::stamp(&self.folder)? == held.stamp {
            return Ok(());
        }
        let read = read(&self.folder, &self.signer)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.held = Arc::new(read);
        state.generation += 1;
        Ok(())
    }
}

/// Reads a folder, and sees that a key in it is the certificate's. A host's is not asked before it is needed: it may be slow,
/// or want a PIN.
fn read(folder: &Path, signer: &Signer) -> Outcome<Credentials> {
    let held = folder::read(folder)?;
    if matches!(signer, Signer::File) {
        if !held.key_file.exists() {
            let text = format!(
                "{}: there is no key; give the function that signs by it where it is",
                held.key_file.display()
            );
            return Err(Failure::new(SealcastStatus::Signing, text));
        }
        signer.sign(&held, b"sealcast: the key of this certificate")?;
    }
    Ok(held)
}

impl Credentials {
    /// Believes in what the trust bundle says at `now`, or in the roots that were given at enrolment.
    pub(crate) fn validator(&self, now: u64) -> Outcome<Validator> {
        let validator = match &self.bundle {
            // It is no earlier than when the bundle was signed, whatever the clock says.
            Some(bundle) => bundle.validator(now.max(bundle.issued)),
            None => {
                let roots: Vec<&[u8]> = self.roots.iter().map(Vec::as_slice).collect();
                let issuers: Vec<&[u8]> = self.issuers.iter().map(Vec::as_slice).collect();
                Validator::new(&roots, &issuers)
            }
        };
        validator.ok_or_else(|| {
            let text = "a root or site CA of the device's folder does not parse, or is no CA";
            Failure::new(SealcastStatus::Certificate, text)
        })
    }
}

/// Read a device's folder, as `sealcast device enroll` makes it.
///
/// `folder`: its path. `options`: NULL for the defaults. What is written to `identity` is to be freed by
/// sealcast_identity_free. Fails with SEALCAST_STATUS_NO_DEVICE, SEALCAST_STATUS_STORAGE; where no function is given that signs,
/// with SEALCAST_STATUS_SIGNING if the folder has no key, or another one than its certificate's.
///
/// # Safety
/// As the conventions say of strings, options and results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_identity_open(
    folder: *const c_char,
    options: *const SealcastIdentityOptions,
    identity: *mut *mut SealcastIdentity,
) -> SealcastStatus {
    call(|| {
        needs(identity, "identity")?;
        // SAFETY: as this function's own.
        let folder = unsafe { memory::text(folder, "folder") }?;
        // SAFETY: likewise.
        let options = unsafe { memory::options(options) }?;
        let signer = Signer::new(options.sign, options.sign_context, options.algorithm)?;
        let made = handle::put(Identity::open(Path::new(folder), signer)?);
        // SAFETY: likewise.
        unsafe { memory::write(identity, made as *mut SealcastIdentity, "identity") }?;
        Ok(SealcastStatus::Ok)
    })
}

/// Free an identity. What was made from it goes on.
#[unsafe(no_mangle)]
pub extern "C" fn sealcast_identity_free(identity: *mut SealcastIdentity) -> SealcastStatus {
    call(|| handle::take::<Identity>(identity as usize).map(|_| SealcastStatus::Ok))
}

/// What the folder holds now. `info_size`: sizeof(sealcast_identity_info).
///
/// # Safety
/// `info` is NULL or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_identity_get_info(
    identity: *mut SealcastIdentity,
    info: *mut SealcastIdentityInfo,
    info_size: usize,
) -> SealcastStatus {
    call(|| {
        let identity = handle::get::<Identity>(identity as usize)?;
        memory::check_size::<SealcastIdentityInfo>(info_size, "sealcast_identity_info")?;
        identity.refresh()?;
        let (held, generation) = identity.held();
        let value = SealcastIdentityInfo {
            name: fixed(&held.name),
            site_id: held.site.0,
            keys_url: fixed(&held.keys_url),
            certificate_file: fixed(&held.certificate_file.to_string_lossy()),
            key_file: fixed(&held.key_file.to_string_lossy()),
            generation,
        };
        // SAFETY: as this function's own.
        unsafe { memory::write(info, value, "info") }?;
        Ok(SealcastStatus::Ok)
    })
}

/// One certificate of the device's chain, DER: `index` 0 is its own. SEALCAST_STATUS_CLOSED: there are no more.
///
/// # Safety
/// `buffer` is valid for writes of `capacity` bytes, `length` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_identity_get_certificate(
    identity: *mut SealcastIdentity,
    index: usize,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> SealcastStatus {
    call(|| {
        let (held, _) = handle::get::<Identity>(identity as usize)?.held();
        // SAFETY: as this function's own.
        unsafe { copy_item(held.chain.get(index), buffer, capacity, length) }
    })
}

/// One certificate that a TLS client may build paths with, DER: the roots, then the site CAs. Whom it leads to is judged by
/// sealcast_*_verify_server alone. SEALCAST_STATUS_CLOSED: there are no more.
///
/// # Safety
/// As sealcast_identity_get_certificate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_identity_get_authority(
    identity: *mut SealcastIdentity,
    index: usize,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> SealcastStatus {
    call(|| {
        let (held, _) = handle::get::<Identity>(identity as usize)?.held();
        let found = held.roots.iter().chain(&held.issuers).nth(index);
        // SAFETY: as this function's own.
        unsafe { copy_item(found, buffer, capacity, length) }
    })
}

/// Sign with the device key, for TLS clients whose key the host holds elsewhere, and for tests of the callback.
///
/// # Safety
/// As the conventions say of bytes and buffers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealcast_identity_sign(
    identity: *mut SealcastIdentity,
    message: SealcastBytes,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> SealcastStatus {
    call(|| {
        let identity = handle::get::<Identity>(identity as usize)?;
        // SAFETY: as this function's own.
        let message = unsafe { message.get("message") }?;
        let (held, _) = identity.held();
        let (_, signature) = identity.signer.sign(&held, message)?;
        // SAFETY: likewise.
        unsafe { copy_out(&signature, buffer, capacity, length) }
    })
}

/// # Safety
/// `buffer` is valid for writes of `capacity` bytes, `length` for one.
unsafe fn copy_item(
    data: Option<&Vec<u8>>,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> Outcome<SealcastStatus> {
    needs(length, "length")?;
    match data {
        // SAFETY: as this function's own.
        Some(data) => unsafe { copy_out(data, buffer, capacity, length) },
        None => Ok(SealcastStatus::Closed),
    }
}

/// The site that a channel is of: the device's own where the host names none.
pub(crate) fn site_of(given: &[u8; 16], own: SiteId) -> SiteId {
    if given.iter().all(|&byte| byte == 0) {
        own
    } else {
        SiteId(*given)
    }
}
