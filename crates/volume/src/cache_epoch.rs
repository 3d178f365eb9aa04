//! A volume's cache epoch: a number that changes when what was answered may have been lost.
//!
//! A client that reconnects never sends again what was answered. That is right as long as nothing answered can have
//! been lost: after a killed process, whose writes are in the page cache, and after a clean detach. It is wrong after a
//! power cut or a failed sync: what was answered and not flushed is gone, and the next flush would succeed all the same. So
//! each opening of a volume says an epoch, and a client that knows it reconnects to the same epoch only.
//!
//! The epoch is kept when the volume was last detached cleanly, or was last opened in this same boot of the machine and
//! has not failed since; otherwise a new one is drawn. Where anything is not known (no file, a damaged one, another volume's,
//! a machine that does not say its boot) a new one is drawn too: a client that could have gone on then stops, which
//! is the safe mistake.
//!
//! It does not see that all of a volume's files were put back to an older state within one boot: nothing here can.

use std::{fmt, io, path::Path, sync::Arc};

use crypto::{hash::Crc32c, random::Random};
use host::{BootId, Disk, File, Mode};

use crate::VolumeId;

/// Name of the file in a volume's folder.
pub(crate) const EPOCH_NAME: &str = "epoch";
const MAGIC: [u8; 8] = *b"SGVOLEPO";
const FORMAT: u16 = 1;
const LEN: usize = 68;

/// A time during which nothing that was answered can have been lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheEpoch([u8; 16]);

impl CacheEpoch {
    /// The epoch with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for CacheEpoch {
    /// 32 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CacheEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    volume: VolumeId,
    epoch: CacheEpoch,
    use_: Use,
}

/// How the volume was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Everything answered is durable.
    Detached,
    /// In use in that boot, if it is known which.
    Attached(Option<BootId>),
}

impl Kept {
    fn encode(self) -> [u8; LEN] {
        let (state, boot) = match self.use_ {
            Use::Detached => (1_u16, None),
            Use::Attached(boot) => (2, boot),
        };
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[10..12].copy_from_slice(&state.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.volume.to_bytes());
        bytes[32..48].copy_from_slice(&self.epoch.0);
        if let Some(boot) = boot {
            bytes[48..64].copy_from_slice(boot.as_bytes());
        }
        let checksum = Crc32c::digest(&bytes[..64]);
        bytes[64..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` if it is damaged, or of a format that is not known.
    pub(crate) fn decode(bytes: &[u8; LEN]) -> Option<Self> {
        let (body, checksum) = bytes.split_at(64);
        let part = |at: usize| <[u8; 16]>::try_from(&body[at..at + 16]).ok();
        let checksum_is_right = Crc32c::digest(body).to_le_bytes() == *checksum;
        if !checksum_is_right || body[..8] != MAGIC || body[8..10] != FORMAT.to_le_bytes() {
            return None;
        }
        let boot = part(48)?;
        let known = boot != [0; 16];
        let use_ = match (u16::from_le_bytes([body[10], body[11]]), known) {
            (1, false) => Use::Detached,
            (2, _) => Use::Attached(known.then_some(BootId::from_bytes(boot))),
            _ => return None,
        };
        if body[12..16] != [0; 4] {
            return None;
        }
        Some(Self {
            volume: VolumeId::from_bytes(part(16)?)?,
            epoch: CacheEpoch(part(32)?),
            use_,
        })
    }
}

/// Whether all that was answered before is still there.
fn is_kept(found: &Kept, volume: VolumeId, boot: Option<BootId>, failed: bool) -> bool {
    let left_well = match found.use_ {
        Use::Detached => true,
        // Not `==` on the options: a boot that is not known is not the same as another that is not.
        Use::Attached(before) => before.is_some() && before == boot,
    };
    left_well && !failed && found.volume == volume
}

/// What an epoch depends on besides the volume.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The boot of the machine, if it is known.
    pub(crate) boot: Option<BootId>,
    /// Where new epochs come from.
    pub(crate) random: &'a dyn Random,
}

/// Makes the file of a new volume, which says nothing yet: a disk that is full later has room for it. Durable once the
/// folder is synced. Blocks.
pub(crate) fn prepare(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let file = disk.open(&dir.join(EPOCH_NAME), Mode::New)?;
    file.write_at(0, &[0; LEN])?;
    file.sync_data()
}

/// Ends the epoch of a volume that nobody uses, durably. Blocks.
pub(crate) fn forget(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    match disk.open(&dir.join(EPOCH_NAME), Mode::Write) {
        Ok(file) => {
            file.write_at(0, &[0; LEN])?;
            file.sync_data()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The epoch of a volume in use.
pub(crate) struct Current {
    epoch: CacheEpoch,
    volume: VolumeId,
    file: Arc<dyn File>,
}

impl Current {
    /// The epoch of the volume in `dir`, which is being opened; durable before this returns, and so before anything is
    /// answered under it. `failed` says that the volume had failed. Blocks.
    ///
    /// # Errors
    /// Of the disk; nothing may be answered then.
    pub(crate) fn begin(
        disk: &dyn Disk,
        dir: &Path,
        volume: VolumeId,
        failed: bool,
        Source { boot, random }: Source<'_>,
    ) -> io::Result<Self> {
        let path = dir.join(EPOCH_NAME);
        let (file, is_new) = match disk.open(&path, Mode::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (disk.open(&path, Mode::New)?, true)
            }
            opened => (opened?, false),
        };
        let mut bytes = [0; LEN];
        let found = match file.read_at(0, &mut bytes) {
            Ok(()) => Kept::decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        let epoch = match &found {
            Some(found) if is_kept(found, volume, boot, failed) => found.epoch,
            _ => {
                let mut epoch = [0; 16];
                random.fill(&mut epoch);
                CacheEpoch(epoch)
            }
        };
        let now = Kept {
            volume,
            epoch,
            use_: Use::Attached(boot),
        };
        // One block of the disk, so in place: it is the old or the new one after a power cut. Also if it reads like this
        // already: that may be the page cache alone, after a sync that failed or was never reached.
        file.write_at(0, &now.encode())?;
        file.sync_data()?;
        if is_new {
            disk.sync_dir(dir)?;
        }
        Ok(Self {
            epoch,
            volume,
            file,
        })
    }

    pub(crate) fn epoch(&self) -> CacheEpoch {
        self.epoch
    }

    /// Says that everything answered is durable; nothing may be answered any more. Without it the epoch ends with this
    /// boot. Blocks.
    pub(crate) fn end(&self) -> io::Result<()> {
        let now = Kept {
            volume: self.volume,
            epoch: self.epoch,
            use_: Use::Detached,
        };
        self.file.write_at(0, &now.encode())?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use crypto::random::SystemRandom;
    use host::disk::sim::{Call, Crash, Failure, Fault, SimDisk};

    use super::*;

    const FIRST: Option<BootId> = Some(BootId::from_bytes([1; 16]));
    const SECOND: Option<BootId> = Some(BootId::from_bytes([2; 16]));

    fn volume() -> VolumeId {
        "vol-0123456789abcdef0".parse().unwrap()
    }

    fn begin(disk: &SimDisk, boot: Option<BootId>, failed: bool) -> Current {
        let dir = Path::new("/v");
        let random = &SystemRandom;
        Current::begin(disk, dir, volume(), failed, Source { boot, random }).unwrap()
    }

    fn disk() -> SimDisk {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new("/v")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk
    }

    #[test]
    fn a_killed_process_keeps_the_epoch_and_another_boot_ends_it() {
        let disk = disk();
        let first = begin(&disk, FIRST, false).epoch();
        assert_eq!(begin(&disk, FIRST, false).epoch(), first);
        let second = begin(&disk, SECOND, false).epoch();
        assert_ne!(second, first);
        assert_eq!(begin(&disk, SECOND, false).epoch(), second);
    }

    #[test]
    fn a_clean_detach_keeps_the_epoch_over_a_boot() {
        let disk = disk();
        let current = begin(&disk, FIRST, false);
        current.end().unwrap();
        let again = begin(&disk, SECOND, false);
        assert_eq!(again.epoch(), current.epoch());
        // It is in use again, and is not taken for detached in the boot after.
        assert_ne!(begin(&disk, FIRST, false).epoch(), current.epoch());
    }

    #[test]
    fn a_volume_that_failed_begins_a_new_epoch() {
        let disk = disk();
        let first = begin(&disk, FIRST, false).epoch();
        assert_ne!(begin(&disk, FIRST, true).epoch(), first);
    }

    #[test]
    fn an_epoch_that_is_forgotten_ends_although_the_volume_was_detached_cleanly() {
        let disk = disk();
        forget(&disk, Path::new("/v")).unwrap();
        let first = begin(&disk, FIRST, false);
        first.end().unwrap();
        forget(&disk, Path::new("/v")).unwrap();
        assert_ne!(begin(&disk, FIRST, false).epoch(), first.epoch());
    }

    #[test]
    fn a_boot_that_is_not_known_is_never_the_same() {
        let disk = disk();
        let first = begin(&disk, None, false);
        let second = begin(&disk, None, false);
        assert_ne!(second.epoch(), first.epoch());
        second.end().unwrap();
        assert_eq!(begin(&disk, None, false).epoch(), second.epoch());
    }

    #[test]
    fn a_power_cut_leaves_no_epoch_that_lets_a_client_go_on() {
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            disk.create_dir(Path::new("/v")).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            let first = begin(&disk, FIRST, false).epoch();
            let after = disk.fork(seed);
            after.restart(Crash::Power);
            assert_ne!(begin(&after, SECOND, false).epoch(), first, "seed {seed}");
            // Detached, and the mark is durable: nothing can be lost any more.
            let second = begin(&disk, FIRST, false);
            second.end().unwrap();
            let after = disk.fork(seed);
            after.restart(Crash::Power);
            let third = begin(&after, SECOND, false);
            assert_eq!(third.epoch(), first, "seed {seed}");
        }
    }

    #[test]
    fn an_epoch_that_only_the_page_cache_says_is_in_use_is_written_again() {
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            disk.create_dir(Path::new("/v")).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            begin(&disk, FIRST, false).end().unwrap();
            disk.fail(Fault::new(Failure::Io).on(&[Call::SyncData]));
            let (dir, random) = (Path::new("/v"), &SystemRandom);
            let source = Source {
                boot: FIRST,
                random,
            };
            assert!(Current::begin(&disk, dir, volume(), false, source).is_err());
            // Answers under it may be lost with the power, so another boot must not find it detached.
            let second = begin(&disk, FIRST, false).epoch();
            disk.restart(Crash::Power);
            assert_ne!(begin(&disk, SECOND, false).epoch(), second, "seed {seed}");
        }
    }

    #[test]
    fn a_damaged_or_foreign_file_begins_a_new_epoch() {
        let good = Kept {
            volume: volume(),
            epoch: CacheEpoch([7; 16]),
            use_: Use::Attached(FIRST),
        };
        assert_eq!(Kept::decode(&good.encode()), Some(good));
        for at in 0..LEN {
            let mut bytes = good.encode();
            bytes[at] ^= 1;
            assert_eq!(Kept::decode(&bytes), None, "byte {at}");
        }
        let other = "vol-0123456789abcdef1".parse().unwrap();
        assert!(is_kept(&good, volume(), FIRST, false));
        assert!(!is_kept(&good, other, FIRST, false));
    }

    #[test]
    fn the_file_is_as_its_golden_copy() {
        let golden = include_bytes!("../golden/epoch");
        let kept = Kept {
            volume: volume(),
            epoch: CacheEpoch::from_bytes(*b"0123456789abcdef"),
            use_: Use::Attached(Some(BootId::from_bytes([0xb0; 16]))),
        };
        assert_eq!(kept.encode(), *golden);
        assert_eq!(Kept::decode(golden), Some(kept));
    }
}
