//! Where things are on disk: the store's directory and the form of a data file. See `FORMAT.md`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crypto::chunk::{CHUNK_LEN, TAG_LEN};
use crypto::random::Random;
use host::{DIRECT_ALIGN, Disk, OsDisk, private};

use crate::store::StoreError;

/// What direct I/O needs of offsets, lengths and addresses; covers every sector size in use.
pub(super) const ALIGN: usize = 4096;
const _: () = assert!(
    ALIGN.is_multiple_of(DIRECT_ALIGN),
    "data files suit direct I/O"
);
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

    /// A new one of a folder.
    pub(super) fn in_folder(folder: u8, random: &dyn Random) -> Self {
        let mut id = Self::new(random);
        id.0[0] = folder;
        id
    }

    /// The number of the folder that it is in.
    pub(super) fn folder(self) -> u8 {
        self.0[0]
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
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl Directory {
    /// Creates what is missing, durably: afterwards no write makes a folder. `folders` is the last one for data files.
    pub(super) fn create(disk: Arc<dyn Disk>, root: &Path, folders: u8) -> io::Result<Self> {
        let this = Self {
            disk,
            root: root.to_owned(),
        };
        let disk = &*this.disk;
        // The index is made after all of them are durable.
        let complete = this.has_index()? && disk.kind(&this.folder(folders))?.is_some();
        if !complete {
            private::create_dirs(disk, root)?;
            make_folder(disk, &this.quarantine())?;
            make_folder(disk, &root.join("data"))?;
            for folder in 0..=folders {
                make_folder(disk, &this.folder(folder))?;
            }
            disk.sync_dir(&root.join("data"))?;
            disk.sync_dir(root)?;
        }
        Ok(this)
    }

    /// The names in a store's directory on the machine's own disk, whether it is there or not.
    pub(super) fn at(root: &Path) -> Self {
        Self {
            disk: Arc::new(OsDisk),
            root: root.to_owned(),
        }
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(super) fn shared_disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    pub(super) fn lock_file(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.db")
    }

    pub(super) fn has_index(&self) -> io::Result<bool> {
        Ok(self.disk.kind(&self.index())?.is_some())
    }

    /// A file to try things with; waste at start.
    pub(super) fn probe(&self) -> PathBuf {
        self.root.join("probe")
    }

    /// Data files that nothing names.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// The folder of all files whose id begins with `number`.
    pub(super) fn folder(&self, number: u8) -> PathBuf {
        self.root.join("data").join(format!("{number:02x}"))
    }

    /// The folders for data files that are there.
    pub(super) fn folders(&self) -> io::Result<Vec<u8>> {
        let names = self.disk.list(&self.root.join("data"))?.into_iter();
        let numbers = names.filter_map(|entry| {
            let mut number = [0];
            hex::decode_to_slice(entry.name.to_str()?, &mut number).ok()?;
            Some(number[0])
        });
        Ok(numbers.collect())
    }

    pub(super) fn data_file(&self, id: FileId) -> PathBuf {
        self.folder(id.folder()).join(id.to_string())
    }

    /// Bytes an ordinary user may still write.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes(&self.root)
    }
}

fn make_folder(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes a file that may be gone already.
pub(super) fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
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
