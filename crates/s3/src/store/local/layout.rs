//! Where things are on disk: the store's directory and the form of a data file. See `FORMAT.md`.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crypto::chunk::{CHUNK_LEN, TAG_LEN};
use crypto::random::Random;
use host::{Disk as _, OsDisk};

use crate::store::StoreError;

/// What direct I/O needs of offsets, lengths and addresses; covers every sector size in use.
pub(super) const ALIGN: usize = 4096;
/// The fixed end of every data file.
pub(super) const FOOTER_LEN: usize = 64;
const MAGIC: &[u8; 8] = b"SGSEALED";
const FORMAT: u32 = 1;

/// Names a data file. Random, so that it says nothing about what is inside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileId([u8; 16]);

impl FileId {
    pub(super) fn new(random: &dyn Random) -> Self {
        let mut id = [0; 16];
        random.fill(&mut id);
        Self(id)
    }

    pub(super) fn from_index(bytes: &[u8]) -> Result<Self, StoreError> {
        let id = bytes
            .try_into()
            .map_err(|_| StoreError::Corrupt("a file name in the index is not 16 bytes".into()))?;
        Ok(Self(id))
    }

    /// Parses a file name; `None` if we would not have given it.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(name, &mut id).ok()?;
        (hex::encode(id) == name).then_some(Self(id))
    }

    pub(super) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The directory of a store.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Creates what is missing, durably: afterwards no write makes a folder.
    pub(super) fn create(root: &Path) -> io::Result<Self> {
        let this = Self {
            root: root.to_owned(),
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        // The index is made after all of them are durable.
        let complete = this.index().exists() && this.temp().is_dir() && this.folder(0xff).is_dir();
        if !complete {
            builder.create(root)?;
            builder.create(this.temp())?;
            for fan in 0..=0xff {
                builder.create(this.folder(fan))?;
            }
            OsDisk.sync_dir(&root.join("data"))?;
            OsDisk.sync_dir(root)?;
            if let Some(parent) = root.parent().filter(|p| !p.as_os_str().is_empty()) {
                OsDisk.sync_dir(parent)?;
            }
        }
        Ok(this)
    }

    /// The names in a store's directory, whether it is there or not.
    pub(super) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(super) fn lock_file(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.db")
    }

    /// Files being written; all of them are waste at start.
    pub(super) fn temp(&self) -> PathBuf {
        self.root.join("temp")
    }

    pub(super) fn temp_file(&self, id: FileId) -> PathBuf {
        self.root.join("temp").join(id.to_string())
    }

    /// The folder of all files whose id begins with `fan`.
    pub(super) fn folder(&self, fan: u8) -> PathBuf {
        self.root.join("data").join(format!("{fan:02x}"))
    }

    pub(super) fn folder_of(&self, id: FileId) -> PathBuf {
        self.folder(id.0[0])
    }

    pub(super) fn data_file(&self, id: FileId) -> PathBuf {
        self.folder_of(id).join(id.to_string())
    }

    /// Bytes an ordinary user may still write.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let fs = rustix::fs::statvfs(&self.root)?;
        Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
    }
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The parts of a data file, all a function of the plaintext's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) plain_len: u64,
    pub(super) chunks: u64,
    /// Where the tags begin: after the ciphertext, aligned.
    pub(super) tags_at: u64,
    /// Where the footer begins: the last bytes of the file.
    pub(super) footer_at: u64,
}

impl Shape {
    pub(super) fn of(plain_len: u64) -> Self {
        let chunks = plain_len.div_ceil(CHUNK_LEN as u64).max(1);
        let tags_at = plain_len.next_multiple_of(ALIGN as u64);
        let tail = chunks * TAG_LEN as u64 + FOOTER_LEN as u64;
        let footer_at = tags_at + tail.next_multiple_of(ALIGN as u64) - FOOTER_LEN as u64;
        Self {
            plain_len,
            chunks,
            tags_at,
            footer_at,
        }
    }

    pub(super) fn file_len(self) -> u64 {
        self.footer_at + FOOTER_LEN as u64
    }

    pub(super) fn tags_len(self) -> u64 {
        self.chunks * TAG_LEN as u64
    }

    pub(super) fn footer(self, id: FileId) -> [u8; FOOTER_LEN] {
        #[expect(clippy::cast_possible_truncation, reason = "65536")]
        const CHUNK_LEN_32: u32 = CHUNK_LEN as u32;
        let mut footer = [0; FOOTER_LEN];
        footer[0..8].copy_from_slice(MAGIC);
        footer[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        footer[12..16].copy_from_slice(&CHUNK_LEN_32.to_le_bytes());
        footer[16..24].copy_from_slice(&self.plain_len.to_le_bytes());
        footer[24..32].copy_from_slice(&self.tags_at.to_le_bytes());
        footer[32..48].copy_from_slice(&id.0);
        footer
    }

    /// Checks a footer read back from file `id`, which the index says holds `plain_len` bytes.
    pub(super) fn check(self, id: FileId, footer: &[u8]) -> Result<(), StoreError> {
        if footer == self.footer(id) {
            return Ok(());
        }
        let newer = footer.len() == FOOTER_LEN && &footer[..8] == MAGIC;
        let found = if newer {
            u32::from_le_bytes(footer[8..12].try_into().expect("four bytes"))
        } else {
            0
        };
        if found > FORMAT {
            return Err(StoreError::NewerFormat {
                found,
                known: FORMAT,
            });
        }
        Err(StoreError::Corrupt(format!(
            "data file {id} does not end as one of {} bytes does",
            self.plain_len
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_keeps_tags_aligned_and_ends_with_the_footer() {
        for plain_len in [
            0,
            1,
            4096,
            65535,
            65536,
            65537,
            16 << 20,
            (16 << 20) + 1,
            5 << 30,
        ] {
            let shape = Shape::of(plain_len);
            assert_eq!(shape.tags_at % ALIGN as u64, 0);
            assert_eq!(shape.file_len() % ALIGN as u64, 0);
            assert!(shape.tags_at >= plain_len);
            assert!(shape.footer_at >= shape.tags_at + shape.tags_len());
            assert!(shape.file_len() - plain_len <= 2 * ALIGN as u64 + shape.tags_len());
        }
        assert_eq!(Shape::of(0).chunks, 1);
    }

    #[test]
    fn a_footer_of_another_file_length_or_format_is_refused() {
        let (id, other) = (FileId([1; 16]), FileId([2; 16]));
        let shape = Shape::of(100);
        let footer = shape.footer(id);
        assert!(shape.check(id, &footer).is_ok());
        assert!(matches!(
            shape.check(other, &footer),
            Err(StoreError::Corrupt(_))
        ));
        assert!(matches!(
            Shape::of(101).check(id, &footer),
            Err(StoreError::Corrupt(_))
        ));
        assert!(matches!(
            shape.check(id, &footer[1..]),
            Err(StoreError::Corrupt(_))
        ));
        let mut newer = footer;
        newer[8] = 2;
        assert!(matches!(
            shape.check(id, &newer),
            Err(StoreError::NewerFormat { found: 2, known: 1 })
        ));
    }

    #[test]
    fn only_names_we_give_parse_as_file_ids() {
        let id = FileId([0xab; 16]);
        assert_eq!(FileId::parse(&id.to_string()), Some(id));
        for bad in [
            "",
            "ab",
            &"AB".repeat(16),
            &"zz".repeat(16),
            &"ab".repeat(17),
        ] {
            assert_eq!(FileId::parse(bad), None);
        }
    }
}
