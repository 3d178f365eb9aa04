//! Buckets: which there are, and how they are set up.
//!
//! The catalogue decides. A bucket is a sealed record under an id that is drawn at random and never used for another;
//! its name is claimed by a second record, for the whole store, since names are unique over all accounts and regions.
//! The store of objects knows the id alone, and whether it takes objects: see [`registry`] for the order in which the
//! two are changed. `FORMAT.md` has the records.

mod follow;
mod id;
mod neighbours;
mod record;
mod registry;

pub(crate) use follow::{Following, follow};
pub(crate) use id::BucketId;
pub use neighbours::Neighbours;
#[cfg(any(fuzzing, test))]
pub(crate) use record::decode_any;
pub(crate) use record::{NAMES, TABLE};
pub use registry::scopes;
pub(crate) use registry::{Bucket, Created, Registry, RegistryOptions};
