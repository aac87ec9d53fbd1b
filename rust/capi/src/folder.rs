//! A device's folder as `sealcast device enroll` makes it and `sealcast device run` keeps it fresh.
//!
//! What an agent replaces in it is replaced by one rename, so that a reader sees the old or the new. What is written here is
//! what a member has seen and must not go back behind (TR-27, TR-29, invariant 8): beside the agent, under the same locks.

#[cfg(unix)]
use std::fs::rename;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
#[cfg(windows)]
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sealcast_core::crl::{CrlSet, Signature};
use sealcast_core::date::later_signed_time;
use sealcast_core::member::Floors;
use sealcast_core::signed::{CborReader, CborWriter, MalformedObject};
use sealcast_core::trust_bundle::TrustBundle;
use sealcast_core::validator::{Certificate, is_device_name, parse_site};
use sealcast_core::wire::{ChannelId, SiteId};
use zeroize::Zeroizing;

use crate::status::{Failure, Outcome, SealcastStatus};

const MAX_FILE_BYTES: u64 = 16 << 20;
/// In the PEM of a key with a passphrase, of either form.
const ENCRYPTED: &[u8] = b"ENCRYPTED";
const MAX_ISSUERS: usize = 1024;
const TEMPORARY: &str = "tmp";

/// SHA-256 of an issuer's key, and the highest number that was seen of its lists.
pub(crate) type CrlNumber = ([u8; 32], u64);

/// Tells one state of a folder from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(PathBuf, Option<(SystemTime, u64)>);

/// What was read at one moment.
pub(crate) struct Credentials {
    pub(crate) stamp: Stamp,
    pub(crate) name: String,
    pub(crate) site: SiteId,
    pub(crate) keys_url: String,
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
    /// DER: our certificate, then its issuers.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) issuers: Vec<Vec<u8>>,
    pub(crate) bundle: Option<TrustBundle>,
}

fn read_limited(path: &Path, limit: u64) -> Outcome<Vec<u8>> {
    let mut data = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut data))
        .map_err(|error| Failure::storage(path, error))?;
    if data.len() as u64 > limit {
        return Err(Failure::storage(path, format!("has more than {limit} bytes")));
    }
    Ok(data)
}

fn read_if_there(path: &Path, limit: u64) -> Outcome<Option<Vec<u8>>> {
    match path.try_exists() {
        Ok(true) => read_limited(path, limit).map(Some),
        Ok(false) => Ok(None),
        Err(error) => Err(Failure::storage(path, error)),
    }
}

fn damaged(path: &Path) -> Failure {
    Failure::storage(path, "damaged; restore the folder, or enrol again")
}

/// What changes with every renewal and every new trust bundle.
pub(crate) fn stamp(folder: &Path) -> Outcome<Stamp> {
    let pointer = folder.join("current");
    let Some(number) = read_if_there(&pointer, 32)? else {
        let text = format!(
            "{}: holds no device; enrol it first: sealcast device enroll",
            folder.display()
        );
        return Err(Failure::new(SealcastStatus::NoDevice, text));
    };
    let number = String::from_utf8_lossy(&number).trim().to_owned();
    let credentials = folder.join("credentials").join(&number);
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) || !credentials.is_dir() {
        return Err(damaged(&pointer));
    }
    let bundle = fs::metadata(folder.join("bundle")).ok();
    let bundle = bundle.map(|file| (file.modified().unwrap_or(SystemTime::UNIX_EPOCH), file.len()));
    Ok(Stamp(credentials, bundle))
}

/// Reads the device that a folder holds.
pub(crate) fn read(folder: &Path) -> Outcome<Credentials> {
    let stamp = stamp(folder)?;
    let place = stamp.0.clone();
    let settings_file = place.join("device.toml");
    let settings = String::from_utf8(read_limited(&settings_file, MAX_FILE_BYTES)?)
        .map_err(|_| damaged(&settings_file))?;
    let settings: toml::Table = settings.parse().map_err(|_| damaged(&settings_file))?;
    let field = |name: &str| {
        let value = settings.get(name).and_then(toml::Value::as_str);
        value.map(str::to_owned).ok_or_else(|| damaged(&settings_file))
    };
    let name = field("name")?;
    let role = settings
        .get("role")
        .and_then(toml::Value::as_str)
        .unwrap_or("device");
    if role != "device" || !is_device_name(&name) {
        let text = format!("{}: holds the {role} {name:?}, no device", folder.display());
        return Err(Failure::new(SealcastStatus::NoDevice, text));
    }
    let bundle = read_bundle(folder)?;
    let (roots, issuers) = match &bundle {
        Some(bundle) => (
            bundle.roots().map(<[u8]>::to_vec).collect(),
            bundle.authorities().map(<[u8]>::to_vec).collect(),
        ),
        None => (
            certificates(&place.join("roots.pem"))?,
            certificates(&place.join("issuers.pem"))?,
        ),
    };
    let certificate_file = place.join("certificate.pem");
    let chain = certificates(&certificate_file)?;
    if chain.is_empty() {
        return Err(damaged(&certificate_file));
    }
    Ok(Credentials {
        name,
        site: parse_site(&field("site")?).ok_or_else(|| damaged(&settings_file))?,
        keys_url: field("keys")?,
        key_file: place.join("key.pem"),
        certificate_file,
        chain,
        roots,
        issuers,
        bundle,
        stamp,
    })
}

fn certificates(path: &Path) -> Outcome<Vec<Vec<u8>>> {
    let pem = read_limited(path, MAX_FILE_BYTES)?;
    CertificateDer::pem_slice_iter(&pem)
        .map(|der| der.map(|der| der.to_vec()).map_err(|_| damaged(path)))
        .collect()
}

/// The device key in PKCS#8.
pub(crate) fn private_key(path: &Path) -> Outcome<Zeroizing<Vec<u8>>> {
    let pem = Zeroizing::new(read_limited(path, MAX_FILE_BYTES)?);
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| {
        if pem.windows(ENCRYPTED.len()).any(|bytes| bytes == ENCRYPTED) {
            Failure::storage(
                path,
                "has a passphrase: sign with it by a callback, or keep the key without one",
            )
        } else {
            damaged(path)
        }
    })?;
    Ok(Zeroizing::new(key.secret_pkcs8_der().to_vec()))
}

fn read_bundle(folder: &Path) -> Outcome<Option<TrustBundle>> {
    let path = folder.join("bundle");
    let Some(data) = read_if_there(&path, MAX_FILE_BYTES)? else {
        return Ok(None);
    };
    let bundle = TrustBundle::parse_stored(&data).map_err(|MalformedObject| damaged(&path))?;
    // An enrolment with other roots has put it aside.
    let superseded = read_if_there(&folder.join("superseded"), 32)?;
    Ok((superseded.as_deref() != Some(&bundle.hash[..])).then_some(bundle))
}

/// What was seen of a channel and of the site, as an engine is given it.
pub(crate) struct Seen {
    pub(crate) floors: Floors,
    pub(crate) crl_numbers: Vec<CrlNumber>,
    pub(crate) signed_time: u64,
    pub(crate) crl: Option<Vec<u8>>,
}

impl Seen {
    pub(crate) fn read(folder: &Path, channel: &ChannelId, site: &SiteId) -> Outcome<Self> {
        let crl = read_if_there(&crl_file(folder, site), MAX_FILE_BYTES)?;
        Ok(Self {
            floors: read_floors(&floors_file(folder, channel))?,
            crl_numbers: read_numbers(&folder.join("floors").join("crls"))?,
            signed_time: read_time(&folder.join("floors").join("time"))?,
            // One that is of no use is fetched anew.
            crl: crl.filter(|der| CrlSet::parse(der).is_some()),
        })
    }
}

fn floors_file(folder: &Path, channel: &ChannelId) -> PathBuf {
    folder.join("floors").join(hex(&channel.0))
}

fn crl_file(folder: &Path, site: &SiteId) -> PathBuf {
    folder.join("crls").join(hex(&site.0))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file of numbers; one that is not there is `nothing`.
fn numbers<T>(
    path: &Path,
    nothing: T,
    read: impl FnOnce(&mut CborReader<'_>) -> Result<T, MalformedObject>,
) -> Outcome<T> {
    let Some(data) = read_if_there(path, MAX_FILE_BYTES)? else {
        return Ok(nothing);
    };
    let mut reader = CborReader::new(&data);
    read(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|MalformedObject| damaged(path))
}

fn read_floors(path: &Path) -> Outcome<Floors> {
    numbers(path, Floors::default(), |reader| {
        reader.array_of(3)?;
        Ok(Floors {
            policy_version: reader.uint()?,
            crl_number: reader.uint()?,
            generation: u32::try_from(reader.uint()?).map_err(|_| MalformedObject)?,
        })
    })
}

fn read_numbers(path: &Path) -> Outcome<Vec<CrlNumber>> {
    numbers(path, Vec::new(), |reader| {
        reader.list(MAX_ISSUERS, |reader| {
            reader.array_of(2)?;
            Ok((reader.fixed()?, reader.uint()?))
        })
    })
}

fn read_time(path: &Path) -> Outcome<u64> {
    numbers(path, 0, |reader| {
        reader.array_of(1)?;
        reader.uint()
    })
}

/// Stores what an engine has seen; what is stored never gets lower.
pub(crate) fn raise(folder: &Path, channel: &ChannelId, seen: Floors, signed: u64, wall: u64) -> Outcome<()> {
    let place = folder.join("floors");
    let _lock = lock(&place)?;
    let path = floors_file(folder, channel);
    let stored = read_floors(&path)?;
    let highest = Floors {
        policy_version: stored.policy_version.max(seen.policy_version),
        crl_number: stored.crl_number.max(seen.crl_number),
        generation: stored.generation.max(seen.generation),
    };
    if highest != stored {
        let values = CborWriter::new()
            .array(3)
            .uint(highest.policy_version)
            .uint(highest.crl_number)
            .uint(u64::from(highest.generation));
        replace(&path, &values.finish())?;
    }
    let path = place.join("time");
    let stored = read_time(&path)?;
    let latest = later_signed_time(stored, signed, wall);
    if latest != stored {
        replace(&path, &CborWriter::new().array(1).uint(latest).finish())?;
    }
    Ok(())
}

/// Stores the CRLs that the key server of a site hands out, unless they are older than what was seen (TR-29).
pub(crate) fn take_crl(
    folder: &Path,
    site: &SiteId,
    document: &[u8],
    authorities: &[Vec<u8>],
) -> Outcome<()> {
    let authorities: Vec<Certificate> = authorities
        .iter()
        .filter_map(|der| Certificate::parse(der))
        .collect();
    let Some(crls) = CrlSet::parse(document) else {
        return Ok(());
    };
    let signatures = crls.signatures(&authorities);
    if signatures.contains(&Signature::Forged) || signatures.first() != Some(&Signature::Genuine) {
        // Of a site CA that the folder is yet to hear of.
        return Ok(());
    }
    let known: Vec<CrlNumber> = crls
        .versions()
        .zip(&signatures)
        .filter(|(_, signature)| **signature == Signature::Genuine)
        .map(|(list, _)| (list.issuer, list.number))
        .collect();
    let _lock = lock(&folder.join("crls"))?;
    let path = crl_file(folder, site);
    let held = read_if_there(&path, MAX_FILE_BYTES)?;
    if held.as_deref() == Some(document) {
        return Ok(());
    }
    let held = held.and_then(|der| CrlSet::parse(&der));
    let is_older = held.is_some_and(|held| crls.version().number < held.version().number);
    if is_older || !raise_numbers(folder, &known)? {
        return Ok(());
    }
    replace(&path, document)
}

/// Returns false where one is lower than what was seen; then none is stored.
fn raise_numbers(folder: &Path, seen: &[CrlNumber]) -> Outcome<bool> {
    let _lock = lock(&folder.join("floors"))?;
    let path = folder.join("floors").join("crls");
    let stored = read_numbers(&path)?;
    let mut highest = stored.clone();
    for (issuer, number) in seen {
        match highest.iter().position(|(known, _)| known == issuer) {
            Some(place) if *number < highest[place].1 => return Ok(false),
            Some(place) => highest[place].1 = *number,
            None if highest.len() < MAX_ISSUERS => highest.push((*issuer, *number)),
            None => {}
        }
    }
    highest.sort_unstable();
    if highest != stored {
        let mut values = CborWriter::new().array(highest.len());
        for (issuer, number) in &highest {
            values = values.array(2).bytes(issuer).uint(*number);
        }
        replace(&path, &values.finish())?;
    }
    Ok(true)
}

/// Holds the lock of a folder, which is made if need be; it ends with what is returned.
fn lock(folder: &Path) -> Outcome<File> {
    match make_folder(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(Failure::storage(folder, error));
        }
        _ => {}
    }
    let path = folder.join("lock");
    let file = private(&mut OpenOptions::new())
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| Failure::storage(&path, error))?;
    file.lock().map_err(|error| Failure::storage(&path, error))?;
    Ok(file)
}

/// Writes beside, and renames: whoever reads sees the old or the new.
fn replace(path: &Path, data: &[u8]) -> Outcome<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".");
    temporary.push(TEMPORARY);
    let temporary = PathBuf::from(temporary);
    let write = || -> std::io::Result<()> {
        let mut file = private(&mut OpenOptions::new())
            .create(true)
            .write(true)
            .truncate(true)
            .open(&temporary)?;
        file.write_all(data)?;
        file.sync_all()?;
        drop(file);
        rename(&temporary, path)?;
        sync_folder(path.parent().unwrap_or(path))
    };
    write().map_err(|error| Failure::storage(path, error))
}

/// Windows replaces no file that somebody reads who has not allowed it, and Python's `open` does not. Reading is short.
#[cfg(windows)]
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    const ACCESS_DENIED: i32 = 5;
    const SHARING_VIOLATION: i32 = 32;
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        match fs::rename(from, to) {
            Err(error)
                if matches!(error.raw_os_error(), Some(ACCESS_DENIED | SHARING_VIOLATION))
                    && Instant::now() < end =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(unix)]
fn make_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(path)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

// Elsewhere files have the folder's own access rules, and a rename is durable with the file.
#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(not(unix))]
fn make_folder(path: &Path) -> std::io::Result<()> {
    fs::create_dir(path)
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sealcast-capi-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const CHANNEL: ChannelId = ChannelId([3; 32]);

    fn floors(policy_version: u64, crl_number: u64, generation: u32) -> Floors {
        Floors {
            policy_version,
            crl_number,
            generation,
        }
    }

    #[test]
    fn what_was_seen_never_gets_lower() {
        let folder = Folder::new("floors");
        raise(&folder.0, &CHANNEL, floors(5, 1, 9), 7, 8).unwrap();
        raise(&folder.0, &CHANNEL, floors(4, 2, 8), 6, 8).unwrap();
        let seen = Seen::read(&folder.0, &CHANNEL, &SiteId([1; 16])).unwrap();
        assert_eq!(seen.floors, floors(5, 2, 9));
        assert_eq!(seen.signed_time, 7);
        assert!(raise_numbers(&folder.0, &[([1; 32], 4), ([2; 32], 1)]).unwrap());
        assert!(!raise_numbers(&folder.0, &[([2; 32], 5), ([1; 32], 3)]).unwrap());
        assert_eq!(
            Seen::read(&folder.0, &CHANNEL, &SiteId([1; 16]))
                .unwrap()
                .crl_numbers,
            [([1; 32], 4), ([2; 32], 1)]
        );
    }

    /// As Python's are on Windows.
    #[test]
    #[cfg(windows)]
    fn a_reader_that_forbids_it_delays_a_change_and_no_more() {
        use std::os::windows::fs::OpenOptionsExt;
        const SHARE_READ: u32 = 1;
        let folder = Folder::new("read");
        raise(&folder.0, &CHANNEL, floors(1, 1, 1), 1, 1).unwrap();
        let path = floors_file(&folder.0, &CHANNEL);
        let read = OpenOptions::new()
            .read(true)
            .share_mode(SHARE_READ)
            .open(&path)
            .unwrap();
        let temporary = folder.0.join("new");
        fs::write(&temporary, b"new").unwrap();
        assert!(fs::rename(&temporary, &path).is_err());
        let writer = std::thread::spawn(move || rename(&temporary, &path));
        // Its first try has come meanwhile, or not; either way it succeeds.
        drop(read);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn what_is_no_device_is_said_and_damage_is_named() {
        let folder = Folder::new("none");
        assert_eq!(stamp(&folder.0).unwrap_err().status, SealcastStatus::NoDevice);
        fs::write(folder.0.join("current"), "../..\n").unwrap();
        let failure = stamp(&folder.0).unwrap_err();
        assert_eq!(failure.status, SealcastStatus::Storage);
        assert!(failure.text.contains("current"), "{}", failure.text);
        raise(&folder.0, &CHANNEL, floors(1, 1, 1), 1, 1).unwrap();
        fs::write(folder.0.join("floors").join("time"), "?").unwrap();
        let failure = raise(&folder.0, &CHANNEL, floors(2, 1, 1), 2, 2).unwrap_err();
        assert!(failure.text.contains("time"), "{}", failure.text);
    }
}
