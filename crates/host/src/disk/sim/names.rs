//! The names in the simulated folders: as processes see them, and as they are on the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io,
    path::{Component, Path},
};

use super::content::Keep;
use crate::entropy::SeededEntropy;

/// A file or a folder.
pub(super) type Id = u64;

/// The folder that all paths begin with.
pub(super) const ROOT: Id = 0;

#[derive(Debug, Clone, Default)]
struct Folder {
    now: BTreeMap<OsString, Id>,
    disk: BTreeMap<OsString, Id>,
}

/// A name gets another meaning.
#[derive(Debug, Clone)]
struct Change {
    folder: Id,
    name: OsString,
    to: Option<Id>,
}

/// What happens together or not at all, until one of its folders is synced.
#[derive(Debug, Clone)]
struct Step {
    changes: Vec<Change>,
    /// Whether it stays whole even when only one of its folders is synced: a folder has one name.
    whole: bool,
}

/// The tree of names.
#[derive(Debug, Clone)]
pub(super) struct Names {
    folders: BTreeMap<Id, Folder>,
    /// What no sync has made durable, in order.
    pending: Vec<Step>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            folders: BTreeMap::from([(ROOT, Folder::default())]),
            pending: Vec::new(),
        }
    }

    pub(super) fn is_folder(&self, id: Id) -> bool {
        self.folders.contains_key(&id)
    }

    /// What a path stands for.
    pub(super) fn find(&self, path: &Path) -> io::Result<Option<Id>> {
        let Some((folder, name)) = self.split(path)? else {
            return Ok(Some(ROOT));
        };
        Ok(self.get(folder, name))
    }

    /// The folder that a path leads to and the name in it; `None` for the root.
    pub(super) fn split<'a>(&self, path: &'a Path) -> io::Result<Option<(Id, &'a OsStr)>> {
        let mut found: Option<(Id, &OsStr)> = None;
        for part in path.components() {
            let name = match part {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name,
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            };
            let folder = match found {
                None => ROOT,
                Some((folder, name)) => self
                    .get(folder, name)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?,
            };
            if !self.is_folder(folder) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            found = Some((folder, name));
        }
        Ok(found)
    }

    pub(super) fn get(&self, folder: Id, name: &OsStr) -> Option<Id> {
        self.folders.get(&folder)?.now.get(name).copied()
    }

    /// What is in a folder, in order.
    pub(super) fn list(&self, folder: Id) -> impl Iterator<Item = (&OsString, Id)> {
        let names = self.folders.get(&folder).map(|folder| &folder.now);
        names.into_iter().flatten().map(|(name, id)| (name, *id))
    }

    pub(super) fn add_folder(&mut self, id: Id) {
        self.folders.insert(id, Folder::default());
    }

    /// Changes names, at once for processes.
    pub(super) fn change(&mut self, changes: &[(Id, &OsStr, Option<Id>)], whole: bool) {
        let changes: Vec<_> = changes
            .iter()
            .map(|(folder, name, to)| Change {
                folder: *folder,
                name: (*name).to_owned(),
                to: *to,
            })
            .collect();
        for change in &changes {
            if let Some(folder) = self.folders.get_mut(&change.folder) {
                set(&mut folder.now, change);
            }
        }
        self.pending.push(Step { changes, whole });
    }

    /// Makes the names of a folder durable.
    pub(super) fn sync(&mut self, id: Id) {
        let mut commit = Vec::new();
        for (at, step) in self.pending.iter().enumerate() {
            let whole = step.whole && step.changes.iter().any(|change| change.folder == id);
            let ours = step.changes.iter();
            let ours = ours.filter(|change| whole || change.folder == id);
            commit.extend(ours.map(|change| (at, change.clone())));
        }
        for (at, change) in commit {
            if let Some(folder) = self.folders.get_mut(&change.folder) {
                set(&mut folder.disk, &change);
            }
            // Neither it nor what came before it for this name is open any more.
            for step in &mut self.pending[..=at] {
                step.changes
                    .retain(|other| (other.folder, &other.name) != (change.folder, &change.name));
            }
        }
        self.pending.retain(|step| !step.changes.is_empty());
    }

    /// Of the changes that were not synced, any are kept; of those of one name, the first ones.
    pub(super) fn power_fails(&mut self, rng: &SeededEntropy) {
        let keep = Keep::draw(rng);
        let mut stopped = BTreeSet::new();
        for step in std::mem::take(&mut self.pending) {
            let follows = step
                .changes
                .iter()
                .all(|change| !stopped.contains(&(change.folder, change.name.clone())));
            let kept = follows && keep.one(rng);
            for change in step.changes {
                if !kept {
                    stopped.insert((change.folder, change.name));
                } else if let Some(folder) = self.folders.get_mut(&change.folder) {
                    set(&mut folder.disk, &change);
                }
            }
        }
        for folder in self.folders.values_mut() {
            folder.now.clone_from(&folder.disk);
        }
        let reached: BTreeSet<_> = self.reached().into_iter().map(|(_, id)| id).collect();
        self.folders
            .retain(|id, _| *id == ROOT || reached.contains(id));
    }

    /// Everything that has a name now, with its path, in order; a file with two names twice.
    pub(super) fn reached(&self) -> Vec<(std::path::PathBuf, Id)> {
        let mut found = Vec::new();
        let mut open = vec![(std::path::PathBuf::from("/"), ROOT)];
        while let Some((path, folder)) = open.pop() {
            for (name, id) in self.list(folder) {
                let path = path.join(name);
                if self.is_folder(id) {
                    open.push((path.clone(), id));
                }
                found.push((path, id));
            }
        }
        found.sort();
        found
    }
}

fn set(names: &mut BTreeMap<OsString, Id>, change: &Change) {
    match change.to {
        Some(id) => names.insert(change.name.clone(), id),
        None => names.remove(&change.name),
    };
}
