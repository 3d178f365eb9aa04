//! Files are made under an intent: a row of the index, durable before the file is there.
//!
//! An intent says that a data file may be there that no row names: one on its way in, or one that was replaced and goes.
//! The commit that names the file takes the intent away, the commit that gives it up makes one. At start what an intent
//! names is removed; nothing else is.
//!
//! Ids are drawn ahead, a batch at a time, in whatever commit comes by, so that an intent costs no sync of its own. Those
//! of a batch share a folder, so that a start has few folders to sync.

use std::sync::Arc;

use crypto::random::Random;
use parking_lot::Mutex;
use rusqlite::Connection;

use super::layout::FileId;
use super::schema::failed;
use crate::store::StoreError;

/// Ids whose intents are durable, for files to be made under.
pub(super) struct Intents {
    ready: Mutex<Vec<FileId>>,
    random: Arc<dyn Random>,
    /// The last folder for data files.
    folders: u8,
    /// Ids drawn at a time, when fewer are left.
    drawn: usize,
}

impl Intents {
    pub(super) fn new(random: Arc<dyn Random>, folders: u8, drawn: usize) -> Self {
        Self {
            ready: Mutex::default(),
            random,
            folders,
            drawn,
        }
    }

    /// An id that nobody else gets; `None` if more must be drawn first.
    pub(super) fn take(&self) -> Option<FileId> {
        self.ready.lock().pop()
    }

    /// All that are left: nobody takes one any more.
    pub(super) fn take_all(&self) -> Vec<FileId> {
        std::mem::take(&mut self.ready.lock())
    }

    /// Draws more if few are left, in the transaction that is open. They may be taken once it is committed: see
    /// [`add`](Self::add).
    pub(super) fn draw(&self, index: &Connection) -> Result<Vec<FileId>, StoreError> {
        if self.ready.lock().len() >= self.drawn {
            return Ok(Vec::new());
        }
        let mut number = [0; 2];
        self.random.fill(&mut number);
        let folder = u16::from_le_bytes(number) % (u16::from(self.folders) + 1);
        let folder = u8::try_from(folder).expect("at most the last folder");
        let drawn = (0..self.drawn).map(|_| FileId::in_folder(folder, &*self.random));
        let mut drawn: Vec<_> = drawn.collect();
        // In their order, which is how the table has them.
        drawn.sort();
        insert(index, &drawn)?;
        Ok(drawn)
    }

    /// Adds what was drawn and is durable.
    pub(super) fn add(&self, drawn: Vec<FileId>) {
        self.ready.lock().extend(drawn);
    }
}

/// Makes intents.
pub(super) fn insert(index: &Connection, files: &[FileId]) -> Result<(), StoreError> {
    each(
        index,
        "INSERT INTO intent (file) VALUES (?1)",
        files,
        "make an intent",
    )
}

/// Takes intents away.
pub(super) fn remove(index: &Connection, files: &[FileId]) -> Result<(), StoreError> {
    each(
        index,
        "DELETE FROM intent WHERE file = ?1",
        files,
        "end an intent",
    )
}

fn each(
    index: &Connection,
    sql: &str,
    files: &[FileId],
    what: &'static str,
) -> Result<(), StoreError> {
    if files.is_empty() {
        return Ok(());
    }
    let mut statement = index.prepare_cached(sql).map_err(failed(what))?;
    for file in files {
        let changed = statement
            .execute([&file.as_bytes()[..]])
            .map_err(failed(what))?;
        if changed != 1 {
            return Err(StoreError::Corrupt(format!(
                "data file {file} has no intent"
            )));
        }
    }
    Ok(())
}

/// All intents.
pub(super) fn all(index: &Connection) -> Result<Vec<FileId>, StoreError> {
    let what = "read the intents";
    let mut statement = index
        .prepare("SELECT file FROM intent")
        .map_err(failed(what))?;
    let rows = statement.query_map([], |row| Ok(FileId::from_index(row.get_ref(0)?.as_blob()?)));
    let mut files = Vec::new();
    for id in rows.map_err(failed(what))? {
        match id.map_err(failed(what))? {
            Ok(file) => files.push(file),
            // Its file is put aside with those that nothing names.
            Err(error) => tracing::error!(%error, "an intent in the object index is damaged"),
        }
    }
    Ok(files)
}

/// Forgets all intents, when none of their files is there any more.
pub(super) fn clear(index: &Connection) -> Result<(), StoreError> {
    index
        .execute("DELETE FROM intent", [])
        .map(drop)
        .map_err(failed("end the intents"))
}
