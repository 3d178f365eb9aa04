//! Block volumes, sealed: slots, maps, key generations, durability.
//!
//! [`Volumes`] is the registry: it makes, lists, attaches and deletes volumes, and asks the keyring for their data
//! keys. [`AttachedVolume`] is a volume in use: bytes at any offset, from any number of threads.
//!
//! What it promises:
//! - What is written to the store is sealed with AES-256-XTS under keys derived from the volume's own data key. A store
//!   takes sealed sectors and nothing else; a volume without encryption is another type.
//! - A process that is killed loses nothing that it answered, flushed or not.
//! - [`AttachedVolume::flush`] makes durable everything that was answered before it, on any thread. Of what was
//!   not flushed, each aligned 512 bytes (4096 on a disk that writes so many whole) hold their old or their new content
//!   after a power cut, never anything else.
//! - A failed sync is final: the volume fails and says so to every later request.
//! - A volume says a [`CacheEpoch`], which changes when what was answered may have been lost.
//! - A full disk is an error of the write that met it; the volume goes on.
//! - Damage to the map before the last durable point refuses to open and says where; a torn tail is dropped. [`check`]
//!   says what is damaged, [`repair`] makes the map again from the slots' own table of owners.
//!
//! What it does not: authenticate sectors (XTS does not), detect that all files of a volume were put back to an
//! older state, take snapshots (the formats have room for them).
//!
//! It knows neither NBD nor AWS shapes: `gateway` and `api` adapt it.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attached;
mod blocking;
mod cache_epoch;
mod change;
mod copy;
mod creation;
mod data_key;
mod default_encryption;
mod default_record;
mod descriptor;
mod encryption_calls;
mod engine;
mod entry;
mod error;
mod files;
mod follow;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod geometry;
mod id;
mod inspection;
mod log;
mod map;
mod model;
mod options;
mod owner;
mod protection;
mod ranges;
mod rebuild;
mod recover;
mod registry;
mod reseal;
mod resource;
mod slot_file;
mod slots;
mod standing;
mod token;
mod vault;
mod volumes;

pub use attached::{AttachedVolume, Extent, ExtentKind};
pub use cache_epoch::CacheEpoch;
pub use engine::{Checked, Finding, MapSource, Repaired};
pub use error::{ErrorKind, VolumeError};
pub use id::{MalformedId, VolumeId};
pub use inspection::{Inspection, Report, check, repair};
pub use model::{
    CreateVolume, Encryption, Protection, Tag, VolumeInfo, VolumeSize, VolumeState, VolumeType,
};
pub use options::{EncryptionPolicy, Options};
pub use rebuild::{FolderReport, Rebuild, Rebuilt, rebuild};
pub use registry::scopes;
pub use resource::{EveryVolume, NewVolume, OneVolume};
pub use volumes::{Listing, Volumes};
