//! The states a key can be in. What each operation may do in them is in `state.rs`.

/// What a key may be used for at the moment (developer guide, "Key states of AWS KMS keys").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum KeyState {
    /// Everything.
    Enabled,
    /// Nothing cryptographic.
    Disabled,
    /// Nothing but waiting or being cancelled.
    PendingDeletion,
    /// External material not there yet. Not made yet; the table knows it.
    PendingImport,
    /// Its key store cannot be reached. Not made yet; the table knows it.
    Unavailable,
}

impl KeyState {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
            Self::PendingDeletion => "PendingDeletion",
            Self::PendingImport => "PendingImport",
            Self::Unavailable => "Unavailable",
        }
    }

    pub(crate) fn refusal(self) -> &'static str {
        match self {
            Self::Enabled => "is enabled.",
            Self::Disabled => "is disabled.",
            Self::PendingDeletion => "is pending deletion.",
            Self::PendingImport => "is pending import.",
            Self::Unavailable => "is unavailable.",
        }
    }
}
