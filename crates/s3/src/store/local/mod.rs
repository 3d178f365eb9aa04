//! The local store: an SQLite index and data files in one directory. `FORMAT.md` has the bytes.
//!
//! # How it is durable
//! Small objects (up to [`Options::inline_len_max`] sealed bytes) are rows of the index. Larger ones and
//! parts are written under a temporary name, given their final one and synced (file and folder)
//! *before* the transaction whose row makes them part of the store. The index syncs every commit;
//! one thread commits for all requests that have queued up meanwhile. So after a crash at any
//! point a row never names a file that is not whole; a file that no row names is an orphan and is
//! removed at the next start.
//!
//! # What it assumes of the disk
//! That `fdatasync` and `fsync` of a folder do what they say, and that a rename within one file system
//! is atomic. After a failed sync of the index it takes no more changes until it is opened anew
//! ([`StoreError::Closed`]), because nobody can tell then what the disk holds.
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

mod change;
mod data_file;
mod layout;
mod lifecycle;
mod lookup;
mod reader;
mod schema;
mod sealed;
mod sink;
pub mod stamp;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use crypto::chunk::CHUNK_LEN;
use crypto::random::Random;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use self::layout::{Directory, FileId};
use self::lifecycle::{Life, Pins};
use self::lookup::{ObjectRow, Place};
use self::reader::{Bodies, LocalReader};
use self::schema::{Readers, failed};
use self::sink::{LocalPart, LocalPut};
use self::writer::{Machine, Writer};
use super::{
    BucketRecord, Commit, Condition, ListEntry, ListQuery, ObjectRecord, ObjectStore,
    PART_NUMBER_MAX, Page, PartRecord, PartSeen, PartSink, PutSink, Resealed, SealedAt,
    SealedReader, SealedRow, StoreError, UploadEntry, UploadId, UploadQuery, UploadRecord,
    check_envelope, check_key, check_part_order,
};
use host::{Disk as _, Lock, OsDisk};

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
        }
    }
}

/// What the store, its sinks and its readers share.
struct Shared {
    directory: Arc<Directory>,
    random: Arc<dyn Random>,
    inline_len_max: u64,
    reserve_bytes: u64,
    direct: bool,
    readers: Readers,
    lists: Semaphore,
    writer: Writer,
    pins: Arc<Pins>,
    life: Arc<Life>,
}

/// Keeps sealed objects in a local directory. See the [module](self).
pub struct LocalStore {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LocalStore {
    /// Opens the store, creating it where there is none. Blocks; after a crash it takes the time
    /// to look at the name of every data file.
    ///
    /// # Errors
    /// [`StoreError::Held`], [`StoreError::NewerFormat`], [`StoreError::Corrupt`], and those of the machine.
    pub fn open(options: Options) -> Result<Self, StoreError> {
        let io = |what| move |e| StoreError::io(what, e);
        let directory =
            Arc::new(Directory::create(&options.dir).map_err(io("create the directory"))?);
        let lock = hold(&directory)?;
        let index = schema::open_for_writing(&directory.index())?;
        sweep_temp(&directory).map_err(io("look through temp"))?;
        if meta(&index, "clean")? == 0 {
            let orphans = sweep_orphans(&directory, &index)?;
            tracing::info!(
                orphans,
                "the object store was not closed; it is whole again"
            );
        }
        index
            .execute("UPDATE meta SET value = 0 WHERE name = 'clean'", [])
            .map_err(failed("mark as open"))?;
        // The index and its log are there now. SQLite does not look whether its own sync of the folder failed: a power
        // cut would take them away, with all that they hold.
        OsDisk
            .sync_dir(&options.dir)
            .map_err(io("sync the directory"))?;

        let life = Arc::new(Life::default());
        let (pins, _reclaim) = Pins::start(directory.clone(), life.clone())
            .map_err(io("start the reclaiming thread"))?;
        let sequence = meta(&index, "sequence")?;
        let machine = Machine {
            index,
            sequence,
            pins: pins.clone(),
            life: life.clone(),
            lock,
        };
        let (writer, thread) = writer::start(machine).map_err(io("start the index thread"))?;
        let direct = options.direct_io
            && data_file::direct_io_works(&directory, FileId::new(&*options.random));
        let shared = Shared {
            readers: Readers::new(directory.index()),
            directory,
            random: options.random,
            inline_len_max: options.inline_len_max as u64,
            reserve_bytes: options.reserve_bytes,
            direct,
            lists: Semaphore::new(LISTS_MAX),
            writer,
            pins,
            life,
        };
        Ok(Self {
            shared: Arc::new(shared),
            thread: Mutex::new(Some(thread)),
        })
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
        blocking(move || shared.readers.with(look)).await
    }

    fn check_space(&self, expected: Option<u64>) -> Result<(), StoreError> {
        let free = self
            .shared
            .directory
            .free_bytes()
            .map_err(|e| StoreError::io("ask for free space", e))?;
        let wanted = self
            .shared
            .reserve_bytes
            .saturating_add(expected.unwrap_or(0));
        if free < wanted {
            Err(StoreError::NoSpace)
        } else {
            Ok(())
        }
    }
}

impl Shared {
    /// Looks an object up and pins it. `None` if it has more than `parts_max` parts.
    fn open(
        &self,
        bucket: &str,
        key: &str,
        parts_max: usize,
    ) -> Result<Option<(ObjectRecord, LocalReader)>, StoreError> {
        loop {
            let found = self.readers.with(|index| {
                let (row, sealed) = lookup::object_and_inline(index, bucket, key)?;
                match (&row.place, sealed) {
                    (Place::Parts, _) => {}
                    (Place::File(file), _) => {
                        let bodies = Bodies::Files(vec![*file]);
                        return Ok(Some((vec![whole(&row.record)], bodies, row)));
                    }
                    (Place::Inline, sealed) => {
                        let bodies = Bodies::Inline(sealed.unwrap_or_default());
                        return Ok(Some((vec![whole(&row.record)], bodies, row)));
                    }
                }
                if row.record.part_count as usize > parts_max {
                    return Ok(None);
                }
                // Again, in one view with its parts.
                let view = index
                    .unchecked_transaction()
                    .map_err(failed("begin to read"))?;
                let row = lookup::object(&view, bucket, key)?;
                if !matches!(row.place, Place::Parts) {
                    return Ok(Some((Vec::new(), Bodies::Files(Vec::new()), row)));
                }
                let (parts, files) = parts_of(&view, &row)?;
                Ok(Some((parts, Bodies::Files(files), row)))
            })?;
            let Some((parts, bodies, row)) = found else {
                return Ok(None);
            };
            if parts.is_empty() {
                // It was replaced between the two looks.
                continue;
            }
            let pin = match &bodies {
                Bodies::Inline(_) => None,
                Bodies::Files(_) => {
                    let pin = self.pins.pin(row.content);
                    let again = self
                        .readers
                        .with(|index| lookup::content(index, bucket, key))?;
                    if again != row.content {
                        // Replaced before the pin was there to be seen; its files may be gone.
                        continue;
                    }
                    Some(pin)
                }
            };
            let reader = LocalReader::new(parts, bodies, self.directory.clone(), pin);
            return Ok(Some((row.record, reader)));
        }
    }
}

/// An object in one piece as the one part it is read as.
fn whole(record: &ObjectRecord) -> PartRecord {
    PartRecord {
        number: 1,
        plain_len: record.size,
        modified: record.modified,
        sequence: record.sequence,
        envelope: Bytes::new(),
    }
}

/// The parts of an object and their files.
fn parts_of(
    index: &Connection,
    row: &ObjectRow,
) -> Result<(Vec<PartRecord>, Vec<FileId>), StoreError> {
    let (parts, files): (Vec<PartRecord>, Vec<_>) =
        lookup::parts(index, row.content, 0, usize::MAX)?
            .into_iter()
            .map(|part| (part.record, part.file))
            .unzip();
    let sum = parts
        .iter()
        .try_fold(0u64, |sum, part| sum.checked_add(part.plain_len));
    if parts.len() != row.record.part_count as usize || sum != Some(row.record.size) {
        return Err(StoreError::Corrupt(
            "an object and its parts disagree".into(),
        ));
    }
    Ok((parts, files))
}

/// Runs something that blocks off the event loop. If the caller goes away it runs on to its end.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    joined(tokio::task::spawn_blocking(work).await)
}

fn joined<T>(
    result: Result<Result<T, StoreError>, tokio::task::JoinError>,
) -> Result<T, StoreError> {
    match result.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down.
        Err(Err(_)) => Err(StoreError::Closed),
    }
}

fn hold(directory: &Directory) -> Result<Lock, StoreError> {
    Lock::take(&OsDisk, &directory.lock_file()).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => StoreError::Held,
        _ => StoreError::io("take the lock", e),
    })
}

fn meta(index: &Connection, name: &str) -> Result<u64, StoreError> {
    index
        .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
            row.get::<_, i64>(0)
        })
        .map(|value| value.cast_unsigned())
        .map_err(failed("read the state of the store"))
}

/// Removes what uploads left that were going on when the store was last used.
fn sweep_temp(directory: &Directory) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory.temp())? {
        layout::remove(&entry?.path())?;
    }
    Ok(())
}

/// Removes data files that no row names; files we would not have made are left alone.
fn sweep_orphans(directory: &Directory, index: &Connection) -> Result<usize, StoreError> {
    let failed = |e| StoreError::io("look for orphans", e);
    let mut named = lookup::files(index)?;
    let mut removed = 0;
    for fan in 0..=0xff {
        for entry in std::fs::read_dir(directory.folder(fan)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(id) = entry.file_name().to_str().and_then(FileId::parse) else {
                continue;
            };
            if !named.remove(&id) {
                layout::remove(&entry.path()).map_err(failed)?;
                removed += 1;
            }
        }
    }
    for id in &named {
        // Its readers are told so; everything else can still be served.
        tracing::error!(file = %id, "a data file that the object index names is missing");
    }
    Ok(removed)
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
        self.shared
            .readers
            .with(|index| lookup::bucket_number(index, bucket))?;
        self.check_space(plain_len)?;
        Ok(Box::new(LocalPut::new(
            self.shared.clone(),
            bucket,
            key,
            plain_len,
        )))
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectRecord, StoreError> {
        self.shared
            .readers
            .with(|index| lookup::object(index, bucket, key))
            .map(|row| row.record)
    }

    async fn open(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<(ObjectRecord, Arc<dyn SealedReader>), StoreError> {
        let (record, reader) = match self.shared.open(bucket, key, PARTS_AT_HAND_MAX)? {
            Some(opened) => opened,
            None => {
                let (shared, bucket, key) =
                    (self.shared.clone(), bucket.to_owned(), key.to_owned());
                let opened = blocking(move || shared.open(&bucket, &key, usize::MAX)).await?;
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
        self.shared.readers.with(|index| {
            let bucket = lookup::bucket_number(index, bucket)?;
            Ok(lookup::upload_in(index, bucket, key, id)?.record)
        })
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
        self.check_space(plain_len)?;
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
