//! The one thread that changes the index, and group commit.
//!
//! Requests hand over closures; the thread runs what has queued up in one transaction, each change
//! in a savepoint of its own (so that a refused one leaves the others alone), syncs once, and only
//! then tells every requester how it went. While it syncs, the next batch queues up.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use catalogue::database::{self, Checkpoint, Site};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::data_file::Published;
use super::intents::{self, Intents};
use super::layout::FileId;
use super::lifecycle::{Bin, Doomed, Life, Pins};
use super::schema::{FORM, failed};
use crate::store::StoreError;

/// Changes that wait at most; more make their requesters wait.
const QUEUE_LEN: usize = 512;
/// Changes in one transaction at most; bounds the answer time of the first.
const BATCH_LEN: usize = 256;
/// Past this, moving the log into the index waits for readers to leave it, so that it starts over.
const LOG_PAGES_MAX: i64 = 16_384;
const LOG_PAGE_LEN: usize = 4096;
/// How long a close waits for files on their way.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What a change may do: SQL on the connection, sequence numbers, files in and out.
pub(super) struct Batch<'c> {
    pub(super) index: &'c Connection,
    sequence: &'c mut u64,
    adopted: Vec<Published>,
    doomed: Vec<Doomed>,
}

impl Batch<'_> {
    /// The next sequence number; one is never given twice, whether or not the change succeeds.
    pub(super) fn next_sequence(&mut self) -> u64 {
        *self.sequence += 1;
        *self.sequence
    }

    /// Keeps a file, if the change is committed.
    pub(super) fn adopt(&mut self, file: Published) {
        self.adopted.push(file);
    }

    /// Removes files, once the change is committed and readers of the content are done.
    pub(super) fn doom(&mut self, content: Option<u64>, files: Vec<super::layout::FileId>) {
        if !files.is_empty() {
            self.doomed.push(Doomed { content, files });
        }
    }
}

/// Why a whole batch did not happen.
#[derive(Clone, Debug)]
enum Failure {
    /// No room; it was rolled back.
    NoSpace,
    /// Something else before the commit; it was rolled back.
    RolledBack,
    /// The commit itself failed, or the rollback. Whether it happened is unknown, and nobody should
    /// go on from here.
    Unknown(String),
    /// The index has stopped before.
    Stopped(String),
}

trait Change: Send {
    /// Runs the change; says whether to keep what it did.
    fn apply(&mut self, batch: &mut Batch<'_>) -> bool;
    /// What it has found damaged in the index.
    fn damage(&self) -> Option<&str>;
    /// Tells the requester.
    fn finish(self: Box<Self>, failure: Option<Failure>);
}

struct Pending<F, T> {
    change: Option<F>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Change for Pending<F, T>
where
    F: FnOnce(&mut Batch<'_>) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn apply(&mut self, batch: &mut Batch<'_>) -> bool {
        let change = self.change.take().expect("a change is applied once");
        let result = change(batch);
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn damage(&self) -> Option<&str> {
        match &self.result {
            Some(Err(StoreError::DamagedIndex(why))) => Some(why),
            _ => None,
        }
    }

    fn finish(self: Box<Self>, failure: Option<Failure>) {
        let outcome = match (self.result, failure) {
            // A change that failed by itself did not happen either way: say why.
            (Some(Err(error)), _) => Err(error),
            (Some(ok), None) => ok,
            (_, Some(Failure::NoSpace)) => Err(StoreError::NoSpace),
            (_, Some(Failure::RolledBack)) => Err(StoreError::Index {
                what: "a change was rolled back with others",
                source: "see the log".into(),
            }),
            (_, Some(Failure::Unknown(why))) => Err(StoreError::Unknown(why)),
            (_, Some(Failure::Stopped(why))) => Err(StoreError::Stopped(why)),
            (None, None) => Err(StoreError::Closed),
        };
        // A requester that has gone away does not want to know.
        let _ = self.reply.send(outcome);
    }
}

enum Message {
    Change(Box<dyn Change>),
    /// Says when what came before is done, and what it left to do.
    Settle(oneshot::Sender<()>),
    Stop,
}

/// Hands changes to the writer thread, which runs until the last of these is gone or it is told to
/// stop.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    submitted: Arc<AtomicU64>,
    life: Arc<Life>,
}

impl Writer {
    /// Runs `change` on the writer thread and waits until it is durable.
    ///
    /// `change` may be run at any time after this is first polled, even if the future is dropped.
    pub(super) async fn submit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.submitted.fetch_add(1, Relaxed);
        let (reply, answer) = oneshot::channel();
        let pending = Pending {
            change: Some(change),
            result: None,
            reply,
        };
        self.queue
            .send(Message::Change(Box::new(pending)))
            .await
            .map_err(|_| self.life.serving().err().unwrap_or(StoreError::Closed))?;
        let lost = |_| Err(StoreError::Unknown("the index thread has ended".to_owned()));
        answer.await.unwrap_or_else(lost)
    }

    /// Waits until nothing is left to do behind the changes that were answered.
    pub(super) async fn settle(&self) {
        let (reply, done) = oneshot::channel();
        let _ = self.queue.send(Message::Settle(reply)).await;
        let _ = done.await;
    }

    /// How many changes were handed over.
    pub(super) fn submitted(&self) -> u64 {
        self.submitted.load(Relaxed)
    }

    /// Asks the thread to finish what is queued and end.
    pub(super) async fn stop(&self) {
        // If it has ended already, all is well.
        let _ = self.queue.send(Message::Stop).await;
    }
}

/// What the thread owns.
pub(super) struct Machine {
    pub(super) index: Connection,
    pub(super) site: Site,
    /// How long the log may be, in bytes, before it is moved into the index.
    pub(super) checkpoint_every: usize,
    /// Pages of the log after the last commit; 0 if it was looked at since.
    pub(super) log_pages: Arc<AtomicUsize>,
    pub(super) sequence: u64,
    pub(super) intents: Arc<Intents>,
    pub(super) pins: Arc<Pins>,
    pub(super) bin: Bin,
    pub(super) life: Arc<Life>,
    /// Held as long as the index is written.
    pub(super) lock: host::Lock,
}

/// Has the pages of the log counted.
pub(super) fn count_log_pages(index: &mut Connection) -> rusqlite::Result<Arc<AtomicUsize>> {
    let log_pages = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&log_pages);
    index.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: c_int| {
        count.store(usize::try_from(pages).unwrap_or_default(), Relaxed);
        Ok(())
    }))?;
    Ok(log_pages)
}

/// Starts the writer thread.
pub(super) fn start(machine: Machine) -> std::io::Result<(Writer, std::thread::JoinHandle<()>)> {
    let (queue, changes) = mpsc::channel(QUEUE_LEN);
    let life = machine.life.clone();
    let thread = std::thread::Builder::new()
        .name("s3-index".into())
        .spawn(move || machine.run(changes))?;
    let writer = Writer {
        queue,
        submitted: Arc::default(),
        life,
    };
    Ok((writer, thread))
}

impl Machine {
    fn run(mut self, mut changes: mpsc::Receiver<Message>) {
        while let Some(first) = changes.blocking_recv() {
            let mut batch = Vec::new();
            let mut settled = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Change(change) => batch.push(change),
                    Message::Settle(reply) => settled.push(reply),
                    // What was queued before is done; what comes later finds the queue closed.
                    Message::Stop => changes.close(),
                }
                next = if batch.len() < BATCH_LEN {
                    changes.try_recv().ok()
                } else {
                    None
                };
            }
            if let Err(StoreError::Stopped(why)) = self.life.serving() {
                batch
                    .into_iter()
                    .for_each(|change| change.finish(Some(Failure::Stopped(why.clone()))));
            } else if !batch.is_empty() {
                self.run_batch(batch);
            }
            // At each commit past the limit: SQLite starts the log over only at a moment when no reader is in it.
            if self.log_pages.swap(0, Relaxed).saturating_mul(LOG_PAGE_LEN) >= self.checkpoint_every
            {
                self.move_log("PASSIVE");
            }
            if self.life.serving().is_err() {
                changes.close();
            }
            settled.into_iter().for_each(|reply| {
                let _ = reply.send(());
            });
        }
        self.life.close();
        let settled = self.life.settle(CLOSE_PATIENCE);
        if self.life.serving().is_ok() {
            self.end(settled);
        }
        drop(self.index);
        drop(self.lock);
    }

    /// Ends the intents that no file was made under, marks the index as closed if all files have arrived, and empties
    /// the log, so that the index is whole by itself.
    fn end(&self, settled: bool) {
        let mut free = self.intents.take_all();
        free.extend(self.bin.take_gone());
        let end = || {
            run(&self.index, "BEGIN IMMEDIATE", "begin")?;
            intents::remove(&self.index, &free)?;
            if settled {
                run(&self.index, MARK_CLOSED, "mark as closed")?;
            }
            run(&self.index, "COMMIT", "commit")
        };
        if let Err(error) = end() {
            let undone = self.index.is_autocommit() || self.index.execute_batch("ROLLBACK").is_ok();
            if !undone || !matches!(error, StoreError::NoSpace) {
                self.stop(format!("the index cannot be closed: {error}"));
                return;
            }
            if let Err(why) = self.forget_refused() {
                self.stop(why);
                return;
            }
            tracing::warn!(%error, "cannot mark the object index as closed; the next start looks through all data files");
        }
        self.move_log("TRUNCATE");
    }

    /// Sees to it that a commit that a full disk has refused does not come back.
    fn forget_refused(&self) -> Result<(), String> {
        database::forget_refused(&self.index, &self.site).map_err(|error| {
            format!("a change that found no space may be in the log all the same: {error}")
        })
    }

    /// Answers nothing more from the index, and leaves a mark for the next start.
    fn stop(&self, why: String) {
        tracing::error!(why, "the object index has stopped until a restart");
        database::mark_failed(&self.site, &why);
        self.life.stop(why);
    }

    /// Moves the log into the index. A failure other than a full disk or a busy index
    /// stops the store: a sync may have failed.
    fn move_log(&self, how: &str) {
        match database::checkpoint(&self.index, &self.site, &FORM, how) {
            Ok(Checkpoint { pages, .. }) if how == "PASSIVE" && pages > LOG_PAGES_MAX => {
                self.move_log("RESTART");
            }
            Ok(Checkpoint { blocked, pages }) => {
                if blocked && how != "PASSIVE" {
                    tracing::warn!(
                        pages,
                        "readers keep the log of the object index from ending"
                    );
                }
            }
            Err(error) => {
                let code = error.sqlite_error_code();
                if !matches!(code, Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy)) {
                    self.stop(format!("the log cannot be moved into the index: {error}"));
                }
            }
        }
    }

    /// Runs changes in one transaction.
    fn run_batch(&mut self, mut changes: Vec<Box<dyn Change>>) {
        let mut batch = Batch {
            index: &self.index,
            sequence: &mut self.sequence,
            adopted: Vec::new(),
            doomed: Vec::new(),
        };
        let gone = self.bin.take_gone();
        let applied = apply_all(&mut batch, &mut changes, &self.intents, &gone);
        let (committing, outcome) = match applied {
            Ok(drawn) => (true, run(&self.index, "COMMIT", "commit").map(|()| drawn)),
            Err(error) => (false, Err(error)),
        };
        let Batch {
            adopted, doomed, ..
        } = batch;
        let error = match outcome {
            Ok(drawn) => {
                self.intents.add(drawn);
                adopted.into_iter().for_each(Published::keep);
                changes.into_iter().for_each(|change| change.finish(None));
                if !doomed.is_empty() {
                    self.pins.doom(doomed);
                }
                return;
            }
            Err(error) => error,
        };
        let rolled_back =
            self.index.is_autocommit() || self.index.execute_batch("ROLLBACK").is_ok();
        let failure = match error {
            _ if !rolled_back => Failure::Unknown(error.to_string()),
            StoreError::DamagedIndex(ref why) if !committing => {
                self.life.stop_damaged(&self.site, why);
                Failure::Stopped(format!("the object index is damaged: {why}"))
            }
            // SQLite says so before it takes the transaction for written.
            StoreError::NoSpace if committing => match self.forget_refused() {
                Ok(()) => Failure::NoSpace,
                Err(why) => Failure::Unknown(why),
            },
            StoreError::NoSpace => Failure::NoSpace,
            _ if !committing => Failure::RolledBack,
            // A failed sync above all: the end of the transaction may be on the disk, or not.
            _ => Failure::Unknown(error.to_string()),
        };
        match &failure {
            Failure::Unknown(why) => {
                // First, so that no answer leads a caller to an index that is still read.
                self.stop(why.clone());
                // The commit may yet be found in the log: its files must be there then.
                adopted.into_iter().for_each(Published::keep);
            }
            _ => {
                if !matches!(failure, Failure::NoSpace | Failure::Stopped(_)) {
                    tracing::error!(%error, "the object index failed; changes were rolled back");
                }
                self.bin.put_back(gone);
                drop(adopted);
            }
        }
        changes
            .into_iter()
            .for_each(|change| change.finish(Some(failure.clone())));
    }
}

const MARK_CLOSED: &str = "UPDATE meta SET value = 1 WHERE name = 'clean'";

fn run(index: &Connection, sql: &str, what: &'static str) -> Result<(), StoreError> {
    index
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute([]))
        .map(drop)
        .map_err(failed(what))
}

/// Runs changes up to the commit; gives the ids that it drew.
fn apply_all(
    batch: &mut Batch<'_>,
    changes: &mut [Box<dyn Change>],
    pool: &Intents,
    gone: &[FileId],
) -> Result<Vec<FileId>, StoreError> {
    let index = batch.index;
    let sequence_before = *batch.sequence;
    run(index, "BEGIN IMMEDIATE", "begin")?;
    for change in changes {
        run(index, "SAVEPOINT change", "begin a change")?;
        let (adopted, doomed) = (batch.adopted.len(), batch.doomed.len());
        if change.apply(batch) {
            // In the same commit as the rows: a file has a row, or an intent.
            for file in &batch.adopted[adopted..] {
                intents::remove(index, &[file.id()])?;
            }
            for doomed in &batch.doomed[doomed..] {
                intents::insert(index, &doomed.files)?;
            }
        } else if let Some(why) = change.damage() {
            // Nothing is committed on top of it.
            return Err(StoreError::DamagedIndex(why.to_owned()));
        } else {
            batch.adopted.truncate(adopted);
            batch.doomed.truncate(doomed);
            // Fails if SQLite has rolled everything back by itself, as it may on a full disk.
            run(index, "ROLLBACK TO change", "undo a change")?;
        }
        run(index, "RELEASE change", "end a change")?;
    }
    intents::remove(index, gone)?;
    let drawn = pool.draw(index)?;
    if *batch.sequence != sequence_before {
        index
            .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'sequence'")
            .and_then(|mut statement| statement.execute([(*batch.sequence).cast_signed()]))
            .map_err(failed("note the sequence"))?;
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::local::layout::Directory;
    use crate::store::local::schema;
    use crypto::random::SystemRandom;
    use host::OsDisk;

    struct Fixture {
        dir: tempfile::TempDir,
        writer: Writer,
        thread: std::thread::JoinHandle<()>,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::create(Arc::new(OsDisk), dir.path(), 0xff).unwrap();
        let directory = Arc::new(directory);
        let site = schema::site(&directory, None);
        let index = schema::open_for_writing(&site, schema::LOOK).unwrap();
        index
            .execute_batch("CREATE TABLE t (x); UPDATE meta SET value = 0 WHERE name = 'clean'")
            .unwrap();
        // The store has no foreign keys; one is a way to make a commit fail.
        index.pragma_update(None, "foreign_keys", true).unwrap();
        let lock = host::Lock::take(&host::OsDisk, &directory.lock_file()).unwrap();
        let life = Arc::new(Life::default());
        let bin = Bin::start(directory, 1).unwrap();
        let (writer, thread) = start(Machine {
            index,
            site,
            checkpoint_every: 1 << 20,
            log_pages: Arc::default(),
            sequence: 0,
            intents: Arc::new(Intents::new(Arc::new(SystemRandom), 0xff, 64)),
            pins: Pins::new(bin.clone()),
            bin,
            life,
            lock,
        })
        .unwrap();
        Fixture {
            dir,
            writer,
            thread,
        }
    }

    impl Fixture {
        fn index(&self) -> Connection {
            Connection::open(self.dir.path().join("index.db")).unwrap()
        }
    }

    fn add(batch: &mut Batch<'_>, x: u64) -> Result<u64, StoreError> {
        batch
            .index
            .execute("INSERT INTO t VALUES (?1)", [x.cast_signed()])
            .map_err(failed("add"))?;
        Ok(batch.next_sequence())
    }

    fn rows(index: &Connection) -> u64 {
        index
            .query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
            .unwrap()
            .cast_unsigned()
    }

    #[tokio::test]
    async fn a_refused_change_is_undone_and_leaves_its_neighbours_alone() {
        let f = fixture();
        // A slow one first, so that the others share a batch.
        let slow = f.writer.submit(|batch| {
            std::thread::sleep(Duration::from_millis(50));
            add(batch, 0)
        });
        let others = (1..=20u64).map(|i| {
            f.writer.submit(move |batch| {
                let sequence = add(batch, i)?;
                if i % 2 == 0 {
                    Err(StoreError::NoSuchKey)
                } else {
                    Ok(sequence)
                }
            })
        });
        let (slow, others) = futures::join!(slow, futures::future::join_all(others));
        assert!(slow.is_ok());
        for (i, result) in (1..).zip(&others) {
            assert_eq!(result.is_err(), i % 2 == 0);
        }
        let index = f.index();
        assert_eq!(rows(&index), 11);
        let sequence: u32 = index
            .query_row(
                "SELECT value FROM meta WHERE name = 'sequence'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(sequence, 21);
    }

    #[tokio::test]
    async fn a_full_index_refuses_changes_and_goes_on() {
        let f = fixture();
        f.writer.submit(|batch| add(batch, 1)).await.unwrap();
        f.writer
            .submit(|batch| {
                let pages: u32 = batch
                    .index
                    .pragma_query_value(None, "page_count", |row| row.get(0))
                    .unwrap();
                batch
                    .index
                    .pragma_update_and_check(None, "max_page_count", pages + 2, |_| Ok(()))
                    .map_err(failed("limit"))
            })
            .await
            .unwrap();
        let full = f.writer.submit(|batch| {
            batch
                .index
                .execute("INSERT INTO t VALUES (zeroblob(100000))", [])
                .map_err(failed("add much"))?;
            Ok(())
        });
        assert!(matches!(full.await, Err(StoreError::NoSpace)));
        f.writer.submit(|batch| add(batch, 2)).await.unwrap();
        assert_eq!(rows(&f.index()), 2);
    }

    #[tokio::test]
    async fn what_is_queued_before_a_stop_is_done_and_the_index_marked_clean() {
        let f = fixture();
        let changes: Vec<_> = (0..5)
            .map(|i| {
                let writer = f.writer.clone();
                tokio::spawn(async move { writer.submit(move |batch| add(batch, i)).await })
            })
            .collect();
        tokio::task::yield_now().await;
        f.writer.stop().await;
        for change in changes {
            change.await.unwrap().unwrap();
        }
        assert!(matches!(
            f.writer.submit(|batch| add(batch, 9)).await,
            Err(StoreError::Closed)
        ));
        let index = f.index();
        f.thread.join().unwrap();
        assert_eq!(rows(&index), 5);
        let clean: u32 = index
            .query_row("SELECT value FROM meta WHERE name = 'clean'", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(clean, 1);
    }

    #[tokio::test]
    async fn a_batch_that_cannot_be_run_is_undone_and_the_next_one_runs() {
        let f = fixture();
        let broken = f.writer.submit(|batch| {
            add(batch, 1)?;
            // As SQLite does by itself on some errors.
            batch
                .index
                .execute_batch("ROLLBACK")
                .map_err(failed("break it"))
        });
        assert!(matches!(broken.await, Err(StoreError::Index { .. })));
        f.writer.submit(|batch| add(batch, 2)).await.unwrap();
        assert_eq!(rows(&f.index()), 1);
    }

    #[tokio::test]
    async fn a_failed_commit_stops_the_writer() {
        let f = fixture();
        let setup = |batch: &mut Batch<'_>| {
            let sql = "CREATE TABLE parent (x PRIMARY KEY);
                       CREATE TABLE child (x REFERENCES parent DEFERRABLE INITIALLY DEFERRED)";
            batch.index.execute_batch(sql).map_err(failed("set up"))
        };
        f.writer.submit(setup).await.unwrap();
        let broken = f.writer.submit(|batch| {
            add(batch, 1)?;
            // Found out at commit, and only there.
            let orphan = batch.index.execute("INSERT INTO child VALUES (1)", []);
            orphan.map(drop).map_err(failed("break it"))
        });
        assert!(matches!(broken.await, Err(StoreError::Unknown(_))));
        assert!(matches!(
            f.writer.submit(|batch| add(batch, 2)).await,
            Err(StoreError::Stopped(_))
        ));
        assert!(f.dir.path().join("index.db.failed").exists());
        let index = f.index();
        f.thread.join().unwrap();
        assert_eq!(rows(&index), 0);
        let clean: u32 = index
            .query_row("SELECT value FROM meta WHERE name = 'clean'", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(clean, 0);
    }
}
