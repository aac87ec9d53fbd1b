//! A repair node's packets on disk: over a restart, within bounds, and when the disk refuses or lies.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealcast_core::packet_store::{Admission, PacketStore, Place, Shelf};
use sealcast_core::wire::{Epoch, StreamId};
use sealcast_net::DiskShelf;

const SECOND: u64 = 1_000_000;
/// By the wall clock, when the clock that is never set says 0.
const WALL: u64 = 1_800_000_000 * SECOND;
const STREAM: StreamId = StreamId([7; 16]);
const EVERYTHING: Admission = Admission {
    generation: 0,
    step: 0,
    joined: 0,
};

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sealcast-shelf-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    fn bytes(&self) -> u64 {
        self.files()
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .map(|file| file.len())
            .sum()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Records = Vec<(Place, u64, Vec<u8>)>;

fn open(folder: &Path, segment_bytes: u64, now: u64, wall: u64) -> (DiskShelf, Records) {
    let mut found = Vec::new();
    let shelf = DiskShelf::open(folder, segment_bytes, (now, wall), |place, arrived, datagram| {
        found.push((place, arrived, datagram.to_vec()));
    });
    (shelf.unwrap(), found)
}

fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A data packet as a store parses it; its signature is nothing.
fn packet(sequence: u64, length: usize) -> Vec<u8> {
    let mut datagram = vec![0; length.max(64 + 16 + 72)];
    datagram[..4].copy_from_slice(&0x5345_414c_u32.to_be_bytes());
    datagram[4..6].copy_from_slice(&[1, 1]);
    datagram[6..22].copy_from_slice(&STREAM.0);
    datagram[46..54].copy_from_slice(&sequence.to_be_bytes());
    datagram[55] = 1;
    datagram
}

fn epoch() -> Epoch {
    Epoch {
        slot: 0,
        generation: 0,
        step: 0,
    }
}

#[test]
fn what_was_put_is_there_at_once_and_after_a_restart() {
    let folder = Folder::new("restart");
    let packets: Vec<_> = (0..400u64).map(|n| packet(n, 200 + n as usize * 3)).collect();
    let (shelf, found) = open(&folder.0, 64 << 10, 5 * SECOND, WALL + 5 * SECOND);
    assert!(found.is_empty());
    let mut places = Vec::new();
    for (at, sent) in (5 * SECOND..).zip(&packets) {
        let place = shelf.put(sent, at).unwrap();
        assert_eq!(
            shelf.get(place).unwrap(),
            sent,
            "whether it is on the disk already or not"
        );
        places.push(place);
    }
    assert!(places.is_sorted_by_key(|place| (place.segment, place.offset)));
    drop(shelf);
    assert!(folder.files().len() > 3);
    let longest = folder
        .files()
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .max();
    assert!(longest.unwrap() <= 64 << 10);
    // The machine has been off for 3 s, and its clock that is never set began anew.
    let (shelf, found) = open(&folder.0, 64 << 10, 1, WALL + 8 * SECOND);
    let datagrams: Vec<_> = found.iter().map(|(_, _, datagram)| datagram.clone()).collect();
    assert_eq!(datagrams, packets);
    assert!(found.iter().all(|&(_, arrived, _)| arrived <= 1));
    for ((place, _, _), sent) in found.iter().zip(&packets) {
        assert_eq!(shelf.get(*place).unwrap(), sent);
    }
    let next = shelf.put(&packets[0], 2).unwrap();
    assert!(
        next.segment > found.last().unwrap().0.segment,
        "an old file is never written to"
    );
}

#[test]
fn what_is_not_whole_is_passed_over() {
    let folder = Folder::new("torn");
    let (shelf, _) = open(&folder.0, 1 << 20, 0, WALL);
    let places: Vec<_> = (0..10).map(|n| shelf.put(&packet(n, 300), n).unwrap()).collect();
    drop(shelf);
    let [file] = &folder.files()[..] else {
        panic!("one file")
    };
    let whole = fs::read(file).unwrap();
    // Cut anywhere in the last record, as after a power cut; or a bit that has changed in the sixth.
    for cut in [1, 150, 319] {
        fs::write(file, &whole[..whole.len() - cut]).unwrap();
        assert_eq!(open(&folder.0, 1 << 20, 0, WALL).1.len(), 9);
    }
    let mut bent = whole.clone();
    bent[places[5].offset as usize + 100] ^= 1;
    fs::write(file, &bent).unwrap();
    assert_eq!(open(&folder.0, 1 << 20, 0, WALL).1.len(), 5);
    // It may change while a node runs, too.
    fs::write(file, &whole).unwrap();
    let (shelf, found) = open(&folder.0, 1 << 20, 0, WALL);
    assert_eq!(found.len(), 10);
    fs::write(file, &bent).unwrap();
    assert_eq!(shelf.get(places[5]), None);
    assert!(shelf.get(places[6]).is_some());
    fs::write(file, b"").unwrap();
    assert_eq!(shelf.get(places[6]), None);
    drop(shelf);
    // Files that are none of ours are let be, empty ones of ours go.
    fs::write(folder.0.join("notes.txt"), b"mine").unwrap();
    assert!(open(&folder.0, 1 << 20, 0, WALL).1.is_empty());
    assert_eq!(folder.files(), [folder.0.join("notes.txt")]);
}

#[test]
fn bounded_in_bytes_and_age_on_disk_too() {
    let folder = Folder::new("bounds");
    let (most, segment) = (512 << 10, 32 << 10);
    let (shelf, _) = open(&folder.0, segment, 0, WALL);
    let shelf: Arc<dyn Shelf> = Arc::new(shelf);
    let mut store = PacketStore::new(most - segment, 10 * SECOND);
    store.use_shelf(Arc::clone(&shelf));
    for n in 0..4000u64 {
        store.keep((STREAM, n), (epoch(), n), &packet(n, 1000), n);
        if n % 200 == 199 {
            let last = store.answer(&STREAM, &[(n - 50, n)], &EVERYTHING).unwrap().read();
            assert_eq!(last.packets.len(), 51);
        }
    }
    await_that("too much stays on the disk, or too little comes there", || {
        (most / 2..=most).contains(&folder.bytes())
    });
    // Old packets go though no new one comes.
    store.expire(60 * SECOND);
    assert_eq!(store.size(), (0, 0));
    await_that("old files stay", || {
        store.expire(61 * SECOND);
        folder.files().is_empty()
    });
    store.keep((STREAM, 5000), (epoch(), 0), &packet(5000, 1000), 62 * SECOND);
    let answer = store.answer(&STREAM, &[(0, 9999)], &EVERYTHING).unwrap().read();
    assert_eq!(answer.packets.len(), 1);
}

#[test]
fn a_restart_goes_on_within_the_bounds() {
    let folder = Folder::new("again");
    let (most, segment) = (256 << 10, 32 << 10);
    for start in 0..6u64 {
        let mut store = PacketStore::new(most - segment, 3600 * SECOND);
        let now = start * SECOND;
        let shelf = DiskShelf::open(
            &folder.0,
            segment,
            (now, WALL + now),
            |place, arrived, datagram| {
                store.restore(place, arrived, datagram);
            },
        );
        store.use_shelf(Arc::new(shelf.unwrap()));
        store.expire(now);
        if start > 0 {
            let before = store.answer(&STREAM, &[(start * 100 - 1, start * 100 - 1)], &EVERYTHING);
            assert_eq!(before.unwrap().read().packets, [packet(start * 100 - 1, 1000)]);
        }
        for n in start * 100..(start + 1) * 100 {
            store.keep((STREAM, n), (epoch(), n), &packet(n, 1000), now);
        }
        assert!(store.size().1 <= most - segment);
        drop(store);
        assert!(folder.bytes() <= most, "{} bytes", folder.bytes());
    }
}

#[test]
fn a_disk_that_refuses_costs_what_comes_meanwhile_and_nothing_else() {
    let folder = Folder::new("refuses");
    let (shelf, _) = open(&folder.0, 1 << 20, 0, WALL);
    fs::remove_dir(&folder.0).unwrap();
    assert!(shelf.put(&packet(0, 300), 0).is_some(), "nobody can know yet");
    await_that("it says what is wrong", || shelf.trouble().is_some());
    assert_eq!(shelf.put(&packet(1, 300), SECOND), None);
    // It is tried again after a while.
    let place = shelf.put(&packet(2, 300), 5 * SECOND).unwrap();
    await_that("it has been refused again", || shelf.get(place).is_none());
    assert!(shelf.trouble().is_some());
    fs::create_dir(&folder.0).unwrap();
    let place = shelf.put(&packet(3, 300), 10 * SECOND).unwrap();
    await_that("it works again", || shelf.trouble().is_none());
    assert_eq!(shelf.get(place).unwrap(), packet(3, 300));
    drop(shelf);
    let (_, found) = open(&folder.0, 1 << 20, 0, WALL);
    assert_eq!(
        found.iter().map(|(_, _, datagram)| datagram).collect::<Vec<_>>(),
        [&packet(3, 300)]
    );
}
