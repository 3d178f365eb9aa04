//! Questions that are answered in pages.
//!
//! Every list is in ascending order of UTF-8 bytes and resumes *after* a name given by the caller,
//! which need not exist. A page is a consistent view; the next one sees what changed in between.

use super::record::{ObjectRecord, UploadId, UploadRecord};

/// One page of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in order.
    pub entries: Vec<T>,
    /// Whether there is more after the last entry.
    pub truncated: bool,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            truncated: false,
        }
    }
}

/// Which objects to list.
///
/// Names are rolled up into a common prefix if, after `prefix`, they hold `delimiter`; a common
/// prefix runs to the end of the first delimiter and counts as one entry. An entry is listed if its
/// *name* (the key, or the common prefix) sorts after `after`: a page that ended with a common
/// prefix is continued with that prefix, and one begun inside a common prefix skips all of it.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Only keys that begin so; empty for all.
    pub prefix: String,
    /// Rolls up names; `None` and empty alike do not.
    pub delimiter: Option<String>,
    /// Exclusive start: V1's marker, V2's start-after or what a continuation token carries.
    pub after: Option<String>,
    /// Entries a page at most; 0 gives an empty page that is not truncated.
    pub limit: usize,
}

/// An entry of a list of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListEntry {
    /// An object.
    Object(ObjectRecord),
    /// Keys rolled up; ends with the delimiter.
    CommonPrefix(String),
}

impl ListEntry {
    /// What the next page is asked to start after, were this the last entry.
    pub fn name(&self) -> &str {
        match self {
            Self::Object(record) => &record.key,
            Self::CommonPrefix(prefix) => prefix,
        }
    }
}

/// Which uploads to list: by key, then by age (oldest first).
#[derive(Clone, Debug, Default)]
pub struct UploadQuery {
    /// Only keys that begin so; empty for all.
    pub prefix: String,
    /// Rolls up names, as in [`ListQuery`].
    pub delimiter: Option<String>,
    /// Exclusive start: only names after this one, or the uploads of this very key that sort after
    /// `after_upload`.
    pub after_key: Option<String>,
    /// Within `after_key`, only uploads after this one; without it none of that key's. The upload
    /// need not exist any more.
    pub after_upload: Option<UploadId>,
    /// Entries a page at most; 0 gives an empty page that is not truncated.
    pub limit: usize,
}

/// An entry of a list of uploads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadEntry {
    /// An upload.
    Upload(UploadRecord),
    /// Keys rolled up; ends with the delimiter.
    CommonPrefix(String),
}

/// Rolls `key` up: the common prefix it falls into, if any. `key` begins with `prefix`.
pub(crate) fn common_prefix<'k>(
    key: &'k str,
    prefix: &str,
    delimiter: Option<&str>,
) -> Option<&'k str> {
    let delimiter = delimiter.filter(|d| !d.is_empty())?;
    let at = key[prefix.len()..].find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}
