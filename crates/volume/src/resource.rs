//! What permissions about volumes are for. Made by the registry alone
//! ([`Volumes::one`](crate::Volumes::one) and its kin); having one is no permission.

use iam::{Arn, Resource};

use crate::VolumeId;

/// One volume, there or not.
#[derive(Debug, Clone)]
pub struct OneVolume {
    pub(crate) id: VolumeId,
    pub(crate) arn: Arn,
}

/// `volume/*`: a volume that is to be made, since it has no id yet.
#[derive(Debug)]
pub struct NewVolume {
    pub(crate) arn: Arn,
}

/// `*`: what is about all volumes, or about none.
#[derive(Debug)]
pub struct EveryVolume {
    pub(crate) arn: Arn,
}

impl OneVolume {
    /// Which.
    pub fn id(&self) -> VolumeId {
        self.id
    }
}

impl Resource for OneVolume {
    fn arn(&self) -> &Arn {
        &self.arn
    }
}

impl Resource for NewVolume {
    fn arn(&self) -> &Arn {
        &self.arn
    }
}

impl Resource for EveryVolume {
    fn arn(&self) -> &Arn {
        &self.arn
    }
}
