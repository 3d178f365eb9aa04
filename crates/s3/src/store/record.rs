//! What a store remembers about buckets, objects, uploads and parts.
//!
//! A store sees only what it needs to find things: ids, keys, lengths, dates and its own sequence
//! numbers. All else (entity tags, checksums, user metadata, content headers, tags, wrapped keys,
//! salts) is in envelopes that the front seals and the store cannot read.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;

/// A bucket, as far as a store knows it: that it takes objects, or does not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRecord {
    /// Its id, as given at creation.
    pub id: String,
    /// Whether it is closed: nothing can be found in it or put into it.
    pub closed: bool,
}

/// An object as the index has it: cheap to list, without its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRecord {
    /// The key, in the bucket it was asked for in.
    pub key: String,
    /// Length of the plaintext in bytes: the sum over the parts.
    pub size: u64,
    /// When the content was committed, by the caller's clock; a new envelope leaves it alone.
    pub modified: SystemTime,
    /// Drawn by the store at each commit and each new envelope; strictly rising within one store,
    /// also across restarts, and never used again. What [`Condition::Sequence`] compares.
    pub sequence: u64,
    /// Number of parts of an object that was uploaded in parts; 0 for one put in a single piece.
    pub part_count: u32,
    /// The caller's sealed record, as committed.
    pub envelope: Bytes,
}

/// A part of an upload, or of an object made from one.
///
/// An object put in a single piece has one part with number 1, the object's size, modified date and
/// sequence, and an empty envelope (the object's own holds everything).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRecord {
    /// The part number: 1 to [`PART_NUMBER_MAX`](super::PART_NUMBER_MAX).
    pub number: u32,
    /// Length of the plaintext in bytes.
    pub plain_len: u64,
    /// When it was committed, by the caller's clock.
    pub modified: SystemTime,
    /// Drawn by the store at commit; tells a part from the one it replaced.
    pub sequence: u64,
    /// The caller's sealed record, as committed.
    pub envelope: Bytes,
}

/// A multipart upload in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRecord {
    /// The store's name for it.
    pub id: UploadId,
    /// The key it will become.
    pub key: String,
    /// When it was begun, by the caller's clock.
    pub initiated: SystemTime,
    /// The caller's sealed record, as given at creation.
    pub envelope: Bytes,
}

/// Names an upload: 48 lower-case hexadecimal digits, the first 16 its sequence number (so that
/// ids sort by age), the rest random.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(String);

impl UploadId {
    /// Length in characters.
    pub const LEN: usize = 48;

    /// Parses what a client sent; anything that no store would have given out is `None`, which is
    /// best answered as "no such upload".
    pub fn parse(text: &str) -> Option<Self> {
        let ok = text.len() == Self::LEN
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ok.then(|| Self(text.to_owned()))
    }

    pub(crate) fn new(sequence: u64, random: [u8; 16]) -> Self {
        Self(format!("{sequence:016x}{}", hex::encode(random)))
    }

    /// The sequence number it was made with.
    pub(crate) fn sequence(&self) -> u64 {
        u64::from_str_radix(&self.0[..16], 16).expect("parsed as hexadecimal digits")
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What must hold of the key at the moment of commit, checked atomically with it.
///
/// The store cannot see entity tags: a caller that has an `If-Match` reads the record, compares,
/// and commits with the [`Sequence`](Condition::Sequence) seen; on
/// [`PreconditionFailed`](super::StoreError::PreconditionFailed) it reads and compares again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing: replace what is there.
    #[default]
    Always,
    /// No object has the key (`If-None-Match: *`).
    Absent,
    /// The object with this very sequence number is still there.
    Sequence(u64),
}

impl Condition {
    /// Checks the condition against the sequence of the object that is there.
    pub(crate) fn check(self, found: Option<u64>) -> Result<(), super::StoreError> {
        let holds = match self {
            Self::Always => true,
            Self::Absent => found.is_none(),
            Self::Sequence(wanted) => found == Some(wanted),
        };
        if holds {
            Ok(())
        } else {
            Err(super::StoreError::PreconditionFailed { found })
        }
    }
}

/// The last words of a put.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The caller's sealed record of the object; at most [`ENVELOPE_LEN_MAX`](super::ENVELOPE_LEN_MAX) bytes.
    pub envelope: Bytes,
    /// The object's modification date.
    pub modified: SystemTime,
    /// What must hold of the key.
    pub condition: Condition,
}

/// A part as the caller of a completion saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSeen {
    /// Its number.
    pub number: u32,
    /// Its sequence when its envelope was read; completion fails if it was replaced since.
    pub sequence: u64,
}

/// Where a sealed record stands. The order is that of [`ObjectStore::sealed`](super::ObjectStore::sealed).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealedAt {
    /// An object's.
    Object {
        /// The bucket's id.
        bucket: String,
        /// The key.
        key: String,
    },
    /// An upload's.
    Upload {
        /// The bucket's id.
        bucket: String,
        /// The key it will become.
        key: String,
        /// The store's number of it, rising with age.
        number: u64,
    },
    /// A part's: of an upload, or of the object it became.
    Part {
        /// The store's number of what it is a part of.
        of: u64,
        /// The part number.
        number: u32,
    },
}

/// A sealed record and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRow {
    /// Where.
    pub at: SealedAt,
    /// The caller's sealed record.
    pub envelope: Bytes,
}

/// A record that was sealed anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resealed {
    /// What was read, and where.
    pub row: SealedRow,
    /// What takes its place, if it still stands there.
    pub envelope: Bytes,
}
