//! Packets of a repair node on disk: segment files that are appended to, and dropped whole.
//!
//! Whoever puts a packet never waits for the disk: a thread writes. What it has not written yet is read from memory. A disk that
//! refuses, or is too slow, costs what was to be kept meanwhile, and nothing else. Nothing is forced to the disk: each record has a
//! checksum, so that after a crash of the machine what had not come there is missed, and no more.
//!
//! ```text
//! segment file   magic (8), records
//! record         length of the datagram (4), time of arrival by the wall clock (8), checksum (8), datagram
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sealcast_core::crypto::sha256;
use sealcast_core::packet_store::{Place, Shelf};
use sealcast_core::retention::Datagram;

const MAGIC: &[u8; 8] = b"SCPACK1\n";
const SUFFIX: &str = ".packets";
const HEAD_BYTES: usize = 20;
const CHECKSUM: std::ops::Range<usize> = 12..20;
/// No datagram is longer.
const MAX_DATAGRAM: usize = 65_535;
/// So much is written by one call where there is as much.
const CHUNK_BYTES: usize = 256 << 10;
/// So much waits for the disk at most; what comes beyond it is not kept.
const MAX_WAITING: usize = 8 << 20;
/// What little there is waits so long for more.
const GATHER: Duration = Duration::from_millis(20);
/// Microseconds after which a disk that has refused is tried again.
const RETRY: u64 = 2_000_000;

/// Packets in the segment files of a folder, which is this process's alone. Dropping it writes what is left.
#[derive(Debug)]
pub struct DiskShelf {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    segment_bytes: usize,
    /// From the caller's clock to the wall clock, microseconds.
    to_wall: i64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The segment that is being filled, and where the next record of it comes.
    segment: u64,
    end: usize,
    /// What waits for the writer, and what it writes at the moment.
    waiting: Vec<Chunk>,
    writing: Arc<Vec<Chunk>>,
    waiting_bytes: usize,
    files: BTreeMap<u64, Arc<File>>,
    /// The first segment that was not dropped; below it nothing that is still to be written stays.
    first_kept: u64,
    dropped: Vec<u64>,
    trouble: Option<Trouble>,
    is_closed: bool,
}

#[derive(Debug)]
struct Trouble {
    text: String,
    retry_at: u64,
}

impl State {
    /// Hands what was dropped to the writer, which removes it; says whether there is something.
    fn drop_files(&mut self) -> bool {
        let kept = self.files.split_off(&self.first_kept);
        let gone = std::mem::replace(&mut self.files, kept);
        self.dropped.extend(gone.into_keys());
        !self.dropped.is_empty()
    }
}

/// Records that follow each other in a segment.
#[derive(Debug)]
struct Chunk {
    segment: u64,
    offset: usize,
    bytes: Vec<u8>,
}

impl Chunk {
    fn holds(&self, place: Place) -> Option<&[u8]> {
        let start = (place.offset as usize).checked_sub(self.offset)?;
        let record = self
            .bytes
            .get(start..start + HEAD_BYTES + place.length as usize)?;
        (self.segment == place.segment).then_some(&record[HEAD_BYTES..])
    }

    /// As it is on disk: with checksums.
    fn sealed(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let mut rest = &mut bytes[..];
        while rest.len() >= HEAD_BYTES {
            let length = length_of(rest);
            let (record, after) = rest.split_at_mut(HEAD_BYTES + length);
            let sum = checksum(record);
            record[CHECKSUM].copy_from_slice(&sum);
            rest = after;
        }
        bytes
    }
}

fn length_of(record: &[u8]) -> usize {
    u32::from_be_bytes([record[0], record[1], record[2], record[3]]) as usize
}

fn checksum(record: &[u8]) -> [u8; 8] {
    let sum = sha256(&[&record[..CHECKSUM.start], &record[HEAD_BYTES..]]);
    sum[..8].try_into().expect("8 of 32 bytes")
}

impl DiskShelf {
    /// Opens a folder that exists. `segment_bytes`: of a file, at most, unless one datagram is longer; `now` and `wall`: what the
    /// caller's clock and the wall clock say.
    ///
    /// `found` is given each packet that is whole: its place, its time of arrival by the caller's clock, and itself; the oldest
    /// first.
    pub fn open(
        folder: &Path,
        segment_bytes: u64,
        (now, wall): (u64, u64),
        mut found: impl FnMut(Place, u64, &[u8]),
    ) -> io::Result<Self> {
        let to_wall = wall.cast_signed().wrapping_sub(now.cast_signed());
        let mut state = State::default();
        for segment in segments_of(folder)? {
            let path = path_of(folder, segment);
            state.segment = segment;
            if read_segment(&path, segment, |place, arrived, datagram| {
                // A clock that was set back makes nothing younger than it can be.
                let age = wall.saturating_sub(arrived);
                found(place, now.saturating_sub(age), datagram);
            })? {
                state.files.insert(segment, Arc::new(File::open(&path)?));
            } else {
                fs::remove_file(&path)?;
            }
        }
        state.segment += 1;
        state.end = MAGIC.len();
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            segment_bytes: usize::try_from(segment_bytes)
                .unwrap_or(usize::MAX)
                .min(u32::MAX as usize),
            to_wall,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let writer = std::thread::Builder::new()
            .name("sealcast-shelf".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.write_all()
            })?;
        Ok(Self {
            shared,
            writer: Some(writer),
        })
    }

    /// What the disk says, as long as it takes nothing.
    pub fn trouble(&self) -> Option<String> {
        let state = self.shared.lock();
        state.trouble.as_ref().map(|trouble| trouble.text.clone())
    }
}

impl Drop for DiskShelf {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take() {
            // It does not panic; and were it to, nothing more could be done here.
            let _ = writer.join();
        }
    }
}

impl Shelf for DiskShelf {
    fn put(&self, datagram: &[u8], now: u64) -> Option<Place> {
        let length = u32::try_from(datagram.len()).ok()?;
        let record = HEAD_BYTES + datagram.len();
        let mut state = self.shared.lock();
        if state
            .trouble
            .as_ref()
            .is_some_and(|trouble| now < trouble.retry_at)
            || state.waiting_bytes + record > MAX_WAITING
        {
            return None;
        }
        if state.end + record > self.shared.segment_bytes && state.end > MAGIC.len() {
            state.segment += 1;
            state.end = MAGIC.len();
        }
        let (segment, offset) = (state.segment, state.end);
        let place = Place {
            segment,
            offset: u32::try_from(offset).ok()?,
            length,
        };
        let arrived = now.wrapping_add_signed(self.shared.to_wall);
        let is_first = state.waiting.is_empty();
        let goes_on = |chunk: &&mut Chunk| chunk.segment == segment && chunk.bytes.len() < CHUNK_BYTES;
        if state.waiting.last_mut().filter(goes_on).is_none() {
            state.waiting.push(Chunk {
                segment,
                offset,
                bytes: Vec::with_capacity(record),
            });
        }
        let bytes = &mut state.waiting.last_mut().expect("pushed above").bytes;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&arrived.to_be_bytes());
        bytes.extend_from_slice(&[0; CHECKSUM.end - CHECKSUM.start]);
        bytes.extend_from_slice(datagram);
        state.end += record;
        let before = state.waiting_bytes;
        state.waiting_bytes += record;
        if is_first || (before < CHUNK_BYTES && state.waiting_bytes >= CHUNK_BYTES) {
            self.shared.changed.notify_all();
        }
        Some(place)
    }

    fn get(&self, place: Place) -> Option<Datagram> {
        let state = self.shared.lock();
        let in_memory = state.waiting.iter().chain(state.writing.iter());
        if let Some(datagram) = in_memory.filter_map(|chunk| chunk.holds(place)).next() {
            return Some(Datagram::copy_from_slice(datagram));
        }
        let file = Arc::clone(state.files.get(&place.segment)?);
        drop(state);
        let mut record = vec![0; HEAD_BYTES + place.length as usize];
        read_at(&file, &mut record, u64::from(place.offset)).ok()?;
        let is_whole = length_of(&record) == place.length as usize && record[CHECKSUM] == checksum(&record);
        is_whole.then(|| Datagram::from(record).slice(HEAD_BYTES..))
    }

    fn drop_before(&self, segment: u64) {
        let mut state = self.shared.lock();
        if segment > state.segment && state.end > MAGIC.len() {
            state.segment += 1;
            state.end = MAGIC.len();
        }
        state.first_kept = state.first_kept.max(segment.min(state.segment));
        if state.drop_files() {
            self.shared.changed.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's thread.
    fn write_all(&self) {
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() && state.dropped.is_empty() && !state.is_closed {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.waiting_bytes < CHUNK_BYTES && !state.is_closed {
                let more = |state: &mut State| state.waiting_bytes < CHUNK_BYTES && !state.is_closed;
                let waited = self.changed.wait_timeout_while(state, GATHER, more);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.waiting.is_empty() && state.dropped.is_empty() && state.is_closed {
                return;
            }
            let chunks = Arc::new(std::mem::take(&mut state.waiting));
            state.writing = Arc::clone(&chunks);
            state.waiting_bytes = 0;
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            for segment in dropped {
                // One that cannot be removed is read, and dropped for its age, at the next start.
                let _ = fs::remove_file(path_of(&self.folder, segment));
            }
            let written = chunks.iter().try_for_each(|chunk| self.write(chunk));
            self.written(written, &chunks);
        }
    }

    fn write(&self, chunk: &Chunk) -> io::Result<()> {
        let held = self.lock().files.get(&chunk.segment).map(Arc::clone);
        let file = if let Some(file) = held {
            file
        } else {
            let path = path_of(&self.folder, chunk.segment);
            let mut file = create(&path)?;
            file.write_all(MAGIC)
                .inspect_err(|_| drop(fs::remove_file(&path)))?;
            let file = Arc::new(file);
            self.lock().files.insert(chunk.segment, Arc::clone(&file));
            file
        };
        write_at(&file, &chunk.sealed(), chunk.offset as u64)
    }

    fn written(&self, result: io::Result<()>, chunks: &[Chunk]) {
        let mut state = self.lock();
        state.writing = Arc::default();
        // Some of it may have been dropped meanwhile.
        state.drop_files();
        match result {
            Ok(()) if !chunks.is_empty() => state.trouble = None,
            Ok(()) => {}
            Err(error) => {
                // What waits follows what was not written: it goes, too, and the next record begins another segment.
                state.waiting.clear();
                state.waiting_bytes = 0;
                state.segment += 1;
                state.end = MAGIC.len();
                let now = last_arrival(chunks).wrapping_add_signed(self.to_wall.wrapping_neg());
                state.trouble = Some(Trouble {
                    text: error.to_string(),
                    retry_at: now.saturating_add(RETRY),
                });
            }
        }
    }
}

/// The wall clock's time of the last record.
fn last_arrival(chunks: &[Chunk]) -> u64 {
    let mut latest = 0;
    for chunk in chunks {
        let mut rest = &chunk.bytes[..];
        while rest.len() >= HEAD_BYTES {
            latest = arrival_of(rest);
            rest = &rest[HEAD_BYTES + length_of(rest)..];
        }
    }
    latest
}

fn arrival_of(record: &[u8]) -> u64 {
    u64::from_be_bytes(record[4..12].try_into().expect("8 bytes"))
}

fn path_of(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:016x}{SUFFIX}"))
}

/// Numbers of the segments in a folder, in order; other files are let be.
fn segments_of(folder: &Path) -> io::Result<Vec<u64>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        let number = number.filter(|number| number.len() == 16);
        segments.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Gives each whole record of a segment, up to the first that is not; false: there is none.
fn read_segment(path: &Path, segment: u64, mut found: impl FnMut(Place, u64, &[u8])) -> io::Result<bool> {
    let bytes = fs::read(path)?;
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Ok(false);
    };
    let mut is_any = false;
    while rest.len() >= HEAD_BYTES {
        let length = length_of(rest);
        if length > MAX_DATAGRAM || rest.len() < HEAD_BYTES + length {
            break;
        }
        let (record, after) = rest.split_at(HEAD_BYTES + length);
        let offset = u32::try_from(bytes.len() - rest.len());
        let (Ok(offset), true) = (offset, record[CHECKSUM] == checksum(record)) else {
            break;
        };
        let place = Place {
            segment,
            offset,
            length: length as u32,
        };
        found(place, arrival_of(record), &record[HEAD_BYTES..]);
        is_any = true;
        rest = after;
    }
    Ok(is_any)
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[count..];
        offset += count as u64;
    }
    Ok(())
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[count..];
        offset += count as u64;
    }
    Ok(())
}
