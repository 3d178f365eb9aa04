//! A SQLite file with a write-ahead log that takes nothing for durable that is not.
//!
//! How such a file comes to be, is opened, emptied of its log and, where it must be, written anew. The catalogue is one,
//! an index of objects another; what is in it is its owner's affair ([`Form`]).
//!
//! Left to itself SQLite syncs where no one sees it fail: in a checkpoint after a commit or at close, and when it syncs
//! the name of a new log. Here checkpoints are the owner's ([`checkpoint`]), which stops and leaves a mark
//! ([`mark_failed`]) when one fails; [`open`] rewrites what may be in the page cache alone before it gives the file out.
//! Everything blocks.
//!
//! Assumed of SQLite's file system beyond what [`host::disk`] says: a write does not damage bytes beside it
//! (`SQLITE_IOCAP_POWERSAFE_OVERWRITE`, the default). Without it SQLite writes frames past a commit's last one, and a
//! disk that is full there would have refused a commit that a crash may then bring back.

mod checkpoint;
mod connection;
mod creation;
mod renewal;
mod site;

pub use checkpoint::{Checkpoint, checkpoint, forget_refused};
pub use connection::{connect, failed, io, look};
pub use renewal::{newest, open};
pub use site::{Form, Look, Renewal, Site, is_marked, mark_failed};

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc, time::Duration};

    use rusqlite::Connection;

    use super::*;

    const FORM: Form = Form {
        application_id: 0x7465_7374,
        format: 1,
        check: |_| Ok(()),
        secure_delete: false,
        renewal: Renewal::Log,
        look: Look::Whole,
    };

    fn site(dir: &Path) -> Site {
        Site {
            path: dir.join("t.db"),
            patience: Duration::ZERO,
            vfs: None,
            exclusive: false,
            disk: Arc::new(host::OsDisk),
        }
    }

    fn fill(connection: &Connection) -> rusqlite::Result<()> {
        connection.execute_batch("CREATE TABLE t (x)")
    }

    #[test]
    fn a_new_file_has_its_log_from_the_start_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path());
        creation::create(&site, &FORM, &fill).unwrap();
        // Read and write version, https://sqlite.org/fileformat.html, section 1.3: 2 is a write-ahead log.
        assert_eq!(std::fs::read(&site.path).unwrap()[18..20], [2, 2]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_copy_has_its_log_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path());
        creation::create(&site, &FORM, &fill).unwrap();
        let renewed = renewal::copy_whole(&site, &FORM, true).unwrap();
        assert!(renewed);
        let copy = std::fs::read(site.beside(renewal::RENEWED)).unwrap();
        assert_eq!(copy[18..20], [2, 2]);
        renewal::finish(&site).unwrap();
        drop(open(&site, &FORM, None).unwrap());
        assert!(!site.beside(renewal::RENEWED).exists());
    }

    #[test]
    fn frames_of_a_commit_that_was_refused_do_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path());
        killed(&site);
        let connection = open(&site, &FORM, None).unwrap();
        connection
            .execute_batch("INSERT INTO t VALUES (3)")
            .unwrap();
        let log = site.beside("-wal");
        let good = std::fs::read(&log).unwrap();
        // As if a commit had been refused at the end of its last write.
        std::fs::write(&log, [&good[..], &good[32..]].concat()).unwrap();
        forget_refused(&connection, &site).unwrap();
        assert!(std::fs::read(&log).unwrap() == good);
        assert_eq!(rows(&connection), 3);
        forget_refused(&connection, &site).unwrap();
        assert!(std::fs::read(&log).unwrap() == good);
    }

    #[test]
    fn what_was_refused_is_cut_off_under_the_lock_alone_and_another_commit_stays() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path());
        let connection = open(&site, &FORM, Some(&fill)).unwrap();
        connection
            .execute_batch("INSERT INTO t VALUES (1)")
            .unwrap();
        let log = site.beside("-wal");
        let good = std::fs::read(&log).unwrap();
        let refused = [&good[..], &good[32..]].concat();
        std::fs::write(&log, &refused).unwrap();
        let other = connect(&site, &site.path, false, Duration::ZERO).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let error = forget_refused(&connection, &site).unwrap_err();
        assert!(
            matches!(error, crate::CatalogueError::Unavailable(_)),
            "{error}"
        );
        assert!(std::fs::read(&log).unwrap() == refused);
        // Its frames stand where the refused ones stood.
        other
            .execute_batch("INSERT INTO t VALUES (2); COMMIT")
            .unwrap();
        forget_refused(&connection, &site).unwrap();
        let len = log.metadata().unwrap().len();
        assert!(good.len() as u64 <= len && len < 2 * good.len() as u64);
        assert_eq!(rows(&connection), 2);
    }

    /// A file as a killed process leaves it: one row is in it, another in the log alone.
    fn killed(site: &Site) {
        let living = open(site, &FORM, Some(&fill)).unwrap();
        living.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        checkpoint(&living, site, &FORM, "TRUNCATE").unwrap();
        living.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    }

    fn rows(connection: &Connection) -> i64 {
        let sql = "SELECT count(*) FROM t";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_log_that_was_left_is_rewritten_and_moved_into_the_file() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path());
        killed(&site);
        let inode = |suffix| std::fs::metadata(site.beside(suffix)).unwrap().ino();
        // Held, so that its number is not given out again.
        let _old = std::fs::File::open(site.beside("-wal")).unwrap();
        let (file, log) = (inode(""), inode("-wal"));
        let connection = open(&site, &FORM, None).unwrap();
        assert_eq!(rows(&connection), 2);
        assert_eq!(inode(""), file);
        assert_ne!(inode("-wal"), log);
        let copy = dir.path().join("alone.db");
        std::fs::copy(&site.path, &copy).unwrap();
        assert_eq!(rows(&Connection::open(copy).unwrap()), 2);
    }

    #[test]
    fn after_a_failed_sync_the_file_is_rewritten_whole() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path());
        killed(&site);
        mark_failed(&site, "a sync failed");
        let before = std::fs::File::open(&site.path).unwrap();
        let connection = open(&site, &FORM, None).unwrap();
        assert_eq!(rows(&connection), 2);
        let after = std::fs::metadata(&site.path).unwrap().ino();
        assert_ne!(after, before.metadata().unwrap().ino());
        assert!(!is_marked(&site));
    }

    #[test]
    fn a_log_is_not_taken_from_under_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path());
        let living = open(&site, &FORM, Some(&fill)).unwrap();
        living.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        let refused = open(&site, &FORM, None).unwrap_err();
        assert!(matches!(refused, crate::CatalogueError::Unavailable(_)));
        assert_eq!(rows(&living), 1);
    }
}
