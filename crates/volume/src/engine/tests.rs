//! The durability contract, against a model: random requests on a disk that crashes, replayed from seeds.
//!
//! `VOLUME_SEED=n` runs one seed, `VOLUME_SEEDS=n` that many, SEALGATE_LONG (`tests/run --long`) fifty times as many.
#![allow(clippy::cast_possible_truncation)]

use std::{path::Path, sync::Arc};

use crypto::{secret::SecretVec, volume_key::VolumeDataKey};
use host::{
    Disk as _, Entropy as _, Mode,
    disk::sim::{Call, Crash, Failure, Fault, SimDisk},
    entropy::SeededEntropy,
};

use super::*;
use crate::{
    geometry::CHUNK_LEN,
    protection::{Sealed, Unencrypted},
};

pub(super) const SECTOR: u64 = SECTOR_LEN as u64;
/// More than a window.
pub(super) const CHUNKS: u64 = 18;
pub(super) const SIZE: u64 = CHUNKS * CHUNK_LEN;
pub(super) const SLOTS: &str = "/slots";
pub(super) const LOG: &str = "/map.log";
pub(super) const COPY: &str = "/map.log.copy";

pub(super) fn shape() -> Shape {
    Shape {
        volume: "vol-0123456789abcdef0".parse().unwrap(),
        size: SIZE,
    }
}

pub(super) fn sealed() -> Sealed {
    let data_key = VolumeDataKey::from_secret(SecretVec::from_slice(&[5; 64])).unwrap();
    Sealed::new(shape().volume, data_key, BASE_GENERATION)
}

pub(super) fn media(disk: &SimDisk) -> Media {
    try_media(disk).unwrap()
}

fn try_media(disk: &SimDisk) -> io::Result<Media> {
    Ok(Media {
        slots: disk.open(Path::new(SLOTS), Mode::Create)?,
        log: LogFolder::new(Arc::new(disk.clone()), Path::new("/")),
        on_failed: Box::new(|| ()),
    })
}

pub(super) fn new_volume<P: Protection>(disk: &SimDisk, protection: impl Fn() -> P) -> Engine<P> {
    create(&media(disk), shape(), &protection()).unwrap();
    Engine::open(media(disk), shape(), protection()).unwrap()
}

/// What a sector holds.
type Content = Arc<[u8]>;

/// What each unit that the disk writes whole may hold after a crash, oldest first; the last is what it holds now.
struct Model {
    unit: usize,
    sectors: Vec<Vec<Content>>,
    /// What a crash may have left in the slots though it is not in the log, and nothing was written over since: a map that is
    /// made from the slots may bring it back, or mark it.
    ghosts: Vec<Vec<Content>>,
    written: Vec<bool>,
}

impl Model {
    fn new(unit: usize) -> Self {
        let zero: Content = vec![0; unit].into();
        Self {
            unit,
            sectors: (0..SIZE / unit as u64)
                .map(|_| vec![zero.clone()])
                .collect(),
            ghosts: vec![Vec::new(); (SIZE / unit as u64) as usize],
            written: vec![false; (SIZE / unit as u64) as usize],
        }
    }

    /// The range now holds `bytes`.
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let position = offset + at as u64;
            let within = (position % self.unit as u64) as usize;
            let len = (self.unit - within).min(bytes.len() - at);
            let sector = &mut self.sectors[(position / self.unit as u64) as usize];
            let mut content = sector.last().unwrap().to_vec();
            content[within..within + len].copy_from_slice(&bytes[at..at + len]);
            sector.push(content.into());
            at += len;
        }
    }

    /// Whether what the range holds was written to its slots, and not just noted.
    fn in_slots(&mut self, offset: u64, len: u64, written: bool) {
        let first = (offset as usize).div_ceil(self.unit);
        let end = (offset + len) as usize / self.unit;
        if let Some(units) = self.written.get_mut(first..end) {
            units.fill(written);
        }
    }

    /// What the range holds is durable.
    fn flushed(&mut self, offset: u64, len: u64) {
        let (first, end) = (
            offset / self.unit as u64,
            (offset + len).div_ceil(self.unit as u64),
        );
        for unit in first as usize..end as usize {
            let sector = &mut self.sectors[unit];
            sector.drain(..sector.len() - 1);
            if self.written[unit] {
                self.ghosts[unit].clear();
            }
        }
    }

    fn bytes(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let first = offset / self.unit as u64;
        for sector in first..(offset + len).div_ceil(self.unit as u64) {
            out.extend_from_slice(self.sectors[sector as usize].last().unwrap());
        }
        let skip = (offset - first * self.unit as u64) as usize;
        out[skip..skip + len as usize].to_vec()
    }

    /// Takes what the volume holds for what it holds now, if that may be. After the death of the process that is what it
    /// held, but in the range of a request that failed: there it may be what it was before, too.
    fn adopt<P: Protection>(&mut self, volume: &Engine<P>, after: After, story: &str) {
        let mut all = vec![0xee; SIZE as usize];
        volume.read(0, &mut all).unwrap();
        self.written.fill(false);
        for (number, (sector, found)) in self
            .sectors
            .iter_mut()
            .zip(all.chunks(self.unit))
            .enumerate()
        {
            let start = (number * self.unit) as u64;
            let may = after.may(sector.len(), start, self.unit as u64);
            let mut candidates = sector.iter().rev().take(may);
            let Some(content) = candidates.find(|content| ***content == *found) else {
                panic!(
                    "unit {number} holds none of the {may} contents it may: {:?}… {story}",
                    &found[..16]
                );
            };
            let content = content.clone();
            match after {
                After::Power => self.ghosts[number].append(sector),
                After::Process { .. } if may == 2 => {
                    self.ghosts[number].extend(sector.last().cloned());
                }
                After::Process { .. } => {}
            }
            sector.push(content);
        }
    }
}

impl Model {
    /// All maps are destroyed and the volume is repaired: it holds what it may, but where something was zeroed in a chunk
    /// that kept its slot sectors may be marked.
    fn outlives_its_map<P: Protection>(
        &self,
        disk: &SimDisk,
        protection: &P,
        after: After,
        zeroed: &[bool],
        story: &str,
    ) {
        for path in [LOG, COPY] {
            // A crash may have come before the copy was there.
            let _ = disk.remove(Path::new(path));
        }
        let repaired = repair(&media(disk), shape(), protection, false)
            .unwrap_or_else(|error| panic!("not repaired: {error} {story}"));
        assert_eq!(repaired.map_from, MapSource::Owners);
        let checked = check(&media(disk), shape(), protection).unwrap();
        assert_eq!(checked.findings, [], "{story}");
        assert_eq!(checked.marked, repaired.marked, "{story}");
        let (store, map) = {
            let store = SlotFile::<P>::new(media(disk).slots);
            let read = open::read(&store, &media(disk).log, shape(), protection, true);
            (store, read.unwrap().map)
        };
        let mut sector = vec![0; SECTOR_LEN];
        for number in 0..SIZE / SECTOR {
            let chunk = crate::geometry::Chunk::at(number * SECTOR);
            let within = chunk.sector_at(number * SECTOR);
            match map.get(chunk) {
                Some(entry) if entry.lost.contains(within) => {
                    let units = SECTOR_LEN / self.unit;
                    let mut ghosts = self.ghosts.iter().skip(number as usize * units).take(units);
                    assert!(
                        zeroed[number as usize] || ghosts.any(|ghosts| !ghosts.is_empty()),
                        "sector {number} is marked {story}"
                    );
                    continue;
                }
                Some(entry) if entry.valid.contains(within) => {
                    let place = crate::slot_file::Place {
                        slot: entry.slot,
                        sector: within,
                    };
                    store.read(place, &mut sector).unwrap();
                    protection.open(entry.generation, number, &mut sector);
                }
                _ => sector.fill(0),
            }
            for (n, found) in sector.chunks(self.unit).enumerate() {
                let unit = number as usize * (SECTOR_LEN / self.unit) + n;
                let start = (unit * self.unit) as u64;
                let candidates = &self.sectors[unit];
                let may = after.may(candidates.len(), start, self.unit as u64);
                let mut candidates = candidates.iter().rev().take(may).chain(&self.ghosts[unit]);
                assert!(
                    candidates.any(|content| **content == *found),
                    "unit {unit} of a repaired volume holds none of the {may} contents it may: {:?}… {story}",
                    &found[..16]
                );
            }
        }
    }
}

impl After {
    /// Which of the last contents a unit may have.
    fn may(self, all: usize, start: u64, unit: u64) -> usize {
        match self {
            Self::Power => all,
            Self::Process { offset, len } if start < offset + len && offset < start + unit => 2,
            Self::Process { .. } => 1,
        }
    }
}

/// What has happened to a volume.
#[derive(Debug, Clone, Copy)]
enum After {
    Power,
    /// The process died, in a request that changes this range.
    Process {
        offset: u64,
        len: u64,
    },
}

/// A range that is likely to meet others.
fn range(rng: &SeededEntropy) -> (u64, u64) {
    let len = match rng.below(10) {
        0 => rng.below(3 * CHUNK_LEN) + 1,
        1..4 => rng.below(3 * SECTOR) + 1,
        4 => CHUNK_LEN,
        _ => (rng.below(6) + 1) * SECTOR,
    };
    // Few places, so that requests overlap; those at the end of a window and of the volume among them.
    let places = [0, 1, 14, 15, 16, CHUNKS - 1];
    let chunk = places[rng.below(6) as usize];
    let within = match rng.below(4) {
        0 => 0,
        1 => rng.below(8) * SECTOR,
        2 => CHUNK_LEN - SECTOR * (1 + rng.below(4)),
        _ => rng.below(CHUNK_LEN),
    };
    let offset = (chunk * CHUNK_LEN + within).min(SIZE - 1);
    (offset, len.min(SIZE - offset))
}

/// Content that is not met twice: a byte throughout, and a number in every 512 bytes.
fn fill(rng: &SeededEntropy, len: u64) -> Vec<u8> {
    let mark = rng.number();
    let mut bytes = vec![mark as u8; len as usize];
    for (n, block) in (0..).zip(bytes.chunks_mut(512)) {
        let stamp = (mark.wrapping_add(n)).to_le_bytes();
        let len = block.len().min(8);
        block[..len].copy_from_slice(&stamp[..len]);
    }
    bytes
}

/// Random requests, crashes, faults and full disks.
fn life<P: Protection>(seed: u64, protection: impl Fn() -> P) {
    let rng = SeededEntropy::new(seed);
    let disk = SimDisk::new(rng.number());
    // A disk may tear a sector of 4096 bytes, or not.
    let (disk, unit) = match seed % 2 {
        0 => (disk, 512),
        _ => (disk.with_whole_pages(), SECTOR_LEN),
    };
    let mut volume = new_volume(&disk, &protection);
    let mut model = Model::new(unit);
    let mut zeroed = vec![false; (SIZE / SECTOR) as usize];
    let mut crashes = 0;
    while crashes < 4 {
        if rng.one_in(25) {
            disk.stop_after(rng.below(12));
        }
        let (mut offset, mut len) = range(&rng);
        let fua = rng.one_in(12);
        // What is known of the range if the request fails: old or new, sector by sector.
        let choice = rng.below(20);
        if (9..12).contains(&choice) {
            let (first, last) = (offset / CHUNK_LEN, (offset + len).div_ceil(CHUNK_LEN));
            let sectors = CHUNK_LEN / SECTOR;
            zeroed[(first * sectors) as usize..(last * sectors) as usize].fill(true);
        }
        let changes = choice < 12;
        let outcome = match choice {
            0..9 => {
                let mut bytes = fill(&rng, len);
                let plain = bytes.clone();
                let outcome = volume.write(offset, &mut bytes, fua);
                model.write(offset, &plain);
                model.in_slots(offset, len, outcome.is_ok());
                outcome
            }
            9 | 10 => {
                let outcome = volume.write_zeroes(offset, len, rng.one_in(2), fua);
                model.write(offset, &vec![0; len as usize]);
                model.in_slots(offset, len, false);
                outcome
            }
            11 => {
                // Whole chunks, so that slots come free and are used again.
                let (first, last) = (offset / CHUNK_LEN, (offset + len).div_ceil(CHUNK_LEN));
                (offset, len) = (first * CHUNK_LEN, (last - first) * CHUNK_LEN);
                let outcome = volume.trim(offset, len, fua);
                model.write(offset, &vec![0; len as usize]);
                model.in_slots(offset, len, false);
                outcome
            }
            12 | 13 => volume.flush().inspect(|()| model.flushed(0, SIZE)),
            14 => {
                volume.tidy();
                Ok(())
            }
            15 if rng.one_in(4) => volume.checkpoint().inspect(|()| model.flushed(0, SIZE)),
            _ => {
                let mut bytes = vec![0xee; len as usize];
                volume.read(offset, &mut bytes).inspect(|()| {
                    assert!(
                        bytes == model.bytes(offset, len),
                        "seed {seed}: {len} bytes at {offset} read wrong"
                    );
                })
            }
        };
        if outcome.is_ok() && fua && changes {
            model.flushed(offset, len);
        }
        if let Err(error) = outcome {
            // The machine went down, in this request or in an earlier one's background work.
            assert!(
                matches!(error, VolumeError::Io { .. } | VolumeError::Failed(_)),
                "seed {seed}: {error}"
            );
            crashes += 1;
            let crash = if rng.one_in(3) {
                Crash::Process
            } else {
                Crash::Power
            };
            drop(volume);
            disk.restart(crash);
            let after = match crash {
                Crash::Power => After::Power,
                Crash::Process if changes => After::Process { offset, len },
                Crash::Process => After::Process { offset: 0, len: 0 },
            };
            let story = format!("(seed {seed}, after {crash:?})");
            model.outlives_its_map(
                &disk.fork(rng.number()),
                &protection(),
                after,
                &zeroed,
                &story,
            );
            if rng.one_in(4) {
                // It goes down again while it comes back.
                disk.stop_after(rng.below(20));
                if let Ok(media) = try_media(&disk) {
                    let _ = Engine::open(media, shape(), protection()).map(|volume| {
                        volume.tidy();
                    });
                }
                disk.restart(crash);
            }
            volume = Engine::open(media(&disk), shape(), protection())
                .unwrap_or_else(|error| panic!("seed {seed}: not opened after {crash:?}: {error}"));
            model.adopt(&volume, after, &story);
        }
    }
}

fn seeds(count: u64) -> Vec<u64> {
    let from = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match from("VOLUME_SEED") {
        Some(seed) => vec![seed],
        None => {
            let long = std::env::var_os("SEALGATE_LONG").is_some();
            let count = if long { 50 * count } else { count };
            (0..from("VOLUME_SEEDS").unwrap_or(count)).collect()
        }
    }
}

#[test]
fn a_sealed_volume_keeps_its_promises_through_crashes() {
    for seed in seeds(120) {
        life(seed, sealed);
    }
}

#[test]
fn an_unencrypted_volume_keeps_its_promises_through_crashes() {
    for seed in seeds(60) {
        life(seed, Unencrypted::new);
    }
}

#[test]
fn no_plaintext_reaches_the_disk_of_a_sealed_volume() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, sealed);
    let needle = b"the quick brown fox jumps over the lazy dog, again and again.";
    let text = needle.repeat(10_000);
    for offset in [0, 100, SECTOR, CHUNK_LEN - 7] {
        volume.write(offset, &mut text.clone(), true).unwrap();
        let mut back = vec![0; text.len()];
        volume.read(offset, &mut back).unwrap();
        assert!(back == text);
    }
    volume.checkpoint().unwrap();
    let contents = disk.everything();
    assert!(contents.len() > text.len());
    assert!(!contents.windows(16).any(|bytes| bytes == &needle[..16]));
}

#[test]
fn a_failed_sync_is_final() {
    for file in [SLOTS, LOG] {
        let disk = SimDisk::new(2);
        let volume = new_volume(&disk, sealed);
        volume.write(0, &mut [1; 4096], true).unwrap();
        disk.fail(Fault::new(Failure::Io).on(&[Call::SyncData]).at(file));
        volume.write(CHUNK_LEN, &mut [2; 4096], false).unwrap();
        assert!(matches!(volume.flush(), Err(VolumeError::Failed(_))));
        // The next sync would succeed, but nothing asks for it.
        for outcome in [
            volume.flush(),
            volume.read(0, &mut [0; 4096]),
            volume.write(0, &mut [3; 4096], false),
            volume.trim(0, SIZE, false),
            volume.extents(0, SIZE, 1).map(|_| ()),
            volume.checkpoint(),
        ] {
            assert!(matches!(outcome, Err(VolumeError::Failed(_))), "{file}");
        }
        drop(volume);
        disk.restart(Crash::Power);
        let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
        let mut bytes = [0; 4096];
        volume.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [1; 4096]);
    }
}

#[test]
fn a_full_disk_fails_the_write_that_meets_it_and_nothing_else() {
    let disk = SimDisk::new(3);
    let volume = new_volume(&disk, sealed);
    volume.write(0, &mut [1; 4096], true).unwrap();
    disk.set_free(0);
    let mut full = 0;
    for chunk in 0..CHUNKS {
        match volume.write(chunk * CHUNK_LEN, &mut [2; 4096], false) {
            Ok(()) => {}
            Err(VolumeError::NoSpace) => full += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(full, CHUNKS - 1);
    volume.flush().unwrap();
    let mut bytes = [0; 4096];
    volume.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [2; 4096]);
    volume.trim(0, CHUNK_LEN, true).unwrap();
    volume.tidy();
    assert_eq!(disk.free(), SECTOR);
    volume
        .write((CHUNKS - 1) * CHUNK_LEN, &mut [4; 4096], true)
        .unwrap();
}

#[test]
fn a_full_disk_leaves_room_in_the_log_for_trims_and_flushes() {
    let disk = SimDisk::new(4);
    let volume = new_volume(&disk, sealed);
    disk.set_free(SECTOR * 8);
    // Until there is no space for a sector, or for a record of one.
    for chunk in 0..CHUNKS {
        let _ = volume.write(chunk * CHUNK_LEN, &mut [1; 4096], false);
    }
    disk.set_free(0);
    let last = (CHUNKS - 1) * CHUNK_LEN;
    let mut bytes = [1; 4096];
    assert!(matches!(
        volume.write(last, &mut bytes.clone(), false),
        Err(VolumeError::NoSpace)
    ));
    volume.read(last, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 4096]);
    volume.flush().unwrap();
    volume.trim(0, CHUNK_LEN, true).unwrap();
    volume.tidy();
    assert_eq!(disk.free(), SECTOR);
    volume.write(last, &mut [2; 4096], true).unwrap();
    drop(volume);
    disk.restart(Crash::Power);
    let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
    volume.read(last, &mut bytes).unwrap();
    assert_eq!(bytes, [2; 4096]);
    volume.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 4096]);
}

#[test]
fn a_log_without_space_refuses_changes_that_can_be_repeated() {
    let disk = SimDisk::new(4);
    let volume = new_volume(&disk, sealed);
    volume
        .write(0, &mut vec![1; CHUNK_LEN as usize], false)
        .unwrap();
    disk.set_free(0);
    // Each of these needs a record, until the reserve is used up but for the flushes.
    let mut refused = false;
    for sector in 0..127 {
        match volume.trim(sector * SECTOR, SECTOR, false) {
            Ok(()) => assert!(!refused),
            Err(VolumeError::NoSpace) => refused = true,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused);
    assert!(matches!(volume.checkpoint(), Err(VolumeError::NoSpace)));
    volume.flush().unwrap();
    let mut bytes = [0; 4096];
    volume.read(126 * SECTOR, &mut bytes).unwrap();
    assert_eq!(bytes, [1; 4096]);
    disk.set_free(u64::MAX);
    volume.trim(126 * SECTOR, SECTOR, true).unwrap();
    drop(volume);
    disk.restart(Crash::Power);
    let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
    for (sector, byte) in [(0, 0), (126, 0), (127, 1)] {
        volume.read(sector * SECTOR, &mut bytes).unwrap();
        assert_eq!(bytes, [byte; 4096]);
    }
}

#[test]
fn a_failed_read_or_write_is_an_error_of_that_request_alone() {
    let disk = SimDisk::new(5);
    let volume = new_volume(&disk, sealed);
    disk.fail(Fault::new(Failure::Io).on(&[Call::Write]));
    assert!(matches!(
        volume.write(0, &mut [1; 4096], false),
        Err(VolumeError::Io { .. })
    ));
    volume.write(0, &mut [1; 4096], true).unwrap();
    disk.fail(Fault::new(Failure::Io).on(&[Call::Read]));
    assert!(volume.read(0, &mut [0; 4096]).is_err());
    let mut bytes = [0; 4096];
    volume.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [1; 4096]);
    assert_eq!(disk.faults_left(), 0);
}

/// Length of the frame of one sector's record.
const RECORD_LEN: u64 = 200;

/// Three flushes, and where what each one appends begins: the record, the mark.
fn three_flushes(disk: &SimDisk) -> Vec<u64> {
    let volume = new_volume(disk, sealed);
    let mut starts = Vec::new();
    for n in 0..3 {
        starts.push(volume.journal.file().log.end());
        volume
            .write(n * CHUNK_LEN, &mut [n as u8 + 1; 4096], true)
            .unwrap();
    }
    starts.push(volume.journal.file().log.end());
    starts
}

#[test]
fn damage_before_the_last_durable_point_refuses_to_open_and_says_where() {
    let open = |disk: &SimDisk| match Engine::open(media(disk), shape(), sealed()) {
        Err(VolumeError::Damaged { at, .. }) => at,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    };
    let starts = three_flushes(&SimDisk::new(6));
    for (start, end) in starts.iter().zip(&starts[1..]) {
        // A changed bit anywhere in a frame, also in the last one: it is no hole.
        for at in (0..end - start).step_by(5) {
            let disk = SimDisk::new(6);
            three_flushes(&disk);
            disk.damage(LOG, start + at, |byte| byte ^ 4);
            let frame = if at < RECORD_LEN { 0 } else { RECORD_LEN };
            assert_eq!(open(&disk), start + frame);
        }
    }
    // A lost frame in the middle is no torn tail.
    for start in &starts[..2] {
        let disk = SimDisk::new(6);
        three_flushes(&disk);
        for at in 0..RECORD_LEN {
            disk.damage(LOG, start + at, |_| 0);
        }
        assert_eq!(open(&disk), *start);
    }
    // A lost block of the checkpoint neither, though nothing follows it, if its copy has lost it too.
    let disk = SimDisk::new(6);
    new_volume(&disk, sealed);
    for at in 0..512 {
        disk.damage(LOG, 4096 + at, |_| 0);
        disk.damage(COPY, 4096 + at, |_| 0);
    }
    assert_eq!(open(&disk), 4096);
}

#[test]
fn a_torn_tail_is_dropped_and_does_not_come_back() {
    let disk = SimDisk::new(7);
    let starts = three_flushes(&disk);
    // The mark of the last flush stays: it does not say that what stands before it was durable.
    for at in 0..RECORD_LEN {
        disk.damage(LOG, starts[2] + at, |_| 0);
    }
    disk.damage(LOG, starts[2] + 600, |_| 9);
    let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
    let mut bytes = [0; 4096];
    volume.read(CHUNK_LEN, &mut bytes).unwrap();
    assert_eq!(bytes, [2; 4096]);
    volume.read(2 * CHUNK_LEN, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 4096]);
    let end = volume.journal.file().log.end() as usize;
    assert!(disk.bytes(LOG)[end..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_flush_covers_what_was_answered_before_the_process_died() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let volume = new_volume(&disk, sealed);
        volume.write(0, &mut [1; 4096], true).unwrap();
        volume.write(0, &mut [2; 4096], false).unwrap();
        drop(volume);
        disk.restart(Crash::Process);
        let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
        volume.flush().unwrap();
        drop(volume);
        disk.restart(Crash::Power);
        let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
        let mut bytes = [0; 4096];
        volume.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [2; 4096], "seed {seed}");
    }
}

#[test]
fn a_slot_is_not_used_again_before_the_record_that_frees_it_is_durable() {
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let volume = new_volume(&disk, sealed);
        volume.write(0, &mut [1; 4096], true).unwrap();
        volume.trim(0, CHUNK_LEN, false).unwrap();
        // The process dies somewhere in the flush, perhaps with the record in the page cache alone.
        disk.stop_after(seed % 5);
        let _ = volume.flush();
        drop(volume);
        disk.restart(Crash::Process);
        let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
        volume.tidy();
        for chunk in 1..CHUNKS {
            volume
                .write(chunk * CHUNK_LEN, &mut [2; 4096], false)
                .unwrap();
        }
        drop(volume);
        disk.restart(Crash::Power);
        let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
        let mut bytes = [0; 4096];
        volume.read(0, &mut bytes).unwrap();
        assert!(bytes == [0; 4096] || bytes == [1; 4096], "seed {seed}");
    }
}

#[test]
fn the_log_of_another_volume_key_or_size_is_refused() {
    let disk = SimDisk::new(8);
    new_volume(&disk, sealed);
    let other_key = || {
        let data_key = VolumeDataKey::from_secret(SecretVec::from_slice(&[6; 64])).unwrap();
        Sealed::new(shape().volume, data_key, BASE_GENERATION)
    };
    assert!(Engine::open(media(&disk), shape(), other_key()).is_err());
    assert!(Engine::open(media(&disk), shape(), Unencrypted::new()).is_err());
    let larger = Shape {
        size: 2 * SIZE,
        ..shape()
    };
    assert!(Engine::open(media(&disk), larger, sealed()).is_err());
    assert!(Engine::open(media(&disk), shape(), sealed()).is_ok());
}

#[test]
fn the_log_stays_bounded() {
    let disk = SimDisk::new(9);
    let volume = new_volume(&disk, sealed);
    let mut longest = 0;
    for n in 0..200_u64 {
        let chunk = n % CHUNKS;
        volume
            .write(chunk * CHUNK_LEN, &mut [1; 4096], false)
            .unwrap();
        volume.trim(chunk * CHUNK_LEN, CHUNK_LEN, true).unwrap();
        volume.tidy();
        longest = longest.max(volume.journal.file().log.end());
    }
    assert!(longest <= (32 << 10) + 1024, "{longest}");
    assert!(volume.journal.file().log.header().epoch > 1);
}

#[test]
fn sequential_writes_lie_together() {
    let disk = SimDisk::new(10);
    let volume = new_volume(&disk, sealed);
    for n in 0..SIZE / 65536 {
        volume.write(n * 65536, &mut [1; 65536], false).unwrap();
    }
    for chunk in 0..CHUNKS as u32 {
        let entry = volume.map.get(crate::geometry::Chunk(chunk)).unwrap();
        assert_eq!(entry.slot.0, chunk);
    }
}

#[test]
fn extents_say_what_is_there() {
    use crate::ExtentKind::{Data, Hole, Zero};
    let disk = SimDisk::new(11);
    let volume = new_volume(&disk, sealed);
    let extents = |offset, len, max| -> Vec<_> {
        let extents = volume.extents(offset, len, max).unwrap();
        extents
            .iter()
            .map(|extent| (extent.kind, extent.len))
            .collect()
    };
    assert_eq!(extents(0, SIZE, 10), [(Hole, SIZE)]);
    volume.write(SECTOR, &mut [1; 4096], false).unwrap();
    volume
        .write_zeroes(4 * SECTOR, SECTOR, true, false)
        .unwrap();
    volume
        .write_zeroes(5 * CHUNK_LEN, 2 * CHUNK_LEN, true, false)
        .unwrap();
    assert_eq!(
        extents(0, SIZE, 10),
        [
            (Hole, SECTOR),
            (Data, SECTOR),
            (Hole, 2 * SECTOR),
            (Zero, SECTOR),
            (Hole, 5 * CHUNK_LEN - 5 * SECTOR),
            (Zero, 2 * CHUNK_LEN),
            (Hole, (CHUNKS - 7) * CHUNK_LEN),
        ]
    );
    assert_eq!(
        extents(10, 5000, 10),
        [(Hole, SECTOR - 10), (Data, 5000 - SECTOR + 10)]
    );
    assert_eq!(extents(0, SIZE, 2), [(Hole, SECTOR), (Data, SECTOR)]);
    volume.trim(0, SIZE, false).unwrap();
    assert_eq!(extents(0, SIZE, 10), [(Hole, SIZE)]);
}

#[test]
fn requests_outside_the_volume_are_refused() {
    let disk = SimDisk::new(12);
    let volume = new_volume(&disk, sealed);
    for (offset, len) in [
        (SIZE, 1),
        (SIZE - 1, 2),
        (u64::MAX, 1),
        (u64::MAX - 1, 4096),
    ] {
        let mut bytes = vec![0; len as usize];
        for outcome in [
            volume.read(offset, &mut bytes),
            volume.write(offset, &mut bytes, false),
            volume.trim(offset, len, false),
            volume.write_zeroes(offset, len, true, false),
            volume.extents(offset, len, 1).map(|_| ()),
        ] {
            assert!(matches!(outcome, Err(VolumeError::OutOfRange { .. })));
        }
    }
    for offset in [0, 1, SIZE] {
        volume.read(offset, &mut []).unwrap();
        volume.write(offset, &mut [], true).unwrap();
        volume.trim(offset, 0, true).unwrap();
    }
}

#[test]
fn a_trim_of_64_tib_is_quick_and_its_record_short() {
    let disk = SimDisk::new(13);
    let shape = Shape {
        size: 64 << 40,
        ..shape()
    };
    create(&media(&disk), shape, &sealed()).unwrap();
    let volume = Engine::open(media(&disk), shape, sealed()).unwrap();
    for tib in 0..64 {
        volume.write(tib << 40, &mut [1; 4096], false).unwrap();
    }
    volume
        .write(shape.size - 4096, &mut [1; 4096], true)
        .unwrap();
    let before = volume.journal.file().log.end();
    volume.trim(0, shape.size, true).unwrap();
    assert!(volume.journal.file().log.end() - before < 2048);
    assert!(
        volume
            .map
            .next_mapped(crate::geometry::Chunk(0), crate::geometry::Chunk(1 << 27))
            .is_none()
    );
}
