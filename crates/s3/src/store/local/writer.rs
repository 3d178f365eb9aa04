//! The one thread that changes the index, and group commit.
//!
//! Requests hand over closures; the thread runs what has queued up in one transaction, each change
//! in a savepoint of its own (so that a refused one leaves the others alone), syncs once, and only
//! then tells every requester how it went. While it syncs, the next batch queues up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::data_file::Published;
use super::lifecycle::{Doomed, Life, Pins};
use super::schema::failed;
use crate::store::StoreError;

/// Changes that wait at most; more make their requesters wait.
const QUEUE_LEN: usize = 512;
/// Changes in one transaction at most; bounds the answer time of the first.
const BATCH_LEN: usize = 256;
/// SQLite moves the log into the index by itself every 16 MiB, but starts it over only at a moment
/// when no reader is in it. Past this length the writer waits for such a moment.
const LOG_LEN_MAX: u64 = 64 << 20;
/// How many batches pass between looks at the length of the log.
const LOG_LOOK_EVERY: u32 = 64;
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
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// No room; it was rolled back.
    NoSpace,
    /// Something else before the commit; it was rolled back.
    RolledBack,
    /// The commit itself failed, or the rollback. Whether it happened is unknown, and nobody should
    /// go on from here.
    Unknown,
}

trait Change: Send {
    /// Runs the change; says whether to keep what it did.
    fn apply(&mut self, batch: &mut Batch<'_>) -> bool;
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
            (_, _) => Err(StoreError::Closed),
        };
        // A requester that has gone away does not want to know.
        let _ = self.reply.send(outcome);
    }
}

enum Message {
    Change(Box<dyn Change>),
    Stop,
}

/// Hands changes to the writer thread, which runs until the last of these is gone or it is told to
/// stop.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    submitted: Arc<AtomicU64>,
}

impl Writer {
    /// Runs `change` on the writer thread and waits until it is durable.
    ///
    /// `change` may be run at any time after this is first polled, even if the future is dropped.
    pub(super) async fn submit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.submitted.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let pending = Pending {
            change: Some(change),
            result: None,
            reply,
        };
        self.queue
            .send(Message::Change(Box::new(pending)))
            .await
            .map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// How many changes were handed over.
    pub(super) fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Relaxed)
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
    pub(super) sequence: u64,
    pub(super) pins: Arc<Pins>,
    pub(super) life: Arc<Life>,
    /// Held as long as the index is written.
    pub(super) lock: host::Lock,
}

/// Starts the writer thread.
pub(super) fn start(machine: Machine) -> std::io::Result<(Writer, std::thread::JoinHandle<()>)> {
    let (queue, changes) = mpsc::channel(QUEUE_LEN);
    let thread = std::thread::Builder::new()
        .name("s3-index".into())
        .spawn(move || machine.run(changes))?;
    let writer = Writer {
        queue,
        submitted: Arc::default(),
    };
    Ok((writer, thread))
}

impl Machine {
    fn run(mut self, mut changes: mpsc::Receiver<Message>) {
        let mut failed_hard = false;
        let mut batches = 0u32;
        while let Some(first) = changes.blocking_recv() {
            let mut batch = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Change(change) => batch.push(change),
                    // What was queued before is done; what comes later finds the queue closed.
                    Message::Stop => changes.close(),
                }
                next = if batch.len() < BATCH_LEN {
                    changes.try_recv().ok()
                } else {
                    None
                };
            }
            if failed_hard {
                batch
                    .into_iter()
                    .for_each(|change| change.finish(Some(Failure::Unknown)));
            } else if self.run_batch(batch).is_err() {
                failed_hard = true;
                self.life.close();
                changes.close();
            }
            batches = batches.wrapping_add(1);
            if batches.is_multiple_of(LOG_LOOK_EVERY) && !failed_hard {
                self.bound_log();
            }
        }
        self.life.close();
        let settled = self.life.settle(CLOSE_PATIENCE);
        if !failed_hard && settled {
            let marked = self
                .index
                .execute("UPDATE meta SET value = 1 WHERE name = 'clean'", []);
            if let Err(error) = marked {
                tracing::warn!(%error, "cannot mark the object index as closed; the next start looks for orphans");
            }
        }
        drop(self.index);
        drop(self.lock);
    }

    /// Starts the log over if readers have kept SQLite from doing it for long.
    fn bound_log(&self) {
        let log = self.index.path().map(|path| format!("{path}-wal"));
        let len = log
            .and_then(|log| std::fs::metadata(log).ok())
            .map_or(0, |log| log.len());
        if len > LOG_LEN_MAX {
            let restart = self
                .index
                .query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| {
                    row.get::<_, bool>(0)
                });
            match restart {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(len, "readers keep the log of the object index from ending")
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot move the log of the object index into it")
                }
            }
        }
    }

    /// Runs changes in one transaction. An error means that the index cannot be trusted to go on.
    fn run_batch(&mut self, mut changes: Vec<Box<dyn Change>>) -> Result<(), ()> {
        let mut batch = Batch {
            index: &self.index,
            sequence: &mut self.sequence,
            adopted: Vec::new(),
            doomed: Vec::new(),
        };
        let applied = apply_all(&mut batch, &mut changes);
        let (committing, outcome) = match applied {
            Ok(()) => (true, run(&self.index, "COMMIT", "commit")),
            Err(error) => (false, Err(error)),
        };
        let Batch {
            adopted, doomed, ..
        } = batch;
        let Err(error) = outcome else {
            adopted.into_iter().for_each(Published::keep);
            changes.into_iter().for_each(|change| change.finish(None));
            if !doomed.is_empty() {
                self.pins.doom(doomed);
            }
            return Ok(());
        };
        let rolled_back =
            self.index.is_autocommit() || self.index.execute_batch("ROLLBACK").is_ok();
        let failure = match error {
            _ if !rolled_back => Failure::Unknown,
            // SQLite says so before it has written the end of the transaction.
            StoreError::NoSpace => Failure::NoSpace,
            _ if !committing => Failure::RolledBack,
            _ => Failure::Unknown,
        };
        match failure {
            Failure::NoSpace => drop(adopted),
            Failure::RolledBack => {
                tracing::error!(%error, "the object index failed; changes were rolled back");
                drop(adopted);
            }
            Failure::Unknown => {
                tracing::error!(%error, "the object index failed; it takes no more changes until a restart");
                // The commit may yet be found in the log after a crash: its files must be there then.
                adopted.into_iter().for_each(Published::keep);
            }
        }
        let go_on = !matches!(failure, Failure::Unknown);
        changes
            .into_iter()
            .for_each(|change| change.finish(Some(failure)));
        if go_on { Ok(()) } else { Err(()) }
    }
}

fn run(index: &Connection, sql: &str, what: &'static str) -> Result<(), StoreError> {
    index
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute([]))
        .map(drop)
        .map_err(failed(what))
}

/// Runs changes up to the commit.
fn apply_all(batch: &mut Batch<'_>, changes: &mut [Box<dyn Change>]) -> Result<(), StoreError> {
    let index = batch.index;
    let sequence_before = *batch.sequence;
    run(index, "BEGIN IMMEDIATE", "begin")?;
    for change in changes {
        run(index, "SAVEPOINT change", "begin a change")?;
        let (adopted, doomed) = (batch.adopted.len(), batch.doomed.len());
        if !change.apply(batch) {
            batch.adopted.truncate(adopted);
            batch.doomed.truncate(doomed);
            // Fails if SQLite has rolled everything back by itself, as it may on a full disk.
            run(index, "ROLLBACK TO change", "undo a change")?;
        }
        run(index, "RELEASE change", "end a change")?;
    }
    if *batch.sequence != sequence_before {
        index
            .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'sequence'")
            .and_then(|mut statement| statement.execute([(*batch.sequence).cast_signed()]))
            .map_err(failed("note the sequence"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::local::layout::Directory;
    use crate::store::local::schema::open_for_writing;

    struct Fixture {
        dir: tempfile::TempDir,
        writer: Writer,
        thread: std::thread::JoinHandle<()>,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::create(dir.path()).unwrap());
        let index = open_for_writing(&directory.index()).unwrap();
        index
            .execute_batch("CREATE TABLE t (x); UPDATE meta SET value = 0 WHERE name = 'clean'")
            .unwrap();
        // The store has no foreign keys; one is a way to make a commit fail.
        index.pragma_update(None, "foreign_keys", true).unwrap();
        let lock = host::Lock::take(&host::OsDisk, &directory.lock_file()).unwrap();
        let life = Arc::new(Life::default());
        let (pins, _) = Pins::start(directory, life.clone()).unwrap();
        let (writer, thread) = start(Machine {
            index,
            sequence: 0,
            pins,
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
        assert!(matches!(broken.await, Err(StoreError::Closed)));
        assert!(matches!(
            f.writer.submit(|batch| add(batch, 2)).await,
            Err(StoreError::Closed)
        ));
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
