//! A root key in a text file of mode 0600 (`FORMAT.md`).
//!
//! Made in one step: written beside, synced, linked to its name without replacing, the folder synced. The file carries
//! a checksum, so that one cut short or mistyped is told from one that belongs to another store.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use crypto::{
    random::Random,
    secret::{SecretBytes, SecretVec},
    store_key::{GenerationKey, RootKey},
};
use host::{Disk, EntryKind, Mode, private};
use sha2::{Digest as _, Sha256};

use crate::{
    blocking::blocking,
    error::RootError,
    id::RootKeyId,
    provider::{Kind, RootKeyProvider, Wrapped},
};

/// A root key in a file, read anew for each call: it is in memory for no longer than a wrap takes.
#[derive(Clone)]
pub struct FileProvider {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    random: Arc<dyn Random>,
}

impl std::fmt::Debug for FileProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FileProvider").field(&self.path).finish()
    }
}

impl FileProvider {
    /// The root key in the file at `path`.
    pub fn new(path: impl Into<PathBuf>, disk: Arc<dyn Disk>, random: Arc<dyn Random>) -> Self {
        let path = path.into();
        Self { path, disk, random }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn io(&self, source: io::Error) -> RootError {
        RootError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn damaged(&self, why: &'static str) -> RootError {
        RootError::KeyFileDamaged {
            path: self.path.clone(),
            why,
        }
    }

    /// The root key, or `None` if there is no file. Blocks.
    fn load(&self) -> Result<Option<RootKey>, RootError> {
        // Looked at before it is opened: opening a pipe would wait for its other end.
        match self.disk.kind(&self.path).map_err(|e| self.io(e))? {
            None => return Ok(None),
            Some(EntryKind::File) => {}
            Some(_) => return Err(self.damaged("it is not a regular file")),
        }
        let file = match self.disk.open(&self.path, Mode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        let mode = file.permissions().map_err(|error| self.io(error))?;
        if let Some(mode) = mode.filter(|mode| mode & 0o077 != 0) {
            return Err(RootError::Permissions {
                path: self.path.clone(),
                mode,
            });
        }
        let len = file.len().map_err(|error| self.io(error))?;
        // One byte more than a whole file, to see that it goes on; no more of a wrong file.
        let len = usize::try_from(len).map_or(FILE_LEN + 1, |len| len.min(FILE_LEN + 1));
        let text = SecretVec::try_init_with(len, |text| file.read_at(0, text))
            .map_err(|error| self.io(error))?;
        self.parse(&text).map(Some)
    }

    /// Makes a root key and keeps it durably, or fails, leaving what is there. Blocks.
    fn create(&self) -> Result<RootKey, RootError> {
        let root = RootKey::generate(&*self.random);
        private::create(&*self.disk, &self.path, render(&root).expose())
            .map_err(|error| self.io(error))?;
        Ok(root)
    }

    #[cfg(fuzzing)]
    pub(crate) fn check_text(text: &[u8]) {
        let random = Arc::new(crypto::random::SystemRandom);
        let fuzzed = Self::new("fuzz", Arc::new(host::OsDisk), random);
        if let Ok(root) = fuzzed.parse(&SecretVec::from_slice(text)) {
            assert_eq!(render(&root).expose(), text);
        }
    }

    fn parse(&self, text: &SecretVec) -> Result<RootKey, RootError> {
        let text = text.expose();
        let rest = text
            .strip_prefix(TITLE)
            .ok_or_else(|| self.damaged("it does not begin as a root key file does"))?;
        let format_end = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or_else(|| self.damaged("it is cut short"))?;
        let format = std::str::from_utf8(&rest[..format_end])
            .ok()
            .and_then(|format| format.parse::<u32>().ok())
            .ok_or_else(|| self.damaged("its format is not a number"))?;
        match format {
            FORMAT => {}
            found if found > FORMAT => {
                return Err(RootError::KeyFileNewer {
                    path: self.path.clone(),
                    found,
                });
            }
            _ => return Err(self.damaged("there is no such format")),
        }
        if text.len() < FILE_LEN {
            return Err(self.damaged("it is cut short"));
        }
        if text.len() > FILE_LEN {
            return Err(self.damaged("it goes on after its end"));
        }
        let mismatch = || self.damaged("its checksum does not match: a byte was changed");
        let (body, check) = text.split_at(BODY_LEN);
        let labels = body[ID_AT - ID.len()..ID_AT] == *ID
            && body[KEY_AT - KEY.len()..KEY_AT] == *KEY
            && body[KEY_AT..KEY_AT + 64]
                .iter()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
            && body[BODY_LEN - 1] == b'\n'
            && check.starts_with(CHECK)
            && check.ends_with(b"\n");
        // Compared as text: a digit in capitals is a changed byte too, and nothing else covers this line.
        let expected = hex::encode(Sha256::digest(body));
        if !labels || &check[CHECK.len()..CHECK.len() + 64] != expected.as_bytes() {
            return Err(mismatch());
        }
        let secret = SecretBytes::<32>::try_init_with(|key| {
            hex::decode_to_slice(&body[KEY_AT..KEY_AT + 64], key)
        })
        .map_err(|_| mismatch())?;
        let root = RootKey::from_secret(secret);
        if hex::encode(root.id()).as_bytes() != &body[ID_AT..ID_AT + 32] {
            return Err(self.damaged("its id is not that of its key"));
        }
        Ok(root)
    }
}

const TITLE: &[u8] = b"sealgate root key\nformat ";
const FORMAT: u32 = 1;
const FORMAT_TEXT: &[u8] = b"1";
const ID: &[u8] = b"\nid ";
const KEY: &[u8] = b"\nkey ";
const CHECK: &[u8] = b"check ";
const ID_AT: usize = TITLE.len() + FORMAT_TEXT.len() + ID.len();
const KEY_AT: usize = ID_AT + 32 + KEY.len();
/// What the checksum covers: all before the line of the checksum.
const BODY_LEN: usize = KEY_AT + 64 + 1;
const FILE_LEN: usize = BODY_LEN + CHECK.len() + 64 + 1;

/// The file's text. Made in place: no copy of the key outside secret memory.
fn render(root: &RootKey) -> SecretVec {
    SecretVec::init_with(FILE_LEN, |text| {
        let encode = |bytes: &[u8], out: &mut [u8]| {
            hex::encode_to_slice(bytes, out).expect("two digits a byte");
        };
        text[..TITLE.len()].copy_from_slice(TITLE);
        text[TITLE.len()..][..FORMAT_TEXT.len()].copy_from_slice(FORMAT_TEXT);
        text[ID_AT - ID.len()..ID_AT].copy_from_slice(ID);
        encode(&root.id(), &mut text[ID_AT..ID_AT + 32]);
        text[KEY_AT - KEY.len()..KEY_AT].copy_from_slice(KEY);
        encode(root.secret().expose(), &mut text[KEY_AT..KEY_AT + 64]);
        text[BODY_LEN - 1] = b'\n';
        let (body, check) = text.split_at_mut(BODY_LEN);
        check[..CHECK.len()].copy_from_slice(CHECK);
        encode(&Sha256::digest(body), &mut check[CHECK.len()..][..64]);
        check[CHECK.len() + 64] = b'\n';
    })
}

#[async_trait]
impl RootKeyProvider for FileProvider {
    fn kind(&self) -> Kind {
        Kind::File
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    async fn ensure(&self) -> Result<bool, RootError> {
        let this = self.clone();
        blocking(move || match this.load()? {
            Some(_) => {
                // It may be left from a start that was cut off before its name was durable.
                private::sync_name(&*this.disk, &this.path).map_err(|error| this.io(error))?;
                Ok(false)
            }
            None => {
                this.create()?;
                Ok(true)
            }
        })
        .await
    }

    async fn wrap(&self, key: &GenerationKey, aad: &[u8]) -> Result<Wrapped, RootError> {
        let this = self.clone();
        let root = blocking(move || match this.load()? {
            Some(root) => Ok(root),
            None => Err(this.io(io::ErrorKind::NotFound.into())),
        })
        .await?;
        Ok(Wrapped {
            kind: Kind::File,
            root_key: RootKeyId::from_bytes(root.id()),
            parameters: Vec::new(),
            ciphertext: root.wrap(key, aad, &*self.random),
        })
    }

    async fn unwrap(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<GenerationKey, RootError> {
        let this = self.clone();
        let needed = wrapped.root_key;
        let root = blocking(move || {
            this.load()?.ok_or_else(|| RootError::Missing {
                from: this.describe(),
                needed,
            })
        })
        .await?;
        let found = RootKeyId::from_bytes(root.id());
        if found != needed {
            return Err(RootError::WrongRootKey {
                from: self.describe(),
                needed,
                found,
            });
        }
        root.unwrap(&wrapped.ciphertext, aad)
            .map_err(|_| RootError::Unauthentic)
    }
}

/// Puts the root key file `from` in the place of `to`, which is replaced. The last step of replacing a root key in its
/// place, when the header opens under both. Blocks.
pub fn replace_root_key_file(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), RootError> {
    let renamed = disk
        .rename(from, to)
        .and_then(|()| private::sync_name(disk, to));
    renamed.map_err(|source| RootError::Io {
        path: to.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io::Write as _,
        os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    };

    use crypto::random::SeededRandom;
    use host::OsDisk;

    use super::*;

    const GOLDEN: &str = include_str!("../golden/root.key");

    fn provider(dir: &Path, seed: u64) -> FileProvider {
        let random = Arc::new(SeededRandom::new(seed));
        FileProvider::new(dir.join("root.key"), Arc::new(OsDisk), random)
    }

    fn write(path: &Path, text: &[u8]) {
        let _ = fs::remove_file(path);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .unwrap()
            .write_all(text)
            .unwrap();
    }

    #[test]
    fn the_golden_file_is_read_and_written_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), 1);
        write(&provider.path, GOLDEN.as_bytes());
        let root = provider.load().unwrap().unwrap();
        let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(root.secret().expose(), &key);
        assert_eq!(render(&root).expose(), GOLDEN.as_bytes());
    }

    #[test]
    fn what_was_made_is_found_again_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), 1);
        assert!(provider.load().unwrap().is_none());
        let made = provider.create().unwrap();
        let found = provider.load().unwrap().unwrap();
        assert_eq!(made.id(), found.id());
        let mode = fs::metadata(&provider.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(provider.create().is_err());
        let still = provider.load().unwrap().unwrap();
        assert_eq!(made.id(), still.id());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no leftovers");
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_damage_not_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), 1);
        let refused = |text: &[u8]| {
            let error = provider.parse(&SecretVec::from_slice(text)).unwrap_err();
            matches!(
                error,
                RootError::KeyFileDamaged { .. } | RootError::KeyFileNewer { .. }
            )
        };
        let golden = GOLDEN.as_bytes();
        for len in 0..golden.len() {
            assert!(refused(&golden[..len]), "cut to {len}");
        }
        assert!(refused(format!("{GOLDEN}\n").as_bytes()));
        for bit in 0..golden.len() * 8 {
            let mut changed = golden.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&changed), "bit {bit}");
        }
        // Nor is it read where the checksum was made to match: no text but the one that is written is a key's.
        for at in (0..BODY_LEN).filter(|at| !(ID_AT..ID_AT + 32).contains(at)) {
            let mut changed = golden.to_vec();
            changed[at] = match changed[at] {
                digit @ b'a'..=b'f' if (KEY_AT..KEY_AT + 64).contains(&at) => digit - b'a' + b'A',
                _ if (KEY_AT..KEY_AT + 64).contains(&at) => continue,
                other => other ^ 0x40,
            };
            let check = hex::encode(Sha256::digest(&changed[..BODY_LEN]));
            changed[BODY_LEN + CHECK.len()..][..64].copy_from_slice(check.as_bytes());
            assert!(refused(&changed), "byte {at}");
        }
    }

    #[test]
    fn an_empty_file_one_that_others_may_read_and_a_newer_one_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), 1);
        write(&provider.path, b"");
        assert!(matches!(
            provider.load().unwrap_err(),
            RootError::KeyFileDamaged { .. }
        ));
        write(
            &provider.path,
            GOLDEN.replace("format 1", "format 2").as_bytes(),
        );
        assert!(matches!(
            provider.load().unwrap_err(),
            RootError::KeyFileNewer { found: 2, .. }
        ));
        write(&provider.path, GOLDEN.as_bytes());
        fs::set_permissions(&provider.path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            provider.load().unwrap_err(),
            RootError::Permissions { mode: 0o640, .. }
        ));
    }

    #[test]
    fn a_link_to_a_file_and_a_folder_are_no_root_key_files() {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), 1);
        let real = dir.path().join("real");
        write(&real, GOLDEN.as_bytes());
        std::os::unix::fs::symlink(&real, &provider.path).unwrap();
        let damaged = |provider: &FileProvider| {
            let error = provider.load().unwrap_err();
            matches!(error, RootError::KeyFileDamaged { .. })
        };
        assert!(damaged(&provider));
        fs::remove_file(&provider.path).unwrap();
        fs::create_dir(&provider.path).unwrap();
        assert!(damaged(&provider));
    }
}
