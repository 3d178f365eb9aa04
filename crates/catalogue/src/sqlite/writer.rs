//! The one thread of a handle that changes the file, and group commit.
//!
//! What has queued up is applied in one transaction, each batch in a savepoint of its own; then comes one sync, and
//! only then is every caller told. While it syncs, the next group queues up.

use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, params};
use tokio::sync::{mpsc, oneshot};

use super::{connection::FORM, shared::Shared};
use crate::{
    Batch, CatalogueError, Expect, Key, Sequence, Table, Write,
    database::{self, Checkpoint, failed},
};

/// Batches in one transaction at most; bounds the answer time of the first.
const GROUP_LEN: usize = 64;
const PAGE_LEN: usize = 4096;
/// Past this, a checkpoint waits for readers to leave the log, so that it starts over.
const LOG_PAGES_MAX: i64 = 16_384;

type Reply = oneshot::Sender<Result<Sequence, CatalogueError>>;
type Look = Box<dyn FnOnce(&Connection) + Send>;

/// What a thread is asked.
pub(super) enum Task {
    Commit {
        batch: Batch,
        reply: Reply,
    },
    Purge {
        reply: oneshot::Sender<Result<(), CatalogueError>>,
    },
    Look(Look),
}

/// Why a group was not committed.
enum Failure {
    /// Nothing was changed.
    Refused(CatalogueError),
    /// Whether it was committed is not known.
    Unknown(String),
}

/// What the thread owns.
pub(super) struct Machine {
    connection: Connection,
    shared: Arc<Shared>,
    /// Written since the last checkpoint, in bytes.
    written: usize,
}

impl Machine {
    pub(super) fn new(connection: Connection, shared: Arc<Shared>) -> Self {
        Self {
            connection,
            shared,
            written: 0,
        }
    }

    /// Serves until the queue is closed and empty; then empties the log, so that the file is whole by itself.
    pub(super) fn run(mut self, mut tasks: mpsc::Receiver<Task>) {
        let mut next = tasks.blocking_recv();
        while let Some(first) = next.take() {
            let mut group = Vec::new();
            let mut task = Some(first);
            while let Some(Task::Commit { batch, reply }) = task {
                group.push((batch, reply));
                task = if group.len() < GROUP_LEN {
                    tasks.try_recv().ok()
                } else {
                    None
                };
            }
            if !group.is_empty() {
                self.commit(group);
            }
            match task {
                Some(Task::Purge { reply }) => {
                    let _ = reply.send(self.purge());
                }
                Some(Task::Look(look)) => look(&self.connection),
                Some(Task::Commit { .. }) | None => {}
            }
            next = tasks.blocking_recv();
        }
        if self.shared.serving().is_ok() {
            // Another handle's readers may be in the log; then that handle, or the next start, does it.
            let _ = self.checkpoint("TRUNCATE");
        }
    }

    fn commit(&mut self, group: Vec<(Batch, Reply)>) {
        let (batches, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let outcome = match self.shared.serving() {
            Ok(()) => self.transact(&batches),
            Err(stopped) => Err(Failure::Refused(stopped)),
        };
        match outcome {
            Ok(outcomes) => {
                if let Some(last) = outcomes
                    .iter()
                    .filter_map(|outcome| outcome.as_ref().ok())
                    .max()
                {
                    self.shared.committed(*last);
                }
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    // A caller that has gone away does not want to know.
                    let _ = reply.send(outcome);
                }
                self.written += batches.iter().map(written).sum::<usize>();
                if self.written >= self.shared.options.checkpoint_every {
                    // What went wrong stopped the handle, or the next one does it.
                    let _ = self.checkpoint("PASSIVE");
                }
            }
            Err(failure) => {
                let error = match failure {
                    Failure::Refused(error) => error,
                    Failure::Unknown(why) => {
                        // First, so that no answer leads a caller to a handle that still reads.
                        self.shared.stop(why.clone());
                        CatalogueError::Unknown(why)
                    }
                };
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Applies batches in one transaction. What each gets holds once this has returned `Ok`.
    fn transact(
        &self,
        batches: &[Batch],
    ) -> Result<Vec<Result<Sequence, CatalogueError>>, Failure> {
        self.run_sql("BEGIN IMMEDIATE")
            .map_err(|error| Failure::Refused(failed(error)))?;
        let outcomes = match self.apply_all(batches) {
            Ok(outcomes) => outcomes,
            Err(error) => return Err(self.roll_back(error)),
        };
        if outcomes.iter().all(Result::is_err) {
            return match self.run_sql("ROLLBACK") {
                Ok(()) => Ok(outcomes),
                Err(error) => Err(Failure::Unknown(error.to_string())),
            };
        }
        match self.run_sql("COMMIT") {
            Ok(()) => Ok(outcomes),
            // Both are said before the end of the transaction is in the log.
            Err(error)
                if is(&error, ErrorCode::DiskFull) || is(&error, ErrorCode::DatabaseBusy) =>
            {
                Err(self.refuse(error))
            }
            // A failed sync above all: the end of the transaction may be on the disk, or not.
            Err(error) => Err(Failure::Unknown(error.to_string())),
        }
    }

    /// Rolls back a transaction whose end did not all get into the log. What of it did is cut off before anyone hears
    /// that it was refused: after a crash it could be taken for whole.
    fn refuse(&self, error: rusqlite::Error) -> Failure {
        let refused = self.roll_back(error);
        if matches!(refused, Failure::Unknown(_)) {
            return refused;
        }
        match database::forget_refused(&self.connection, &self.shared.options.site()) {
            Ok(()) => refused,
            Err(why) => Failure::Unknown(format!(
                "a change that found no space may be in the log all the same: {why}"
            )),
        }
    }

    /// Rolls back what failed before its end was written; some errors have done so already.
    fn roll_back(&self, error: rusqlite::Error) -> Failure {
        if self.connection.is_autocommit() || self.run_sql("ROLLBACK").is_ok() {
            Failure::Refused(failed(error))
        } else {
            Failure::Unknown(format!("it cannot be rolled back: {error}"))
        }
    }

    fn apply_all(
        &self,
        batches: &[Batch],
    ) -> rusqlite::Result<Vec<Result<Sequence, CatalogueError>>> {
        let mut meta = Meta::read(&self.connection)?;
        let mut outcomes = Vec::with_capacity(batches.len());
        for batch in batches {
            self.run_sql("SAVEPOINT batch")?;
            let conflict = self.apply(batch, meta.sequence + 1)?;
            outcomes.push(match conflict {
                None => {
                    meta.sequence += 1;
                    let erases_or_puts = |write: &&Write| !matches!(write, Write::Check { .. });
                    meta.kept += batch.writes().iter().filter(erases_or_puts).count() as u64;
                    Ok(Sequence(meta.sequence))
                }
                Some((table, key)) => {
                    self.run_sql("ROLLBACK TO batch")?;
                    Err(CatalogueError::Conflict {
                        table,
                        key: key.clone(),
                    })
                }
            });
            self.run_sql("RELEASE batch")?;
        }
        self.trim(&mut meta)?;
        meta.write(&self.connection)?;
        Ok(outcomes)
    }

    /// Applies one batch. Returns the record whose expectation did not hold, if any.
    fn apply<'b>(
        &self,
        batch: &'b Batch,
        sequence: u64,
    ) -> rusqlite::Result<Option<(Table, &'b Key)>> {
        for (position, write) in batch.writes().iter().enumerate() {
            let (table, key) = write.target();
            let (account, region) = (&key.scope.account, &key.scope.region);
            // A version past i64 was never written; -1 is no record's.
            let signed = |version: u64| i64::try_from(version).unwrap_or(-1);
            let (holds, version) = match write {
                Write::Put { expect, record, .. } => {
                    let changed = match *expect {
                        Expect::Absent => self
                            .connection
                            .prepare_cached(
                                "INSERT INTO record (tbl, account, region, id, version, sealed)
                                 VALUES (?1, ?2, ?3, ?4, 1, ?5) ON CONFLICT DO NOTHING",
                            )?
                            .execute(params![
                                table.name(),
                                account,
                                region,
                                key.id,
                                record.as_bytes()
                            ])?,
                        Expect::Version(version) => self
                            .connection
                            .prepare_cached(
                                "UPDATE record SET version = version + 1, sealed = ?5
                                 WHERE tbl = ?1 AND account = ?2 AND region = ?3 AND id = ?4
                                 AND version = ?6",
                            )?
                            .execute(params![
                                table.name(),
                                account,
                                region,
                                key.id,
                                record.as_bytes(),
                                signed(version)
                            ])?,
                    };
                    (changed == 1, Some(expect.next_version()))
                }
                Write::Erase { version, .. } => {
                    let changed = self
                        .connection
                        .prepare_cached(
                            "DELETE FROM record WHERE tbl = ?1 AND account = ?2 AND region = ?3
                             AND id = ?4 AND version = ?5",
                        )?
                        .execute(params![
                            table.name(),
                            account,
                            region,
                            key.id,
                            signed(*version)
                        ])?;
                    (changed == 1, None)
                }
                Write::Check { expect, .. } => {
                    let mut statement = self.connection.prepare_cached(
                        "SELECT version FROM record
                         WHERE tbl = ?1 AND account = ?2 AND region = ?3 AND id = ?4",
                    )?;
                    let mut rows =
                        statement.query(params![table.name(), account, region, key.id])?;
                    let version = rows.next()?.map(|row| row.get(0)).transpose()?;
                    if !expect.holds(version) {
                        return Ok(Some((table, key)));
                    }
                    continue;
                }
            };
            if !holds {
                return Ok(Some((table, key)));
            }
            self.connection
                .prepare_cached(
                    "INSERT INTO change (sequence, position, tbl, account, region, id, version)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    sequence,
                    position,
                    table.name(),
                    account,
                    region,
                    key.id,
                    version
                ])?;
        }
        Ok(None)
    }

    /// Forgets the oldest commits, whole, until no more changes are there than are to be kept.
    fn trim(&self, meta: &mut Meta) -> rusqlite::Result<()> {
        while meta.kept > self.shared.options.changes_kept {
            let oldest: u64 = self
                .connection
                .prepare_cached("SELECT min(sequence) FROM change")?
                .query_row([], |row| row.get(0))?;
            let forgotten = self
                .connection
                .prepare_cached("DELETE FROM change WHERE sequence = ?1")?
                .execute([oldest])?;
            meta.kept = meta.kept.saturating_sub(forgotten as u64);
            meta.trimmed = oldest;
        }
        Ok(())
    }

    fn purge(&mut self) -> Result<(), CatalogueError> {
        self.shared.serving()?;
        match self.checkpoint("TRUNCATE")? {
            Checkpoint { blocked: false, .. } => Ok(()),
            _ => Err(CatalogueError::Unavailable(
                "a reader is in the log that is to be emptied".to_owned(),
            )),
        }
    }

    /// Moves the log into the file. A failure other than a full disk or a busy file stops the handle: a sync may have
    /// failed.
    fn checkpoint(&mut self, how: &str) -> Result<Checkpoint, CatalogueError> {
        let site = self.shared.options.site();
        match database::checkpoint(&self.connection, &site, &FORM, how) {
            Ok(done) => {
                self.written = 0;
                if how == "PASSIVE" && done.pages > LOG_PAGES_MAX {
                    return self.checkpoint("TRUNCATE");
                }
                Ok(done)
            }
            Err(error) => {
                if !is(&error, ErrorCode::DiskFull) && !is(&error, ErrorCode::DatabaseBusy) {
                    self.shared
                        .stop(format!("the log cannot be moved into the file: {error}"));
                    self.shared.serving()?;
                }
                Err(failed(error))
            }
        }
    }

    fn run_sql(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

/// The one row of `meta` that changes.
struct Meta {
    sequence: u64,
    trimmed: u64,
    kept: u64,
}

impl Meta {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection
            .prepare_cached("SELECT sequence, trimmed, kept FROM meta")?
            .query_row([], |row| {
                Ok(Self {
                    sequence: row.get(0)?,
                    trimmed: row.get(1)?,
                    kept: row.get(2)?,
                })
            })
    }

    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE meta SET sequence = ?1, trimmed = ?2, kept = ?3")?
            .execute([self.sequence, self.trimmed, self.kept])
            .map(drop)
    }
}

fn is(error: &rusqlite::Error, code: ErrorCode) -> bool {
    error.sqlite_error_code() == Some(code)
}

/// What a batch adds to the log, about.
fn written(batch: &Batch) -> usize {
    let len = |write: &Write| match write {
        Write::Put { record, .. } => PAGE_LEN + record.as_bytes().len(),
        _ => PAGE_LEN,
    };
    batch.writes().iter().map(len).sum()
}

#[cfg(test)]
mod tests {
    use crypto::{random::SeededRandom, record::SealedRecord, store_key::GenerationKey};

    use super::*;
    use crate::{
        Scope, StoreId,
        sqlite::{connection, options::Options, reader},
    };

    const TABLE: Table = Table::new("t");

    fn machine(dir: &std::path::Path) -> Machine {
        let mut options = Options::new(dir.join("catalogue.db"));
        options.create = Some(StoreId([1; 16]));
        let connection = connection::for_writing(&options).unwrap();
        let shared = Shared::new(options, StoreId([1; 16]), Sequence(0));
        Machine::new(connection, Arc::new(shared))
    }

    fn key(id: u8) -> Key {
        Key::new(Scope::default(), [id])
    }

    fn seal(key: &Key, len: usize) -> SealedRecord {
        let root = GenerationKey::generate(&SeededRandom::new(1));
        let place = key.place(TABLE, 1);
        root.record_key("t")
            .seal_at(&place, 1, &vec![0; len], &SeededRandom::new(2))
    }

    fn put(id: u8, len: usize) -> Batch {
        let key = key(id);
        let record = seal(&key, len);
        Batch::new().put(TABLE, key, Expect::Absent, record)
    }

    /// Commits a group and tells what each caller was answered.
    fn commit(machine: &mut Machine, batches: Vec<Batch>) -> Vec<Result<Sequence, CatalogueError>> {
        let (replies, mut answers): (Vec<_>, Vec<_>) =
            batches.iter().map(|_| oneshot::channel()).unzip();
        machine.commit(batches.into_iter().zip(replies).collect());
        answers
            .iter_mut()
            .map(|answer| answer.try_recv().unwrap())
            .collect()
    }

    fn limit_pages(machine: &Machine, pages: i64) {
        let set = machine
            .connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
        set.unwrap();
    }

    #[test]
    fn a_conflict_in_a_group_touches_no_other_batch_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = machine(dir.path());
        let partly = put(9, 10).check(TABLE, key(1), Expect::Absent);
        let answers = commit(
            &mut machine,
            vec![put(1, 10), partly, put(2, 10), put(1, 10)],
        );
        assert!(matches!(answers[0], Ok(Sequence(1))));
        assert!(matches!(answers[1], Err(CatalogueError::Conflict { .. })));
        assert!(matches!(answers[2], Ok(Sequence(2))));
        assert!(matches!(answers[3], Err(CatalogueError::Conflict { .. })));
        let page = reader::page(&machine.connection, TABLE, None, None, 10).unwrap();
        let ids: Vec<_> = page
            .records
            .into_iter()
            .map(|record| record.key.id)
            .collect();
        assert_eq!(ids, [[1], [2]]);
        let changes = reader::changes(&machine.connection, Sequence(0), 10).unwrap();
        assert_eq!(changes.changes.len(), 2);
    }

    #[test]
    fn a_full_disk_refuses_the_group_changes_nothing_and_may_be_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = machine(dir.path());
        assert!(commit(&mut machine, vec![put(1, 10)])[0].is_ok());
        let pages: i64 = machine
            .connection
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .unwrap();
        limit_pages(&machine, pages + 2);
        for answer in commit(&mut machine, vec![put(2, 10), put(3, 50_000)]) {
            assert!(matches!(answer, Err(CatalogueError::Full)), "{answer:?}");
        }
        assert_eq!(reader::sequence(&machine.connection).unwrap(), Sequence(1));
        limit_pages(&machine, 1_000_000);
        let answers = commit(&mut machine, vec![put(2, 10), put(3, 50_000)]);
        assert!(
            matches!(answers[..], [Ok(Sequence(2)), Ok(Sequence(3))]),
            "{answers:?}"
        );
    }

    #[test]
    fn the_log_is_moved_into_the_file_when_enough_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = machine(dir.path());
        let database = dir.path().join("catalogue.db");
        let before = database.metadata().unwrap().len();
        for id in 0..5 {
            assert!(commit(&mut machine, vec![put(id, 1_000_000)])[0].is_ok());
        }
        assert!(database.metadata().unwrap().len() > before + 4_000_000);
    }
}
