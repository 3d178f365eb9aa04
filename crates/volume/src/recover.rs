//! What opening the registry finishes, undoes, mends and sets aside. `FORMAT.md`, "What a crash leaves", has the table.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use catalogue::Expect;
use host::{Disk, private};

use crate::{
    VolumeError, VolumeId,
    blocking::blocking,
    copy::{self, Found},
    descriptor::{Descriptor, Row},
    entry::Entry,
    files::{self, Folders},
    registry::{Registry, Rows},
    vault::{Seals, volume_id},
};

/// How a folder's copies stand to the volume's row.
pub(crate) enum Copies {
    Same,
    /// They are missing, damaged, older, or of a change that lost: the row is written there again.
    Behind,
    /// They are of a change that was made durable there and not in the row; it is finished.
    Ahead(Box<Descriptor>),
}

impl Registry {
    /// Reads the rows and brings folders and rows together. The folders are listed before the rows are read, so that a
    /// volume that another process makes meanwhile does not look like a folder without a row.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<(), VolumeError> {
        let folders = self
            .on_disk(|disk, dir| {
                private::create_dirs(disk, dir)?;
                files::list(disk, dir)
            })
            .await?
            .map_err(|error| VolumeError::from_io("opening the folder of volumes", error))?;
        let Rows { ours, all } = {
            let mut followed = self.followed.lock().await;
            self.load(&mut followed).await?
        };
        let Folders {
            creating,
            deleted,
            volumes,
        } = folders;
        for id in creating {
            self.finish_or_undo_creation(id, all.contains(&id)).await?;
        }
        for id in deleted {
            self.on_disk(move |disk, dir| files::remove_hidden(disk, dir, id))
                .await?;
        }
        for row in ours {
            if let (Ok(Row::Deleting), Some(id)) = (self.vault.open_row(&row), volume_id(&row.key))
            {
                self.finish_deletion(id).await;
            }
        }
        self.set_aside(&volumes, &all).await?;
        let entries: Vec<(VolumeId, Arc<Entry>)> = {
            let entries = self.entries.read();
            let entries = entries.iter();
            entries
                .map(|(id, entry)| (*id, Arc::clone(entry)))
                .collect()
        };
        for (id, entry) in entries {
            self.mend(id, &entry).await?;
        }
        self.on_disk(|disk, dir| disk.sync_dir(dir))
            .await?
            .map_err(|error| VolumeError::from_io("opening the folder of volumes", error))
    }

    /// A folder under the name of one that is being made: with a row it is whole and gets its name, without one it is
    /// removed.
    async fn finish_or_undo_creation(
        self: &Arc<Self>,
        id: VolumeId,
        named: bool,
    ) -> Result<(), VolumeError> {
        let busy = self.on_disk(move |disk, dir| files::is_being_made(disk, dir, id));
        if busy.await? {
            return Ok(());
        }
        // Read after nobody was seen at work: the row, if there is to be one, is there.
        if !named && self.refresh(id).await?.is_none() {
            return self
                .on_disk(move |disk, dir| files::discard(disk, dir, id))
                .await;
        }
        let placed = self.on_disk(move |disk, dir| files::place(disk, dir, id));
        if let Err(error) = placed.await? {
            tracing::error!(volume = %id, %error, "a volume's folder could not be put in its place");
        }
        Ok(())
    }

    /// Removes the folder of a volume whose row says that it is deleted, then the row. What fails is tried again when
    /// the registry opens.
    pub(crate) async fn finish_deletion(self: &Arc<Self>, id: VolumeId) {
        let finish = async {
            let gone = self
                .on_disk(move |disk, dir| {
                    files::hide(disk, dir, id).map(|()| files::remove_hidden(disk, dir, id))
                })
                .await??;
            if !gone {
                return Ok(());
            }
            // A rotation of the store key may write it meanwhile.
            loop {
                let Some(row) = self.refresh(id).await? else {
                    return Ok(());
                };
                match self.erase(id, row.version).await {
                    Err(catalogue::CatalogueError::Conflict { .. }) => {}
                    erased => return Ok::<(), VolumeError>(erased?),
                }
            }
        };
        if let Err(error) = finish.await {
            tracing::warn!(volume = %id, %error, "a deleted volume is not removed yet");
        }
    }

    /// Puts folders into quarantine that no row names, of any account or region.
    async fn set_aside(
        self: &Arc<Self>,
        volumes: &[VolumeId],
        named: &BTreeSet<VolumeId>,
    ) -> Result<(), VolumeError> {
        for id in volumes.iter().copied().filter(|id| !named.contains(id)) {
            // It may have got its row since the rows were read.
            if self.refresh(id).await?.is_some() {
                continue;
            }
            let moved = self.on_disk(move |disk, dir| files::set_aside(disk, dir, id));
            match moved.await? {
                Ok(Some(to)) => {
                    tracing::error!(folder = %to.display(), "no row names this volume's folder: it was moved here");
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(volume = %id, %error, "a folder that no row names could not be moved to quarantine");
                }
            }
        }
        Ok(())
    }

    /// Brings a volume's copies and its row together, and notes if its folder is not there.
    async fn mend(self: &Arc<Self>, id: VolumeId, entry: &Entry) -> Result<(), VolumeError> {
        let Ok(row) = entry.descriptor() else {
            let registry = Arc::clone(self);
            let copied = blocking(move || {
                let (disk, dir) = registry.place();
                Ok(copy::read(
                    disk,
                    &files::folder(dir, id),
                    id,
                    &registry.vault,
                ))
            });
            if let Found::Copy(copy) = copied.await? {
                *entry.copied.lock() = Some(copy.descriptor);
            }
            return Ok(());
        };
        let registry = Arc::clone(self);
        let looked = blocking(move || {
            let (disk, dir) = registry.place();
            match files::is_there(disk, dir, id) {
                Ok(true) => {
                    files::have_a_map(disk, dir, &row)?;
                    Ok(registry.compare(&row))
                }
                Ok(false) => Err(VolumeError::FolderMissing(id)),
                Err(error) => Err(VolumeError::from_io("looking at a volume's folder", error)),
            }
        });
        match looked.await {
            Ok(Copies::Same) => {}
            Ok(_) => {
                if let Err(error) = self.bring_together(id).await {
                    tracing::error!(volume = %id, %error, "the copies in a volume's folder are not those of its row");
                }
            }
            Err(VolumeError::ShuttingDown) => return Err(VolumeError::ShuttingDown),
            Err(error @ VolumeError::Damaged { .. }) => {
                tracing::error!(volume = %id, %error, "the volume is damaged: stop the server and run `sealgate volume repair {id}`");
                entry.found_damaged(&error);
            }
            Err(error) => {
                tracing::error!(volume = %id, %error, "the volume is not served");
                *entry.fault.lock() = Some(error);
            }
        }
        self.check_running()
    }

    /// Blocks.
    pub(crate) fn compare(&self, row: &Descriptor) -> Copies {
        let (disk, dir) = self.place();
        let found = copy::read(disk, &files::folder(dir, row.id), row.id, &self.vault);
        match found {
            Found::Copy(copy) if copy.scope != self.scope => Copies::Behind,
            Found::Copy(copy) if copy.descriptor.revision > row.revision => {
                Copies::Ahead(Box::new(copy.descriptor))
            }
            Found::Copy(copy) if copy.descriptor == *row && copy.twice => Copies::Same,
            _ => Copies::Behind,
        }
    }

    /// As [`mend`](Self::mend), with the right to change the descriptor: no other process is half-way meanwhile.
    async fn bring_together(self: &Arc<Self>, id: VolumeId) -> Result<(), VolumeError> {
        let _lock = self.lock_changing(id).await?;
        self.refresh(id).await?;
        let Some(known) = self.entry(&id).map(|entry| entry.known()) else {
            return Ok(());
        };
        let seals = Arc::new(self.vault.seals());
        let row = known.descriptor?;
        let registry = Arc::clone(self);
        let compared = blocking({
            let row = row.clone();
            move || Ok(registry.compare(&row))
        });
        let descriptor = match compared.await? {
            Copies::Same => return Ok(()),
            Copies::Behind => row,
            Copies::Ahead(descriptor) => {
                tracing::warn!(volume = %id, "a change that was under way is finished");
                let expect = Expect::Version(known.version);
                self.put(&seals, id, expect, &Row::Present(descriptor.clone()))
                    .await?;
                *descriptor
            }
        };
        self.write_copies(seals, descriptor).await
    }

    /// Takes the right to change a volume's descriptor, of all processes.
    pub(crate) async fn lock_changing(
        self: &Arc<Self>,
        id: VolumeId,
    ) -> Result<Arc<dyn host::File>, VolumeError> {
        let locked =
            self.on_disk(move |disk, dir| files::lock_changing(disk, &files::folder(dir, id)));
        locked.await?.map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => VolumeError::Locked(id),
            _ => VolumeError::from_io("changing a volume", error),
        })
    }

    /// Writes the copies of a volume that has its folder.
    pub(crate) async fn write_copies(
        self: &Arc<Self>,
        seals: Arc<Seals>,
        descriptor: Descriptor,
    ) -> Result<(), VolumeError> {
        let registry = Arc::clone(self);
        blocking(move || {
            let (disk, dir) = registry.place();
            let dir = files::folder(dir, descriptor.id);
            let Registry { vault, scope, .. } = &*registry;
            copy::write(disk, &dir, vault, &seals, scope, &descriptor)
                .map_err(|error| VolumeError::from_io("writing the copy of a volume's row", error))
        })
        .await
    }

    pub(crate) fn place(&self) -> (&dyn Disk, &Path) {
        (&*self.options.disk, &self.options.dir)
    }

    /// Runs `work` where it may block.
    pub(crate) async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&dyn Disk, &Path) -> T + Send + 'static,
    ) -> Result<T, VolumeError> {
        let registry = Arc::clone(self);
        blocking(move || {
            let (disk, dir) = registry.place();
            Ok(work(disk, dir))
        })
        .await
    }
}
