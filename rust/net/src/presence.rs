//! The subscribers that a device has on a channel, in all its processes and languages.
//!
//! For its site a device is one subscriber, however many run on it. Each holds a lock of one file; the one that finds
//! nobody else's when it ends leaves the channel for the device (SC-6). A process that dies holds none any more.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sealcast_core::wire::ChannelId;

/// Folder, in a device's, of a file for each channel.
const FOLDER: &str = "subscribers";
/// So long a new one waits for another to end its leave, which would take its join back.
const LEAVE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);

/// One subscriber, from before its join until this is dropped.
#[derive(Debug)]
pub struct Presence {
    file: File,
    path: PathBuf,
}

impl Presence {
    /// Counts a subscriber in; waits up to three seconds for one that is leaving.
    pub fn enter(device_folder: &Path, channel: &ChannelId) -> io::Result<Self> {
        let folder = device_folder.join(FOLDER);
        let name: String = channel.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let until = Instant::now() + LEAVE;
        loop {
            make_folder(&folder)?;
            let file = match owners_alone(&mut options).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            lock_shared(&file, until)?;
            // The one that was the last may have removed it meanwhile.
            if is_at(&file, &path)? {
                return Ok(Self { file, path });
            }
        }
    }

    /// Counts it out; true if it was the last, which nobody is where the system cannot tell. Until it is dropped, the
    /// next one waits.
    pub fn is_last(&self) -> bool {
        // Rust unlocks twice on Windows, and Wine calls the second time an error; the lock tells what came of it.
        let _ = self.file.unlock();
        self.file.try_lock().is_ok()
    }
}

impl Drop for Presence {
    /// The file of nobody goes, so that who came for nothing leaves nothing behind. Windows removes none that another waits for.
    fn drop(&mut self) {
        if cfg!(unix) && self.is_last() {
            let _ = fs::remove_file(&self.path);
            let _ = self.path.parent().map(fs::remove_dir);
        }
    }
}

/// Waits until then for one that leaves. If that hangs, this one goes on, seen by no other.
fn lock_shared(file: &File, until: Instant) -> io::Result<()> {
    loop {
        match file.try_lock_shared() {
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(LOOK),
            _ => return Ok(()),
        }
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}

fn make_folder(path: &Path) -> io::Result<()> {
    let builder = &mut fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn owners_alone(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: ChannelId = ChannelId([7; 32]);
    const OTHER: ChannelId = ChannelId([8; 32]);

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sealcast-net-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn enter(&self, channel: &ChannelId) -> Presence {
            Presence::enter(&self.0, channel).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_last_one_knows_that_it_is() {
        let folder = Folder::new("last");
        let (first, second, elsewhere) = (
            folder.enter(&CHANNEL),
            folder.enter(&CHANNEL),
            folder.enter(&OTHER),
        );
        assert!(!first.is_last());
        assert!(second.is_last());
        assert!(elsewhere.is_last());
    }

    #[test]
    fn of_two_that_end_at_once_one_is_the_last() {
        let folder = Folder::new("both");
        let both = [folder.enter(&CHANNEL), folder.enter(&CHANNEL)];
        let last = std::thread::scope(|scope| {
            let [first, second] = both.each_ref().map(|each| scope.spawn(|| each.is_last()));
            [first.join().unwrap(), second.join().unwrap()]
        });
        assert!(last[0] != last[1]);
    }

    #[test]
    fn one_that_ended_without_a_word_is_not_counted() {
        let folder = Folder::new("dropped");
        let stays = folder.enter(&CHANNEL);
        drop(folder.enter(&CHANNEL));
        assert!(stays.is_last());
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_left_of_the_last_one() {
        let folder = Folder::new("nothing");
        let (first, second) = (folder.enter(&CHANNEL), folder.enter(&CHANNEL));
        drop(first);
        assert!(folder.0.join(FOLDER).exists());
        assert!(second.is_last());
        drop(second);
        assert!(!folder.0.join(FOLDER).exists());
    }

    #[test]
    fn of_many_that_come_and_go_at_once_none_leaves_beside_another() {
        let folder = Folder::new("many");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        let order = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let each = folder.enter(&CHANNEL);
                        inside.fetch_add(1, order);
                        std::thread::yield_now();
                        inside.fetch_sub(1, order);
                        if each.is_last() {
                            assert_eq!(inside.load(order), 0);
                        }
                    }
                });
            }
        });
        assert!(!cfg!(unix) || !folder.0.join(FOLDER).exists());
    }

    #[test]
    fn a_new_one_waits_for_a_leave_to_end() {
        let folder = Folder::new("waits");
        let leaving = folder.enter(&CHANNEL);
        assert!(leaving.is_last());
        std::thread::scope(|scope| {
            let entering = scope.spawn(|| folder.enter(&CHANNEL));
            drop(leaving);
            assert!(entering.join().unwrap().is_last());
        });
    }

    #[test]
    fn a_leave_that_hangs_keeps_nobody_out() {
        let folder = Folder::new("hangs");
        let hanging = folder.enter(&CHANNEL);
        assert!(hanging.is_last());
        let next = folder.enter(&CHANNEL);
        assert!(!next.is_last());
    }
}
