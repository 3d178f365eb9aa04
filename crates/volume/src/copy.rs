//! The sealed copy of a volume's row in its folder, twice. `FORMAT.md`, "Copy".
//!
//! It is what the row is remade from if the catalogue was lost. Both files have the same bytes; each is replaced whole,
//! one after the other, so that at any time one of them is whole.

use std::{io, path::Path};

use catalogue::Scope;
use host::{Disk, private};
use root::StoreId;

use crate::{
    VolumeId,
    descriptor::{Descriptor, Row},
    vault::{Seals, Vault},
};

/// The two files.
pub(crate) const NAMES: [&str; 2] = ["volume.copy", "volume.copy2"];
const MAGIC: &[u8; 8] = b"SGVOLCPY";
const FORMAT: u8 = 1;
/// Longest file that is read. Fifty tags of the longest kind are well below.
const LEN_MAX: u64 = 1 << 20;

/// A copy as it is in its file: nothing of it is trusted until it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) store: StoreId,
    pub(crate) id: VolumeId,
    pub(crate) revision: u64,
    pub(crate) scope: Scope,
    pub(crate) sealed: Vec<u8>,
}

impl Sealed {
    /// The bytes of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(FORMAT);
        bytes.extend(self.store.as_bytes());
        bytes.extend(self.id.to_bytes());
        bytes.extend(self.revision.to_be_bytes());
        for part in [&self.scope.account, &self.scope.region] {
            bytes.push(u8::try_from(part.len()).expect("the catalogue takes 64 bytes at most"));
            bytes.extend(part.as_bytes());
        }
        bytes.extend(&self.sealed);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "it is cut off";
        let bytes = &mut bytes;
        if bytes.split_off(..MAGIC.len()).ok_or(SHORT)? != MAGIC {
            return Err("it is no copy of a volume's row");
        }
        if *bytes.split_off_first().ok_or(SHORT)? != FORMAT {
            return Err("its format is not known");
        }
        let store = take(bytes).ok_or(SHORT)?;
        let id = VolumeId::from_bytes(take(bytes).ok_or(SHORT)?).ok_or("its id is no volume's")?;
        let revision = u64::from_be_bytes(take(bytes).ok_or(SHORT)?);
        let (account, region) = (take_text(bytes)?, take_text(bytes)?);
        Ok(Self {
            store: StoreId::from_bytes(store),
            id,
            revision,
            scope: Scope { account, region },
            sealed: bytes.to_vec(),
        })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    bytes.split_off(..N)?.try_into().ok()
}

fn take_text(bytes: &mut &[u8]) -> Result<String, &'static str> {
    let text = bytes
        .split_off_first()
        .and_then(|len| bytes.split_off(..usize::from(*len)))
        .ok_or("it is cut off")?;
    let text = std::str::from_utf8(text).ok();
    text.map(str::to_owned)
        .ok_or("its account or region is no text")
}

/// A copy that opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) scope: Scope,
    pub(crate) descriptor: Descriptor,
    /// Whether both files are there and the same.
    pub(crate) twice: bool,
}

/// What a folder has of copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// The newest that opened.
    Copy(Box<Copy>),
    /// None is this store's.
    OtherStore(StoreId),
    /// None opens, for this reason.
    Damaged(&'static str),
}

/// Writes a copy into a volume's folder, durably, twice. Blocks. After an error the newer or the older copy is found.
pub(crate) fn write(
    disk: &dyn Disk,
    dir: &Path,
    vault: &Vault,
    seals: &Seals,
    scope: &Scope,
    descriptor: &Descriptor,
) -> io::Result<()> {
    let copy = Sealed {
        store: vault.store,
        id: descriptor.id,
        revision: descriptor.revision,
        scope: scope.clone(),
        sealed: vault.seal_copy(seals, scope, descriptor),
    };
    let bytes = copy.encode();
    for name in NAMES {
        private::replace(disk, &dir.join(name), &bytes)?;
    }
    Ok(())
}

/// One of the files; `None` if it is not there. Blocks.
pub(crate) fn read_file(disk: &dyn Disk, dir: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match private::read(disk, &dir.join(name), LEN_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the copies in the folder of volume `id`. Blocks.
pub(crate) fn read(disk: &dyn Disk, dir: &Path, id: VolumeId, vault: &Vault) -> Found {
    let files = NAMES.map(|name| read_file(disk, dir, name));
    let twice = matches!(&files, [Ok(Some(one)), Ok(Some(two))] if one == two);
    let mut best: Option<Copy> = None;
    let mut worst = Found::Nothing;
    for file in files {
        match file.map(|file| file.map(|file| open(&file, id, vault))) {
            Ok(None) => {}
            Ok(Some(Ok((scope, descriptor)))) => {
                let newer = |best: &Copy| descriptor.revision > best.descriptor.revision;
                if best.as_ref().is_none_or(newer) {
                    best = Some(Copy {
                        scope,
                        descriptor,
                        twice,
                    });
                }
            }
            Ok(Some(Err(found))) => worst = found,
            Err(_) => worst = Found::Damaged("it cannot be read"),
        }
    }
    best.map_or(worst, |copy| Found::Copy(Box::new(copy)))
}

/// What is wrong with each of the copies of `row`, by the file's name. Blocks.
pub(crate) fn faults(
    disk: &dyn Disk,
    dir: &Path,
    vault: &Vault,
    (scope, row): (&Scope, &Descriptor),
) -> Vec<(&'static str, &'static str)> {
    let fault = |name| match read_file(disk, dir, name) {
        Err(_) => Some("it cannot be read"),
        Ok(None) => Some("it is missing"),
        Ok(Some(file)) => match open(&file, row.id, vault) {
            Ok((found, _)) if found != *scope => Some("it is of another account or region"),
            Ok((_, descriptor)) if descriptor.revision < row.revision => {
                Some("it is older than the record")
            }
            // A newer one is of a change that the next start finishes.
            Ok(_) => None,
            Err(Found::Damaged(why)) => Some(why),
            Err(_) => Some("it is of another store"),
        },
    };
    let faults = NAMES.into_iter().map(|name| (name, fault(name)));
    faults
        .filter_map(|(name, fault)| Some((name, fault?)))
        .collect()
}

fn open(file: &[u8], id: VolumeId, vault: &Vault) -> Result<(Scope, Descriptor), Found> {
    let copy = Sealed::decode(file).map_err(Found::Damaged)?;
    if copy.store != vault.store {
        return Err(Found::OtherStore(copy.store));
    }
    if copy.id != id {
        return Err(Found::Damaged("it is another volume's"));
    }
    let contents = vault
        .open_copy(&copy.scope, id, copy.revision, &copy.sealed)
        .map_err(|_| Found::Damaged("it does not authenticate"))?;
    match Row::decode(contents.expose(), id).map_err(Found::Damaged)? {
        Row::Present(descriptor) if descriptor.revision == copy.revision => {
            Ok((copy.scope, *descriptor))
        }
        _ => Err(Found::Damaged("it is not what its name says")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        descriptor::tests::{descriptor, golden, id},
        vault::tests::{scope, vault},
    };

    fn copy() -> Sealed {
        Sealed {
            store: StoreId::from_bytes([7; 16]),
            id: id(),
            revision: 258,
            scope: Scope {
                account: "123456789012".to_owned(),
                region: "us-east-1".to_owned(),
            },
            sealed: b"sealed".to_vec(),
        }
    }

    #[test]
    fn the_golden_copy_reads_and_is_written_the_same() {
        let golden = golden("volume.copy", &copy().encode());
        assert_eq!(Sealed::decode(&golden).unwrap(), copy());
    }

    /// A folder on a simulated disk, with copies of this revision.
    fn folder(vault: &Vault, revision: u64) -> host::disk::sim::SimDisk {
        let disk = host::disk::sim::SimDisk::new(1);
        rewrite(&disk, vault, revision);
        disk
    }

    fn rewrite(disk: &dyn Disk, vault: &Vault, revision: u64) {
        let descriptor = Descriptor {
            revision,
            ..descriptor()
        };
        write(
            disk,
            Path::new("/"),
            vault,
            &vault.seals(),
            &scope(),
            &descriptor,
        )
        .unwrap();
    }

    fn revision(found: Found) -> Option<(u64, bool)> {
        match found {
            Found::Copy(copy) => Some((copy.descriptor.revision, copy.twice)),
            _ => None,
        }
    }

    #[test]
    fn one_damaged_copy_is_made_up_for_by_the_other_and_the_newer_one_counts() {
        let (vault, dir) = (vault(1), Path::new("/"));
        for damaged in NAMES {
            let disk = folder(&vault, 1);
            disk.damage(dir.join(damaged), 80, |byte| byte ^ 1);
            assert_eq!(revision(read(&disk, dir, id(), &vault)), Some((1, false)));
            disk.remove(&dir.join(damaged)).unwrap();
            assert_eq!(revision(read(&disk, dir, id(), &vault)), Some((1, false)));
        }
        let disk = folder(&vault, 1);
        let old = disk.bytes(dir.join(NAMES[1]));
        rewrite(&disk, &vault, 2);
        assert_eq!(revision(read(&disk, dir, id(), &vault)), Some((2, true)));
        private::replace(&disk, &dir.join(NAMES[1]), &old).unwrap();
        assert_eq!(revision(read(&disk, dir, id(), &vault)), Some((2, false)));
        for name in NAMES {
            disk.damage(dir.join(name), 80, |byte| byte ^ 1);
        }
        let found = read(&disk, dir, id(), &vault);
        assert_eq!(found, Found::Damaged("it does not authenticate"));
    }

    #[test]
    fn a_copy_of_another_volume_or_store_is_not_taken() {
        let (mine, dir) = (vault(1), Path::new("/"));
        let disk = folder(&mine, 1);
        let other: VolumeId = "vol-0123456789abcdef1".parse().unwrap();
        let found = read(&disk, dir, other, &mine);
        assert_eq!(found, Found::Damaged("it is another volume's"));
        let theirs = vault(2);
        assert_eq!(
            read(&disk, dir, id(), &theirs),
            Found::OtherStore(mine.store)
        );
        // One that says that it is of this store is not.
        for name in NAMES {
            let mut copy = Sealed::decode(&disk.bytes(dir.join(name))).unwrap();
            copy.store = theirs.store;
            private::replace(&disk, &dir.join(name), &copy.encode()).unwrap();
        }
        let found = read(&disk, dir, id(), &theirs);
        assert_eq!(found, Found::Damaged("it does not authenticate"));
        let empty = host::disk::sim::SimDisk::new(1);
        assert_eq!(read(&empty, dir, id(), &mine), Found::Nothing);
    }

    #[test]
    fn what_is_no_copy_is_refused() {
        let good = copy().encode();
        let header = good.len() - copy().sealed.len();
        for len in 0..header {
            assert_eq!(Sealed::decode(&good[..len]), Err("it is cut off"), "{len}");
        }
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            Sealed::decode(&bad)
        };
        assert_eq!(with(0, b'X'), Err("it is no copy of a volume's row"));
        assert_eq!(with(8, 2), Err("its format is not known"));
        assert_eq!(with(25, 0xff), Err("its id is no volume's"));
        assert_eq!(with(50, 0xff), Err("its account or region is no text"));
    }
}
