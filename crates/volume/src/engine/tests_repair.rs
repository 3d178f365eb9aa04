//! Damage to each file of a volume, and what is left of it: attaching serves the right bytes or refuses, a repair brings
//! back what there is. Crashes before a repair are in `tests`.
#![allow(clippy::cast_possible_truncation)]

use std::path::Path;

use host::{
    Disk as _,
    disk::sim::{Crash, SimDisk},
};

use super::{
    tests::{COPY, LOG, SECTOR, SIZE, SLOTS, media, new_volume, sealed, shape},
    *,
};
use crate::{
    geometry::{CHUNK_LEN, Chunk, Sectors},
    protection::Unencrypted,
};

/// A volume with some of everything, detached in order; and what it holds.
fn volume(disk: &SimDisk) -> Vec<u8> {
    let volume = new_volume(disk, sealed);
    let mut expected = vec![0; SIZE as usize];
    let mut write = |offset: u64, len: u64, byte: u8| {
        let bytes = vec![byte; len as usize];
        volume.write(offset, &mut bytes.clone(), false).unwrap();
        expected[offset as usize..][..len as usize].copy_from_slice(&bytes);
    };
    write(0, 3 * CHUNK_LEN, 1);
    write(5 * CHUNK_LEN + 3 * SECTOR, 2 * SECTOR, 2);
    volume.checkpoint().unwrap();
    write(9 * CHUNK_LEN, SECTOR, 3);
    write(5 * CHUNK_LEN + 9 * SECTOR, SECTOR, 4);
    volume.trim(CHUNK_LEN, CHUNK_LEN, true).unwrap();
    expected[CHUNK_LEN as usize..2 * CHUNK_LEN as usize].fill(0);
    volume.tidy();
    volume.close().unwrap();
    expected
}

fn holds(disk: &SimDisk, expected: &[u8]) {
    let volume = Engine::open(media(disk), shape(), sealed()).unwrap();
    let mut found = vec![0xee; SIZE as usize];
    volume.read(0, &mut found).unwrap();
    assert!(found == expected);
    // It is of use again.
    volume.write(11 * CHUNK_LEN, &mut [7; 4096], true).unwrap();
    volume.close().unwrap();
}

fn checked(disk: &SimDisk) -> Checked {
    check(&media(disk), shape(), &sealed()).unwrap()
}

#[test]
fn a_sound_volume_is_clean_and_checking_it_changes_nothing() {
    let disk = SimDisk::new(1);
    let expected = volume(&disk);
    let before = disk.everything();
    let found = checked(&disk);
    assert_eq!(found.findings, []);
    assert_eq!((found.chunks, found.marked), (4, vec![]));
    assert!(disk.everything() == before);
    holds(&disk, &expected);
}

#[test]
fn a_volume_that_was_not_closed_is_clean_too() {
    for crash in [Crash::Process, Crash::Power] {
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            let volume = new_volume(&disk, sealed);
            volume.write(0, &mut [1; 8192], true).unwrap();
            volume.write(CHUNK_LEN, &mut [2; 4096], false).unwrap();
            volume.trim(0, CHUNK_LEN, false).unwrap();
            drop(volume);
            disk.restart(crash);
            assert_eq!(checked(&disk).findings, [], "seed {seed}");
        }
    }
}

/// Damages a file in each way at each of some places, attaches, repairs and attaches again.
fn each_damage(file: &'static str, places: impl Fn(&SimDisk) -> Vec<u64>) -> (u32, u32) {
    let (mut served, mut refused) = (0, 0);
    let original = SimDisk::new(1);
    let expected = volume(&original);
    for at in places(&original) {
        for cut in [false, true] {
            let damaged = || {
                let disk = original.fork(1);
                match cut {
                    false => disk.damage(file, at, |byte| byte ^ 0x10),
                    true => disk.cut(file, at),
                }
                disk
            };
            let disk = damaged();
            let story = format!("{file}, byte {at}, cut: {cut}");
            match Engine::open(media(&disk), shape(), sealed()) {
                Ok(volume) => {
                    let mut found = vec![0xee; SIZE as usize];
                    volume.read(0, &mut found).unwrap();
                    assert!(found == expected, "{story}");
                    served += 1;
                }
                Err(error @ VolumeError::Damaged { .. }) => {
                    assert!(error.way_out(shape().volume).unwrap().contains("repair"));
                    refused += 1;
                }
                Err(other) => panic!("{other}: {story}"),
            }
            let disk = damaged();
            let wrong = !checked(&disk).findings.is_empty();
            assert!(wrong || cut, "not found: {story}");
            let repaired = repair(&media(&disk), shape(), &sealed(), false)
                .unwrap_or_else(|error| panic!("{error}: {story}"));
            assert_eq!(repaired.marked, [], "{story}");
            assert_eq!(checked(&disk).findings, [], "{story}");
            holds(&disk, &expected);
        }
    }
    (served, refused)
}

fn spread(from: u64, to: u64, count: u64) -> Vec<u64> {
    let step = ((to - from) / count).max(1);
    (from..to).step_by(step as usize).collect()
}

/// Where the checkpoint ends, and the log.
fn ends(disk: &SimDisk) -> (u64, u64) {
    let store = SlotFile::new(media(disk).slots);
    let read = open::read(&store, &media(disk).log, shape(), &sealed(), true).unwrap();
    let log = read.replayed.log;
    (log.header().checkpoint_end, log.end())
}

#[test]
fn damage_to_the_checkpoint_is_made_up_for_by_its_copy() {
    let places = |disk: &SimDisk| {
        let (checkpoint, _) = ends(disk);
        [spread(0, 100, 10), spread(4096, checkpoint, 20)].concat()
    };
    let (served, refused) = each_damage(LOG, places);
    // A log that is cut there has lost what came later.
    assert_eq!(served, refused);
}

#[test]
fn damage_to_the_live_log_is_refused_and_repaired_from_the_slots_owners() {
    let places = |disk: &SimDisk| {
        let (checkpoint, end) = ends(disk);
        spread(checkpoint, end, 30)
    };
    let (served, refused) = each_damage(LOG, places);
    assert_eq!((served, refused > 0), (0, true));
}

#[test]
fn damage_to_the_copy_of_the_checkpoint_is_no_harm() {
    let places = |disk: &SimDisk| spread(0, ends(disk).0, 20);
    let places = |disk: &SimDisk| {
        // Behind the header's length its page is not looked at but by comparing.
        let all: Vec<u64> = places(disk);
        all.into_iter()
            .filter(|at| *at < 100 || *at >= 4096)
            .collect::<Vec<_>>()
    };
    assert_eq!(each_damage(COPY, places).1, 0);
}

#[test]
fn damage_to_a_header_of_the_slots_or_to_an_owner_is_no_harm() {
    let original = SimDisk::new(1);
    volume(&original);
    let table = crate::geometry::Slot(0).table_start();
    let entries = [0, 2, 3].map(|slot| table + slot * 128);
    let expected = {
        let volume = Engine::open(media(&original.fork(1)), shape(), sealed()).unwrap();
        let mut found = vec![0; SIZE as usize];
        volume.read(0, &mut found).unwrap();
        found
    };
    for at in [0, 40, 127, CHUNK_LEN / 2 + 100].into_iter().chain(
        entries
            .iter()
            .flat_map(|entry| [0, 30, 60, 127].map(|within| entry + within)),
    ) {
        let disk = original.fork(1);
        disk.damage(SLOTS, at, |byte| byte ^ 1);
        let found = checked(&disk).findings;
        assert_eq!(
            (found.len(), found[0].file),
            (1, "slots"),
            "{at}: {found:?}"
        );
        holds(&disk, &expected);
        let disk = original.fork(1);
        disk.damage(SLOTS, at, |byte| byte ^ 1);
        let repaired = repair(&media(&disk), shape(), &sealed(), false).unwrap();
        assert_eq!(repaired.map_from, MapSource::Log);
        assert_eq!(checked(&disk).findings, []);
        holds(&disk, &expected);
    }
}

#[test]
fn with_every_map_destroyed_every_chunk_comes_back() {
    let original = SimDisk::new(1);
    let expected = volume(&original);
    for missing in [false, true] {
        let disk = original.fork(1);
        for file in [LOG, COPY] {
            match missing {
                true => disk.remove(Path::new(file)).unwrap(),
                false => {
                    for at in 0..disk.bytes(file).len() as u64 {
                        disk.damage(file, at, |byte| !byte);
                    }
                }
            }
        }
        // Both headers of the slots too.
        for at in [0, CHUNK_LEN / 2] {
            disk.damage(SLOTS, at, |byte| byte ^ 1);
        }
        let refused = Engine::open(media(&disk), shape(), sealed()).err().unwrap();
        assert!(matches!(refused, VolumeError::Damaged { .. }));
        let repaired = repair(&media(&disk), shape(), &sealed(), false).unwrap();
        assert_eq!((repaired.map_from, repaired.chunks), (MapSource::Owners, 4));
        assert_eq!(repaired.marked, []);
        holds(&disk, &expected);
    }
}

#[test]
fn what_cannot_be_told_is_marked_until_it_is_written() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, sealed);
    volume.write(0, &mut [1; 4 * 4096], true).unwrap();
    // The slot keeps the bytes of these; one of them is written again.
    volume.trim(SECTOR, 2 * SECTOR, true).unwrap();
    volume.write(SECTOR, &mut [2; 4096], true).unwrap();
    volume.close().unwrap();
    drop(volume);
    disk.remove(Path::new(LOG)).unwrap();
    disk.remove(Path::new(COPY)).unwrap();
    let repaired = repair(&media(&disk), shape(), &sealed(), false).unwrap();
    assert_eq!(repaired.marked, [(SECTOR, 2 * SECTOR)]);
    for _ in 0..2 {
        let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
        let mut sector = [0; 4096];
        for at in [SECTOR, 2 * SECTOR] {
            let refused = volume.read(at, &mut sector);
            assert!(matches!(refused, Err(VolumeError::Marked { offset }) if offset == at));
            let refused = volume.write(at + 10, &mut [9; 10], false);
            assert!(matches!(refused, Err(VolumeError::Marked { .. })));
            assert_eq!(
                volume.extents(at, SECTOR, 1).unwrap()[0].kind,
                crate::ExtentKind::Data
            );
        }
        for at in [0, 3 * SECTOR] {
            volume.read(at, &mut sector).unwrap();
            assert_eq!(sector, [1; 4096]);
        }
        volume.checkpoint().unwrap();
        volume.close().unwrap();
    }
    let found = checked(&disk);
    assert_eq!((found.findings, found.marked.len()), (vec![], 1));
    let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
    volume.write(SECTOR, &mut [5; 4096], true).unwrap();
    volume.trim(2 * SECTOR, SECTOR, true).unwrap();
    drop(volume);
    disk.restart(Crash::Process);
    let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
    let mut sectors = [0; 2 * 4096];
    volume.read(SECTOR, &mut sectors).unwrap();
    assert_eq!(sectors[..4096], [5; 4096]);
    assert_eq!(sectors[4096..], [0; 4096]);
}

#[test]
fn a_lost_map_and_an_owner_that_does_not_read_need_the_loss_to_be_accepted() {
    let disk = SimDisk::new(1);
    let mut expected = volume(&disk);
    disk.remove(Path::new(LOG)).unwrap();
    disk.remove(Path::new(COPY)).unwrap();
    let slot = crate::geometry::Slot(0);
    disk.damage(SLOTS, slot.table_start() + 50, |byte| byte ^ 1);
    let before = disk.everything();
    let refused = repair(&media(&disk), shape(), &sealed(), false);
    assert!(matches!(
        refused,
        Err(VolumeError::CannotRepair { slots: 1 })
    ));
    assert!(disk.everything() == before);
    let repaired = repair(&media(&disk), shape(), &sealed(), true).unwrap();
    assert_eq!((repaired.unreadable, repaired.chunks), (1, 3));
    expected[..CHUNK_LEN as usize].fill(0);
    holds(&disk, &expected);
}

#[test]
fn of_two_slots_that_claim_a_chunk_the_newer_one_has_it() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, sealed);
    volume.write(0, &mut [1; 4096], true).unwrap();
    let old = volume.map.get(Chunk(0)).unwrap().slot;
    let owner = volume
        .store
        .claim(volume.protection.owner_key(), shape().volume, old)
        .unwrap();
    volume.trim(0, CHUNK_LEN, true).unwrap();
    volume.write(0, &mut [2; 4096], true).unwrap();
    assert_ne!(volume.map.get(Chunk(0)).unwrap().slot, old);
    let crate::owner::Claim::Owner(owner) = owner else {
        panic!("{owner:?}");
    };
    // As if the clearing had not reached the disk.
    let key = volume.protection.owner_key();
    volume
        .store
        .write_owners(key, shape().volume, old, &[owner])
        .unwrap();
    drop(volume);
    disk.remove(Path::new(LOG)).unwrap();
    disk.remove(Path::new(COPY)).unwrap();
    let repaired = repair(&media(&disk), shape(), &sealed(), false).unwrap();
    assert_eq!((repaired.superseded, repaired.chunks), (1, 1));
    let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
    let mut sector = [0; 4096];
    volume.read(0, &mut sector).unwrap();
    assert_eq!(sector, [2; 4096]);
}

#[test]
fn an_unencrypted_volume_comes_back_with_its_zeroes() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, Unencrypted::new);
    let mut bytes = [7; 3 * 4096];
    bytes[4096..8192].fill(0);
    bytes[100..1500].fill(0);
    volume.write(SECTOR, &mut bytes.clone(), true).unwrap();
    drop(volume);
    disk.remove(Path::new(LOG)).unwrap();
    disk.remove(Path::new(COPY)).unwrap();
    repair(&media(&disk), shape(), &Unencrypted::new(), false).unwrap();
    let volume = Engine::open(media(&disk), shape(), Unencrypted::new()).unwrap();
    let mut found = [1; 3 * 4096];
    volume.read(SECTOR, &mut found).unwrap();
    assert!(found == bytes);
    let entry = volume.map.get(Chunk(0)).unwrap();
    assert_eq!(entry.lost, Sectors::NONE);
}

#[test]
fn a_repair_that_is_cut_off_is_done_by_the_next() {
    let original = SimDisk::new(3);
    let expected = volume(&original);
    original.remove(Path::new(LOG)).unwrap();
    original.remove(Path::new(COPY)).unwrap();
    let whole = original.fork(1);
    let before = whole.calls();
    repair(&media(&whole), shape(), &sealed(), false).unwrap();
    for calls in 0..whole.calls() - before {
        for crash in [Crash::Process, Crash::Power] {
            let disk = original.fork(calls);
            disk.stop_after(calls + 1);
            let cut = repair(&media(&disk), shape(), &sealed(), false);
            assert!(cut.is_err() || calls + 2 >= whole.calls() - before);
            disk.restart(crash);
            // Attaching either refuses or serves what is right.
            if let Ok(volume) = Engine::open(media(&disk), shape(), sealed()) {
                let mut found = vec![0xee; SIZE as usize];
                volume.read(0, &mut found).unwrap();
                assert!(found == expected, "{calls}");
                volume.close().unwrap();
            }
            let repaired = repair(&media(&disk), shape(), &sealed(), false).unwrap();
            assert_eq!(repaired.marked, [], "{calls}");
            holds(&disk, &expected);
        }
    }
}

#[test]
fn a_volume_attaches_on_a_full_disk_after_a_power_cut_however_much_the_slots_lost() {
    for seed in 0..12 {
        let disk = SimDisk::new(seed);
        let volume = new_volume(&disk, sealed);
        volume.write(0, &mut [1; 4096], true).unwrap();
        for chunk in 1..10 {
            let mut bytes = vec![2; 3 * 4096];
            volume.write(chunk * CHUNK_LEN, &mut bytes, false).unwrap();
        }
        // The log is on the disk, of the slots any part; and the log may have a torn end.
        volume.journal.file().log.file().sync_data().unwrap();
        volume.write(12 * CHUNK_LEN, &mut [3; 4096], false).unwrap();
        drop(volume);
        disk.restart(Crash::Power);
        disk.set_free(0);
        let mut found = None;
        for _ in 0..3 {
            let volume = Engine::open(media(&disk), shape(), sealed())
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let mut all = vec![0xee; SIZE as usize];
            volume.read(0, &mut all).unwrap();
            assert_eq!(all[..4096], [1; 4096]);
            for sector in all[CHUNK_LEN as usize..].chunks(4096) {
                let whole = sector.iter().all(|byte| *byte == sector[0]);
                assert!(whole && [0, 2, 3].contains(&sector[0]), "seed {seed}");
            }
            // What was found stays so.
            assert!(
                found
                    .replace(all.clone())
                    .is_none_or(|before| before == all)
            );
            volume.flush().unwrap();
            drop(volume);
            disk.restart(Crash::Power);
        }
        disk.set_free(u64::MAX >> 1);
        let expected = found.unwrap();
        let volume = Engine::open(media(&disk), shape(), sealed()).unwrap();
        volume.tidy();
        volume.close().unwrap();
        drop(volume);
        holds(&disk, &expected);
    }
}

#[test]
fn scattered_small_writes_take_at_most_eight_times_their_bytes_of_a_real_disk() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let disk = std::sync::Arc::new(host::OsDisk);
    let open = || Media {
        slots: disk
            .open(&dir.path().join("slots"), host::Mode::Create)
            .unwrap(),
        log: LogFolder::new(disk.clone(), dir.path()),
        on_failed: Box::new(|| ()),
    };
    let shape = Shape {
        size: 1 << 30,
        ..shape()
    };
    let taken = || {
        let files = std::fs::read_dir(dir.path()).unwrap();
        let blocks = files.map(|file| file.unwrap().metadata().unwrap().blocks());
        blocks.sum::<u64>() * 512
    };
    create(&open(), shape, &sealed()).unwrap();
    let volume = Engine::open(open(), shape, sealed()).unwrap();
    let rng = host::entropy::SeededEntropy::new(7);
    for _ in 0..512 {
        let sector = rng.below(shape.size / SECTOR);
        volume
            .write(sector * SECTOR, &mut [9; 4096], false)
            .unwrap();
    }
    volume.flush().unwrap();
    assert!(taken() <= 8 * 512 * SECTOR, "{} KiB", taken() >> 10);

    // What is written in order still gets its space ahead, in runs of 4 MiB while there is little of it.
    let before = taken();
    for n in 0..64 {
        let at = (1 << 29) + n * (64 << 10);
        volume.write(at, &mut [1; 64 << 10], false).unwrap();
    }
    let written = 64 * (64 << 10);
    let more = taken() - before;
    assert!(
        (written / 2..=written + (8 << 20)).contains(&more),
        "{} KiB",
        more >> 10
    );
}
