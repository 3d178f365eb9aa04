//! Who still needs which data files: closing, pins of readers, and removal of what nobody needs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::layout::{Directory, FileId, remove};
use crate::store::StoreError;

/// Whether the store is open, and how many files are on their way in or out.
///
/// A store closes *clean* if no file is; then the next start need not look for orphans.
#[derive(Debug, Default)]
pub(super) struct Life {
    closed: AtomicBool,
    unsettled: AtomicUsize,
}

impl Life {
    /// Refuses new work from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Begins to bring a file in; refused when closed. Counted first and checked then, so that
    /// either this sees the close or the closer sees the count.
    pub(super) fn begin(self: &Arc<Self>) -> Result<Unsettled, StoreError> {
        let guard = self.count();
        if self.is_closed() {
            Err(StoreError::Closed)
        } else {
            Ok(guard)
        }
    }

    fn count(self: &Arc<Self>) -> Unsettled {
        self.unsettled.fetch_add(1, Ordering::SeqCst);
        Unsettled(self.clone())
    }

    /// Waits a moment for files on their way; says whether all of them have arrived.
    pub(super) fn settle(&self, patience: Duration) -> bool {
        const NAP: Duration = Duration::from_millis(1);
        let mut left = patience;
        while self.unsettled.load(Ordering::SeqCst) != 0 {
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(NAP);
            left = left.saturating_sub(NAP);
        }
        true
    }
}

/// A file on its way in or out.
#[derive(Debug)]
pub(super) struct Unsettled(Arc<Life>);

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.unsettled.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Files that no row names any more, and the content they were, if readers may have it open.
#[derive(Debug)]
pub(super) struct Doomed {
    pub(super) content: Option<u64>,
    pub(super) files: Vec<FileId>,
}

/// Keeps files alive for readers and has them removed after the last one.
#[derive(Debug)]
pub(super) struct Pins {
    pinned: Mutex<HashMap<u64, Pinned>>,
    life: Arc<Life>,
    bin: mpsc::Sender<(Vec<FileId>, Unsettled)>,
}

#[derive(Debug, Default)]
struct Pinned {
    readers: usize,
    doomed: Option<(Vec<FileId>, Unsettled)>,
}

impl Pins {
    /// Starts the thread that removes files; it ends when the last user of the pins has gone.
    pub(super) fn start(
        directory: Arc<Directory>,
        life: Arc<Life>,
    ) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let (bin, waste) = mpsc::channel::<(Vec<FileId>, Unsettled)>();
        let thread = std::thread::Builder::new().name("s3-reclaim".into()).spawn(move || {
            for (files, _unsettled) in waste {
                for file in files {
                    if let Err(error) = remove(&directory.data_file(file)) {
                        tracing::warn!(%error, %file, "cannot remove a data file that nobody needs");
                    }
                }
            }
        })?;
        let pins = Self {
            pinned: Mutex::default(),
            life,
            bin,
        };
        Ok((Arc::new(pins), thread))
    }

    /// Keeps the files of a content from now on. They may be gone already: look at the index
    /// *again* afterwards. If the row is still there, its removal comes after the pin and sees it.
    pub(super) fn pin(self: &Arc<Self>, content: u64) -> Pin {
        self.pinned.lock().entry(content).or_default().readers += 1;
        Pin {
            pins: self.clone(),
            content,
        }
    }

    /// Takes files whose rows are gone, durably: removes them now, or after the last reader.
    pub(super) fn doom(&self, doomed: Vec<Doomed>) {
        let mut pinned = self.pinned.lock();
        for Doomed { content, files } in doomed {
            let waste = (files, self.life.count());
            match content.and_then(|content| pinned.get_mut(&content)) {
                Some(entry) => entry.doomed = Some(waste),
                None => self.discard(waste),
            }
        }
    }

    fn discard(&self, waste: (Vec<FileId>, Unsettled)) {
        // Without the thread they stay until the next start; the count says that it was unclean.
        if let Err(mpsc::SendError((_, unsettled))) = self.bin.send(waste) {
            #[expect(clippy::mem_forget, reason = "holds a count alone, which is to stay")]
            std::mem::forget(unsettled);
        }
    }
}

/// Keeps the files of one content while it lives.
#[derive(Debug)]
pub(super) struct Pin {
    pins: Arc<Pins>,
    content: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = self.pins.pinned.lock();
        let Some(entry) = pinned.get_mut(&self.content) else {
            return;
        };
        entry.readers -= 1;
        if entry.readers == 0 {
            let waste = entry.doomed.take();
            pinned.remove(&self.content);
            drop(pinned);
            if let Some(waste) = waste {
                self.pins.discard(waste);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::random::SystemRandom;

    struct Fixture {
        _dir: tempfile::TempDir,
        directory: Arc<Directory>,
        life: Arc<Life>,
        pins: Arc<Pins>,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::create(dir.path()).unwrap());
        let life = Arc::new(Life::default());
        let (pins, _thread) = Pins::start(directory.clone(), life.clone()).unwrap();
        Fixture {
            _dir: dir,
            directory,
            life,
            pins,
        }
    }

    fn some_file(fixture: &Fixture) -> FileId {
        let id = FileId::new(&SystemRandom);
        std::fs::write(fixture.directory.data_file(id), b"sealed").unwrap();
        id
    }

    #[test]
    fn a_file_without_readers_is_removed_at_once() {
        let f = fixture();
        let id = some_file(&f);
        f.pins.doom(vec![Doomed {
            content: Some(1),
            files: vec![id],
        }]);
        assert!(f.life.settle(Duration::from_secs(5)));
        assert!(!f.directory.data_file(id).exists());
    }

    #[test]
    fn a_pinned_file_goes_with_its_last_reader() {
        let f = fixture();
        let id = some_file(&f);
        let (first, second) = (f.pins.pin(7), f.pins.pin(7));
        f.pins.doom(vec![Doomed {
            content: Some(7),
            files: vec![id],
        }]);
        drop(first);
        assert!(!f.life.settle(Duration::from_millis(20)));
        assert!(f.directory.data_file(id).exists());
        drop(second);
        assert!(f.life.settle(Duration::from_secs(5)));
        assert!(!f.directory.data_file(id).exists());
        assert!(f.pins.pinned.lock().is_empty());
    }

    #[test]
    fn nothing_new_begins_after_the_close() {
        let life = Arc::new(Life::default());
        let before = life.begin().unwrap();
        life.close();
        assert!(matches!(life.begin(), Err(StoreError::Closed)));
        assert!(!life.settle(Duration::ZERO));
        drop(before);
        assert!(life.settle(Duration::ZERO));
    }
}
