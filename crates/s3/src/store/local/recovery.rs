//! What a start does with data files that no row names.
//!
//! Those that an intent names are removed: they were on their way in or out. Those that nothing names are not ours to
//! remove: an index that was put back from an older copy does not know the newer ones. They go to the quarantine, where
//! an operator finds them.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::layout::{Directory, FileId, remove};
use super::{intents, lookup};
use crate::store::StoreError;

/// Removes what intents name, and puts what nothing names aside. After a close in order there is none of the latter, and
/// names are not looked through. Durable when it returns; the intents are the caller's to end. Says how many files
/// were put aside.
pub(super) fn recover(
    directory: &Directory,
    index: &Connection,
    closed: bool,
) -> Result<usize, StoreError> {
    let failed = |e| StoreError::io("remove data files that were not finished", e);
    let mut named = match closed {
        true => Default::default(),
        false => lookup::files(index)?,
    };
    let mut folders = BTreeSet::new();
    for id in intents::all(index)? {
        if named.contains(&id) {
            // One of the two is damaged. It stops no start, and nothing is removed that a row may need.
            tracing::error!(file = %id, "a data file is in use, and there is an intent to remove it: it stays");
            continue;
        }
        remove(directory.disk(), &directory.data_file(id)).map_err(failed)?;
        folders.insert(id.folder());
    }
    // Also where there was nothing to remove: an earlier start may have come so far. Were a file to come back after
    // its intent has ended, nothing would name it.
    for folder in folders {
        let path = directory.folder(folder);
        directory.disk().sync_dir(&path).map_err(failed)?;
    }
    if closed {
        return Ok(0);
    }
    let failed = |e| StoreError::io("put data files aside that nothing names", e);
    let mut aside = 0;
    for folder in directory.folders().map_err(failed)? {
        aside += put_aside(directory, folder, &mut named).map_err(failed)?;
    }
    for id in &named {
        // Its readers are told so; everything else can still be served.
        tracing::error!(file = %id, "a data file that the object index names is missing");
    }
    Ok(aside)
}

/// Moves the files of a folder that are not `named` to the quarantine, and takes those that are there out of `named`.
/// Files that the store would not have made are left alone.
fn put_aside(
    directory: &Directory,
    folder: u8,
    named: &mut std::collections::HashSet<FileId>,
) -> std::io::Result<usize> {
    let disk = directory.disk();
    let mut moved = 0;
    for entry in disk.list(&directory.folder(folder))? {
        let id = match entry.name.to_str().and_then(FileId::parse) {
            Some(id) if !named.remove(&id) => id,
            _ => continue,
        };
        let mut to = directory.quarantine().join(id.to_string());
        // Never over one that is there.
        let mut number = 1;
        while disk.kind(&to)?.is_some() {
            to.set_file_name(format!("{id}.{number}"));
            number += 1;
        }
        disk.rename(&directory.data_file(id), &to)?;
        tracing::error!(file = %id, "nothing names this data file; it is in the quarantine now");
        moved += 1;
    }
    if moved > 0 {
        // Where they go to first: a file that has lost both names is lost.
        disk.sync_dir(&directory.quarantine())?;
        disk.sync_dir(&directory.folder(folder))?;
    }
    Ok(moved)
}

/// Refuses a directory whose index is gone: the store would come up empty, and every data file be one that nothing names.
pub(super) fn refuse_files_without_index(directory: &Directory) -> Result<(), StoreError> {
    let failed = |e| StoreError::io("look for an index", e);
    if directory.has_index().map_err(failed)? {
        return Ok(());
    }
    for folder in directory.folders().map_err(failed)? {
        let entries = directory.disk().list(&directory.folder(folder));
        for entry in entries.map_err(failed)? {
            if entry.name.to_str().and_then(FileId::parse).is_some() {
                return Err(StoreError::Corrupt(
                    "index.db is gone and data files are there: put the index back, or move the whole directory away to \
                     begin anew"
                        .into(),
                ));
            }
        }
    }
    Ok(())
}
