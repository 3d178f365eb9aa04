//! The VFS over the operating system's disk: what SQLite wrote through it, SQLite's own VFS reads.
#![allow(clippy::unwrap_used)]

use std::{path::Path, sync::Arc};

use host::{OsDisk, SystemEntropy};
use rusqlite::{Connection, OpenFlags};
use sqlite_disk::{Registered, register};

fn open(path: &Path, vfs: &Registered) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open_with_flags_and_vfs(path, flags, vfs.name()).unwrap();
    connection
        .pragma_update(None, "locking_mode", "EXCLUSIVE")
        .unwrap();
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .unwrap();
    connection
        .pragma_update(None, "synchronous", "FULL")
        .unwrap();
    connection
}

#[test]
fn a_database_written_through_it_is_read_by_sqlite_s_own_vfs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let vfs = register("real-disk", Arc::new(OsDisk), Arc::new(SystemEntropy));
    let mut connection = open(&path, &vfs);
    connection
        .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, bytes BLOB)")
        .unwrap();
    for round in 0..20_u8 {
        let transaction = connection.transaction().unwrap();
        for id in 0..200_i64 {
            let row = (i64::from(round) * 200 + id, vec![round; 500]);
            transaction
                .execute("INSERT INTO t VALUES (?1, ?2)", row)
                .unwrap();
        }
        transaction.commit().unwrap();
    }
    assert!(dir.path().join("t.db-wal").exists(), "it is in WAL mode");
    drop(connection);
    drop(vfs);
    let connection = Connection::open(&path).unwrap();
    let (count, verdict): (i64, String) = (
        connection
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap(),
        connection
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap(),
    );
    assert_eq!((count, verdict.as_str()), (4000, "ok"));
}

fn open_beside(path: &Path, vfs: &Registered, flags: OpenFlags) -> Connection {
    Connection::open_with_flags_and_vfs(path, flags, vfs.name()).unwrap()
}

#[test]
fn readers_beside_a_writer_see_whole_commits_and_hold_up_no_more_than_the_end_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let vfs = register("beside", Arc::new(OsDisk), Arc::new(SystemEntropy));
    let writer = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let writer = open_beside(&path, &vfs, writer);
    writer.pragma_update(None, "journal_mode", "WAL").unwrap();
    writer
        .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    let reader = open_beside(&path, &vfs, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let count = |connection: &Connection| -> i64 {
        let sql = "SELECT count(*) FROM t";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let view = reader.unchecked_transaction().unwrap();
    assert_eq!(count(&view), 1);
    writer.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    assert_eq!(count(&view), 1, "it sees one moment");
    let restart = |connection: &Connection| -> bool {
        let sql = "PRAGMA wal_checkpoint(RESTART)";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert!(restart(&writer), "a reader is in the log");
    drop(view);
    assert_eq!(count(&reader), 2);
    assert!(!restart(&writer));
    // One who writes is alone in it.
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let second = open_beside(&path, &vfs, flags);
    second.busy_timeout(std::time::Duration::ZERO).unwrap();
    assert!(second.execute_batch("BEGIN IMMEDIATE").is_err());
    writer.execute_batch("COMMIT").unwrap();
    second
        .execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (3); COMMIT")
        .unwrap();
    assert_eq!((count(&writer), count(&reader)), (3, 3));
    // One who wants all of it for himself does not get it while others are there.
    let alone = open_beside(&path, &vfs, flags);
    alone.busy_timeout(std::time::Duration::ZERO).unwrap();
    alone
        .pragma_update(None, "locking_mode", "EXCLUSIVE")
        .unwrap();
    let look = "SELECT count(*) FROM t";
    assert!(
        alone
            .query_row(look, [], |row| row.get::<_, i64>(0))
            .is_err()
    );
    drop((writer, reader, second));
    assert_eq!(count(&alone), 3);
}
