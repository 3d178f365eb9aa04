//! Segment files: where records stay, for people and log shippers to read.
//!
//! A segment is `audit-N.jsonl`, N the number of its first record in 20 digits, mode 0600: whole lines and nothing
//! else, appended when they are durable in the journal. It is synced when the journal needs the place
//! of what went into it, before the next segment is made, and at the end.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use host::{Disk, EntryKind, File, Mode, private};

use crate::error::AuditError;

/// The name of the segment that begins with record `first`.
pub(crate) fn path_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("audit-{first:020}.jsonl"))
}

fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// The segments in a folder by the numbers of their first records, in order; none if there is no folder.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    if disk.kind(dir)? != Some(EntryKind::Folder) {
        return Ok(Vec::new());
    }
    let mut firsts: Vec<u64> = disk
        .list(dir)?
        .iter()
        .filter(|entry| entry.kind == EntryKind::File)
        .filter_map(|entry| first_of(entry.name.to_str()?))
        .collect();
    firsts.sort_unstable();
    Ok(firsts)
}

/// Greatest length of a segment that is read: a segment and its last group, whatever was configured.
const SEGMENT_READ_MAX: u64 = 4 << 30;

pub(crate) fn read_segment(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, AuditError> {
    private::read(disk, path, SEGMENT_READ_MAX).map_err(|error| AuditError::io(path, &error))
}

/// The segments as they are written.
#[derive(Debug)]
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The last one, and the number of its first record.
    current: Option<(u64, Arc<dyn File>)>,
    /// Durable in the journal, not here yet.
    pending: VecDeque<Place>,
    /// The last record that is here, synced or not.
    last: u64,
    /// Whether the journal waits for a sync.
    due: bool,
}

/// Lines, and where they go.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) lines: Vec<u8>,
    /// The last record in the log once they are here.
    pub(crate) last: u64,
}

impl Segments {
    /// The segments up to record `last`.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, last: u64) -> Self {
        Self {
            disk,
            dir,
            current: None,
            pending: VecDeque::new(),
            last,
            due: false,
        }
    }

    /// The next sync that is asked for is needed: the journal is to overwrite what is here.
    pub(crate) fn set_due(&mut self) {
        self.due = true;
    }

    /// Takes lines that are to be written.
    pub(crate) fn put(&mut self, place: Place) {
        if !place.lines.is_empty() {
            self.pending.push_back(place);
        }
    }

    /// Sees to it that the lengths of segments that end with these places are written by the next sync. After a failed
    /// sync a length that was not written counts as clean, like a page; writing the same bytes anew makes pages dirty
    /// and not the length. A byte less does, and is written again with the rest. Call it before the places are taken.
    pub(crate) fn unsettle(&self, places: &[Place]) -> io::Result<()> {
        for (index, place) in places.iter().enumerate() {
            let ends = places.get(index + 1).map(|next| next.segment) != Some(place.segment);
            let path = path_of(&self.dir, place.segment);
            if !ends || place.lines.is_empty() || self.disk.kind(&path)?.is_none() {
                continue;
            }
            let file = self.disk.open(&path, Mode::Write)?;
            if file.len()? == place.offset + place.lines.len() as u64 {
                file.set_len(place.offset + place.lines.len() as u64 - 1)?;
            }
        }
        Ok(())
    }

    /// Appends what was taken. What was not appended when it fails is appended by the next call, at the same place.
    pub(crate) fn append(&mut self) -> io::Result<()> {
        while let Some(place) = self.pending.front() {
            let file = match &self.current {
                Some((first, file)) if *first == place.segment => file,
                before => {
                    // What came before must not be lost while what comes after is there.
                    if let Some((_, file)) = before {
                        file.sync_data().map_err(final_failure)?;
                    }
                    let path = path_of(&self.dir, place.segment);
                    let file = self.disk.open(&path, Mode::Create)?;
                    self.disk.sync_dir(&self.dir).map_err(final_failure)?;
                    &self.current.insert((place.segment, file)).1
                }
            };
            if let Err(error) = file.write_at(place.offset, &place.lines) {
                // Whoever follows the live file finds whole records, also while the disk is full. If it is not cut
                // now, the next call writes over it.
                let _ = file.set_len(place.offset);
                return Err(error);
            }
            self.last = place.last;
            self.pending.pop_front();
        }
        Ok(())
    }

    /// Syncs the segment if the journal waits for it; the last record that is synced then.
    pub(crate) fn sync_if_due(&mut self) -> io::Result<Option<u64>> {
        if !self.due || !self.pending.is_empty() {
            return Ok(None);
        }
        self.sync()?;
        self.due = false;
        Ok(Some(self.last))
    }

    /// Syncs the segment.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        match &self.current {
            Some((_, file)) => file.sync_data(),
            None => Ok(()),
        }
    }
}

/// A failed sync is final whatever it says: a full disk included.
fn final_failure(error: io::Error) -> io::Error {
    io::Error::other(error.to_string())
}
