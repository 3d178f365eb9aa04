//! The local store: an SQLite index and data files in one directory. `FORMAT.md` has the bytes.
//!
//! # How it is durable
//! Small objects (up to [`Options::inline_len_max`] sealed bytes) are rows of the index. Larger ones and
//! parts are files, made under a durable intent (see `FORMAT.md`), written and synced (file and folder)
//! *before* the transaction whose row makes them part of the store. The index syncs every commit;
//! one thread commits for all requests that have queued up meanwhile. So after a crash at any
//! point a row never names a file that is not whole; what an intent names is removed at the next start, and a file that
//! nothing names goes to the quarantine ([`LocalStore::quarantined`]).
//!
//! # A failed sync
//! One of a data file or its folder refuses the object: the file is dropped, and nothing was ever read from it. One of
//! the index is final: the call answers [`StoreError::Unknown`], every later one [`StoreError::Stopped`], reads too,
//! until the store is opened anew; that rewrites the index to a fresh file before anything is answered from it.
//!
//! # What it assumes of the disk
//! What [`host::disk`] says, and what [`catalogue::database`] says of SQLite's.
//!
//! # A full disk
//! New data is refused while [`Options::reserve_bytes`] is left; deleting goes on. If others fill the
//! disk to the last byte, changes and opening are refused until there is a little room again; reads
//! go on and nothing is lost.
//!
//! # What it does not hide
//! Bucket ids, object names, lengths, dates and the number of parts are in the clear in the index,
//! and the number and size of data files can be seen. Neither content nor envelopes are: they come
//! sealed. Nothing detects that the whole directory was set back to an older state.

mod at_hand;
mod change;
mod data_file;
mod intents;
mod lanes;
mod layout;
mod lifecycle;
mod look_through;
mod lookup;
mod reader;
mod recovery;
mod schema;
mod sealed;
mod shared;
mod sink;
pub mod stamp;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use catalogue::database::Look;
use crypto::chunk::CHUNK_LEN;
use crypto::random::Random;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use self::at_hand::AtHand;
use self::intents::Intents;
use self::lanes::{INDEX, in_lane};
use self::layout::Directory;
use self::lifecycle::{Bin, Life, Pins};
pub use self::look_through::Through;
use self::schema::{Readers, failed};
use self::shared::Shared;
use self::sink::{LocalPart, LocalPut};
use self::writer::Machine;
use super::{
    BucketRecord, Commit, Condition, ListEntry, ListQuery, ObjectRecord, ObjectStore,
    PART_NUMBER_MAX, Page, PartRecord, PartSeen, PartSink, PutSink, Resealed, SealedAt,
    SealedReader, SealedRow, StoreError, UploadEntry, UploadId, UploadQuery, UploadRecord,
    check_envelope, check_key, check_part_order,
};
use host::{Disk, Lock, OsDisk};

/// Lists that run at a time; more wait. Point lookups are not counted.
const LISTS_MAX: usize = 16;
/// Parts that are looked up on the caller's thread; more are on a blocking one.
const PARTS_AT_HAND_MAX: usize = 64;

/// How to open a [`LocalStore`].
pub struct Options {
    /// The store's directory; created where it is missing, with mode 0700.
    pub dir: PathBuf,
    /// For file names and upload ids.
    pub random: Arc<dyn Random>,
    /// Objects up to this many bytes are kept in the index. Measured: 12 times as many durable
    /// 4 KiB puts a second at 64 clients as with a file each.
    pub inline_len_max: usize,
    /// New data is refused with [`StoreError::NoSpace`] when less than this is free, so that
    /// deleting, which also writes to the index, still works on a full disk.
    pub reserve_bytes: u64,
    /// Write large objects past the page cache where the file system can.
    pub direct_io: bool,
    /// How long the log of the index may be, in bytes, before it is moved into it: two more syncs each time, and hot
    /// pages are written again.
    pub checkpoint_every: usize,
    /// Files removed before their folders are synced and their intents end.
    pub removed_kept: usize,
    /// Names of data files drawn at a time, when fewer are left; their intents go into whatever commit comes by.
    pub names_drawn: usize,
    /// The number of the last folder that new data files go to; the first is 0.
    pub folders: u8,
    /// Whether [`stamp::inspect`] has looked for damage in the index and nobody has changed it since: it is not read a
    /// second time.
    pub looked_at: bool,
    /// What everything is on.
    pub disk: Arc<dyn Disk>,
    /// The name of a VFS registered with SQLite, on the same disk; `None` is its own.
    pub vfs: Option<String>,
}

impl Options {
    /// The defaults for a directory.
    pub fn new(dir: impl Into<PathBuf>, random: Arc<dyn Random>) -> Self {
        Self {
            dir: dir.into(),
            random,
            inline_len_max: CHUNK_LEN,
            reserve_bytes: 64 << 20,
            direct_io: true,
            checkpoint_every: 16 << 20,
            removed_kept: 256,
            names_drawn: 64,
            folders: 0xff,
            looked_at: false,
            disk: Arc::new(OsDisk),
            vfs: None,
        }
    }
}

/// Keeps sealed objects in a local directory. See the [module](self).
pub struct LocalStore {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    quarantined: u64,
    looked_at: bool,
}

impl LocalStore {
    /// Opens the store, creating it where there is none. Blocks: it reads the index once unless that is too long for it or
    /// was done, and after a crash looks at the name of every data file.
    ///
    /// # Errors
    /// [`StoreError::Held`], [`StoreError::NewerFormat`], [`StoreError::Corrupt`], [`StoreError::DamagedIndex`], and those of the machine.
    pub fn open(options: Options) -> Result<Self, StoreError> {
        let io = |what| move |e| StoreError::io(what, e);
        let disk = Arc::clone(&options.disk);
        let directory = Directory::create(disk, &options.dir, options.folders);
        let directory = Arc::new(directory.map_err(io("create the directory"))?);
        let lock = hold(&directory)?;
        recovery::refuse_files_without_index(&directory)?;
        let site = schema::site(&directory, options.vfs);
        let look = match options.looked_at {
            true => Look::Done,
            false => schema::LOOK,
        };
        let mut index = schema::open_for_writing(&site, look)?;
        let looked_at = schema::is_short(&index)?;
        let closed = meta(&index, "clean")? != 0;
        let moved = recovery::recover(&directory, &index, closed)?;
        if !closed {
            tracing::info!(
                quarantined = moved,
                "the object store was not closed; it is whole again"
            );
        }
        let intents = Arc::new(Intents::new(
            Arc::clone(&options.random),
            options.folders,
            options.names_drawn.max(1),
        ));
        begin(&index, &intents)?;
        let quarantined = directory
            .disk()
            .list(&directory.quarantine())
            .map_err(io("count what is in the quarantine"))?
            .len() as u64;

        let life = Arc::new(Life::default());
        let bin = Bin::start(directory.clone(), options.removed_kept)
            .map_err(io("start the reclaiming thread"))?;
        let pins = Pins::new(bin.clone());
        let machine = Machine {
            log_pages: writer::count_log_pages(&mut index).map_err(failed("watch the log"))?,
            sequence: meta(&index, "sequence")?,
            index,
            site: site.clone(),
            checkpoint_every: options.checkpoint_every,
            intents: intents.clone(),
            pins: pins.clone(),
            bin: bin.clone(),
            life: life.clone(),
            lock,
        };
        let (writer, thread) = writer::start(machine).map_err(io("start the index thread"))?;
        let shared = Shared {
            readers: Readers::new(site, life.clone()),
            direct: options.direct_io && data_file::direct_io_works(&directory),
            directory,
            random: options.random,
            inline_len_max: options.inline_len_max as u64,
            reserve_bytes: options.reserve_bytes,
            lists: Semaphore::new(LISTS_MAX),
            at_hand: AtHand::default(),
            writer,
            intents,
            pins,
            bin,
            life,
        };
        Ok(Self {
            shared: Arc::new(shared),
            thread: Mutex::new(Some(thread)),
            quarantined,
            looked_at,
        })
    }

    /// Whether the index is short enough to have been looked at for damage before the store was opened, by it or its owner.
    pub fn was_looked_at(&self) -> bool {
        self.looked_at
    }

    /// How many data files were in the quarantine when the store was opened: files that nothing names.
    pub fn quarantined(&self) -> u64 {
        self.quarantined
    }

    /// Refuses with [`StoreError::Stopped`], which says why, if the store has stopped answering until it is opened
    /// anew.
    pub fn healthy(&self) -> Result<(), StoreError> {
        self.shared.life.serving()
    }

    /// Waits until the store has stopped: [`healthy`](Self::healthy) says why. Never if it is closed before. Cancel-safe.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let life = self.shared.life.clone();
        async move { life.stopped().await }
    }

    /// Waits until nothing is left to do behind what was answered: the log of the index is moved where it was due, files
    /// that nobody needs are removed.
    pub async fn settle(&self) {
        self.shared.writer.settle().await;
        self.shared.bin.flush().await;
    }

    /// Finishes the changes that are queued, refuses new ones, and lets go of the directory. Reads
    /// may go on. Without this the same happens in the background when the store and the last of
    /// its sinks are dropped.
    pub async fn close(&self) {
        self.shared.life.close();
        self.shared.writer.stop().await;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && let Ok(Err(_panic)) = tokio::task::spawn_blocking(move || thread.join()).await
        {
            tracing::error!("the object index thread panicked");
        }
        self.shared.bin.flush().await;
    }

    /// A change of the index on the writer thread.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut writer::Batch<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.writer.submit(change).await
    }

    /// A look at the index that may take long, on a blocking thread.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let _permit = self
            .shared
            .lists
            .acquire()
            .await
            .map_err(|_| StoreError::Closed)?;
        in_lane(&INDEX, move || shared.readers.with(look)).await
    }
}

fn hold(directory: &Directory) -> Result<Lock, StoreError> {
    Lock::take(directory.disk(), &directory.lock_file()).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => StoreError::Held,
        _ => StoreError::io("take the lock", e),
    })
}

/// Marks the index as open, ends the intents of earlier lives and draws the first ids, in one commit.
fn begin(index: &Connection, intents: &Intents) -> Result<(), StoreError> {
    let what = "mark as open";
    let transaction = index.unchecked_transaction().map_err(failed(what))?;
    intents::clear(index)?;
    let drawn = intents.draw(index)?;
    index
        .execute("UPDATE meta SET value = 0 WHERE name = 'clean'", [])
        .map_err(failed(what))?;
    transaction.commit().map_err(failed(what))?;
    intents.add(drawn);
    Ok(())
}

fn meta(index: &Connection, name: &str) -> Result<u64, StoreError> {
    index
        .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
            row.get::<_, i64>(0)
        })
        .map(|value| value.cast_unsigned())
        .map_err(failed("read the state of the store"))
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let bucket = bucket.to_owned();
        self.change(move |batch| change::create_bucket(batch, &bucket))
            .await
    }

    async fn close_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let bucket = bucket.to_owned();
        self.change(move |batch| change::close_bucket(batch, &bucket))
            .await
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let bucket = bucket.to_owned();
        self.change(move |batch| change::delete_bucket(batch, &bucket))
            .await
    }

    async fn buckets(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<BucketRecord>, StoreError> {
        let after = after.map(str::to_owned);
        self.look(move |index| lookup::buckets(index, after.as_deref(), limit))
            .await
    }

    async fn sealed(
        &self,
        after: Option<&SealedAt>,
        limit: usize,
    ) -> Result<Page<SealedRow>, StoreError> {
        let after = after.cloned();
        self.look(move |index| sealed::page(index, after.as_ref(), limit))
            .await
    }

    async fn reseal(&self, records: Vec<Resealed>) -> Result<u64, StoreError> {
        for record in &records {
            check_envelope(&record.envelope)?;
        }
        self.change(move |batch| sealed::replace(batch.index, &records))
            .await
    }

    async fn begin_put(
        &self,
        bucket: &str,
        key: &str,
        plain_len: Option<u64>,
    ) -> Result<Box<dyn PutSink>, StoreError> {
        check_key(key)?;
        let name = bucket.to_owned();
        let look = move |shared: &Shared| {
            let found = |index: &Connection| lookup::bucket_number(index, &name);
            shared.readers.with(found)?;
            shared.check_space(plain_len)
        };
        self.shared.look_up(look).await?;
        Ok(Box::new(LocalPut::new(
            self.shared.clone(),
            bucket,
            key,
            plain_len,
        )))
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectRecord, StoreError> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let look = move |shared: &Shared| {
            let found = |index: &Connection| lookup::object(index, &bucket, &key);
            Ok(shared.readers.with(found)?.record)
        };
        self.shared.look_up(look).await
    }

    async fn open(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<(ObjectRecord, Arc<dyn SealedReader>), StoreError> {
        let names = (bucket.to_owned(), key.to_owned());
        let few = move |shared: &Shared| shared.open(&names.0, &names.1, PARTS_AT_HAND_MAX);
        let (record, reader) = match self.shared.look_up(few).await? {
            Some(opened) => opened,
            None => {
                let (shared, bucket, key) =
                    (self.shared.clone(), bucket.to_owned(), key.to_owned());
                let all = move || shared.open(&bucket, &key, usize::MAX);
                let opened = in_lane(&INDEX, all).await?;
                opened.expect("no object has more parts than that")
            }
        };
        Ok((record, Arc::new(reader)))
    }

    async fn replace_envelope(
        &self,
        bucket: &str,
        key: &str,
        sequence: u64,
        envelope: Bytes,
    ) -> Result<ObjectRecord, StoreError> {
        check_envelope(&envelope)?;
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.change(move |batch| change::replace_envelope(batch, &bucket, &key, sequence, envelope))
            .await
    }

    async fn delete(
        &self,
        bucket: &str,
        key: &str,
        condition: Condition,
    ) -> Result<bool, StoreError> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.change(move |batch| {
            let bucket = lookup::bucket_number(batch.index, &bucket)?;
            change::delete(batch, bucket, &key, condition)
        })
        .await
    }

    async fn delete_many(
        &self,
        bucket: &str,
        keys: &[(String, Condition)],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        let (bucket, keys) = (bucket.to_owned(), keys.to_vec());
        self.change(move |batch| {
            let bucket = lookup::bucket_number(batch.index, &bucket)?;
            keys.iter()
                .map(
                    |(key, condition)| match change::delete(batch, bucket, key, *condition) {
                        // Found out before anything was changed.
                        Err(refused @ StoreError::PreconditionFailed { .. }) => Ok(Err(refused)),
                        other => other.map(Ok),
                    },
                )
                .collect()
        })
        .await
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<Page<ListEntry>, StoreError> {
        let (bucket, query) = (bucket.to_owned(), query.clone());
        self.look(move |index| lookup::list(index, &bucket, &query))
            .await
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        envelope: Bytes,
        initiated: SystemTime,
    ) -> Result<UploadRecord, StoreError> {
        check_key(key)?;
        check_envelope(&envelope)?;
        let mut random = [0; 16];
        self.shared.random.fill(&mut random);
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.change(move |batch| {
            change::create_upload(batch, &bucket, random, |id| UploadRecord {
                id,
                key,
                initiated,
                envelope,
            })
        })
        .await
    }

    async fn upload(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
    ) -> Result<UploadRecord, StoreError> {
        let (bucket, key, id) = (bucket.to_owned(), key.to_owned(), id.clone());
        let look = move |shared: &Shared| {
            shared.readers.with(|index| {
                let bucket = lookup::bucket_number(index, &bucket)?;
                Ok(lookup::upload_in(index, bucket, &key, &id)?.record)
            })
        };
        self.shared.look_up(look).await
    }

    async fn begin_part(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
        number: u32,
        plain_len: Option<u64>,
    ) -> Result<Box<dyn PartSink>, StoreError> {
        if !(1..=PART_NUMBER_MAX).contains(&number) {
            return Err(StoreError::Misuse("a part number outside 1 to 10000"));
        }
        self.upload(bucket, key, id).await?;
        let space = move |shared: &Shared| shared.check_space(plain_len);
        self.shared.look_up(space).await?;
        Ok(Box::new(LocalPart::new(
            self.shared.clone(),
            bucket,
            key,
            id,
            number,
            plain_len,
        )))
    }

    async fn parts(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
        after: u32,
        limit: usize,
    ) -> Result<Page<PartRecord>, StoreError> {
        let (bucket, key, id) = (bucket.to_owned(), key.to_owned(), id.clone());
        self.look(move |index| {
            let view = index
                .unchecked_transaction()
                .map_err(failed("begin to read"))?;
            let bucket = lookup::bucket_number(&view, &bucket)?;
            let upload = lookup::upload_in(&view, bucket, &key, &id)?;
            let ask = if limit == 0 {
                0
            } else {
                limit.saturating_add(1)
            };
            let rows = lookup::parts(&view, upload.content, after, ask)?;
            let mut entries: Vec<_> = rows.into_iter().map(|row| row.record).collect();
            let truncated = entries.len() > limit;
            entries.truncate(limit);
            Ok(Page { entries, truncated })
        })
        .await
    }

    async fn uploads(
        &self,
        bucket: &str,
        query: &UploadQuery,
    ) -> Result<Page<UploadEntry>, StoreError> {
        let (bucket, query) = (bucket.to_owned(), query.clone());
        self.look(move |index| lookup::uploads(index, &bucket, &query))
            .await
    }

    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &UploadId,
        parts: &[PartSeen],
        commit: Commit,
    ) -> Result<ObjectRecord, StoreError> {
        check_envelope(&commit.envelope)?;
        check_part_order(parts)?;
        let (bucket, key, id, parts) = (
            bucket.to_owned(),
            key.to_owned(),
            id.clone(),
            parts.to_vec(),
        );
        self.change(move |batch| change::complete_upload(batch, &bucket, key, &id, &parts, commit))
            .await
    }

    async fn abort_upload(&self, bucket: &str, key: &str, id: &UploadId) -> Result<(), StoreError> {
        let (bucket, key, id) = (bucket.to_owned(), key.to_owned(), id.clone());
        self.change(move |batch| change::abort_upload(batch, &bucket, &key, &id))
            .await
    }
}
