//! Space that is held ahead, for when the disk is full.
//!
//! Sealgate's own bulk data leaves room ([`BULK_LEAVES`]), but others fill a disk to its last byte, and then no record of a
//! key's use can be written, and no start can rewrite what it must. So a file, `reserve` in the data directory, holds
//! space and does nothing else. When less than [`LOW`] is free it gives up a step at a time; when there is space again it
//! grows again. A start on a disk with too little left empties it first; any other leaves it alone, since a start that is
//! refused changes nothing.
//!
//! A file system without `fallocate` gets no reserve. It is no promise against those who fill the disk as fast as space
//! is given up: when it is used up, what needs space is refused until there is some.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use host::{Disk, File, Mode};

const MIB: u64 = 1 << 20;
/// What volumes' new data leaves free; objects' leaves as much.
pub(crate) const BULK_LEAVES: u64 = 64 * MIB;
/// What is held at least: a start needs 2 MiB for the audit journal, up to 16 for the log of the object index, some more
/// for shared memory and marks; the rest is for records while the disk is full.
const LEN_MIN: u64 = 32 * MIB;
/// With less free than this, a step is given up;
const LOW: u64 = 4 * MIB;
/// with more than this beyond what is missing, it is taken again. Far enough from `LOW` that a step goes one way.
const ENOUGH: u64 = 16 * MIB;
const STEP: u64 = 4 * MIB;
/// How often it is looked at. Who fills a disk at 1 GB/s gets 100 MB ahead, which is why keys may be refused for a moment.
const INTERVAL: Duration = Duration::from_millis(100);

/// The file.
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Arc<dyn File>,
    held: u64,
    /// Whether it was said that it is being used up.
    said: bool,
}

impl Reserve {
    /// Gives up all that an earlier run held, if a start might need it.
    pub(crate) fn make_room(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        if disk.free_bytes(dir)? >= wanted(dir) {
            return Ok(());
        }
        match disk.open(&dir.join("reserve"), Mode::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            file => file?.set_len(0),
        }
    }

    /// Opens it, with what it holds.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Self> {
        let file = disk.open(&dir.join("reserve"), Mode::Create)?;
        Ok(Self {
            held: file.len()?,
            disk,
            dir: dir.to_owned(),
            file,
            said: false,
        })
    }

    /// Gives up a step, or takes what is missing.
    fn tend(&mut self) -> io::Result<()> {
        let free = self.disk.free_bytes(&self.dir)?;
        if free < LOW && self.held > 0 {
            let held = self.held.saturating_sub(STEP);
            self.file.set_len(held)?;
            self.held = held;
            if !std::mem::replace(&mut self.said, true) {
                let dir = self.dir.display();
                tracing::warn!(
                    "the disk that holds {dir} is full, and what is held in reserve is being used up: free space there, or no key can be used any more"
                );
            }
            return Ok(());
        }
        let wanted = wanted(&self.dir);
        if self.held < wanted && free >= wanted - self.held + ENOUGH {
            self.file.allocate(self.held, wanted - self.held)?;
            self.held = wanted;
            if std::mem::take(&mut self.said) {
                tracing::info!("there is space again, and the reserve is whole");
            }
        }
        Ok(())
    }

    /// Fills it and tends it, on a thread of its own, until the answer is dropped.
    pub(crate) fn keep(mut self) -> io::Result<Kept> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("reserve".to_owned());
        let thread = thread.spawn(move || {
            let mut warned = false;
            loop {
                if let Err(error) = self.tend()
                    && !std::mem::replace(&mut warned, true)
                {
                    let file = self.dir.join("reserve");
                    tracing::warn!(%error, "{} cannot hold space in reserve", file.display());
                }
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Kept {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// How much is to be held: a start may have to write the whole catalogue anew.
fn wanted(dir: &Path) -> u64 {
    // Looked at and not opened: closing a file that SQLite has locked drops its locks (POSIX).
    let len = |name: &str| {
        let found = std::fs::metadata(dir.join(name));
        found.map_or(0, |found| found.len())
    };
    let catalogue = len("catalogue.db") + len("catalogue.db-wal");
    (LEN_MIN / 2 + 2 * catalogue)
        .max(LEN_MIN)
        .next_multiple_of(STEP)
}

/// A reserve that is tended until this is dropped. What it holds stays, for the next start.
pub(crate) struct Kept {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Says, of a start that failed for want of space, on which disk and what to do.
pub(crate) fn explained<T>(
    disk: &dyn Disk,
    dir: &Path,
    started: anyhow::Result<T>,
) -> anyhow::Result<T> {
    let free = match &started {
        Err(_) => disk.free_bytes(dir).unwrap_or(u64::MAX),
        Ok(_) => u64::MAX,
    };
    if free >= LOW {
        return started;
    }
    started.with_context(|| {
        format!(
            "the disk that holds {} is full ({} KiB are free, a start needs up to {} MiB): free space there and start again",
            dir.display(),
            free / 1024,
            LEN_MIN / MIB
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use host::{Entry, EntryKind};

    /// A disk of so many bytes, one file on it, and what others take.
    #[derive(Debug, Clone)]
    struct SmallDisk(Arc<Mutex<(u64, u64)>>);

    impl SmallDisk {
        fn others_take(&self, bytes: u64) {
            self.0.lock().0 = bytes;
        }
        fn reserve(&self) -> u64 {
            self.0.lock().1
        }
        fn free(&self) -> u64 {
            let (others, reserve) = *self.0.lock();
            (1024 * MIB).saturating_sub(others + reserve)
        }
    }

    impl File for SmallDisk {
        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
        fn sync_all(&self) -> io::Result<()> {
            Ok(())
        }
        fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
            if len > self.free() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.lock().1 = offset + len;
            Ok(())
        }
        fn punch(&self, _: u64, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.lock().1 = len;
            Ok(())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.reserve())
        }
        fn lock(&self) -> io::Result<()> {
            Ok(())
        }
        fn forget_cached(&self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Disk for SmallDisk {
        fn open(&self, path: &Path, _: Mode) -> io::Result<Arc<dyn File>> {
            match path.ends_with("reserve") {
                true => Ok(Arc::new(self.clone())),
                false => Err(io::ErrorKind::NotFound.into()),
            }
        }
        fn free_bytes(&self, _: &Path) -> io::Result<u64> {
            Ok(self.free())
        }
        fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
            Ok(())
        }
        fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
            Ok(())
        }
        fn remove(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }
        fn create_dir(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }
        fn remove_dir(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }
        fn list(&self, _: &Path) -> io::Result<Vec<Entry>> {
            Ok(Vec::new())
        }
        fn kind(&self, _: &Path) -> io::Result<Option<EntryKind>> {
            Ok(None)
        }
        fn sync_dir(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn it_gives_up_steps_while_others_fill_the_disk_and_takes_them_again_afterwards() {
        let disk = SmallDisk(Arc::default());
        let dir = Path::new("/d");
        // What an earlier run held: a start has it if it needs it.
        disk.set_len(LEN_MIN).unwrap();
        Reserve::make_room(&disk, dir).unwrap();
        assert_eq!(disk.reserve(), LEN_MIN);
        disk.others_take(1024 * MIB - LEN_MIN);
        Reserve::make_room(&disk, dir).unwrap();
        assert_eq!(disk.reserve(), 0);
        disk.others_take(0);
        let mut reserve = Reserve::open(Arc::new(disk.clone()), dir).unwrap();
        reserve.tend().unwrap();
        assert_eq!(disk.reserve(), LEN_MIN);

        // Others take every byte, and what is given up is used for records.
        disk.others_take(1024 * MIB - LEN_MIN);
        for step in 1..=LEN_MIN / STEP {
            reserve.tend().unwrap();
            assert_eq!(disk.free(), STEP);
            reserve.tend().unwrap();
            assert_eq!(disk.free(), STEP, "one step is enough");
            disk.others_take(1024 * MIB - LEN_MIN + step * STEP);
        }
        reserve.tend().unwrap();
        assert_eq!((disk.reserve(), disk.free()), (0, 0));

        disk.others_take(1000 * MIB);
        reserve.tend().unwrap();
        assert_eq!(disk.reserve(), 0, "too little for it and others");
        disk.others_take(0);
        reserve.tend().unwrap();
        assert_eq!(disk.reserve(), LEN_MIN);
    }

    #[test]
    fn a_start_that_failed_on_a_full_disk_says_where_and_what_to_do() {
        let disk = SmallDisk(Arc::default());
        let failed = || Err::<(), _>(anyhow::anyhow!("disk I/O error"));
        let text = |started: anyhow::Result<()>| format!("{:#}", started.unwrap_err());
        let other = explained(&disk, Path::new("/d"), failed());
        assert_eq!(text(other), "disk I/O error");
        disk.others_take(1024 * MIB);
        let full = text(explained(&disk, Path::new("/d"), failed()));
        assert!(full.contains("the disk that holds /d is full"), "{full}");
        assert!(
            full.contains("free space there and start again: disk I/O error"),
            "{full}"
        );
        assert!(explained(&disk, Path::new("/d"), Ok(())).is_ok());
    }
}
