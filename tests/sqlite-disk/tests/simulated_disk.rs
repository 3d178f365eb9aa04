//! SQLite itself on the simulated disk: a committed transaction outlives a power cut, a failed one is not half there,
//! and a database whose syncs are switched off does not survive, so the disk does lose what it may.
#![allow(clippy::unwrap_used)]

use std::{path::Path, sync::Arc};

use host::{
    Disk, Mode,
    disk::sim::{Crash, SimDisk},
    entropy::SeededEntropy,
};
use rusqlite::{Connection, OpenFlags};
use sqlite_disk::{Registered, register};

const PATH: &str = "/t.db";

fn vfs(seed: u64, disk: &SimDisk) -> Registered {
    register(
        &format!("simulated-{seed}"),
        Arc::new(disk.clone()),
        Arc::new(SeededEntropy::new(seed)),
    )
}

fn open(vfs: &Registered, synchronous: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open_with_flags_and_vfs(PATH, flags, vfs.name())?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    // Checkpoints often, so that database and log are both in motion.
    connection.pragma_update(None, "wal_autocheckpoint", 8)?;
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, twin BLOB)")?;
    Ok(connection)
}

/// Inserts rows in pairs, one transaction each, and returns how many pairs were answered.
fn work(connection: &mut Connection, from: i64, to: i64) -> i64 {
    for pair in from..to {
        let done = (|| {
            let transaction = connection.transaction()?;
            for id in [2 * pair, 2 * pair + 1] {
                let bytes = vec![u8::try_from(pair % 251).unwrap(); 700];
                transaction.execute("INSERT INTO t VALUES (?1, ?2)", (id, bytes))?;
            }
            transaction.commit()
        })();
        if done.is_err() {
            return pair;
        }
    }
    to
}

/// Runs until the machine stops, cuts the power, and looks at what is there: `Err` says what is wrong.
fn run(seed: u64, synchronous: &str) -> Result<(), String> {
    let disk = SimDisk::new(seed);
    // The database's own name is its maker's to sync: SQLite does not.
    disk.open(Path::new(PATH), Mode::New).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let registered = vfs(seed, &disk);
    let mut answered = 0_i64;
    for round in 0..4 {
        disk.stop_after(20 + SeededEntropy::new(seed ^ round).below(300));
        if let Ok(mut connection) = open(&registered, synchronous) {
            answered = work(&mut connection, answered, answered + 1000);
        }
        assert!(disk.is_down(), "it was to stop long before");
        disk.restart(Crash::Power);
        let said = |what: &str, error: rusqlite::Error| format!("seed {seed}: {what}: {error}");
        let connection = open(&registered, synchronous).map_err(|e| said("open", e))?;
        let verdict: String = connection
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .map_err(|e| said("check", e))?;
        let (count, last): (i64, Option<i64>) = connection
            .query_row("SELECT count(*), max(id) FROM t", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .map_err(|e| said("count", e))?;
        let pairs = last.map_or(0, |last| last / 2 + 1);
        // The one that was under way may be there, whole.
        if verdict != "ok" || count != 2 * pairs || !(answered..=answered + 1).contains(&pairs) {
            return Err(format!(
                "seed {seed}, round {round}: {answered} pairs answered, {count} rows, {verdict}"
            ));
        }
        answered = pairs;
    }
    Ok(())
}

#[test]
fn what_was_committed_outlives_a_power_cut_and_nothing_is_half_there() {
    for seed in 0..150 {
        run(seed, "FULL").unwrap();
    }
}

#[test]
fn without_syncs_it_does_not() {
    let lost = (0..60).filter(|seed| run(1000 + seed, "OFF").is_err());
    assert!(lost.count() > 20, "the disk keeps what it may lose");
}
