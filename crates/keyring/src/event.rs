//! What caches of opened keys are told, so that they drop at once.

use crate::key::KeyArn;

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEvent {
    /// The key.
    pub key: KeyArn,
    /// What happened.
    pub change: KeyChange,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyChange {
    /// It may be used again.
    Enabled,
    /// It may not be used: drop everything it opened.
    Disabled,
    /// It may not be used, and will be destroyed: drop everything it opened.
    DeletionScheduled,
    /// It comes back, disabled.
    DeletionCancelled,
    /// It is gone: drop everything it opened.
    Destroyed,
    /// New material: what is sealed from now on should use it; what was opened stays good.
    Rotated,
}

impl KeyChange {
    /// Whether what the key opened must be dropped.
    pub fn revokes(self) -> bool {
        matches!(
            self,
            Self::Disabled | Self::DeletionScheduled | Self::DeletionCancelled | Self::Destroyed
        )
    }
}
