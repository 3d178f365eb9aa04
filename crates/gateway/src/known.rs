//! How the parts of this data directory know each other: what the server checks before it opens them, and keeps while it
//! runs. `parts` has the rules; here is where each part is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use audit::AuditLog;
use catalogue::Catalogue;
use crypto::random::Random;
use host::{Disk, OsDisk};
use parking_lot::Mutex;
use parts::{
    FolderStamp, Ledger, Mark, Part, PartsError, Refusal, Stamp, StampError, Stamped, Stamps,
};
use root::{Reseal, StoreKey};
use s3::store::local::{LocalStore, stamp};
use tokio::sync::watch;

use crate::credentials::RootUsers;
use crate::data_dir::Paths;
use crate::metrics::Metrics;

/// How often marks and stamps are brought up to date while anything changes: what is set back by less is not seen.
const KEEP_INTERVAL: Duration = Duration::from_secs(10);

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
    ) -> Result<Self, PartsError> {
        let ledger = Ledger::load(Arc::clone(catalogue), store_key, Arc::clone(random)).await?;
        let stamps = Stamps::new(store_key, Arc::clone(random));
        let index = Arc::new(IndexStamp {
            folder: paths.objects(),
            store: OnceLock::new(),
            stamps: Arc::clone(&stamps),
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
        let paths = Paths(&self.data_dir);
        let header = Mark::at(self.store_key.status().await.sequence);
        let at = path_of(&paths, Part::RootHeader);
        self.ledger
            .check_mark(Part::RootHeader, &at, Some(header))
            .await?;
        let at = path_of(&paths, Part::Credentials);
        let found = credentials(&at).map_err(|why| Refusal {
            part: Part::Credentials,
            path: at.clone(),
            wrong: parts::Wrong::Damaged(why),
        })?;
        // A start that was cut short may have added accounts. Those that were marked are the same.
        let marked = self.ledger.mark(Part::Credentials).await;
        let found = found.map(|found| match marked {
            Some(marked) => found.mark_of_first(marked.sequence),
            None => found.mark(),
        });
        self.ledger
            .check_mark(Part::Credentials, &at, found)
            .await?;
        for stamped in &self.stamped {
            let part = stamped.part();
            let found = stamped.read().await;
            self.ledger
                .check_stamp(part, &path_of(&paths, part), &paths.catalogue(), found)
                .await?;
        }
        Ok(())
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
        let observed = [(
            Part::RootHeader,
            Mark::at(self.store_key.status().await.sequence),
        )];
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

    /// Goes on with a part as it is now. The folder of one that is missing is made.
    pub(crate) async fn accept(&self, part: Part) -> anyhow::Result<()> {
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
                let found = credentials(&at).map_err(anyhow::Error::msg)?;
                let found = found.map(|found| found.mark());
                self.ledger.accept(part, &[], found).await?;
            }
            Part::Audit | Part::Volumes | Part::Objects => {
                host::private::create_dirs(&OsDisk, &at)?;
                self.ledger.accept(part, &one, None).await?;
            }
            Part::Index if at.try_exists()? => {
                self.ledger.accept(part, &one, None).await?;
            }
            Part::Index => {
                anyhow::ensure!(
                    !stamp::has_data(&paths.objects())?,
                    "{} is missing, and data files are there that only it names: restore a backup of it, however old, \
                     or move {} away first",
                    at.display(),
                    paths.objects().join("data").display()
                );
                self.ledger.accept(part, &[], None).await?;
            }
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

/// Keeps marks and stamps until `stop`. A failure is said in the log and the metrics, and tried again: what is served
/// stays served.
pub(crate) async fn keep(
    known: Arc<Known>,
    audit: AuditLog,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = tokio::time::interval(KEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let kept = known.keep(&audit, false).await;
        metrics.marks_up(kept.is_ok());
        if let Err(error) = kept {
            tracing::error!(%error, "the marks between the parts are not up to date");
        }
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

/// What the credentials say of themselves; `None` if they are not there.
fn credentials(path: &Path) -> Result<Option<RootUsers>, String> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(_) => {}
    }
    match RootUsers::load(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) => Err(format!("{:#}", error.root_cause())),
    }
}

/// The stamp in the object index.
struct IndexStamp {
    folder: PathBuf,
    /// Once it is open, the only way to it.
    store: OnceLock<Arc<LocalStore>>,
    stamps: Arc<Stamps>,
}

impl IndexStamp {
    async fn bytes(&self) -> Result<Option<Vec<u8>>, String> {
        let read = match self.store.get() {
            Some(store) => store.stamp().await,
            None => {
                let folder = self.folder.clone();
                tokio::task::spawn_blocking(move || stamp::inspect(&folder))
                    .await
                    .map_err(|error| error.to_string())?
            }
        };
        read.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Stamped for IndexStamp {
    fn part(&self) -> Part {
        Part::Index
    }

    async fn read(&self) -> Result<Option<Stamp>, StampError> {
        match self.bytes().await {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => self.stamps.open(Part::Index, &bytes).map(Some),
            Err(why) => Err(StampError::Damaged(why)),
        }
    }

    async fn write(&self, new: Stamp) -> Result<(), String> {
        let sealing = self.stamps.sealing();
        let bytes = self.stamps.seal(&sealing, Part::Index, new);
        let store = self.store.get().cloned();
        let folder = self.folder.clone();
        // A task of its own: given up half-way, a rotation would go on before it is known what the index has.
        let written = tokio::spawn(async move {
            let written = match store {
                Some(store) => store.set_stamp(bytes).await,
                None => tokio::task::spawn_blocking(move || stamp::replace(&folder, &bytes))
                    .await
                    .unwrap_or(Err(s3::store::StoreError::Closed)),
            };
            drop(sealing);
            written
        });
        match written.await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn is_stale(&self) -> Result<bool, String> {
        let bytes = self.bytes().await?;
        Ok(bytes.is_some_and(|bytes| self.stamps.is_stale(&bytes)))
    }
}

#[cfg(test)]
mod tests;
