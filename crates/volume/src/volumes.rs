//! The registry of volumes.

use std::{path::PathBuf, sync::Arc};

use crypto::{random::Random, record::RecordKey};
use iam::{AccountId, Arn, Authorized, Caller, Region};
use keyring::{Clock, Keyring};

use crate::{AttachedVolume, CreateVolume, VolumeError, VolumeId, VolumeInfo};

/// What a registry is made of.
pub struct Options {
    /// Where volumes live, a folder each. Made if it is not there.
    pub dir: PathBuf,
    /// Wraps and unwraps data keys.
    pub keyring: Arc<Keyring>,
    /// Seals the volumes' descriptors, so that a sealed volume cannot be passed off as a plain one. From the root key:
    /// `root.record_key("volume-descriptors")`.
    pub records: RecordKey,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Ids and nonces.
    pub random: Arc<dyn Random>,
    /// Whose volumes these are.
    pub account: AccountId,
    /// In which region they say they are.
    pub region: Region,
    /// Most volumes that may exist.
    pub volumes_max: usize,
}

/// The volumes of one account.
pub struct Volumes {
    account: AccountId,
    region: Region,
}

macro_rules! later {
    () => {
        Err(VolumeError::ShuttingDown)
    };
}

#[allow(unused_variables, clippy::unused_async)]
impl Volumes {
    /// Reads the descriptors and finishes or undoes what a crash left half done. Blocks.
    ///
    /// A volume whose descriptor does not authenticate is kept in state `error`; the others are served.
    pub fn open(options: Options) -> Result<Arc<Self>, VolumeError> {
        later!()
    }

    /// The name of a volume, to authorize for.
    pub fn arn(&self, id: &VolumeId) -> Arn {
        Arn::ec2_volume(&self.region, &self.account, &id.to_string())
    }

    /// `volume/*`: what creating is authorized for, since the volume has no id yet.
    pub fn arn_new(&self) -> Arn {
        Arn::ec2_volume(&self.region, &self.account, "*")
    }

    /// `*`: what describing is authorized for.
    pub fn arn_every(&self) -> Arn {
        Arn::every("ec2", &self.region, &self.account)
    }

    /// Makes a volume. `authorized` is for [`Volumes::arn_new`]. The data key is asked for in the name of its caller.
    pub async fn create(
        &self,
        authorized: Authorized<iam::CreateVolume>,
        request: CreateVolume,
    ) -> Result<VolumeInfo, VolumeError> {
        later!()
    }

    /// All volumes, or those named; fails if one of these does not exist. `authorized` is for [`Volumes::arn_every`].
    pub fn describe(
        &self,
        authorized: Authorized<iam::DescribeVolumes>,
        ids: &[VolumeId],
    ) -> Result<Vec<VolumeInfo>, VolumeError> {
        later!()
    }

    /// Deletes a volume that is not attached. `authorized` is for [`Volumes::arn`] of it.
    pub async fn delete(
        &self,
        authorized: Authorized<iam::DeleteVolume>,
        id: &VolumeId,
    ) -> Result<(), VolumeError> {
        later!()
    }

    /// Sets tags (a tag of the same key is replaced). `authorized` is for [`Volumes::arn`] of it.
    pub async fn create_tags(
        &self,
        authorized: Authorized<iam::CreateTags>,
        id: &VolumeId,
        tags: Vec<crate::Tag>,
    ) -> Result<(), VolumeError> {
        later!()
    }

    /// Takes tags off by their keys; with a value, only if it has that value. `authorized` is for [`Volumes::arn`] of it.
    pub async fn delete_tags(
        &self,
        authorized: Authorized<iam::DeleteTags>,
        id: &VolumeId,
        tags: Vec<(String, Option<String>)>,
    ) -> Result<(), VolumeError> {
        later!()
    }

    /// The volume an export name means: a volume id, or the value of one volume's tag `Name`.
    pub fn find_by_export_name(&self, name: &str) -> Result<VolumeId, VolumeError> {
        later!()
    }

    /// Attaches a volume, or shares the attachment there is. `authorized` is for [`Volumes::arn`] of it; the data key is
    /// unwrapped in the name of `caller`, so that also needs `kms:Decrypt`.
    pub async fn attach(
        &self,
        authorized: Authorized<iam::AttachVolume>,
        id: &VolumeId,
        caller: &Caller,
    ) -> Result<Arc<AttachedVolume>, VolumeError> {
        later!()
    }
}
