//! What a part carries of its own: whose it is, and how far it and the catalogue were.

use std::{io, sync::Arc};

use async_trait::async_trait;
use catalogue::Sequence;
use crypto::{random::Random, record::Place};
use root::{RecordKey, Sealing, StoreId, StoreKey};
use thiserror::Error;

use crate::part::Part;

/// Name of the records that stamps are sealed as.
pub(crate) const TABLE: &str = "part-stamp";
const MAGIC: &[u8; 8] = b"SGSTAMP\0";
const VERSION: u16 = 1;
const HEAD_LEN: usize = 8 + 2 + 1 + 1 + 16 + 8;
/// Longest stamp, in bytes.
pub(crate) const LEN_MAX: usize = 1024;

/// What a part carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// How often the part was stamped, from 1.
    pub sequence: u64,
    /// How far the catalogue was, at least, when it was.
    pub catalogue: Sequence,
}

/// Why a stamp cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StampError {
    /// It is another store's.
    #[error("of another store, {0}")]
    OtherStore(StoreId),
    /// It reads, and is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// A newer version of this program wrote it.
    #[error("{0}")]
    Newer(String),
    /// The operating system does not let it be read: nothing is known of it.
    #[error("{why}")]
    Unreadable {
        /// The operating system's kind.
        kind: io::ErrorKind,
        /// What it said, and of which file.
        why: String,
    },
}

/// Where a part keeps its stamp.
#[async_trait]
pub trait Stamped: Send + Sync {
    /// Which part it is.
    fn part(&self) -> Part;

    /// The stamp; `None` if the part is not there, or has none. Changes nothing on disk.
    async fn read(&self) -> Result<Option<Stamp>, StampError>;

    /// Writes it, durably; after an error or a crash the old one is there or the new one.
    async fn write(&self, stamp: Stamp) -> Result<(), String>;

    /// Whether the stamp is sealed under an older store key than the newest. A part that is not there has none; one that
    /// cannot be read is an error, since a rotation that passes over its stamp makes it unreadable.
    async fn is_stale(&self) -> Result<bool, String>;
}

/// Seals and opens the stamps of one store.
pub struct Stamps {
    pub(crate) store: StoreId,
    pub(crate) key: RecordKey,
    pub(crate) random: Arc<dyn Random>,
}

impl Stamps {
    /// The stamps of `store_key`'s store.
    pub fn new(store_key: &StoreKey, random: Arc<dyn Random>) -> Arc<Self> {
        Arc::new(Self {
            store: store_key.store(),
            key: store_key.table(TABLE),
            random,
        })
    }

    /// The right to seal, to be held until it is known whether what was sealed is stored: a rotation of the store key
    /// waits for it.
    pub fn sealing(&self) -> Sealing {
        self.key.sealing()
    }

    /// The bytes to store.
    pub fn seal(&self, sealing: &Sealing, part: Part, stamp: Stamp) -> Vec<u8> {
        let contents = stamp.catalogue.0.to_be_bytes();
        let sealed = sealing.seal(&place(part, stamp.sequence), &contents, &*self.random);
        let mut out = Vec::with_capacity(HEAD_LEN + sealed.as_bytes().len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[part.to_byte(), 0]);
        out.extend_from_slice(self.store.as_bytes());
        out.extend_from_slice(&stamp.sequence.to_be_bytes());
        out.extend_from_slice(sealed.as_bytes());
        out
    }

    /// Reads what [`seal`](Self::seal) has made.
    pub fn open(&self, part: Part, bytes: &[u8]) -> Result<Stamp, StampError> {
        let damaged = |why: &str| StampError::Damaged(format!("its stamp {why}"));
        let read = Head::read(bytes).ok_or_else(|| damaged("does not read"))?;
        if read.version != VERSION {
            return Err(damaged("has a version that this program does not know"));
        }
        let opened = self
            .key
            .open(&place(part, read.sequence), read.sealed)
            .ok()
            .and_then(|contents| Some(u64::from_be_bytes(contents.expose().try_into().ok()?)));
        match opened {
            Some(catalogue) if read.store == self.store && read.part == part.to_byte() => {
                Ok(Stamp {
                    sequence: read.sequence,
                    catalogue: Sequence(catalogue),
                })
            }
            // Sealed by this store: what its head says is damage.
            Some(_) => Err(damaged("is damaged")),
            None if read.store != self.store => Err(StampError::OtherStore(read.store)),
            None => Err(damaged("does not open")),
        }
    }

    /// Whether a stamp is sealed under an older store key than the newest.
    pub fn is_stale(&self, bytes: &[u8]) -> bool {
        Head::read(bytes).is_some_and(|head| self.key.is_stale(head.sealed))
    }
}

/// A stamp as it was read: not trusted.
pub(crate) struct Head<'a> {
    version: u16,
    part: u8,
    store: StoreId,
    sequence: u64,
    sealed: &'a [u8],
}

impl<'a> Head<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (version, rest) = rest.split_first_chunk()?;
        let (&[part, 0], rest) = rest.split_first_chunk()? else {
            return None;
        };
        let (store, rest) = rest.split_first_chunk()?;
        let (sequence, sealed) = rest.split_first_chunk()?;
        Some(Self {
            version: u16::from_be_bytes(*version),
            part,
            store: StoreId::from_bytes(*store),
            sequence: u64::from_be_bytes(*sequence),
            sealed,
        })
    }
}

/// Stamps belong to the whole store.
fn place(part: Part, version: u64) -> Place<'static> {
    Place {
        table: TABLE,
        account: "",
        region: "",
        id: part.name().as_bytes(),
        version,
    }
}
