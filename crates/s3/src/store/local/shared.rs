//! What the store, its sinks and its readers share: looks at the index, space, names and data files.

use std::sync::Arc;

use bytes::Bytes;
use crypto::random::Random;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::at_hand::AtHand;
use super::data_file;
use super::intents::Intents;
use super::lanes::{INDEX, in_lane};
use super::layout::{Directory, FileId};
use super::lifecycle::{Bin, Life, Pins};
use super::lookup::{self, ObjectRow, Place};
use super::reader::{Bodies, LocalReader};
use super::schema::{Readers, failed};
use super::writer::Writer;
use crate::store::{ObjectRecord, PartRecord, StoreError};

/// What the store, its sinks and its readers share.
pub(super) struct Shared {
    pub(super) directory: Arc<Directory>,
    pub(super) random: Arc<dyn Random>,
    pub(super) inline_len_max: u64,
    pub(super) reserve_bytes: u64,
    pub(super) direct: bool,
    pub(super) readers: Readers,
    pub(super) lists: Semaphore,
    pub(super) at_hand: AtHand,
    pub(super) writer: Writer,
    pub(super) intents: Arc<Intents>,
    pub(super) pins: Arc<Pins>,
    pub(super) bin: Bin,
    pub(super) life: Arc<Life>,
}

impl Shared {
    /// A look at a few pages of the index, which are in memory but for the first time: on the caller's thread, if that
    /// holds up nobody, else where it may wait for the disk.
    pub(super) async fn look_up<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if let Some(_turn) = self.at_hand.take() {
            return look(self);
        }
        let shared = Arc::clone(self);
        in_lane(&INDEX, move || look(&shared)).await
    }

    pub(super) fn check_space(&self, expected: Option<u64>) -> Result<(), StoreError> {
        let free = self
            .directory
            .free_bytes()
            .map_err(|e| StoreError::io("ask for free space", e))?;
        let wanted = self.reserve_bytes.saturating_add(expected.unwrap_or(0));
        if free < wanted {
            Err(StoreError::NoSpace)
        } else {
            Ok(())
        }
    }

    /// A name for a data file that there is a durable intent for.
    pub(super) async fn file_id(&self) -> Result<FileId, StoreError> {
        loop {
            if let Some(id) = self.intents.take() {
                return Ok(id);
            }
            // Any commit draws more; so many were taken since the last one that there must be one more.
            self.writer.submit(|_| Ok(())).await?;
        }
    }

    /// Makes a data file. Blocks.
    pub(super) fn new_file(
        &self,
        id: FileId,
        expected_len: Option<u64>,
    ) -> Result<data_file::Writer, StoreError> {
        data_file::Writer::create(
            self.directory.clone(),
            id,
            self.bin.clone(),
            &self.life,
            self.direct,
            expected_len,
        )
    }

    /// Looks an object up and pins it. `None` if it has more than `parts_max` parts.
    pub(super) fn open(
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
                    (Place::Lost, _) => {
                        let why = "an object's row does not name its data file";
                        return Err(StoreError::Corrupt(why.into()));
                    }
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
pub(super) fn parts_of(
    index: &Connection,
    row: &ObjectRow,
) -> Result<(Vec<PartRecord>, Vec<FileId>), StoreError> {
    let (parts, files): (Vec<PartRecord>, Vec<_>) =
        lookup::parts(index, row.content, 0, usize::MAX)?
            .into_iter()
            .map(|part| (part.record, part.file))
            .unzip();
    let Some(files) = files.into_iter().collect::<Option<Vec<_>>>() else {
        let why = "a part's row does not name its data file";
        return Err(StoreError::Corrupt(why.into()));
    };
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
