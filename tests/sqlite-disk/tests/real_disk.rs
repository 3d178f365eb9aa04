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
