//! The steps of making, changing and deleting a volume. Each runs to its end or fails; `FORMAT.md`, "What a crash
//! leaves", says what is found if it does neither.

use std::sync::Arc;

use audit::Change;
use catalogue::{Batch, CatalogueError, Expect};
use crypto::volume_key::VolumeDataKey;
use iam::Caller;

use crate::{
    Tag, VolumeError, VolumeId, VolumeInfo, VolumeState,
    blocking::blocking,
    descriptor::{Descriptor, Row},
    engine::BASE_GENERATION,
    entry::Entry,
    files,
    model::check_tags,
    protection::{Sealed, Unencrypted},
    recover::Copies,
    registry::{Registry, refused},
    token::{TOKENS, Tokens, token_key},
};

/// How often a change that lost a race is planned anew.
const RACES_MAX: u32 = 8;

/// What an audit record says of a result.
pub(crate) fn outcome<T>(result: &Result<T, VolumeError>) -> &'static str {
    match result {
        Ok(_) => "Success",
        Err(error) if error.may_have_changed() => "Unknown",
        Err(error) => error.code(),
    }
}

impl Registry {
    /// What `caller` asked for, for its records.
    pub(crate) fn asked(
        &self,
        operation: &'static str,
        caller: Caller<'_>,
        resource: impl Into<String>,
    ) -> Change {
        let options = &self.options;
        let (account, region) = (options.authorizer.account(), &options.region);
        Change::asked(operation, caller, account.as_str(), region.as_str()).about(resource)
    }

    /// Makes a change by `work` and records it: its intent before, its outcome after.
    pub(crate) async fn recorded<T>(
        &self,
        change: Change,
        work: impl Future<Output = Result<T, VolumeError>>,
    ) -> Result<T, VolumeError> {
        let made = self
            .options
            .audit
            .change(&*self.options.clock, &change, work, outcome);
        made.await.map_err(|error| {
            tracing::error!(%error, "a change of a volume could not be recorded");
            VolumeError::Audit(Arc::new(error))
        })?
    }

    /// Makes a volume's folder, its row, and gives the folder its name. `claim` is what is expected of the claim on its
    /// client token, if it has one: a conflict there says that the token has just made another volume.
    pub(crate) async fn make(
        self: Arc<Self>,
        descriptor: Descriptor,
        data_key: Option<VolumeDataKey>,
        claim: Option<Expect>,
    ) -> Result<VolumeInfo, VolumeError> {
        let id = descriptor.id;
        let seals = Arc::new(self.vault.seals());
        let claiming = self.tokens.sealing();
        let slots = blocking({
            let (registry, seals) = (Arc::clone(&self), Arc::clone(&seals));
            let descriptor = descriptor.clone();
            move || registry.prepare(&descriptor, data_key, &seals)
        })
        .await?;
        // With the row: no other volume gets one by this token.
        let batch = match (&descriptor.request, claim) {
            (Some(request), Some(expect)) => {
                let key = token_key(&self.scope, &request.client_token);
                let (version, random) = (expect.next_version(), &*self.options.random);
                let claimed = Tokens::seal(&claiming, &key, version, id, random);
                Batch::new().put(TOKENS, key, expect, claimed)
            }
            _ => Batch::new(),
        };
        let row = Row::Present(Box::new(descriptor));
        if let Err(error) = self.put_with(batch, &seals, id, Expect::Absent, &row).await {
            if refused(&error) {
                self.on_disk(move |disk, dir| files::discard(disk, dir, id))
                    .await?;
            }
            // Otherwise the row may be there: whether the folder stays is decided by whoever opens the registry.
            return Err(error.into());
        }
        drop((seals, claiming));
        let placed = self.on_disk(move |disk, dir| files::place(disk, dir, id));
        let placed = placed.await?;
        // Unlocked before the answer: whoever gets it may attach the volume.
        drop(slots);
        let entry = self.entry(&id).ok_or_else(|| VolumeError::not_found(id))?;
        if let Err(error) = placed {
            *entry.fault.lock() = Some(VolumeError::FolderMissing(id));
            return Err(error);
        }
        Ok(entry.info())
    }

    fn prepare(
        &self,
        descriptor: &Descriptor,
        data_key: Option<VolumeDataKey>,
        seals: &crate::vault::Seals,
    ) -> Result<Arc<dyn host::File>, VolumeError> {
        let (disk, dir, scope) = (&self.options.disk, &self.options.dir, &self.scope);
        let sealing = (&self.vault, seals);
        match data_key {
            Some(data_key) => {
                let sealed = Sealed::new(descriptor.id, data_key, BASE_GENERATION);
                files::prepare(disk, dir, descriptor, &sealed, scope, sealing)
            }
            None => files::prepare(disk, dir, descriptor, &Unencrypted::new(), scope, sealing),
        }
    }

    /// Deletes a volume that nobody has attached: its row says so, durably, then its folder is out of sight. The caller
    /// sees to it that nothing is left ([`finish_deletion`](Self::finish_deletion)).
    pub(crate) async fn delete(
        self: &Arc<Self>,
        id: VolumeId,
        entry: &Entry,
    ) -> Result<(), VolumeError> {
        let detached = self.on_disk(move |disk, dir| files::keep_detached(disk, dir, id));
        let detached = detached.await??;
        *entry.state.lock() = VolumeState::Deleting;
        if let Err(error) = self.mark_deleting(id, entry).await {
            // Refused, unless it was deleted by another process or nobody knows.
            if self.check_running().is_ok() && self.entry(&id).is_some() {
                *entry.state.lock() = VolumeState::Available;
            }
            return Err(error);
        }
        // The row had the wrapped data key.
        if let Err(error) = self.options.catalogue.purge().await {
            tracing::warn!(volume = %id, %error, "a deleted volume's wrapped key may still be in the catalogue's log");
        }
        let hidden = self.on_disk(move |disk, dir| files::hide(disk, dir, id));
        let hidden = hidden.await?;
        drop(detached);
        hidden
    }

    /// Writes a volume's row that says that it is deleted.
    async fn mark_deleting(
        self: &Arc<Self>,
        id: VolumeId,
        entry: &Entry,
    ) -> Result<(), VolumeError> {
        let mut races = 0;
        loop {
            let known = entry.known();
            let version = known.version;
            let token = known.descriptor.ok().and_then(|volume| volume.request);
            let batch = match token {
                Some(token) => self.give_up(id, &token.client_token).await?,
                None => Batch::new(),
            };
            // Not held across the next try, which may have to wait for a rotation.
            let seals = self.vault.seals();
            let expect = Expect::Version(version);
            let put = self.put_with(batch, &seals, id, expect, &Row::Deleting);
            let put = put.await;
            drop(seals);
            match put {
                Ok(()) => return Ok(()),
                Err(CatalogueError::Conflict { .. }) if races < RACES_MAX => {
                    races += 1;
                    self.refresh(id).await?;
                    if self.entry(&id).is_none() {
                        return Err(VolumeError::not_found(id));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Erases the claim of a volume on its client token, if it has it. One that does not read stays: it stops nobody from
    /// deleting.
    async fn give_up(&self, id: VolumeId, token: &str) -> Result<Batch, VolumeError> {
        match self.claim(token).await {
            Ok(Some((owner, version))) if owner == id => {
                Ok(Batch::new().erase(TOKENS, token_key(&self.scope, token), version))
            }
            Ok(_) => Ok(Batch::new()),
            Err(error @ VolumeError::DamagedRow { .. }) => {
                tracing::error!(volume = %id, %error, "the claim on a client token is left");
                Ok(Batch::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Changes a volume's tags, in its folder's copies and in its row.
    pub(crate) async fn change_tags(
        self: Arc<Self>,
        id: VolumeId,
        change: impl Fn(&mut Vec<Tag>) + Send + Sync + 'static,
    ) -> Result<(), VolumeError> {
        // A volume that was deleted meanwhile has no folder to lock anything in.
        self.entry(&id)
            .ok_or_else(|| VolumeError::not_found(id))?
            .sound()?;
        let _lock = self.lock_changing(id).await?;
        let mut races = 0;
        loop {
            // Behind the lock: what another process changed before is known now.
            self.refresh(id).await?;
            let entry = self.entry(&id).ok_or_else(|| VolumeError::not_found(id))?;
            let known = entry.known();
            let before = known.descriptor?;
            let mut after = before.clone();
            change(&mut after.tags);
            // In the order they are kept in.
            after.tags.sort_by(|a, b| a.key.cmp(&b.key));
            check_tags(&after.tags)?;
            after.revision += 1;
            let seals = Arc::new(self.vault.seals());
            let changed = self.write_copies(Arc::clone(&seals), after.clone()).await;
            let changed = match changed {
                Ok(()) => {
                    let expect = Expect::Version(known.version);
                    self.put(&seals, id, expect, &Row::Present(Box::new(after)))
                        .await
                }
                Err(error) => {
                    self.take_back(before).await?;
                    return Err(error);
                }
            };
            drop(seals);
            match changed {
                Ok(()) => return Ok(()),
                Err(CatalogueError::Conflict { .. }) if races < RACES_MAX => races += 1,
                Err(error) if refused(&error) => {
                    self.take_back(before).await?;
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes the copies of the row again, since the change in them was refused: left there, it would be finished when
    /// the registry opens.
    async fn take_back(self: &Arc<Self>, before: Descriptor) -> Result<(), VolumeError> {
        let registry = Arc::clone(self);
        let compared = blocking({
            let before = before.clone();
            move || Ok(registry.compare(&before))
        });
        // A full disk may have taken nothing of it, and would not take this either.
        if matches!(compared.await?, Copies::Same) {
            return Ok(());
        }
        let seals = Arc::new(self.vault.seals());
        self.write_copies(seals, before)
            .await
            .map_err(|error| VolumeError::Unknown(error.to_string().into()))
    }
}
