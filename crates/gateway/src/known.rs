//! How the parts of this data directory know each other: what the server checks before it opens them, and keeps while it
//! runs. `parts` has the rules; here is where each part is.

mod index;
mod keeper;
pub(crate) mod wrong;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use audit::{AuditLog, AuditOptions};
use catalogue::Catalogue;
use crypto::random::Random;
use host::{Disk, OsDisk, SystemClock};
use parking_lot::Mutex;
use parts::{FolderStamp, Ledger, Mark, Part, PartsError, Refusal, Stamped, Stamps, WayOut, Wrong};
use root::{Reseal, StoreKey};
use s3::store::local::{LocalStore, stamp};

use self::index::IndexStamp;
pub(crate) use self::index::look_through;
pub(crate) use self::keeper::keep;
use crate::credentials::RootUsers;
use crate::data_dir::Paths;

/// Records of the audit log, at most, since its mark was last kept: numbers that may have been given out.
const RECORDS_UNMARKED_MAX: u64 = 1 << 20;

/// The parts of one data directory.
pub(crate) struct Known {
    ledger: Arc<Ledger>,
    stamped: Vec<Arc<dyn Stamped>>,
    index: Arc<IndexStamp>,
    store_key: StoreKey,
    data_dir: PathBuf,
    /// What was recorded and changed when the stamps were last written.
    seen: Mutex<Option<(u64, u64)>>,
}

impl Known {
    /// Reads the marks. Changes nothing.
    pub(crate) async fn load(
        paths: &Paths<'_>,
        catalogue: &Arc<dyn Catalogue>,
        store_key: &StoreKey,
        random: &Arc<dyn Random>,
    ) -> Result<Self, Refusal> {
        let ledger = Ledger::load(Arc::clone(catalogue), store_key, Arc::clone(random)).await;
        let ledger = match ledger {
            Ok(ledger) => ledger,
            Err(error) => return Err(no_marks(paths, store_key, error).await),
        };
        let stamps = Stamps::new(store_key, Arc::clone(random));
        let index = Arc::new(IndexStamp {
            folder: paths.objects(),
            store: OnceLock::new(),
            stamps: Arc::clone(&stamps),
            whole: AtomicBool::new(false),
        });
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let folder = |part, folder: PathBuf| {
            let (disk, stamps) = (Arc::clone(&disk), Arc::clone(&stamps));
            Arc::new(FolderStamp::new(part, &folder, disk, stamps)) as Arc<dyn Stamped>
        };
        let stamped = vec![
            folder(Part::Audit, paths.audit()),
            folder(Part::Volumes, paths.volumes()),
            folder(Part::Objects, paths.objects()),
            Arc::clone(&index) as Arc<dyn Stamped>,
        ];
        Ok(Self {
            ledger: Arc::new(ledger),
            stamped,
            index,
            store_key: store_key.clone(),
            data_dir: paths.0.to_owned(),
            seen: Mutex::new(None),
        })
    }

    /// Compares every part with its mark, and the catalogue with every stamp. Changes nothing.
    pub(crate) async fn check(&self) -> Result<(), Refusal> {
        for part in Part::ALL {
            self.check_part(part).await?;
        }
        Ok(())
    }

    /// The same, with a look at all of the object index however long it is; each part that would be refused.
    pub(crate) async fn check_whole(&self) -> Vec<Refusal> {
        self.index.whole.store(true, Ordering::Relaxed);
        let mut refusals = Vec::new();
        for part in Part::ALL {
            refusals.extend(self.check_part(part).await.err());
        }
        refusals
    }

    /// Compares one part with its mark, and the catalogue with its stamp. Changes nothing.
    async fn check_part(&self, part: Part) -> Result<(), Refusal> {
        let paths = Paths(&self.data_dir);
        let at = path_of(&paths, part);
        match part {
            Part::RootHeader => {
                let header = Mark::at(self.store_key.status().await.sequence);
                self.ledger.check_mark(part, &at, Some(header)).await
            }
            // Before other parts are compared with its marks, which are as old as it is. The index is left for its turn:
            // its stamp takes long to read.
            Part::Catalogue => {
                for stamped in self.stamped.iter().filter(|s| s.part() != Part::Index) {
                    if let Ok(Some(stamp)) = stamped.read().await {
                        self.ledger.check_catalogue(&at, stamp)?;
                    }
                }
                Ok(())
            }
            Part::Credentials => {
                let found =
                    wrong::credentials(&at).map_err(|wrong| refusal(&paths, part, wrong))?;
                // A start that was cut short may have added accounts. Those that were marked are the same.
                let marked = self.ledger.mark(part).await;
                let found = found.map(|found| match marked {
                    Some(marked) => found.mark_of_first(marked.sequence),
                    None => found.mark(),
                });
                self.ledger.check_mark(part, &at, found).await
            }
            Part::Audit | Part::Volumes | Part::Objects | Part::Index => {
                let ours = |stamped: &&Arc<dyn Stamped>| stamped.part() == part;
                let stamped = self.stamped.iter().find(ours);
                let stamped = stamped.expect("these four have a stamp");
                let found = stamped.read().await;
                self.ledger
                    .check_stamp(part, &at, &paths.catalogue(), found)
                    .await?;
                match part {
                    Part::Audit => self.check_log().await,
                    _ => Ok(()),
                }
            }
        }
    }

    /// Compares the audit log with its mark: segments and journal may be set back under a stamp that is not. No record may
    /// be added to such a log, whose numbers it would use again. Changes nothing.
    pub(crate) async fn check_log(&self) -> Result<(), Refusal> {
        let paths = Paths(&self.data_dir);
        let options = AuditOptions::new(paths.audit(), Arc::new(SystemClock::new()));
        let found = tokio::task::spawn_blocking(move || audit::inspect(&options)).await;
        let wrong = match found {
            Ok(Ok(found)) => {
                let found = Mark {
                    sequence: found.sequence,
                    digest: found.digest,
                };
                let at = paths.audit();
                return self.ledger.check_contents(Part::Audit, &at, found).await;
            }
            Ok(Err(error)) => wrong::of_audit(error),
            Err(error) => Wrong::Unreadable {
                kind: std::io::ErrorKind::Other,
                why: error.to_string(),
            },
        };
        Err(refusal(&paths, Part::Audit, wrong))
    }

    /// Opens the audit log to add records to it; [`check_log`](Self::check_log) first.
    pub(crate) async fn open_log(&self) -> anyhow::Result<AuditLog> {
        self.check_log().await?;
        let clock = Arc::new(SystemClock::new());
        let options = AuditOptions::new(Paths(&self.data_dir).audit(), clock);
        AuditLog::open(options).context("audit log")
    }

    /// The highest number that may have been given out to a record of the audit log, as far as its mark tells.
    pub(crate) async fn records_given_out(&self) -> u64 {
        let marked = self.ledger.contents(Part::Audit).await;
        marked.map_or(0, |mark| mark.sequence + RECORDS_UNMARKED_MAX)
    }

    /// Says that the objects are open: their index is stamped through them from now on.
    pub(crate) fn objects_are_open(&self, objects: &Arc<LocalStore>) {
        let _ = self.index.store.set(Arc::clone(objects));
    }

    /// Who seals marks and stamps anew when the store key is rotated.
    pub(crate) fn owner(&self) -> Arc<dyn Reseal> {
        self.ledger.owner(self.stamped.clone())
    }

    /// Brings marks and stamps up to date if anything has changed since, or `always` is set.
    pub(crate) async fn keep(&self, audit: &AuditLog, always: bool) -> Result<(), PartsError> {
        let now = self.now(audit);
        // Neither the audit log nor the index moves the catalogue on.
        let changed = *self.seen.lock() != Some(now);
        // The credentials keep the mark they have: what is done to them while the server runs, the next start says.
        let observed = [
            (
                Part::RootHeader,
                Mark::at(self.store_key.status().await.sequence),
            ),
            (Part::Audit, of_log(audit)),
        ];
        if self
            .ledger
            .keep(&self.stamped, &observed, always || changed)
            .await?
        {
            *self.seen.lock() = Some(self.stamped_at(now));
        }
        Ok(())
    }

    /// Says that every part is open, the credentials among them as the start has found or made them. From the first time on
    /// a part that is missing was lost.
    pub(crate) async fn complete(
        &self,
        credentials: &RootUsers,
        audit: &AuditLog,
    ) -> Result<(), PartsError> {
        let observed = [
            (
                Part::RootHeader,
                Mark::at(self.store_key.status().await.sequence),
            ),
            (Part::Credentials, credentials.mark()),
            (Part::Audit, of_log(audit)),
        ];
        let now = self.now(audit);
        self.ledger.keep(&self.stamped, &observed, true).await?;
        *self.seen.lock() = Some(self.stamped_at(now));
        Ok(())
    }

    /// What was seen before the stamps were written, and the stamp of the index, which is a change of it. What was changed
    /// meanwhile may have missed the stamps, and is left for the next ones.
    fn stamped_at(&self, seen: (u64, u64)) -> (u64, u64) {
        (seen.0, seen.1 + u64::from(self.index.store.get().is_some()))
    }

    /// Whether marks were never kept.
    pub(crate) async fn is_new(&self) -> bool {
        self.ledger.is_new().await
    }

    /// How far those parts are that do not move the catalogue on.
    fn now(&self, audit: &AuditLog) -> (u64, u64) {
        let index = self.index.store.get();
        let index = index.map_or(0, |store| store.changes_submitted());
        (audit.mark().sequence, index)
    }

    /// Whether a part can be gone on with as it is: whatever is named as a way out must be one. Changes nothing.
    pub(crate) async fn may_accept(&self, part: Part) -> anyhow::Result<()> {
        let refused = self.check_part(part).await.err();
        // What is wrong with another part is for that one to be accepted.
        let Some(refused) = refused.filter(|refused| refused.part == part) else {
            return Ok(());
        };
        match refused.way_out() {
            WayOut::RestoreOrAccept => {}
            // Nothing is lost with it.
            WayOut::RestoreThenAccept
                if refused.wrong == Wrong::Missing
                    && !stamp::has_data(&Paths(&self.data_dir).objects())? => {}
            WayOut::RestoreThenAccept
            | WayOut::Restore
            | WayOut::Mend
            | WayOut::NewerProgram
            | WayOut::TakeAway => anyhow::bail!("it cannot be gone on with as it is: {refused}"),
        }
        Ok(())
    }

    /// Goes on with a part as it is now, after [`may_accept`](Self::may_accept). The folder of one that is missing is made;
    /// credentials that are damaged are put aside, and the next start makes new ones.
    pub(crate) async fn accept(&self, part: Part, audit: &AuditLog) -> anyhow::Result<()> {
        let paths = Paths(&self.data_dir);
        let at = path_of(&paths, part);
        let ours = |stamped: &&Arc<dyn Stamped>| stamped.part() == part;
        let one: Vec<_> = self.stamped.iter().filter(ours).cloned().collect();
        match part {
            Part::RootHeader => {
                let found = Mark::at(self.store_key.status().await.sequence);
                self.ledger.accept(part, &[], Some(found)).await?;
            }
            Part::Credentials => {
                let found = match wrong::credentials(&at) {
                    Ok(found) => found.map(|found| found.mark()),
                    Err(Wrong::Damaged(_)) => {
                        put_aside(&at)?;
                        None
                    }
                    Err(wrong) => anyhow::bail!(refusal(&paths, part, wrong)),
                };
                self.ledger.accept(part, &[], found).await?;
            }
            Part::Audit => {
                host::private::create_dirs(&OsDisk, &at)?;
                self.ledger.accept(part, &one, Some(of_log(audit))).await?;
            }
            Part::Volumes | Part::Objects => {
                host::private::create_dirs(&OsDisk, &at)?;
                self.ledger.accept(part, &one, None).await?;
            }
            Part::Index if at.try_exists()? => {
                self.ledger.accept(part, &one, None).await?;
            }
            Part::Index => self.ledger.accept(part, &[], None).await?,
            Part::Catalogue => {
                // What is wrong beside it stays to be refused.
                let mut whole = Vec::new();
                for stamped in &self.stamped {
                    let Ok(Some(stamp)) = stamped.read().await else {
                        continue;
                    };
                    let mark = self.ledger.mark(stamped.part()).await;
                    if mark.is_none_or(|mark| stamp.sequence >= mark.sequence) {
                        whole.push(Arc::clone(stamped));
                    }
                }
                self.ledger.accept(part, &whole, None).await?;
            }
        }
        Ok(())
    }

    /// Expects no part but root header and catalogue any more: the next start makes the others.
    pub(crate) async fn adopt(&self) -> Result<(), PartsError> {
        for part in [
            Part::Credentials,
            Part::Audit,
            Part::Volumes,
            Part::Objects,
            Part::Index,
        ] {
            self.ledger.accept(part, &[], None).await?;
        }
        Ok(())
    }
}

/// Where a part is.
pub(crate) fn path_of(paths: &Paths<'_>, part: Part) -> PathBuf {
    match part {
        Part::RootHeader => paths.0.join(root::HEADER_NAME),
        Part::Catalogue => paths.catalogue(),
        Part::Credentials => paths.credentials(),
        Part::Audit => paths.audit(),
        Part::Volumes => paths.volumes(),
        Part::Objects => paths.objects(),
        Part::Index => paths.objects().join("index.db"),
    }
}

/// A part that a start must not go on with.
pub(crate) fn refusal(paths: &Paths<'_>, part: Part, wrong: Wrong) -> Refusal {
    let path = path_of(paths, part);
    Refusal { part, path, wrong }
}

/// Why there are no marks to compare anything with.
async fn no_marks(paths: &Paths<'_>, store_key: &StoreKey, error: PartsError) -> Refusal {
    let (part, wrong) = match error {
        PartsError::Generation { found: records } => {
            let header = store_key.status().await.generation;
            let wrong = Wrong::OtherGeneration { records, header };
            match records > header {
                true => (Part::RootHeader, wrong),
                false => (Part::Catalogue, wrong),
            }
        }
        PartsError::Catalogue(error) => (Part::Catalogue, wrong::of_catalogue(error)),
        other => (Part::Catalogue, Wrong::Damaged(other.to_string())),
    };
    refusal(paths, part, wrong)
}

/// How far the audit log is.
fn of_log(audit: &AuditLog) -> Mark {
    let mark = audit.mark();
    Mark {
        sequence: mark.sequence,
        digest: mark.digest,
    }
}

/// Renames a file to one that says that it is out of use, never over another.
fn put_aside(path: &Path) -> std::io::Result<()> {
    let mut to = path.with_extension("damaged");
    let mut number = 1;
    while to.symlink_metadata().is_ok() {
        to = path.with_extension(format!("damaged.{number}"));
        number += 1;
    }
    std::fs::rename(path, &to)?;
    host::private::sync_name(&OsDisk, path)
}

#[cfg(test)]
mod tests;
