use std::collections::BTreeMap;

use super::*;
use crate::{entropy::Entropy as _, private};

fn write(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(Path::new(path), Mode::Create).unwrap();
    file.write_at(0, bytes).unwrap();
    file
}

/// A file that is durable, name and content.
fn synced(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = write(disk, path, bytes);
    file.sync_all().unwrap();
    private::sync_name(disk, Path::new(path)).unwrap();
    file
}

fn exists(disk: &SimDisk, path: &str) -> bool {
    disk.kind(Path::new(path)).unwrap().is_some()
}

/// What is found after a power cut, from many seeds.
fn outcomes<T: Ord>(
    prepare: impl Fn(&SimDisk),
    look: impl Fn(&SimDisk) -> T,
) -> std::collections::BTreeSet<T> {
    let cut = |seed| {
        let disk = SimDisk::new(seed);
        prepare(&disk);
        disk.restart(Crash::Power);
        look(&disk)
    };
    (0..300).map(cut).collect()
}

#[test]
fn a_killed_process_loses_handles_and_locks_and_nothing_it_wrote() {
    let disk = SimDisk::new(1);
    let file = write(&disk, "/f", b"written, never synced");
    file.lock().unwrap();
    disk.restart(Crash::Process);
    assert!(file.read_at(0, &mut [0; 1]).is_err());
    assert!(file.sync_all().is_err());
    assert_eq!(disk.bytes("/f"), b"written, never synced");
    disk.open(Path::new("/f"), Mode::Write)
        .unwrap()
        .lock()
        .unwrap();
}

#[test]
fn a_power_cut_tears_drops_and_reorders_what_was_not_synced() {
    let found = outcomes(
        |disk| {
            let file = synced(disk, "/f", &[1; 2048]);
            file.write_at(0, &[2; 2048]).unwrap();
            file.write_at(0, &[3; 1024]).unwrap();
        },
        |disk| {
            let bytes = disk.bytes("/f");
            let sectors = bytes.chunks(512).map(|sector| {
                assert!(
                    sector.iter().all(|byte| *byte == sector[0]),
                    "a torn sector"
                );
                sector[0]
            });
            sectors.collect::<Vec<_>>()
        },
    );
    for wanted in [
        [1, 1, 1, 1], // dropped
        [3, 3, 2, 2], // kept
        [3, 1, 2, 1], // torn
        [1, 1, 2, 2], // the later one lost, with the earlier one under it
        [3, 3, 1, 1], // the later one kept, the earlier one lost
        [2, 3, 2, 2], // an earlier version kept
    ] {
        assert!(found.contains(&wanted[..]), "{wanted:?} in {found:?}");
    }
    assert!(found.iter().all(|f| f[2] != 3 && f[3] != 3));
}

#[test]
fn a_length_that_was_not_synced_is_any_and_shows_no_old_bytes() {
    let found = outcomes(
        |disk| {
            let file = synced(disk, "/f", &[1; 700]);
            file.set_len(100).unwrap();
            file.write_at(5000, &[2; 100]).unwrap();
        },
        |disk| {
            let bytes = disk.bytes("/f");
            assert!(bytes[..100.min(bytes.len())].iter().all(|byte| *byte == 1));
            for (at, byte) in bytes.iter().enumerate() {
                let may = match at {
                    0..100 => *byte == 1,
                    100..700 => *byte <= 1,
                    5000..5100 => *byte == 0 || *byte == 2,
                    _ => *byte == 0,
                };
                assert!(may, "{byte} at {at}");
            }
            bytes.len()
        },
    );
    assert!(found.contains(&700) && found.contains(&5100) && found.len() > 2);
    assert!(found.iter().all(|len| (700..=5100).contains(len)));
}

#[test]
fn what_was_cut_off_does_not_come_back_once_the_cut_is_synced() {
    let found = outcomes(
        |disk| {
            let file = synced(disk, "/f", &[1; 10_000]);
            file.set_len(100).unwrap();
            file.sync_data().unwrap();
            file.set_len(10_000).unwrap();
        },
        |disk| disk.bytes("/f").iter().filter(|byte| **byte == 1).count(),
    );
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [100]);
}

#[test]
fn a_name_is_lost_until_its_folder_is_synced_and_kept_after() {
    let file_alone = outcomes(
        |disk| write(disk, "/f", b"x").sync_all().unwrap(),
        |disk| exists(disk, "/f"),
    );
    assert_eq!(file_alone.len(), 2, "syncing a file does not sync its name");
    // A synced folder does not sync its own name, and takes what is in it along.
    let folder = outcomes(
        |disk| {
            disk.create_dir(Path::new("/d")).unwrap();
            synced(disk, "/d/f", b"x");
        },
        |disk| (exists(disk, "/d"), exists(disk, "/d/f")),
    );
    assert_eq!(
        folder.into_iter().collect::<Vec<_>>(),
        [(false, false), (true, true)]
    );
    let all = outcomes(
        |disk| {
            private::create_dirs(disk, Path::new("/a/b")).unwrap();
            private::create(disk, Path::new("/a/b/f"), b"x").unwrap();
        },
        |disk| disk.bytes("/a/b/f"),
    );
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [b"x"]);
}

#[test]
fn a_rename_happens_as_a_whole_or_not_and_replaces_without_a_gap() {
    let found = outcomes(
        |disk| {
            synced(disk, "/a", b"new");
            synced(disk, "/b", b"old");
            disk.rename(Path::new("/a"), Path::new("/b")).unwrap();
        },
        |disk| (exists(disk, "/a"), disk.bytes("/b")),
    );
    let wanted = [(false, b"new".to_vec()), (true, b"old".to_vec())];
    assert!(found.into_iter().eq(wanted));
}

#[test]
fn changes_of_one_name_keep_their_order_and_others_need_not() {
    let found = outcomes(
        |disk| {
            for n in 0..3 {
                write(disk, "/t", &[n]).sync_all().unwrap();
                disk.rename(Path::new("/t"), Path::new("/x")).unwrap();
            }
            synced(disk, "/sub", b"");
            for n in 0..2 {
                write(disk, "/t", &[n]).sync_all().unwrap();
                disk.rename(Path::new("/t"), Path::new("/x")).unwrap();
                write(disk, "/y", &[n]);
            }
        },
        |disk| (disk.bytes("/x")[0], exists(disk, "/y")),
    );
    for wanted in [(2, false), (2, true), (0, false), (1, true)] {
        assert!(found.contains(&wanted), "{wanted:?} in {found:?}");
    }
}

#[test]
fn a_rename_between_folders_is_durable_when_both_are_synced() {
    let run = |sync: &'static [&str]| {
        outcomes(
            |disk| {
                private::create_dirs(disk, Path::new("/a")).unwrap();
                private::create_dirs(disk, Path::new("/b")).unwrap();
                synced(disk, "/a/f", b"x");
                disk.rename(Path::new("/a/f"), Path::new("/b/f")).unwrap();
                for folder in sync {
                    disk.sync_dir(Path::new(folder)).unwrap();
                }
            },
            |disk| (exists(disk, "/a/f"), exists(disk, "/b/f")),
        )
        .into_iter()
        .collect::<Vec<_>>()
    };
    assert_eq!(run(&[]), [(false, true), (true, false)]);
    assert_eq!(run(&["/b"]), [(false, true), (true, true)]);
    assert_eq!(run(&["/a"]), [(false, false), (false, true)]);
    assert_eq!(run(&["/b", "/a"]), [(false, true)]);
}

#[test]
fn a_failed_sync_calls_clean_what_is_not_on_the_disk() {
    for again in [false, true] {
        let found = outcomes(
            |disk| {
                let file = synced(disk, "/f", &[1; 1024]);
                file.write_at(0, &[2; 1024]).unwrap();
                disk.fail(Fault::new(Failure::Io).on(&[Call::SyncData, Call::SyncAll]));
                assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
                assert_eq!(disk.bytes("/f"), [2; 1024], "readers see it");
                if again {
                    file.sync_data().unwrap();
                    file.sync_all().unwrap();
                }
            },
            |disk| (disk.bytes("/f")[0], disk.bytes("/f")[512]),
        );
        assert!(
            found.contains(&(1, 1)),
            "a later sync makes it durable: {found:?}"
        );
        assert!(
            found.contains(&(2, 1)),
            "no part of it reached the disk: {found:?}"
        );
    }
    // A folder's may be tried again.
    let found = |again: bool| {
        outcomes(
            |disk| {
                write(disk, "/f", b"x").sync_all().unwrap();
                disk.fail(Fault::new(Failure::Io).on(&[Call::SyncDir]));
                assert!(disk.sync_dir(Path::new("/")).is_err());
                if again {
                    disk.sync_dir(Path::new("/")).unwrap();
                }
            },
            |disk| exists(disk, "/f"),
        )
    };
    assert_eq!((found(false).len(), found(true).len()), (2, 1));
}

#[test]
fn forgetting_the_cache_shows_what_a_failed_sync_lost() {
    let seen: std::collections::BTreeSet<u8> = (0..50)
        .map(|seed| {
            let disk = SimDisk::new(seed);
            let file = synced(&disk, "/f", &[1; 512]);
            file.write_at(0, &[2; 512]).unwrap();
            disk.fail(Fault::new(Failure::Io).on(&[Call::SyncData]));
            file.sync_data().unwrap_err();
            disk.restart(Crash::Process);
            let file = disk.open(Path::new("/f"), Mode::Write).unwrap();
            assert_eq!(disk.bytes("/f")[0], 2);
            file.forget_cached().unwrap();
            let seen = disk.bytes("/f")[0];
            disk.restart(Crash::Power);
            assert_eq!(disk.bytes("/f")[0], seen, "it was what the disk had");
            seen
        })
        .collect();
    assert!(seen.into_iter().eq([1, 2]));
}

#[test]
fn the_nth_call_of_a_kind_and_a_name_fails_once_or_from_then_on() {
    let disk = SimDisk::new(1);
    let (a, b) = (write(&disk, "/a.log", b""), write(&disk, "/b", b""));
    disk.fail(
        Fault::new(Failure::NoSpace)
            .on(&[Call::Write])
            .at(".log")
            .after(1),
    );
    a.write_at(0, b"x").unwrap();
    b.write_at(0, b"x").unwrap();
    b.write_at(0, b"x").unwrap();
    assert_eq!(disk.faults_left(), 1);
    let error = a.write_at(0, b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    a.write_at(0, b"x").unwrap();
    assert_eq!(disk.faults_left(), 0);
    // The name it has now.
    disk.rename(Path::new("/b"), Path::new("/c")).unwrap();
    disk.fail(
        Fault::new(Failure::Io)
            .on(&[Call::SyncAll])
            .at("/c")
            .lasting(),
    );
    b.sync_all().unwrap_err();
    b.sync_all().unwrap_err();
    b.sync_data().unwrap();
    disk.clear_faults();
    b.sync_all().unwrap();
}

#[test]
fn the_machine_stops_in_the_middle_of_a_write_and_of_a_rename() {
    let mut lens = std::collections::BTreeSet::new();
    let mut renamed = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = synced(&disk, "/f", b"");
        disk.stop_after(1);
        file.write_at(0, &[1; 512]).unwrap();
        file.write_at(512, &[1; 1536]).unwrap_err();
        assert!(disk.is_down());
        file.write_at(0, &[2; 512]).unwrap_err();
        assert!(disk.open(Path::new("/f"), Mode::Read).is_err());
        disk.restart(Crash::Process);
        assert!(disk.bytes("/f").iter().all(|byte| *byte == 1));
        lens.insert(disk.bytes("/f").len());
        disk.stop_after(0);
        disk.rename(Path::new("/f"), Path::new("/g")).unwrap_err();
        disk.restart(Crash::Process);
        assert_ne!(exists(&disk, "/f"), exists(&disk, "/g"));
        renamed.insert(exists(&disk, "/g"));
    }
    assert!(lens.into_iter().eq([512, 1024, 1536, 2048]));
    assert_eq!(renamed.len(), 2);
}

#[test]
fn space_runs_out_and_comes_back() {
    let disk = SimDisk::new(1);
    let file = write(&disk, "/f", &[1; 4096]);
    disk.set_free(8192);
    file.allocate(4096, 8192).unwrap();
    assert_eq!((disk.free(), file.len().unwrap()), (0, 12_288));
    file.write_at(4096, &[1; 8192]).unwrap();
    let full = |outcome: io::Result<()>| outcome.unwrap_err().kind() == io::ErrorKind::StorageFull;
    assert!(full(file.write_at(12_288, &[1; 1])));
    assert!(full(file.allocate(12_288, 1)));
    file.punch(0, 4096).unwrap();
    assert_eq!(disk.free(), 4096);
    file.set_len(4097).unwrap();
    assert_eq!(disk.free(), 8192);
    // A removed file keeps its space while it is open.
    disk.remove(Path::new("/f")).unwrap();
    assert_eq!(disk.free(), 8192);
    drop(file);
    assert_eq!(disk.free(), 12_288);
}

#[test]
fn calls_answer_as_the_operating_system_does() {
    let dir = tempfile::tempdir().unwrap();
    let disks: [(&dyn Disk, &Path); 2] = [
        (&super::super::OsDisk, dir.path()),
        (&SimDisk::new(1), Path::new("/")),
    ];
    let answers = disks.map(|(disk, root)| {
        let path = |name: &str| root.join(name);
        let kind = |outcome: io::Result<()>| outcome.err().map(|error| error.kind());
        let opened = |name: &str, mode| disk.open(&path(name), mode).map(|_| ());
        let file = disk.open(&path("f"), Mode::New).unwrap();
        file.write_at(3, b"abc").unwrap();
        disk.create_dir(&path("d")).unwrap();
        disk.open(&path("d/f"), Mode::Create).unwrap();
        let reader = disk.open(&path("f"), Mode::Read).unwrap();
        let mut list: Vec<_> = disk
            .list(root)
            .unwrap()
            .into_iter()
            .map(|e| (e.name, e.kind == EntryKind::File))
            .collect();
        list.sort();
        let first = vec![
            kind(opened("f", Mode::New)),
            kind(opened("none", Mode::Read)),
            kind(opened("none", Mode::Write)),
            kind(opened("none/f", Mode::Create)),
            kind(opened("f/x", Mode::Create)),
            kind(opened("d", Mode::Write)),
            kind(disk.create_dir(&path("d"))),
            kind(disk.create_dir(&path("none/d"))),
            kind(disk.remove_dir(&path("d"))),
            kind(disk.remove_dir(&path("f"))),
            kind(disk.remove(&path("none"))),
            kind(disk.link(&path("f"), &path("d/f"))),
            kind(disk.link(&path("none"), &path("x"))),
            kind(disk.rename(&path("none"), &path("x"))),
            kind(disk.rename(&path("f"), &path("d"))),
            kind(disk.rename(&path("d"), &path("f"))),
            kind(disk.rename(&path("d"), &path("d/x"))),
            kind(disk.list(&path("none")).map(|_| ())),
            kind(disk.list(&path("f")).map(|_| ())),
            kind(disk.sync_dir(&path("none"))),
            kind(disk.sync_dir(root)),
            kind(reader.write_at(0, b"x")).map(|_| io::ErrorKind::Other),
            kind(reader.read_at(3, &mut [0; 4])),
            kind(file.write_at(u64::MAX, b"xx")),
        ];
        disk.link(&path("f"), &path("l")).unwrap();
        disk.rename(&path("f"), &path("l")).unwrap(); // One file: nothing happens.
        disk.rename(&path("d"), &path("e")).unwrap();
        disk.rename(&path("f"), &path("e/f")).unwrap();
        let bytes = private::read(disk, &path("e/f"), 100).unwrap();
        let kinds = ["f", "l", "d", "e", "none/x", "f/x"].map(|name| disk.kind(&path(name)).ok());
        (list, first, bytes, kinds, file.len().unwrap())
    });
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_fork_goes_its_own_way() {
    let disk = SimDisk::new(1);
    let file = synced(&disk, "/f", &[1; 512]);
    file.write_at(0, &[2; 512]).unwrap();
    let fork = disk.fork(2);
    file.write_at(0, &[3; 512]).unwrap();
    assert_eq!(fork.bytes("/f"), [2; 512]);
    fork.open(Path::new("/f"), Mode::Write)
        .unwrap()
        .write_at(0, &[4; 512])
        .unwrap();
    assert_eq!(disk.bytes("/f"), [3; 512]);
}

#[test]
fn damage_is_in_the_cache_and_on_the_disk() {
    let disk = SimDisk::new(1);
    synced(&disk, "/f", &[1; 1000]);
    disk.damage("/f", 600, |byte| byte ^ 2);
    assert_eq!(disk.bytes("/f")[600], 3);
    disk.cut("/f", 700);
    disk.restart(Crash::Power);
    let bytes = disk.bytes("/f");
    assert_eq!((bytes.len(), bytes[600]), (700, 3));
    assert!(disk.everything().contains(&3));
    assert_eq!(disk.paths(), [Path::new("/f")]);
}

/// A few files in two folders, random calls: what was synced is always there, and one seed gives one run.
fn life(seed: u64) -> (u64, Vec<u8>) {
    const SECTORS: u64 = 40;
    let rng = SeededEntropy::new(seed);
    let disk = SimDisk::new(rng.number());
    private::create_dirs(&disk, Path::new("/d")).unwrap();
    // For each name: what each sector may hold, the last being what it holds now; no name, nothing promised.
    let mut model: BTreeMap<PathBuf, Vec<Vec<u8>>> = BTreeMap::new();
    for step in 0..400 {
        let folder = ["/", "/d"][rng.below(2) as usize];
        let path = Path::new(folder).join(format!("f{}", rng.below(3)));
        match rng.below(10) {
            0 => {
                // Made under another name and put in place, all of it synced.
                let mark = rng.below(250) as u8 + 1;
                private::replace(&disk, &path, &vec![mark; SECTORS as usize * 512]).unwrap();
                model.insert(path, vec![vec![mark]; SECTORS as usize]);
            }
            1 if model.remove(&path).is_some() => {
                disk.remove(&path).unwrap();
                disk.sync_dir(Path::new(folder)).unwrap();
            }
            2..7 => {
                if let Some(sectors) = model.get_mut(&path) {
                    let mark = rng.below(250) as u8 + 1;
                    let first = rng.below(SECTORS);
                    let count = rng.below(SECTORS - first) + 1;
                    let file = disk.open(&path, Mode::Write).unwrap();
                    file.write_at(first * 512, &vec![mark; count as usize * 512])
                        .unwrap();
                    for sector in &mut sectors[first as usize..(first + count) as usize] {
                        sector.push(mark);
                    }
                }
            }
            7 => {
                if let Some(sectors) = model.get_mut(&path) {
                    disk.open(&path, Mode::Write).unwrap().sync_data().unwrap();
                    for sector in sectors {
                        sector.drain(..sector.len() - 1);
                    }
                }
            }
            8 if rng.one_in(5) => {
                let crash = [Crash::Process, Crash::Power][rng.below(2) as usize];
                disk.restart(crash);
                for (path, sectors) in &mut model {
                    let bytes = disk.bytes(path);
                    for (sector, found) in sectors.iter_mut().zip(bytes.chunks(512)) {
                        assert!(found.iter().all(|byte| *byte == found[0]), "seed {seed}");
                        let may = match crash {
                            Crash::Process => sector.last() == Some(&found[0]),
                            Crash::Power => sector.contains(&found[0]),
                        };
                        assert!(
                            may,
                            "seed {seed}, step {step}, {crash:?}: {found:?} of {sector:?}"
                        );
                        if crash == Crash::Power {
                            *sector = vec![found[0]];
                        }
                    }
                }
                assert!(disk.paths().iter().eq(model.keys()), "seed {seed}");
            }
            _ => {
                if let Some(sectors) = model.get(&path) {
                    let sector = rng.below(SECTORS);
                    let mut found = [0; 512];
                    let file = disk.open(&path, Mode::Read).unwrap();
                    file.read_at(sector * 512, &mut found).unwrap();
                    let now = sectors[sector as usize].last();
                    assert_eq!(now, Some(&found[0]), "seed {seed}, step {step}");
                }
            }
        }
    }
    (disk.calls(), disk.everything())
}

#[test]
fn what_was_synced_is_always_there_and_a_seed_replays() {
    for seed in 0..60 {
        assert!(life(seed) == life(seed), "seed {seed}");
    }
}

#[test]
fn a_tree_is_removed_whole_and_links_in_it_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    super::super::OsDisk.open(&kept, Mode::New).unwrap();
    let disks: [(&dyn Disk, &Path); 2] = [
        (&super::super::OsDisk, dir.path()),
        (&SimDisk::new(1), Path::new("/")),
    ];
    for (disk, root) in disks {
        let tree = root.join("tree");
        private::create_dirs(disk, &tree.join("a/b")).unwrap();
        disk.open(&tree.join("a/f"), Mode::New).unwrap();
        if disk.kind(&kept).unwrap().is_some() {
            std::os::unix::fs::symlink(&kept, tree.join("link")).unwrap();
        }
        crate::disk::remove_tree(disk, &tree).unwrap();
        assert_eq!(disk.kind(&tree).unwrap(), None);
        crate::disk::remove_tree(disk, &tree).unwrap();
    }
    assert!(kept.exists());
}

#[test]
fn a_disk_that_writes_pages_whole_tears_none() {
    for seed in 0..200 {
        let disk = SimDisk::new(seed).with_whole_pages();
        let file = synced(&disk, "/f", &[1; 8192]);
        file.write_at(512, &[2; 1024]).unwrap();
        file.write_at(4096, &[3; 4096]).unwrap();
        file.write_at(4096, &[4; 4096]).unwrap();
        disk.restart(Crash::Power);
        let bytes = disk.bytes("/f");
        assert_eq!(bytes[512], bytes[1535], "seed {seed}");
        assert!(
            bytes[4096..].iter().all(|byte| *byte == bytes[4096]),
            "seed {seed}"
        );
    }
}

#[test]
fn a_direct_file_takes_aligned_writes_alone() {
    let disk = SimDisk::new(1);
    let file = disk.create_direct(Path::new("/f")).unwrap();
    let memory = vec![7; 3 * DIRECT_ALIGN];
    let start = memory.as_ptr().align_offset(DIRECT_ALIGN);
    let block = &memory[start..start + DIRECT_ALIGN];
    file.write_at(DIRECT_ALIGN as u64, block).unwrap();
    for (offset, bytes) in [
        (0, &memory[start + 512..start + 512 + DIRECT_ALIGN]),
        (0, &block[..512]),
        (512, block),
    ] {
        assert!(file.write_at(offset, bytes).is_err());
    }
    let file = disk.open_direct(Path::new("/f")).unwrap();
    file.write_at(512, &block[..512]).unwrap();
    for (offset, bytes) in [
        (0, &memory[start + 512..start + 1024]),
        (0, &block[..511]),
        (1, &block[..512]),
    ] {
        assert!(file.write_at(offset, bytes).is_err());
    }
    disk.set_free(8192);
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 8192);
}
