//! A volume, as far as the registry knows.

use std::{
    sync::{Arc, Weak},
    time::SystemTime,
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use crate::{
    AttachedVolume, Protection, VolumeError, VolumeId, VolumeInfo, VolumeSize, VolumeState,
    VolumeType,
    descriptor::{Descriptor, Protected},
};

/// What was last read of a volume's row.
#[derive(Clone)]
pub(crate) struct Known {
    /// The row's version.
    pub(crate) version: u64,
    /// Or why it could not be read.
    pub(crate) descriptor: Result<Descriptor, VolumeError>,
}

/// A volume, as far as the registry knows.
pub(crate) struct Entry {
    id: VolumeId,
    pub(crate) row: RwLock<Known>,
    /// What its folder's copies say it is, if its row does not open: to be told, and nothing else.
    pub(crate) copied: Mutex<Option<Descriptor>>,
    /// Why its folder cannot be used.
    pub(crate) fault: Mutex<Option<VolumeError>>,
    /// What was wrong with its files when they were last to be opened; another try is made all the same.
    pub(crate) damage: Mutex<Option<VolumeError>>,
    /// One attaches, deletes or changes the descriptor at a time.
    pub(crate) changing: Arc<tokio::sync::Mutex<()>>,
    /// Who is attached, if anybody is.
    pub(crate) attached: Mutex<Weak<AttachedVolume>>,
    /// One permit, held while attached and until everything is released, or for ever once it is deleted.
    pub(crate) only: Arc<Semaphore>,
    pub(crate) state: Mutex<VolumeState>,
}

impl Entry {
    pub(crate) fn new(id: VolumeId, row: Known) -> Arc<Self> {
        Arc::new(Self {
            id,
            row: RwLock::new(row),
            copied: Mutex::default(),
            fault: Mutex::default(),
            damage: Mutex::default(),
            changing: Arc::default(),
            attached: Mutex::new(Weak::new()),
            only: Arc::new(Semaphore::new(1)),
            state: Mutex::new(VolumeState::Available),
        })
    }

    /// Takes over what was read of the row, unless a later one is known.
    pub(crate) fn learn(&self, row: Known) {
        let mut known = self.row.write();
        if row.version > known.version {
            *known = row;
        }
    }

    pub(crate) fn known(&self) -> Known {
        self.row.read().clone()
    }

    pub(crate) fn descriptor(&self) -> Result<Descriptor, VolumeError> {
        self.row.read().descriptor.clone()
    }

    /// Fails if the volume cannot be served.
    pub(crate) fn sound(&self) -> Result<Descriptor, VolumeError> {
        let descriptor = self.descriptor()?;
        match &*self.fault.lock() {
            Some(fault) => Err(fault.clone()),
            None => Ok(descriptor),
        }
    }

    /// Its files were damaged when they were to be opened: it is in error until they open.
    pub(crate) fn found_damaged(&self, error: &VolumeError) {
        if matches!(error, VolumeError::Damaged { .. }) {
            *self.damage.lock() = Some(error.clone());
        }
    }

    /// Its files have opened.
    pub(crate) fn found_sound(&self) {
        *self.damage.lock() = None;
    }

    pub(crate) fn state(&self) -> VolumeState {
        match *self.state.lock() {
            VolumeState::Available => {}
            other => return other,
        }
        match self.attached.lock().upgrade() {
            Some(attached) if attached.alive().is_err() => VolumeState::Error,
            Some(_) => VolumeState::InUse,
            None if self.only.available_permits() == 0 => VolumeState::InUse,
            None if self.fault.lock().is_some() || self.damage.lock().is_some() => {
                VolumeState::Error
            }
            None if self.row.read().descriptor.is_err() => VolumeState::Error,
            None => VolumeState::Available,
        }
    }

    /// Whether its tag `Name` is this.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.row.read().descriptor.as_ref().is_ok_and(|descriptor| {
            let mut tags = descriptor.tags.iter();
            tags.any(|tag| tag.key == "Name" && tag.value == name)
        })
    }

    /// What can be told of it. If its row does not open, that is what the copies say; if these do not either, its id and
    /// that it is in error.
    pub(crate) fn info(&self) -> VolumeInfo {
        let state = self.state();
        let known = self.descriptor().ok();
        let Some(descriptor) = known.or_else(|| self.copied.lock().clone()) else {
            return VolumeInfo {
                id: self.id,
                size: VolumeSize::UNKNOWN,
                protection: Protection::Unencrypted,
                volume_type: VolumeType::default(),
                availability_zone: String::new(),
                tags: Vec::new(),
                created: SystemTime::UNIX_EPOCH,
                state,
            };
        };
        VolumeInfo {
            id: descriptor.id,
            size: descriptor.size,
            protection: match descriptor.protection {
                Protected::Sealed { key, .. } => Protection::Sealed { key },
                Protected::Unencrypted => Protection::Unencrypted,
            },
            volume_type: descriptor.volume_type,
            availability_zone: descriptor.availability_zone,
            tags: descriptor.tags,
            created: descriptor.created,
            state,
        }
    }
}
