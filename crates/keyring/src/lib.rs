//! Keys with KMS semantics, sealed at rest, every use audited.
//!
//! A [`Keyring`] keeps keys whose material never leaves it: callers give it plaintext and get
//! ciphertext blobs, or get data keys together with their sealed form. Blobs say themselves which
//! key and which version of its material opens them, and are bound to an encryption context.
//!
//! What it promises:
//! - Every operation takes an [`iam::Authorized`] made for that key and that action, and its audit
//!   record is durable before the answer; if it cannot be made durable, the answer is an error.
//! - Every record at rest is sealed under the store key and bound to its place and version.
//! - A key that was disabled or scheduled for deletion opens nothing from the moment the change is
//!   answered, and listeners ([`Keyring::on_change`]) were called before that.
//! - What another process changed is seen within a second, as if it had been changed here.
//! - A crash leaves the state before or after an operation, never between.
//!
//! What it does not: detect that the whole store was replaced by an older copy of itself.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod alias;
mod authorize;
mod change;
mod cryptographic;
mod error;
mod event;
mod follow;
mod key;
mod key_state;
mod keyring;
mod lifecycle;
mod list;
mod material;
mod metadata;
mod observer;
mod open;
mod records;
mod resource;
mod rotation;
mod snapshot;
mod spec;
mod state;
mod tag;
mod trail;
mod vault;
mod wall;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

// What the signatures here name of `crypto` and `root`, for crates that do not use them themselves.
pub use crypto::{context::EncryptionContext, secret::SecretVec};
pub use root::StoreId;

pub use audit::{AuditError, AuditLog, AuditOptions};
pub use authorize::{Account, BlobUse, KeyUse, Target};
pub use cryptographic::{DataKey, Decrypted, Encrypted, ReEncrypted, WrappedDataKey};
pub use error::KeyringError;
pub use event::{KeyChange, KeyEvent};
pub use key::{AliasName, KeyArgument, KeyArn, KeyId};
pub use key_state::KeyState;
pub use keyring::{Keyring, Options};
pub use lifecycle::Swept;
pub use material::Material;
pub use metadata::{
    Alias, CreateKey, DataKeyLen, KeyMetadata, Listed, MaterialId, Page, PendingWindow, Rotation,
    RotationKind, RotationStatus, Service, Tag, Tier,
};
pub use observer::{NoObserver, Observer};
pub use records::scopes;
pub use resource::{AllKeys, KeyResource, NamedAlias, NamedKey, SealedBlob};
pub use spec::{KeyOrigin, KeySpec, KeyUsage};
