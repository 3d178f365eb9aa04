//! A trial of the trait on PostgreSQL, so that it is no guess: runs where PostgreSQL is, on a cluster of its own.
//!
//! What it showed: sequences must be given under a lock (the row of `meta`), for two transactions may commit in
//! another order than they drew numbers, and a follower would pass the later one by. A lost connection during
//! `COMMIT` is an unknown outcome here too.

use std::{
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use catalogue::{
    Batch, Catalogue, CatalogueError, Changed, Changes, Expect, Key, Page, Record, Scope, Sequence,
    StoreId, Table, Write, limits,
};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, IsolationLevel, NoTls, Row, Transaction, error::SqlState};

use crate::fixture::{CHANGES_KEPT, Pair, STORE};

const SCHEMA: &str = "
    CREATE TABLE meta (
        one int PRIMARY KEY CHECK (one = 1),
        store_id bytea NOT NULL, sequence bigint NOT NULL, trimmed bigint NOT NULL, kept bigint NOT NULL
    );
    CREATE TABLE record (
        tbl text COLLATE \"C\", account text COLLATE \"C\", region text COLLATE \"C\", id bytea,
        version bigint NOT NULL, sealed bytea NOT NULL,
        PRIMARY KEY (tbl, account, region, id)
    );
    CREATE TABLE change (
        sequence bigint, position int, tbl text NOT NULL, account text NOT NULL, region text NOT NULL,
        id bytea NOT NULL, version bigint,
        PRIMARY KEY (sequence, position)
    );";

const POLL_EVERY: Duration = Duration::from_millis(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_behaves_as_the_others() {
    let Some(cluster) = Cluster::start() else {
        eprintln!(
            "NOT TRIED: there is no PostgreSQL under /usr/lib/postgresql (apt-get install postgresql)"
        );
        return;
    };
    macro_rules! case {
        ($case:ident) => {
            eprintln!("{}", stringify!($case));
            crate::suite::$case(cluster.pair().await).await;
        };
    }
    crate::suite::for_each_case!(case);
}

/// A PostgreSQL server of this test, on a socket in a folder of its own.
struct Cluster {
    dir: tempfile::TempDir,
    bin: PathBuf,
    owner: Option<(u32, u32)>,
    server: Child,
    cases: AtomicU32,
}

impl Cluster {
    /// `None` where PostgreSQL is not installed.
    fn start() -> Option<Self> {
        let mut bins: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .ok()?
            .filter_map(|version| Some(version.ok()?.path().join("bin")))
            .filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
            .collect();
        bins.sort();
        let bin = bins.pop()?;
        let dir = tempfile::tempdir().unwrap();
        // It refuses to run as root; its package brings a user.
        let owner = (id("-u", None)? == 0)
            .then(|| Some((id("-u", Some("postgres"))?, id("-g", Some("postgres"))?)));
        let owner = match owner {
            Some(None) => return None,
            other => other.flatten(),
        };
        if let Some((user, group)) = owner {
            chown(dir.path(), Some(user), Some(group)).unwrap();
        }
        let data = dir.path().join("data");
        let made = command(&bin, "initdb", owner, dir.path())
            .args([
                "--auth=trust",
                "--username=sealgate",
                "--encoding=UTF8",
                "--no-locale",
                "-D",
            ])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        let server = command(&bin, "postgres", owner, dir.path())
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(dir.path())
            .args(["-c", "listen_addresses="])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self {
            dir,
            bin,
            owner,
            server,
            cases: AtomicU32::new(0),
        })
    }

    /// Two handles of an empty catalogue, a schema of its own.
    async fn pair(&self) -> Pair {
        let schema = format!("case_{}", self.cases.fetch_add(1, Ordering::Relaxed));
        let mut config = Config::new();
        config
            .host_path(self.dir.path())
            .user("sealgate")
            .dbname("postgres");
        let admin = self.first_connection(&config).await;
        admin
            .batch_execute(&format!("CREATE SCHEMA {schema}"))
            .await
            .unwrap();
        config.options(format!("-c search_path={schema}"));
        let maker = connect(&config).await.unwrap();
        maker.batch_execute(SCHEMA).await.unwrap();
        let meta = "INSERT INTO meta VALUES (1, $1, 0, 0, 0)";
        maker.execute(meta, &[&STORE.0.as_slice()]).await.unwrap();
        Pair {
            a: Arc::new(PostgresCatalogue::open(&config).await),
            b: Arc::new(PostgresCatalogue::open(&config).await),
            _ground: Box::new(()),
        }
    }

    /// Tries until the server has started, or has ended.
    async fn first_connection(&self, config: &Config) -> Client {
        let mut tries = 0;
        loop {
            match connect(config).await {
                Ok(client) => return client,
                Err(error) if tries == 600 => panic!("the server does not answer: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            tries += 1;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stopped = command(&self.bin, "pg_ctl", self.owner, self.dir.path())
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.dir.path().join("data"))
            .stdout(Stdio::null())
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}

fn command(bin: &Path, name: &str, owner: Option<(u32, u32)>, dir: &Path) -> Command {
    let mut command = Command::new(bin.join(name));
    command.current_dir(dir).stdin(Stdio::null());
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

/// What `id(1)` says of a user, or of this one.
fn id(what: &str, user: Option<&str>) -> Option<u32> {
    let output = Command::new("id").arg(what).args(user).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    // Ends with the client.
    tokio::spawn(connection);
    Ok(client)
}

struct PostgresCatalogue {
    /// Takes single statements, many at a time.
    reader: Client,
    /// Takes transactions, one at a time.
    transactions: Mutex<Client>,
}

impl PostgresCatalogue {
    async fn open(config: &Config) -> Self {
        Self {
            reader: connect(config).await.unwrap(),
            transactions: Mutex::new(connect(config).await.unwrap()),
        }
    }
}

#[async_trait]
impl Catalogue for PostgresCatalogue {
    async fn store_id(&self) -> Result<StoreId, CatalogueError> {
        let row = self
            .reader
            .query_one("SELECT store_id FROM meta", &[])
            .await
            .map_err(failed)?;
        let id: Vec<u8> = row.get(0);
        let id = id
            .try_into()
            .map_err(|_| CatalogueError::Damaged("the store's id".to_owned()))?;
        Ok(StoreId(id))
    }

    async fn get(&self, table: Table, key: &Key) -> Result<Option<Record>, CatalogueError> {
        limits::check_key(key)?;
        let sql = "SELECT account, region, id, version, sealed FROM record
                   WHERE tbl = $1 AND account = $2 AND region = $3 AND id = $4";
        let (account, region) = (&key.scope.account, &key.scope.region);
        let found = self
            .reader
            .query_opt(sql, &[&table.name(), account, region, &key.id])
            .await;
        Ok(found.map_err(failed)?.as_ref().map(record))
    }

    async fn page(
        &self,
        table: Table,
        scope: Option<&Scope>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, CatalogueError> {
        let limit = limits::check_page(scope, after, limit)?;
        let start = Key::new(scope.cloned().unwrap_or_default(), Vec::new());
        let after = after.unwrap_or(&start).max(&start);
        if scope.is_some_and(|scope| *scope != after.scope) {
            return Ok(Page::default());
        }
        // A real one would not fetch what the page has no room for.
        let sql = "SELECT account, region, id, version, sealed FROM record
                   WHERE tbl = $1 AND (account, region, id) > ($2, $3, $4)
                     AND ($5 OR (account, region) = ($2, $3))
                   ORDER BY account, region, id LIMIT $6";
        let (account, region) = (&after.scope.account, &after.scope.region);
        let rows = i64::try_from(limit).unwrap() + 1;
        let rows = self
            .reader
            .query(
                sql,
                &[
                    &table.name(),
                    account,
                    region,
                    &after.id,
                    &scope.is_none(),
                    &rows,
                ],
            )
            .await
            .map_err(failed)?;
        let mut page = Page::default();
        let mut len = 0;
        for row in &rows {
            if page.records.len() == limit || len >= limits::PAGE_LEN_MAX {
                page.next = page.records.last().map(|last| last.key.clone());
                break;
            }
            let record = record(row);
            len += record.sealed.len();
            page.records.push(record);
        }
        Ok(page)
    }

    async fn commit(&self, batch: Batch) -> Result<Sequence, CatalogueError> {
        limits::check_batch(&batch)?;
        let mut client = self.transactions.lock().await;
        let transaction = client.transaction().await.map_err(failed)?;
        // Locks the row: commits happen in the order of their sequences. Statements behind it see what the commit
        // before it did, since each has a moment of its own (READ COMMITTED).
        let sql = "UPDATE meta SET sequence = sequence + 1 RETURNING sequence";
        let sequence: i64 = transaction
            .query_one(sql, &[])
            .await
            .map_err(failed)?
            .get(0);
        // An error drops the transaction, which rolls it back.
        apply(&transaction, &batch, sequence).await?;
        trim(&transaction).await.map_err(failed)?;
        transaction
            .commit()
            .await
            .map_err(|error| match error.code() {
                Some(_) => failed(error),
                None => CatalogueError::Unknown(error.to_string()),
            })?;
        Ok(Sequence(unsigned(sequence)))
    }

    async fn sequence(&self) -> Result<Sequence, CatalogueError> {
        let row = self
            .reader
            .query_one("SELECT sequence FROM meta", &[])
            .await
            .map_err(failed)?;
        Ok(Sequence(unsigned(row.get(0))))
    }

    async fn changes(&self, after: Sequence, limit: usize) -> Result<Changes, CatalogueError> {
        let limit = i64::try_from(limits::check_changes(limit)?).unwrap();
        let after = i64::try_from(after.0).map_err(|_| CatalogueError::Trimmed)?;
        let mut client = self.transactions.lock().await;
        let moment = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
            .map_err(failed)?;
        let meta = moment
            .query_one("SELECT sequence, trimmed FROM meta", &[])
            .await
            .map_err(failed)?;
        let (sequence, trimmed): (i64, i64) = (meta.get(0), meta.get(1));
        if after < trimmed || after > sequence {
            return Err(CatalogueError::Trimmed);
        }
        let sql = "SELECT sequence FROM change WHERE sequence > $1
                   ORDER BY sequence, position LIMIT 1 OFFSET $2";
        let last = moment
            .query_opt(sql, &[&after, &(limit - 1)])
            .await
            .map_err(failed)?;
        let upto = last.map_or(sequence, |row| row.get(0));
        let sql = "SELECT account, region, id, sequence, tbl, version FROM change
                   WHERE sequence > $1 AND sequence <= $2 ORDER BY sequence, position";
        let rows = moment.query(sql, &[&after, &upto]).await.map_err(failed)?;
        let changes = rows.iter().map(|row| Changed {
            sequence: Sequence(unsigned(row.get(3))),
            table: row.get(4),
            key: key(row),
            version: row.get::<_, Option<i64>>(5).map(unsigned),
        });
        Ok(Changes {
            changes: changes.collect(),
            upto: Sequence(unsigned(upto)),
        })
    }

    async fn wait(&self, after: Sequence) -> Result<Sequence, CatalogueError> {
        loop {
            let sequence = self.sequence().await?;
            if sequence > after {
                return Ok(sequence);
            }
            if sequence < after {
                return Err(CatalogueError::Trimmed);
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    async fn purge(&self) -> Result<(), CatalogueError> {
        self.reader
            .batch_execute("VACUUM record")
            .await
            .map_err(failed)
    }
}

async fn apply(
    transaction: &Transaction<'_>,
    batch: &Batch,
    sequence: i64,
) -> Result<(), CatalogueError> {
    let mut kept: i64 = 0;
    for (position, write) in batch.writes().iter().enumerate() {
        let (table, key) = write.target();
        let (name, id) = (table.name(), &key.id);
        let (account, region) = (&key.scope.account, &key.scope.region);
        let expected = |version: u64| i64::try_from(version).unwrap_or(-1);
        let (changed, version) = match write {
            Write::Put { expect, record, .. } => {
                let sealed = record.as_bytes();
                let changed = match *expect {
                    Expect::Absent => {
                        let sql = "INSERT INTO record VALUES ($1, $2, $3, $4, 1, $5)
                                   ON CONFLICT DO NOTHING";
                        transaction
                            .execute(sql, &[&name, account, region, id, &sealed])
                            .await
                    }
                    Expect::Version(version) => {
                        let sql = "UPDATE record SET version = version + 1, sealed = $5
                                   WHERE tbl = $1 AND account = $2 AND region = $3 AND id = $4
                                     AND version = $6";
                        let version = expected(version);
                        transaction
                            .execute(sql, &[&name, account, region, id, &sealed, &version])
                            .await
                    }
                };
                (
                    changed.map_err(failed)?,
                    i64::try_from(expect.next_version()).ok(),
                )
            }
            Write::Erase { version, .. } => {
                let sql = "DELETE FROM record WHERE tbl = $1 AND account = $2 AND region = $3
                           AND id = $4 AND version = $5";
                let version = expected(*version);
                let changed = transaction
                    .execute(sql, &[&name, account, region, id, &version])
                    .await;
                (changed.map_err(failed)?, None)
            }
            Write::Check { expect, .. } => {
                let sql = "SELECT version FROM record
                           WHERE tbl = $1 AND account = $2 AND region = $3 AND id = $4";
                let found = transaction
                    .query_opt(sql, &[&name, account, region, id])
                    .await;
                let version = found.map_err(failed)?.map(|row| unsigned(row.get(0)));
                if expect.holds(version) {
                    continue;
                }
                (0, None)
            }
        };
        if changed != 1 {
            return Err(CatalogueError::Conflict {
                table,
                key: key.clone(),
            });
        }
        let position = i32::try_from(position).unwrap();
        let sql = "INSERT INTO change VALUES ($1, $2, $3, $4, $5, $6, $7)";
        transaction
            .execute(
                sql,
                &[&sequence, &position, &name, account, region, id, &version],
            )
            .await
            .map_err(failed)?;
        kept += 1;
    }
    let sql = "UPDATE meta SET kept = kept + $1";
    transaction.execute(sql, &[&kept]).await.map_err(failed)?;
    Ok(())
}

async fn trim(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    let kept = i64::try_from(CHANGES_KEPT).unwrap();
    let sql = "WITH oldest AS (SELECT min(sequence) AS sequence FROM change),
                    gone AS (DELETE FROM change USING oldest
                             WHERE change.sequence = oldest.sequence RETURNING 1)
               UPDATE meta SET kept = kept - (SELECT count(*) FROM gone), trimmed = oldest.sequence
               FROM oldest WHERE kept > $1";
    loop {
        let row = transaction.query_one("SELECT kept FROM meta", &[]).await?;
        if row.get::<_, i64>(0) <= kept {
            return Ok(());
        }
        transaction.execute(sql, &[&kept]).await?;
    }
}

fn key(row: &Row) -> Key {
    let scope = Scope {
        account: row.get(0),
        region: row.get(1),
    };
    Key::new(scope, row.get::<_, Vec<u8>>(2))
}

fn record(row: &Row) -> Record {
    Record {
        key: key(row),
        version: unsigned(row.get(3)),
        sealed: row.get(4),
    }
}

/// The numbers of this store begin at 0.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap()
}

/// What an error means where nothing was changed: whose transaction it fails is rolled back.
fn failed(error: tokio_postgres::Error) -> CatalogueError {
    match error.code() {
        Some(code) if *code == SqlState::DISK_FULL => CatalogueError::Full,
        Some(code) if *code == SqlState::DATA_CORRUPTED => {
            CatalogueError::Damaged(error.to_string())
        }
        _ => CatalogueError::Unavailable(error.to_string()),
    }
}
