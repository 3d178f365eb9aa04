//! The embedded catalogue: one SQLite file with a write-ahead log, synced at every commit. Layout: `FORMAT.md`.
//!
//! Any number of handles, in any number of processes on one machine, may have it open. Each has a thread that commits
//! and two that read; nothing blocks the runtime's workers. Batches that wait together are committed in one
//! transaction, each in a savepoint of its own, so that one sync serves them all and a conflict in one touches no
//! other.
//!
//! **A failed sync is final.** The handle stops and leaves a mark beside the file. SQLite's own checkpoints, whose
//! failures it does not report, are off: the writer makes them and looks at the outcome. A catalogue that was not
//! closed in order is rewritten to a fresh file, and that synced, before anything is answered from it
//! ([`database`]); so what a crash or a failed sync left only in the page cache is never taken for durable.

mod connection;
mod options;
mod reader;
mod shared;
mod turn;
mod writer;

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Batch, Catalogue, CatalogueError, Changes, Key, Page, Record, Scope, Sequence, StoreId, Table,
    database, limits,
};
pub use options::Options;
use shared::Shared;
use writer::Task;

/// Batches that wait at most, and looks; more make their callers wait.
const QUEUE_LEN: usize = 64;
/// Threads that read, besides the one that writes.
const READERS: usize = 2;
/// How long a waiter trusts that no other process has committed.
const POLL_EVERY: Duration = Duration::from_millis(150);

/// A handle of the embedded catalogue. Dropped, it finishes what was queued and joins its threads, which blocks for
/// as long as a sync takes.
#[derive(Debug)]
pub struct SqliteCatalogue {
    shared: Arc<Shared>,
    /// `None` once it is being dropped.
    queues: Option<Queues>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Queues {
    writer: mpsc::Sender<Task>,
    readers: mpsc::Sender<Task>,
}

impl SqliteCatalogue {
    /// Opens the catalogue, or makes it (mode 0600). A file that is another's, newer or damaged is refused and not
    /// changed. Reads the whole file once. Blocks.
    pub fn open(options: Options) -> Result<Self, CatalogueError> {
        if options.changes_kept < limits::BATCH_STEPS_MAX as u64 {
            return Err(CatalogueError::Invalid(
                "fewer changes kept than a batch may make",
            ));
        }
        let lock = turn::lock(&options)?;
        let connection = connection::for_writing(&options)?;
        let store_id = connection::store_id(&connection)?;
        let sequence = reader::sequence(&connection)?;
        let mut connections = Vec::new();
        if !options.exclusive {
            for _ in 0..READERS {
                connections.push(connection::for_reading(&options)?);
            }
        }
        drop(lock);

        let shared = Arc::new(Shared::new(options, store_id, sequence));
        let (writer, tasks) = mpsc::channel(QUEUE_LEN);
        let machine = writer::Machine::new(connection, shared.clone());
        let mut threads = vec![start("catalogue-write", move || machine.run(tasks))?];
        let mut readers = writer.clone();
        if !connections.is_empty() {
            let tasks;
            (readers, tasks) = mpsc::channel(QUEUE_LEN);
            let tasks = Arc::new(Mutex::new(tasks));
            for connection in connections {
                let tasks = tasks.clone();
                threads.push(start("catalogue-read", move || read(connection, &tasks))?);
            }
        }
        Ok(Self {
            shared,
            queues: Some(Queues { writer, readers }),
            threads,
        })
    }

    fn queues(&self) -> &Queues {
        self.queues
            .as_ref()
            .expect("a handle is used before it is dropped")
    }

    /// Runs `look` on a connection of its own.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, CatalogueError> + Send + 'static,
    ) -> Result<T, CatalogueError> {
        let (reply, answer) = oneshot::channel();
        let shared = self.shared.clone();
        let task = Task::Look(Box::new(move |connection| {
            if reply.is_closed() {
                return;
            }
            // Looked at again behind: what was read while the handle stopped may be what did not reach the disk.
            let found = shared.serving().and_then(|()| look(connection));
            let _ = reply.send(found.and_then(|found| shared.serving().map(|()| found)));
        }));
        self.queues()
            .readers
            .send(task)
            .await
            .map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> CatalogueError {
    CatalogueError::Stopped("its thread has ended".to_owned())
}

fn start(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, CatalogueError> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(body).map_err(database::io)
}

/// A reading thread: one of them waits for a task, the others for their turn to wait.
fn read(connection: Connection, tasks: &Mutex<mpsc::Receiver<Task>>) {
    loop {
        let task = tasks.lock().blocking_recv();
        match task {
            Some(Task::Look(look)) => look(&connection),
            // Changes go to the writer.
            Some(_) => {}
            None => return,
        }
    }
}

impl Drop for SqliteCatalogue {
    fn drop(&mut self) {
        self.queues = None;
        // The writer last: its closing checkpoint wants no reader in the log.
        for thread in self.threads.drain(..).rev() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Catalogue for SqliteCatalogue {
    async fn store_id(&self) -> Result<StoreId, CatalogueError> {
        self.shared.serving()?;
        Ok(self.shared.store_id)
    }

    async fn get(&self, table: Table, key: &Key) -> Result<Option<Record>, CatalogueError> {
        limits::check_key(key)?;
        let key = key.clone();
        self.look(move |connection| reader::get(connection, table, &key))
            .await
    }

    async fn page(
        &self,
        table: Table,
        scope: Option<&Scope>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, CatalogueError> {
        let limit = limits::check_page(scope, after, limit)?;
        let (scope, after) = (scope.cloned(), after.cloned());
        self.look(move |connection| {
            reader::page(connection, table, scope.as_ref(), after.as_ref(), limit)
        })
        .await
    }

    async fn commit(&self, batch: Batch) -> Result<Sequence, CatalogueError> {
        limits::check_batch(&batch)?;
        self.shared.serving()?;
        let (reply, answer) = oneshot::channel();
        let task = Task::Commit { batch, reply };
        self.queues().writer.send(task).await.map_err(|_| ended())?;
        let lost = |_| Err(CatalogueError::Unknown("the writer has ended".to_owned()));
        answer.await.unwrap_or_else(lost)
    }

    async fn sequence(&self) -> Result<Sequence, CatalogueError> {
        let sequence = self.look(reader::sequence).await?;
        self.shared.committed(sequence);
        Ok(sequence)
    }

    async fn changes(&self, after: Sequence, limit: usize) -> Result<Changes, CatalogueError> {
        let limit = limits::check_changes(limit)?;
        self.look(move |connection| reader::changes(connection, after, limit))
            .await
    }

    async fn wait(&self, after: Sequence) -> Result<Sequence, CatalogueError> {
        // Before the first look, so that no commit falls between the two.
        let mut seen = self.shared.sequence.subscribe();
        loop {
            let sequence = self.sequence().await?;
            match sequence.cmp(&after) {
                std::cmp::Ordering::Greater => return Ok(sequence),
                std::cmp::Ordering::Less => return Err(CatalogueError::Trimmed),
                std::cmp::Ordering::Equal => {}
            }
            tokio::select! {
                _ = seen.changed() => {}
                () = tokio::time::sleep(POLL_EVERY) => {}
            }
        }
    }

    async fn purge(&self) -> Result<(), CatalogueError> {
        let (reply, answer) = oneshot::channel();
        let task = Task::Purge { reply };
        self.queues().writer.send(task).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handle_that_stopped_answers_nothing_and_leaves_a_mark_for_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path().join("catalogue.db"));
        options.create = Some(StoreId([1; 16]));
        let handle = SqliteCatalogue::open(options.clone()).unwrap();
        let waiting = handle.wait(Sequence(0));
        let stop = async { handle.shared.stop("a sync failed".to_owned()) };
        let (waited, ()) = tokio::join!(waiting, stop);
        let key = Key::new(Scope::default(), *b"k");
        for error in [
            waited.unwrap_err(),
            handle.store_id().await.unwrap_err(),
            handle.sequence().await.unwrap_err(),
            handle.get(Table::new("t"), &key).await.unwrap_err(),
            handle
                .page(Table::new("t"), None, None, 1)
                .await
                .unwrap_err(),
            handle.changes(Sequence(0), 1).await.unwrap_err(),
            handle.purge().await.unwrap_err(),
            handle
                .commit(Batch::new().check(Table::new("t"), key, crate::Expect::Absent))
                .await
                .unwrap_err(),
        ] {
            assert!(matches!(error, CatalogueError::Stopped(_)), "{error}");
        }
        drop(handle);
        assert!(database::is_marked(&options.site()));
        let handle = SqliteCatalogue::open(options.clone()).unwrap();
        assert_eq!(handle.sequence().await.unwrap(), Sequence(0));
        assert!(!database::is_marked(&options.site()));
    }
}
