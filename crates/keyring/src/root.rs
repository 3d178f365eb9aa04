//! The root key: what every record is sealed under, and the providers it comes from.
//!
//! [`load_or_create`] is the way to one: it makes a root key only for an empty store, because a new
//! one beside existing records would lock every key out for good.
//!
//! [`FileProvider`] keeps it in a text file of mode 0600 (`FORMAT.md`), made in one step: written to
//! a temporary name, synced, renamed without replacing, the directory synced. The file carries a
//! checksum, so that one cut short or mistyped is told from one that belongs to another store.
//! A passphrase or a systemd credential is another [`RootKeyProvider`].

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crypto::{
    random::Random,
    record::RootKey,
    secret::{SecretBytes, SecretVec},
};
use sha2::{Digest as _, Sha256};

use crate::{error::KeyringError, store::KeyStore, vault};

/// A root key that cannot be had. The operator's fault, or the file's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootKeyError {
    /// The file ends too early or was changed: not a wrong key, a broken one.
    #[error("root key file {path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What did not hold.
        why: &'static str,
    },
    /// Written by a newer version of this program.
    #[error("root key file {path} has format {found}, newer than this program knows")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Others may read the file.
    #[error("root key file {path} has mode {mode:03o}: others than its owner may use it, set 600")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The store exists and no root key does.
    #[error("no root key at {from}, but the key store there needs root key {needed}: restore it")]
    Missing {
        /// Where it was looked for.
        from: String,
        /// Public id of the root key the store was made with.
        needed: RootKeyId,
    },
    /// The file cannot be read or written.
    #[error("root key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The public name of a root key: tells keys apart and says nothing of the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RootKeyId([u8; 16]);

impl RootKeyId {
    /// Its length in bytes.
    pub(crate) const LEN: usize = 16;

    /// The name of `root`: the first half of its verifier under a fixed salt. The key is 256 random
    /// bits, so nobody can search for it.
    pub fn of(root: &RootKey) -> Self {
        let mut id = [0; Self::LEN];
        id.copy_from_slice(&root.verifier(ID_SALT)[..Self::LEN]);
        Self(id)
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl std::fmt::Display for RootKeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for RootKeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

const ID_SALT: &[u8; 32] = b"sealgate root key id\0\0\0\0\0\0\0\0\0\0\0\0";

/// Where a root key comes from.
pub trait RootKeyProvider: Send + Sync {
    /// The root key, or `None` if there is none yet.
    fn load(&self) -> Result<Option<RootKey>, RootKeyError>;

    /// Makes a root key and keeps it durably. Never replaces one.
    fn create(&self, random: &dyn Random) -> Result<RootKey, RootKeyError>;

    /// Where it comes from, for messages.
    fn describe(&self) -> String;
}

/// The root key from `provider`; made if there is none and `store` is empty, never if `store`
/// holds records that need another one. A root key that is not the store's is refused.
pub fn load_or_create(
    provider: &dyn RootKeyProvider,
    store: &dyn KeyStore,
    random: &dyn Random,
) -> Result<RootKey, KeyringError> {
    let needed = vault::root_key_needed(store)?;
    match (provider.load()?, needed) {
        (Some(root), Some(needed)) if RootKeyId::of(&root) != needed => {
            Err(KeyringError::WrongRootKey {
                needed,
                found: RootKeyId::of(&root),
            })
        }
        (Some(root), _) => Ok(root),
        (None, Some(needed)) => Err(RootKeyError::Missing {
            from: provider.describe(),
            needed,
        }
        .into()),
        (None, None) => {
            let root = provider.create(random)?;
            tracing::info!(
                id = %RootKeyId::of(&root),
                at = %provider.describe(),
                "made a root key: keep a copy of it apart from the data"
            );
            Ok(root)
        }
    }
}

/// A file of mode 0600.
#[derive(Debug, Clone)]
pub struct FileProvider {
    path: PathBuf,
}

impl FileProvider {
    /// The root key in the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn io(&self, source: io::Error) -> RootKeyError {
        RootKeyError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn damaged(&self, why: &'static str) -> RootKeyError {
        RootKeyError::Damaged {
            path: self.path.clone(),
            why,
        }
    }

    #[cfg(fuzzing)]
    pub(crate) fn check_text(text: &[u8]) {
        if let Ok(root) = Self::new("fuzz").parse(&SecretVec::from_slice(text)) {
            assert_eq!(render(&root).expose(), text);
        }
    }

    fn parse(&self, text: &SecretVec) -> Result<RootKey, RootKeyError> {
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
                return Err(RootKeyError::Newer {
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
            && check.starts_with(CHECK)
            && check.ends_with(b"\n");
        let mut expected = [0; 32];
        hex::decode_to_slice(&check[CHECK.len()..CHECK.len() + 64], &mut expected)
            .map_err(|_| mismatch())?;
        if !labels || Sha256::digest(body).0 != expected {
            return Err(mismatch());
        }
        let secret = SecretBytes::<32>::try_init_with(|key| {
            hex::decode_to_slice(&body[KEY_AT..KEY_AT + 64], key)
        })
        .map_err(|_| mismatch())?;
        let root = RootKey::from_secret(secret);
        if hex::encode(RootKeyId::of(&root).0).as_bytes() != &body[ID_AT..ID_AT + 32] {
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
        encode(&RootKeyId::of(root).0, &mut text[ID_AT..ID_AT + 32]);
        text[KEY_AT - KEY.len()..KEY_AT].copy_from_slice(KEY);
        encode(root.secret().expose(), &mut text[KEY_AT..KEY_AT + 64]);
        text[BODY_LEN - 1] = b'\n';
        let (body, check) = text.split_at_mut(BODY_LEN);
        check[..CHECK.len()].copy_from_slice(CHECK);
        encode(&Sha256::digest(body), &mut check[CHECK.len()..][..64]);
        check[CHECK.len() + 64] = b'\n';
    })
}

impl RootKeyProvider for FileProvider {
    fn load(&self) -> Result<Option<RootKey>, RootKeyError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        let metadata = file.metadata().map_err(|error| self.io(error))?;
        if !metadata.is_file() {
            return Err(self.damaged("it is not a regular file"));
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(RootKeyError::Permissions {
                path: self.path.clone(),
                mode,
            });
        }
        // One byte more than a whole file, to see that it goes on; no more of a wrong file.
        let len = usize::try_from(metadata.len()).map_or(FILE_LEN + 1, |len| len.min(FILE_LEN + 1));
        let text = SecretVec::try_init_with(len, |text| file.read_exact(text))
            .map_err(|error| self.io(error))?;
        self.parse(&text).map(Some)
    }

    fn create(&self, random: &dyn Random) -> Result<RootKey, RootKeyError> {
        let root = RootKey::generate(random);
        let mut suffix = [0; 8];
        random.fill(&mut suffix);
        let temporary = self
            .path
            .with_extension(format!("tmp-{}", hex::encode(suffix)));
        let made = write_new(&temporary, &self.path, &render(&root));
        if made.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        made.map_err(|error| self.io(error))?;
        Ok(root)
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

/// Makes `path` with `text` in it, or nothing; fails if it exists.
fn write_new(temporary: &Path, path: &Path, text: &SecretVec) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)?;
    file.write_all(text.expose())?;
    file.sync_all()?;
    // A link, unlike a rename, never replaces what is there.
    fs::hard_link(temporary, path)?;
    fs::remove_file(temporary)?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use crypto::random::SeededRandom;

    use super::*;

    const GOLDEN: &str = include_str!("../tests/golden/root.key");

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
        let provider = FileProvider::new(dir.path().join("root.key"));
        write(&provider.path, GOLDEN.as_bytes());
        let root = provider.load().unwrap().unwrap();
        let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(root.secret().expose(), &key);
        assert_eq!(render(&root).expose(), GOLDEN.as_bytes());
    }

    #[test]
    fn what_was_made_is_found_again_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let provider = FileProvider::new(dir.path().join("root.key"));
        assert!(provider.load().unwrap().is_none());
        let made = provider.create(&SeededRandom::new(1)).unwrap();
        let found = provider.load().unwrap().unwrap();
        assert_eq!(RootKeyId::of(&made), RootKeyId::of(&found));
        let mode = fs::metadata(&provider.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(provider.create(&SeededRandom::new(2)).is_err());
        let still = provider.load().unwrap().unwrap();
        assert_eq!(RootKeyId::of(&made), RootKeyId::of(&still));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no leftovers");
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_damage_not_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let provider = FileProvider::new(dir.path().join("root.key"));
        let refused = |text: &[u8]| {
            let error = provider.parse(&SecretVec::from_slice(text)).unwrap_err();
            matches!(
                error,
                RootKeyError::Damaged { .. } | RootKeyError::Newer { .. }
            )
        };
        let golden = GOLDEN.as_bytes();
        for len in 0..golden.len() {
            assert!(refused(&golden[..len]), "cut to {len}");
        }
        assert!(refused(format!("{GOLDEN}\n").as_bytes()));
        for at in 0..golden.len() {
            let mut changed = golden.to_vec();
            changed[at] ^= 1;
            assert!(refused(&changed), "byte {at}");
        }
    }

    #[test]
    fn an_empty_file_one_that_others_may_read_and_a_newer_one_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let provider = FileProvider::new(dir.path().join("root.key"));
        write(&provider.path, b"");
        assert!(matches!(
            provider.load().unwrap_err(),
            RootKeyError::Damaged { .. }
        ));
        write(
            &provider.path,
            GOLDEN.replace("format 1", "format 2").as_bytes(),
        );
        assert!(matches!(
            provider.load().unwrap_err(),
            RootKeyError::Newer { found: 2, .. }
        ));
        write(&provider.path, GOLDEN.as_bytes());
        fs::set_permissions(&provider.path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            provider.load().unwrap_err(),
            RootKeyError::Permissions { mode: 0o640, .. }
        ));
    }
}
