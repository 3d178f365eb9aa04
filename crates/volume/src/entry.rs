//! A volume, as far as the registry knows.

use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use crate::{
    AttachedVolume, Protection, VolumeError, VolumeInfo, VolumeState,
    descriptor::{Descriptor, Protected},
};

/// A volume, as far as the registry knows.
pub(crate) struct Entry {
    /// Or why it could not be read.
    pub(crate) descriptor: RwLock<Result<Descriptor, VolumeError>>,
    /// One attaches, deletes or changes the descriptor at a time.
    pub(crate) changing: Arc<tokio::sync::Mutex<()>>,
    /// Who is attached, if anybody is.
    pub(crate) attached: Mutex<Weak<AttachedVolume>>,
    /// One permit, held while attached and until everything is released, or for ever once it is deleted.
    pub(crate) only: Arc<Semaphore>,
    pub(crate) state: Mutex<VolumeState>,
}

impl Entry {
    pub(crate) fn new(descriptor: Result<Descriptor, VolumeError>) -> Arc<Self> {
        Arc::new(Self {
            descriptor: RwLock::new(descriptor),
            changing: Arc::default(),
            attached: Mutex::new(Weak::new()),
            only: Arc::new(Semaphore::new(1)),
            state: Mutex::new(VolumeState::Available),
        })
    }

    pub(crate) fn descriptor(&self) -> Result<Descriptor, VolumeError> {
        self.descriptor.read().clone()
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
            None => VolumeState::Available,
        }
    }

    /// `None` if it is damaged.
    pub(crate) fn info(&self) -> Option<VolumeInfo> {
        let descriptor = self.descriptor().ok()?;
        Some(VolumeInfo {
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
            state: self.state(),
        })
    }
}
