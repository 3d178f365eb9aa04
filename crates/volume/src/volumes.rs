//! The registry of volumes: which there are, and who may do what with them.
//!
//! Every operation takes the permission that `iam` made for it, which says which volume it is about. A data key is asked for in the name of the caller, via [`Via::Volume`], so the key's own policy decides too, and every
//! use of it is audited by the keyring.
//!
//! The catalogue decides which volumes there are. A change of a volume is made in this order: the copy in its folder,
//! its row, the answer; of a new one the folder before the row; of a deleted one the row before the folder.
//! `FORMAT.md`, "What a crash leaves", says what each step is worth.
//!
//! A volume whose row does not open is served to nobody: it is listed as in error, attaching it says what is wrong, and it
//! can be repaired or deleted. So is one whose folder or map is missing or damaged.

use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Duration};

use audit::Change;
use catalogue::{CatalogueError, Expect};
use crypto::volume_key::VolumeDataKey;
use iam::{AccountId, Arn, Authorized, Caller, Resource, Via};
use keyring::{DataKeyLen, KeyArgument, KeyUse, KeyringError};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    AttachedVolume, CreateVolume, Protection, Tag, VolumeError, VolumeId, VolumeInfo, VolumeState,
    blocking::{blocking, to_the_end},
    cache_epoch::Source,
    change::outcome,
    creation::{check_token, check_zone, fingerprint},
    data_key::{context, open_data_key},
    descriptor::{Descriptor, Protected, Request},
    engine::BASE_GENERATION,
    entry::Entry,
    files,
    follow::{Following, follow},
    model::check_tags,
    options::Options,
    protection::{Sealed, Unencrypted},
    registry::{PAGE, Registry},
    resource::{EveryVolume, NewVolume, OneVolume},
    standing::Grounds,
    token::TOKENS,
};

/// How long a deletion waits for a volume's last user to release it.
const RELEASE_MAX: Duration = Duration::from_secs(10);
/// How often making a volume is begun anew after another process was first with its client token.
const RACES_MAX: u32 = 8;

/// Whether a client token has made a volume.
enum Made {
    Already(Box<VolumeInfo>),
    NotYet(Expect),
}

/// A page of volumes.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The volumes, in the order of their ids.
    pub volumes: Vec<VolumeInfo>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// The volumes of one account and region.
pub struct Volumes {
    pub(crate) registry: Arc<Registry>,
    /// One volume is made at a time here, so that few are begun that another client token's has to take back.
    creating: Arc<tokio::sync::Mutex<()>>,
    _following: Following,
}

impl Volumes {
    /// Reads the rows, finishes or undoes what a crash left half done, and sets folders aside that no row names. Needs
    /// a tokio runtime; may be cancelled.
    ///
    /// A volume whose row does not open or whose folder is missing is kept from use; the others are served.
    pub async fn open(options: Options) -> Result<Arc<Self>, VolumeError> {
        if options.catalogue.store_id().await?.0 != *options.store_key.store().as_bytes() {
            return Err(VolumeError::WrongStore);
        }
        let registry = Arc::new(Registry::new(options));
        registry.recover().await?;
        Ok(Arc::new(Self {
            creating: Arc::default(),
            _following: follow(&registry),
            registry,
        }))
    }

    /// How many folders are in quarantine, since no row named them. Blocks.
    pub fn quarantined(&self) -> Result<usize, VolumeError> {
        let (disk, dir) = self.registry.place();
        files::quarantined(disk, dir)
            .map(|aside| aside.len())
            .map_err(|error| VolumeError::from_io("looking into the quarantine", error))
    }

    /// How many volumes there are, by state. No permission: it names none.
    pub fn by_state(&self) -> BTreeMap<VolumeState, usize> {
        let mut by_state = BTreeMap::new();
        for entry in self.registry.entries.read().values() {
            *by_state.entry(entry.state()).or_default() += 1;
        }
        by_state
    }

    /// The volumes that are in error, at most `max` of them, in the order of their ids.
    pub fn in_error(&self, max: usize) -> Vec<VolumeId> {
        let entries = self.registry.entries.read();
        let wrong = entries
            .iter()
            .filter(|(_, entry)| entry.state() == VolumeState::Error);
        wrong.map(|(id, _)| *id).take(max).collect()
    }

    /// Waits until nobody has a volume attached, at most so long, and gives those whose last content could not be
    /// flushed, and why: what was written there and not flushed may be lost. For the end, when nothing attaches any more.
    pub async fn detached(&self, within: Duration) -> Vec<(VolumeId, VolumeError)> {
        let entries: Vec<(VolumeId, Arc<Entry>)> = {
            let entries = self.registry.entries.read();
            let entries = entries.iter();
            entries
                .map(|(id, entry)| (*id, Arc::clone(entry)))
                .collect()
        };
        let deadline = tokio::time::Instant::now() + within;
        let mut attached = Vec::new();
        for (id, entry) in entries {
            let released = entry.only.acquire();
            match tokio::time::timeout_at(deadline, released).await {
                Ok(_) => {}
                Err(_) => attached.push((id, VolumeError::InUse(id))),
            }
        }
        let mut unflushed = self.registry.unflushed.all();
        unflushed.extend(attached);
        unflushed
    }

    fn options(&self) -> &Options {
        &self.registry.options
    }

    /// A volume, to ask a permission for.
    pub fn one(&self, id: VolumeId) -> OneVolume {
        let arn = Arn::ec2_volume(&self.options().region, self.account(), &id.to_string());
        OneVolume { id, arn }
    }

    /// What creating is asked for, since the volume has no id yet.
    pub fn new_one(&self) -> NewVolume {
        NewVolume {
            arn: Arn::ec2_volume(&self.options().region, self.account(), "*"),
        }
    }

    /// What describing is asked for.
    pub fn every(&self) -> EveryVolume {
        EveryVolume {
            arn: Arn::every("ec2", &self.options().region, self.account()),
        }
    }

    fn account(&self) -> &AccountId {
        self.options().authorizer.account()
    }

    /// Refuses a permission for what another registry has.
    pub(crate) fn permitted<A: iam::Action, R: Resource>(
        &self,
        authorized: &Authorized<A, R>,
    ) -> Result<(), VolumeError> {
        let arn = authorized.arn();
        if arn.account() == Some(self.account())
            && arn.region() == Some(self.options().region.as_str())
        {
            Ok(())
        } else {
            Err(VolumeError::PermissionMismatch(arn.to_string()))
        }
    }

    /// A change of a volume, for its records.
    fn change(&self, operation: &'static str, caller: Caller<'_>, id: VolumeId) -> Change {
        self.registry
            .asked(operation, caller, format!("volume/{id}"))
    }

    /// Makes a volume. The data key is asked for in the name of its caller.
    ///
    /// If the future is dropped, the volume is made all the same or not at all; a client token finds out.
    pub async fn create(
        &self,
        authorized: Authorized<iam::CreateVolume, NewVolume>,
        request: CreateVolume,
    ) -> Result<VolumeInfo, VolumeError> {
        self.permitted(&authorized)?;
        self.registry.check_running()?;
        check_tags(&request.tags)?;
        check_zone(&request.availability_zone)?;
        let token = match &request.client_token {
            Some(token) => Some(Request {
                client_token: check_token(token)?,
                sha256: fingerprint(&request),
            }),
            None => None,
        };
        let mut races = 0;
        loop {
            let one = Arc::clone(&self.creating).lock_owned().await;
            let claim = match &token {
                Some(token) => match self.made_for(token).await? {
                    Made::Already(made) => return Ok(*made),
                    Made::NotYet(expect) => Some(expect),
                },
                None => None,
            };
            let made = self.create_one(&authorized, request.clone(), token.clone(), claim, one);
            match made.await {
                // Another process was first with the token, or gave it up.
                Err(VolumeError::Catalogue(error))
                    if races < RACES_MAX
                        && matches!(&*error, CatalogueError::Conflict { table, .. } if *table == TOKENS) =>
                {
                    races += 1;
                }
                made => return made,
            }
        }
    }

    /// Makes a volume whose client token, if it has one, is claimed as `claim` expects. `one` is the turn.
    async fn create_one(
        &self,
        authorized: &Authorized<iam::CreateVolume, NewVolume>,
        request: CreateVolume,
        token: Option<Request>,
        claim: Option<Expect>,
        one: tokio::sync::OwnedMutexGuard<()>,
    ) -> Result<VolumeInfo, VolumeError> {
        let id = {
            let entries = self.registry.entries.read();
            if entries.len() >= self.options().volumes_max {
                return Err(VolumeError::TooMany(self.options().volumes_max));
            }
            loop {
                let id = VolumeId::random(&*self.options().random);
                if !entries.contains_key(&id) {
                    break id;
                }
            }
        };
        let (protected, data_key) = match self.registry.resolve(&request.encryption).await? {
            None => (Protected::Unencrypted, None),
            Some(key) => {
                let caller = authorized.caller().through(Via::Volume);
                let (protected, data_key) = self.new_data_key(caller, id, &key).await?;
                (protected, Some(data_key))
            }
        };
        let descriptor = Descriptor {
            id,
            revision: 1,
            size: request.size,
            protection: protected,
            volume_type: request.volume_type,
            availability_zone: request.availability_zone,
            tags: request.tags,
            created: self.options().clock.now(),
            request: token,
        };
        let registry = Arc::clone(&self.registry);
        let change = self.change("CreateVolume", authorized.caller(), id);
        let info = to_the_end(async move {
            let _one = one;
            let work = Arc::clone(&registry).make(descriptor, data_key, claim);
            registry.recorded(change, work).await
        })
        .await?;
        tracing::info!(volume = %id, gib = info.size.gib(), "made");
        self.warn_of_a_shared_name(id);
        Ok(info)
    }

    /// The volume that the same client token has made, or what is expected of the claim on it by who makes one now. The
    /// caller has the turn.
    async fn made_for(&self, token: &Request) -> Result<Made, VolumeError> {
        let Some((id, version)) = self.registry.claim(&token.client_token).await? else {
            return Ok(Made::NotYet(Expect::Absent));
        };
        // Another process may have made it just now.
        self.registry.refresh(id).await?;
        let Some(entry) = self.registry.entry(&id) else {
            return Ok(Made::NotYet(Expect::Version(version)));
        };
        match entry.descriptor()?.request {
            Some(made) if made == *token => Ok(Made::Already(Box::new(entry.info()))),
            _ => Err(VolumeError::IdempotentParameterMismatch),
        }
    }

    /// A data key for a new volume: wrapped, to be kept, and opened, to authenticate the first log.
    async fn new_data_key(
        &self,
        caller: Caller<'_>,
        id: VolumeId,
        key: &KeyArgument,
    ) -> Result<(Protected, VolumeDataKey), VolumeError> {
        let keyring = &self.options().keyring;
        let context = context(id)?;
        let target = KeyUse { key, context };
        let authorized = keyring.authorize(caller, target).await?;
        let wrapped = keyring
            .generate_data_key_without_plaintext(authorized, DataKeyLen::XTS_256)
            .await?;
        let protected = Protected::Sealed {
            key: wrapped.key,
            wrapped_data_key: wrapped.ciphertext,
        };
        let opened = open_data_key(keyring, caller, id, &protected).await?;
        let (data_key, _) = opened.expect("it is a sealed volume's");
        Ok((protected, data_key))
    }

    /// All volumes, or those named; fails if one of these does not exist.
    pub fn describe(
        &self,
        authorized: Authorized<iam::DescribeVolumes, EveryVolume>,
        ids: &[VolumeId],
    ) -> Result<Vec<VolumeInfo>, VolumeError> {
        self.permitted(&authorized)?;
        if ids.is_empty() {
            let entries = self.registry.entries.read();
            return Ok(entries.values().map(|entry| entry.info()).collect());
        }
        ids.iter()
            .map(|id| {
                let entry = self.entry(id)?;
                Ok(entry.info())
            })
            .collect()
    }

    /// A page of the volumes that `wanted` takes, in the order of their ids: those after `after`, at most `limit`.
    pub fn list(
        &self,
        authorized: Authorized<iam::DescribeVolumes, EveryVolume>,
        after: Option<VolumeId>,
        limit: usize,
        wanted: impl Fn(&VolumeInfo) -> bool,
    ) -> Result<Listing, VolumeError> {
        self.permitted(&authorized)?;
        let mut listing = Listing::default();
        let mut from = after.map_or(Bound::Unbounded, Bound::Excluded);
        loop {
            // Looked at outside the lock: changes do not wait for a long listing.
            let entries: Vec<(VolumeId, Arc<Entry>)> = {
                let entries = self.registry.entries.read();
                let page = entries.range((from, Bound::Unbounded)).take(PAGE);
                page.map(|(id, entry)| (*id, Arc::clone(entry))).collect()
            };
            let Some((last, _)) = entries.last() else {
                return Ok(listing);
            };
            from = Bound::Excluded(*last);
            for (_, entry) in entries {
                let info = entry.info();
                if !wanted(&info) {
                    continue;
                }
                if listing.volumes.len() == limit {
                    listing.more = true;
                    return Ok(listing);
                }
                listing.volumes.push(info);
            }
        }
    }

    /// Deletes a volume that is not attached.
    ///
    /// It is gone when this returns, also after a crash; its space is given back in the background. Its wrapped data
    /// key goes with it, so what may be left of its sectors on the medium opens no more.
    ///
    /// If the future is dropped, the volume is deleted all the same, folder and all, or not at all.
    pub async fn delete(
        &self,
        authorized: Authorized<iam::DeleteVolume, OneVolume>,
    ) -> Result<(), VolumeError> {
        self.permitted(&authorized)?;
        let id = authorized.resource().id;
        let change = self.change("DeleteVolume", authorized.caller(), id);
        let entry = self.entry(&id)?;
        self.registry.check_running()?;
        let one = Arc::clone(&entry.changing).lock_owned().await;
        let only = Arc::clone(&entry.only);
        let only = match only.clone().try_acquire_owned() {
            Ok(only) => Ok(only),
            // Nobody uses it any more, and its last user is releasing it.
            Err(_)
                if *entry.state.lock() != VolumeState::Deleting
                    && entry.attached.lock().strong_count() == 0 =>
            {
                let released = tokio::time::timeout(RELEASE_MAX, only.acquire_owned()).await;
                released.map_err(drop).and_then(|only| only.map_err(drop))
            }
            Err(_) => Err(()),
        };
        let only = only.map_err(|()| match *entry.state.lock() {
            VolumeState::Deleting => VolumeError::not_found(id),
            _ => VolumeError::InUse(id),
        })?;
        let registry = Arc::clone(&self.registry);
        to_the_end(async move {
            let _one = one;
            let work = registry.delete(id, &entry);
            registry.recorded(change, work).await?;
            // Whoever still has the entry will not get a permit any more.
            only.forget();
            tracing::info!(volume = %id, "deleted");
            // From in here: nobody may be waiting any more, and the folder is to go all the same.
            tokio::spawn(async move { registry.finish_deletion(id).await });
            Ok(())
        })
        .await
    }

    /// Sets tags (a tag of the same key is replaced).
    pub async fn create_tags(
        &self,
        authorized: Authorized<iam::CreateTags, OneVolume>,
        tags: Vec<Tag>,
    ) -> Result<(), VolumeError> {
        self.permitted(&authorized)?;
        check_tags(&tags)?;
        let id = authorized.resource().id;
        let change = self.change("CreateTags", authorized.caller(), id);
        self.change_tags(id, change, move |now| {
            now.retain(|tag| tags.iter().all(|new| new.key != tag.key));
            now.extend(tags.iter().cloned());
        })
        .await
    }

    /// Takes tags off by their keys; with a value, only if it has that value.
    pub async fn delete_tags(
        &self,
        authorized: Authorized<iam::DeleteTags, OneVolume>,
        tags: Vec<(String, Option<String>)>,
    ) -> Result<(), VolumeError> {
        self.permitted(&authorized)?;
        let id = authorized.resource().id;
        let change = self.change("DeleteTags", authorized.caller(), id);
        self.change_tags(id, change, move |now| {
            now.retain(|tag| {
                !tags.iter().any(|(key, value)| {
                    *key == tag.key && value.as_ref().is_none_or(|value| *value == tag.value)
                })
            });
        })
        .await
    }

    async fn change_tags(
        &self,
        id: VolumeId,
        recorded: Change,
        change: impl Fn(&mut Vec<Tag>) + Send + Sync + 'static,
    ) -> Result<(), VolumeError> {
        let entry = self.entry(&id)?;
        self.registry.check_running()?;
        let one = Arc::clone(&entry.changing).lock_owned().await;
        let registry = Arc::clone(&self.registry);
        to_the_end(async move {
            let _one = one;
            let work = Arc::clone(&registry).change_tags(id, change);
            registry.recorded(recorded, work).await
        })
        .await?;
        self.warn_of_a_shared_name(id);
        Ok(())
    }

    /// The volume an export name means: a volume id, or the value of one volume's tag `Name`.
    pub fn find_by_export_name(&self, name: &str) -> Result<VolumeId, VolumeError> {
        let unknown = || VolumeError::NotFound(name.chars().take(64).collect());
        let entries = self.registry.entries.read();
        if let Ok(id) = name.parse::<VolumeId>() {
            return entries.contains_key(&id).then_some(id).ok_or_else(unknown);
        }
        if name.is_empty() {
            return Err(unknown());
        }
        let mut named = entries
            .iter()
            .filter_map(|(id, entry)| entry.is_named(name).then_some(*id));
        match (named.next(), named.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(VolumeError::AmbiguousName(name.chars().take(64).collect())),
            (None, _) => Err(unknown()),
        }
    }

    /// Attaches a volume for one more user, or shares the attachment there is. Each is an attach of its own: the data key
    /// is unwrapped in the name of the permission's caller, so that also needs `kms:Decrypt` and an enabled key, and the
    /// attach, or its refusal, is in the audit log before this returns. Who has the volume already keeps it.
    ///
    /// Waits while the last user of an earlier attachment is releasing it. Fails with [`VolumeError::Failed`] while
    /// others hold on to an attachment that has failed.
    pub async fn attach(
        &self,
        authorized: Authorized<iam::AttachVolume, OneVolume>,
    ) -> Result<Arc<AttachedVolume>, VolumeError> {
        self.permitted(&authorized)?;
        let caller = authorized.caller().through(Via::Volume);
        let change = self.change("AttachVolume", caller, authorized.resource().id);
        // Whoever asked may be gone before this returns.
        let result = self.attach_unrecorded(authorized).await.map(Held::new);
        let options = self.options();
        let recorded = options
            .audit
            .record_change(&*options.clock, &change, outcome(&result));
        match (recorded.await, result) {
            (Ok(_), result) => result.map(Held::keep),
            // The first error says more.
            (Err(_), Err(error)) => Err(error),
            (Err(error), Ok(_)) => Err(error.into()),
        }
    }

    async fn attach_unrecorded(
        &self,
        authorized: Authorized<iam::AttachVolume, OneVolume>,
    ) -> Result<Arc<AttachedVolume>, VolumeError> {
        let id = authorized.resource().id;
        let caller = authorized.caller().through(Via::Volume);
        let entry = self.entry(&id)?;
        self.registry.check_running()?;
        let _one = entry.changing.lock().await;
        if *entry.state.lock() == VolumeState::Deleting {
            return Err(VolumeError::not_found(id));
        }
        let descriptor = entry.sound()?;
        let shared = entry.attached.lock().upgrade().map(Held::new);
        if let Some(shared) = shared {
            let keyring = &self.options().keyring;
            let opened = open_data_key(keyring, caller, id, &descriptor.protection).await;
            opened?;
            let shared = shared.keep();
            return match shared.alive() {
                Ok(()) => Ok(shared),
                Err(error) => {
                    drop(Held::new(shared));
                    Err(error)
                }
            };
        }
        let only = Arc::clone(&entry.only)
            .acquire_owned()
            .await
            .map_err(|_| VolumeError::ShuttingDown)?;
        let keyring = &self.options().keyring;
        let (data_key, key) = open_data_key(keyring, caller, id, &descriptor.protection)
            .await?
            .unzip();
        tracing::info!(volume = %id, principal = %caller.context().principal_arn(), "attaching");
        let grounds = Grounds {
            attach: authorized.into_standing(),
            key,
        };
        let registry = Arc::clone(&self.registry);
        let opened =
            blocking(move || open_files(&registry, &descriptor, data_key, grounds, only)).await;
        let attached = match opened {
            Ok(attached) => {
                entry.found_sound();
                attached
            }
            Err(error) => {
                entry.found_damaged(&error);
                return Err(error);
            }
        };
        let attached = Arc::new(attached);
        *entry.attached.lock() = Arc::downgrade(&attached);
        Ok(attached)
    }

    /// Records that a user of an attached volume has let go of it. What cannot be recorded is logged: it has happened.
    pub async fn record_detach(&self, caller: Caller<'_>, id: VolumeId) {
        let change = self.change("DetachVolume", caller, id);
        let options = self.options();
        let recorded = options
            .audit
            .record_change(&*options.clock, &change, "Success");
        if let Err(error) = recorded.await {
            tracing::warn!(volume = %id, %error, "that a volume was detached is not in the audit log");
        }
    }

    /// Refuses a volume that could not be attached now, as far as that can be known without trying: no key is used, and
    /// nothing recorded.
    pub fn may_be_attached(&self, volume: &VolumeInfo) -> Result<(), VolumeError> {
        let entry = self.entry(&volume.id)?;
        entry.sound()?;
        match volume.state {
            VolumeState::Available | VolumeState::InUse => {}
            VolumeState::Error => {
                let damage = entry.damage.lock().clone();
                return Err(damage.unwrap_or(VolumeError::Failed("it is in error".into())));
            }
            VolumeState::Creating | VolumeState::Deleting => {
                return Err(VolumeError::not_found(volume.id));
            }
        }
        match &volume.protection {
            Protection::Sealed { key } if !self.options().keyring.is_enabled(key) => {
                let key = key.as_arn().clone();
                Err(KeyringError::Disabled { key }.into())
            }
            _ => Ok(()),
        }
    }

    /// Says in the log that a volume has a name that another one has too, so that it means neither of them.
    fn warn_of_a_shared_name(&self, id: VolumeId) {
        let entries = self.registry.entries.read();
        let Some(ours) = entries.get(&id).and_then(|entry| {
            let row = entry.row.read();
            let tags = &row.descriptor.as_ref().ok()?.tags;
            let name = tags.iter().find(|tag| tag.key == "Name")?;
            (!name.value.is_empty()).then(|| name.value.clone())
        }) else {
            return;
        };
        let other = entries
            .iter()
            .find(|(other, entry)| **other != id && entry.is_named(&ours));
        if let Some((other, _)) = other {
            tracing::warn!(
                volume = %id,
                %other,
                "two volumes have one tag Name: as an export name it means neither of them, and their ids must be used"
            );
        }
    }

    /// Decides again about the volumes that are attached, as far as anything that decides has changed since the last
    /// time, and returns those that would be refused today, and why. They stay attached: this only reports.
    ///
    /// Without a change it costs two atomic loads a volume. Blocking: it may be the last to hold a volume.
    pub fn review(&self) -> Vec<(VolumeId, VolumeError)> {
        let attached: Vec<_> = self
            .registry
            .entries
            .read()
            .values()
            .filter_map(|entry| entry.attached.lock().upgrade())
            .collect();
        let (authorizer, keyring) = (&self.options().authorizer, &self.options().keyring);
        attached
            .iter()
            .filter_map(|volume| Some((volume.id(), volume.review(authorizer, keyring).err()?)))
            .collect()
    }

    fn entry(&self, id: &VolumeId) -> Result<Arc<Entry>, VolumeError> {
        self.registry
            .entry(id)
            .ok_or_else(|| VolumeError::not_found(*id))
    }
}

fn open_files(
    registry: &Registry,
    descriptor: &Descriptor,
    data_key: Option<VolumeDataKey>,
    grounds: Grounds,
    only: OwnedSemaphorePermit,
) -> Result<AttachedVolume, VolumeError> {
    let (id, Options { disk, dir, .. }) = (descriptor.id, &registry.options);
    let unflushed = Arc::clone(&registry.unflushed);
    let epochs = Source {
        boot: registry.options.boot,
        random: &*registry.options.random,
    };
    match data_key {
        Some(data_key) => {
            let sealed = Sealed::new(id, data_key, BASE_GENERATION);
            let (engine, epoch) = files::open(disk, dir, descriptor, sealed, epochs)?;
            AttachedVolume::new(id, engine, epoch, grounds, unflushed, only)
        }
        None => {
            let (engine, epoch) = files::open(disk, dir, descriptor, Unencrypted::new(), epochs)?;
            AttachedVolume::new(id, engine, epoch, grounds, unflushed, only)
        }
    }
}

/// An attachment that its user does not have yet. Dropped before, it is let go of on a thread that may block: all others
/// may have gone meanwhile, and whoever is the last detaches.
struct Held(Option<Arc<AttachedVolume>>);

impl Held {
    fn new(attached: Arc<AttachedVolume>) -> Self {
        Self(Some(attached))
    }

    fn keep(mut self) -> Arc<AttachedVolume> {
        self.0.take().expect("it is there until it is kept")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(attached) = self.0.take() {
            drop(tokio::task::spawn_blocking(move || drop(attached)));
        }
    }
}
