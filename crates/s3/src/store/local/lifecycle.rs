//! Who still needs which data files: closing, pins of readers, and removal of what nobody needs.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use catalogue::database::{self, Site};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::layout::{Directory, FileId, remove};
use crate::store::StoreError;

/// Whether the store is open, and how many files are on their way in.
#[derive(Debug, Default)]
pub(super) struct Life {
    closed: AtomicBool,
    unsettled: AtomicUsize,
    /// Why the index has stopped.
    stopped: OnceLock<String>,
    stops: Notify,
}

impl Life {
    /// Refuses new work from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Lets nothing more be answered from the index.
    pub(super) fn stop(&self, why: String) {
        let _ = self.stopped.set(why);
        self.close();
        self.stops.notify_waiters();
    }

    /// Lets nothing more be answered from an index that is damaged, and leaves a mark by which the next start looks at all
    /// of it, however long it is. Going on, a change could spread what is wrong with one page. Blocks.
    pub(super) fn stop_damaged(&self, site: &Site, why: &str) {
        if self.serving().is_err() {
            return;
        }
        tracing::error!(why, "the object index is damaged: it has stopped");
        database::mark_failed(site, why);
        self.stop(format!("the object index is damaged: {why}"));
    }

    /// Waits until the index stops.
    pub(super) async fn stopped(&self) {
        // Before the look, so that no stop falls between the two.
        let mut stops = std::pin::pin!(self.stops.notified());
        stops.as_mut().enable();
        if self.serving().is_ok() {
            stops.await;
        }
    }

    /// Refuses if the index has stopped.
    pub(super) fn serving(&self) -> Result<(), StoreError> {
        match self.stopped.get() {
            Some(why) => Err(StoreError::Stopped(why.clone())),
            None => Ok(()),
        }
    }

    /// Refuses if the index has stopped or the store is closed.
    pub(super) fn taking(&self) -> Result<(), StoreError> {
        self.serving()?;
        match self.closed.load(Ordering::SeqCst) {
            true => Err(StoreError::Closed),
            false => Ok(()),
        }
    }

    /// Begins to bring a file in; refused when closed. Counted first and checked then, so that
    /// either this sees the close or the closer sees the count.
    pub(super) fn begin(self: &Arc<Self>) -> Result<Unsettled, StoreError> {
        self.unsettled.fetch_add(1, Ordering::SeqCst);
        let guard = Unsettled(self.clone());
        self.taking().map(|()| guard)
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

/// A file on its way in.
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

#[derive(Debug)]
enum Waste {
    Files(Vec<FileId>),
    /// Says when all that came before is gone.
    Flush(oneshot::Sender<()>),
}

/// Takes files that are to be removed, on a thread of its own. Each has an intent: what a crash or a failure leaves is
/// removed at the next start.
#[derive(Debug, Clone)]
pub(super) struct Bin {
    waste: mpsc::Sender<Waste>,
    gone: Arc<Mutex<Vec<FileId>>>,
}

impl Bin {
    /// Starts the thread; it ends with the last bin. Every `kept` files it syncs their folders and says that they are
    /// [`gone`](Self::take_gone).
    pub(super) fn start(directory: Arc<Directory>, kept: usize) -> std::io::Result<Self> {
        let (waste, emptied) = mpsc::channel();
        let gone = Arc::new(Mutex::default());
        let bin = Self {
            waste,
            gone: Arc::clone(&gone),
        };
        let thread = std::thread::Builder::new().name("s3-reclaim".into());
        thread.spawn(move || {
            let mut removed = Vec::new();
            for waste in emptied {
                match waste {
                    Waste::Files(files) => {
                        removed.extend(files.into_iter().filter(|file| unlink(&directory, *file)));
                        if removed.len() >= kept {
                            let removed = std::mem::take(&mut removed);
                            if sync_folders(&directory, &removed) {
                                gone.lock().extend(removed);
                            }
                        }
                    }
                    Waste::Flush(reply) => {
                        let _ = reply.send(());
                    }
                }
            }
        })?;
        Ok(bin)
    }

    /// Has files removed.
    pub(super) fn discard(&self, files: Vec<FileId>) {
        // Without the thread they stay until the next start.
        let _ = self.waste.send(Waste::Files(files));
    }

    /// Waits until what was discarded is removed.
    pub(super) async fn flush(&self) {
        let (reply, done) = oneshot::channel();
        let _ = self.waste.send(Waste::Flush(reply));
        let _ = done.await;
    }

    /// Files that are gone for good: their intents may end.
    pub(super) fn take_gone(&self) -> Vec<FileId> {
        std::mem::take(&mut self.gone.lock())
    }

    /// Keeps for later what was taken.
    pub(super) fn put_back(&self, gone: Vec<FileId>) {
        self.gone.lock().extend(gone);
    }
}

fn unlink(directory: &Directory, file: FileId) -> bool {
    let removed = remove(directory.disk(), &directory.data_file(file));
    if let Err(error) = &removed {
        tracing::warn!(%error, %file, "cannot remove a data file that nobody needs; it goes at the next start");
    }
    removed.is_ok()
}

fn sync_folders(directory: &Directory, files: &[FileId]) -> bool {
    let folders: BTreeSet<_> = files.iter().map(|file| file.folder()).collect();
    let mut folders = folders.into_iter();
    let synced =
        folders.try_for_each(|folder| directory.disk().sync_dir(&directory.folder(folder)));
    if let Err(error) = &synced {
        tracing::warn!(%error, "cannot sync folders of data files; their intents stay until the next start");
    }
    synced.is_ok()
}

/// Keeps files alive for readers and has them removed after the last one.
#[derive(Debug)]
pub(super) struct Pins {
    pinned: Mutex<HashMap<u64, Pinned>>,
    bin: Bin,
}

#[derive(Debug, Default)]
struct Pinned {
    readers: usize,
    doomed: Option<Vec<FileId>>,
}

impl Pins {
    pub(super) fn new(bin: Bin) -> Arc<Self> {
        Arc::new(Self {
            pinned: Mutex::default(),
            bin,
        })
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
            match content.and_then(|content| pinned.get_mut(&content)) {
                Some(entry) => entry.doomed = Some(files),
                None => self.bin.discard(files),
            }
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
                self.pins.bin.discard(waste);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::random::SystemRandom;
    use host::OsDisk;

    struct Fixture {
        _dir: tempfile::TempDir,
        directory: Arc<Directory>,
        bin: Bin,
        pins: Arc<Pins>,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::create(Arc::new(OsDisk), dir.path(), 0xff).unwrap();
        let directory = Arc::new(directory);
        let bin = Bin::start(directory.clone(), 2).unwrap();
        Fixture {
            _dir: dir,
            directory,
            pins: Pins::new(bin.clone()),
            bin,
        }
    }

    fn some_file(fixture: &Fixture) -> FileId {
        let id = FileId::new(&SystemRandom);
        std::fs::write(fixture.directory.data_file(id), b"sealed").unwrap();
        id
    }

    #[tokio::test]
    async fn a_file_without_readers_is_removed_at_once() {
        let f = fixture();
        let id = some_file(&f);
        f.pins.doom(vec![Doomed {
            content: Some(1),
            files: vec![id],
        }]);
        f.bin.flush().await;
        assert!(!f.directory.data_file(id).exists());
    }

    #[tokio::test]
    async fn a_pinned_file_goes_with_its_last_reader() {
        let f = fixture();
        let id = some_file(&f);
        let (first, second) = (f.pins.pin(7), f.pins.pin(7));
        f.pins.doom(vec![Doomed {
            content: Some(7),
            files: vec![id],
        }]);
        drop(first);
        f.bin.flush().await;
        assert!(f.directory.data_file(id).exists());
        drop(second);
        f.bin.flush().await;
        assert!(!f.directory.data_file(id).exists());
        assert!(f.pins.pinned.lock().is_empty());
    }

    #[tokio::test]
    async fn files_are_gone_for_good_once_enough_were_removed() {
        let f = fixture();
        let (one, two) = (some_file(&f), some_file(&f));
        f.bin.discard(vec![one]);
        f.bin.flush().await;
        assert!(f.bin.take_gone().is_empty());
        f.bin.discard(vec![two]);
        f.bin.flush().await;
        assert_eq!(f.bin.take_gone(), [one, two]);
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

    #[tokio::test]
    async fn a_store_that_stopped_says_why() {
        let life = Arc::new(Life::default());
        life.serving().unwrap();
        let stop = async { life.stop("a sync failed".to_owned()) };
        tokio::join!(life.stopped(), stop);
        life.stopped().await;
        for refused in [life.serving(), life.begin().map(drop)] {
            assert!(matches!(refused, Err(StoreError::Stopped(why)) if why == "a sync failed"));
        }
    }
}
