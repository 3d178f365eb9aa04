//! What outlives a killed process, and what a power cut may leave of it: directed cases. The random ones are in `tests`.
#![allow(clippy::cast_possible_truncation)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use host::disk::sim::{Call, Crash, Failure, Fault, SimDisk};

use super::{
    tests::{CHUNKS, LOG, SECTOR, SIZE, SLOTS, media, new_volume, sealed, shape},
    *,
};
use crate::{
    ExtentKind,
    geometry::{CHUNK_LEN, CHUNK_SECTORS, Chunk},
    protection::{Sealed, Unencrypted},
};

fn open(disk: &SimDisk) -> Engine<Sealed> {
    Engine::open(media(disk), shape(), sealed()).unwrap()
}

fn read(volume: &Engine<Sealed>, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0xee; len as usize];
    volume.read(offset, &mut bytes).unwrap();
    bytes
}

/// Writes sectors full of `byte`.
fn fill(volume: &Engine<Sealed>, sector: u64, count: u64, byte: u8) {
    let mut bytes = vec![byte; (count * SECTOR) as usize];
    volume.write(sector * SECTOR, &mut bytes, false).unwrap();
}

/// Nothing here is flushed but by the test itself.
fn log_end(volume: &Engine<Sealed>) -> u64 {
    volume.journal.file().log.end()
}

/// The log is on the disk, whatever is not of the slots.
fn sync_log(volume: &Engine<Sealed>) {
    volume.journal.file().log.file().sync_data().unwrap();
}

#[test]
fn a_killed_process_loses_nothing_that_was_answered() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, sealed);
    let mut expected = vec![0; SIZE as usize];
    let mut note = |offset: u64, bytes: &[u8]| {
        expected[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
    };
    // New chunks, over a chunk's end and a window's, parts of sectors, what was written already, holes and zeroes.
    for (n, (offset, len)) in [
        (0, 4096),
        (3 * SECTOR, 8192),
        (CHUNK_LEN - SECTOR, 2 * SECTOR),
        (16 * CHUNK_LEN - 5 * SECTOR, 9 * SECTOR),
        (5 * CHUNK_LEN + 700, 100),
        (5 * CHUNK_LEN + 900, 5000),
        (0, 4096),
        (2 * SECTOR, 4 * SECTOR),
        (7 * CHUNK_LEN, 2 * CHUNK_LEN),
        (17 * CHUNK_LEN, CHUNK_LEN),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = vec![n as u8 + 1; len as usize];
        volume.write(offset, &mut bytes.clone(), false).unwrap();
        note(offset, &bytes);
    }
    for (offset, len) in [(17 * CHUNK_LEN, CHUNK_LEN), (8 * CHUNK_LEN + 100, 9000)] {
        volume.trim(offset, len, false).unwrap();
        note(offset, &vec![0; len as usize]);
    }
    let zeroes = (3 * SECTOR, 10 * SECTOR);
    volume
        .write_zeroes(zeroes.0, zeroes.1, true, false)
        .unwrap();
    note(zeroes.0, &vec![0; zeroes.1 as usize]);
    drop(volume);
    for _ in 0..3 {
        disk.restart(Crash::Process);
        assert!(read(&open(&disk), 0, SIZE) == expected);
    }
    // It was made durable by opening it.
    disk.restart(Crash::Power);
    assert!(read(&open(&disk), 0, SIZE) == expected);
}

#[test]
fn with_the_log_durable_and_the_slots_not_a_sector_is_whole_or_not_there() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let disk = match seed % 2 {
            0 => disk,
            _ => disk.with_whole_pages(),
        };
        let volume = new_volume(&disk, sealed);
        fill(&volume, 0, 64, 1);
        fill(&volume, 300, 4, 1);
        sync_log(&volume);
        drop(volume);
        disk.restart(Crash::Power);
        let volume = open(&disk);
        for sector in (0..64).chain(300..304) {
            let bytes = read(&volume, sector * SECTOR, SECTOR);
            assert!(
                bytes == [1; 4096] || bytes == [0; 4096],
                "seed {seed}, {sector}"
            );
            let extents = volume.extents(sector * SECTOR, SECTOR, 1).unwrap();
            assert_eq!(extents[0].kind == ExtentKind::Data, bytes[0] == 1);
        }
    }
}

#[test]
fn what_the_slots_lost_is_not_there_however_little_it_is() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, sealed);
    fill(&volume, 0, 8, 1);
    let slot = volume.map.get(Chunk(0)).unwrap().slot.start();
    drop(volume);
    // One block of sector 2, all of sector 5.
    for at in (2 * SECTOR + 512..2 * SECTOR + 1024).chain(5 * SECTOR..6 * SECTOR) {
        disk.damage(SLOTS, slot + at, |_| 0);
    }
    disk.restart(Crash::Process);
    for _ in 0..2 {
        let volume = open(&disk);
        let there: Vec<_> = (0..8)
            .map(|sector| read(&volume, sector * SECTOR, SECTOR)[0])
            .collect();
        assert_eq!(there, [1, 1, 0, 1, 1, 0, 1, 1]);
        drop(volume);
        disk.restart(Crash::Power);
    }
    // A sector that is gone can be written again.
    let volume = open(&disk);
    fill(&volume, 2, 1, 7);
    drop(volume);
    disk.restart(Crash::Process);
    assert_eq!(read(&open(&disk), 2 * SECTOR, SECTOR), [7; 4096]);
}

#[test]
fn with_the_slots_durable_and_the_log_not_the_last_flush_is_there() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, sealed);
    fill(&volume, 0, 1, 1);
    volume.flush().unwrap();
    let end = log_end(&volume);
    fill(&volume, 0, 1, 2);
    fill(&volume, 1, 1, 2);
    fill(&volume, 1000, 1, 2);
    volume.trim(0, SECTOR, false).unwrap();
    volume.store.sync().unwrap();
    drop(volume);
    for at in end..disk.bytes(LOG).len() as u64 {
        disk.damage(LOG, at, |_| 0);
    }
    disk.restart(Crash::Power);
    let volume = open(&disk);
    // Overwritten in place, so new; what had no record is a hole.
    assert_eq!(read(&volume, 0, SECTOR), [2; 4096]);
    assert_eq!(read(&volume, SECTOR, SECTOR), [0; 4096]);
    assert_eq!(read(&volume, 1000 * SECTOR, SECTOR), [0; 4096]);
    // The slot whose record is gone is free.
    fill(&volume, 2000, 1, 3);
    volume.flush().unwrap();
    assert_eq!(read(&volume, 2000 * SECTOR, SECTOR), [3; 4096]);
}

#[test]
fn what_is_overwritten_before_a_flush_holds_one_or_the_other_wherever_the_process_dies() {
    for calls in 0..8 {
        for seed in 0..20 {
            for crash in [Crash::Process, Crash::Power] {
                let disk = SimDisk::new(seed);
                let volume = new_volume(&disk, sealed);
                fill(&volume, 0, 4, 1);
                disk.stop_after(calls);
                let mut bytes = vec![2; 4096];
                let mut over = bytes.repeat(4);
                let second = volume.write(SECTOR, &mut bytes, false).is_ok();
                // New sectors and such as are not settled, in one request.
                let third = second && volume.write(2 * SECTOR, &mut over, false).is_ok();
                drop(volume);
                disk.restart(crash);
                let volume = open(&disk);
                for block in 0..6 * 8 {
                    let sector = block / 8;
                    let found = read(&volume, block * 512, 512);
                    let now = match sector {
                        0 => [1, 1],
                        1 if second => [2, 2],
                        1 => [1, 2],
                        2 | 3 if third => [2, 2],
                        2 | 3 => [1, 2],
                        _ if third => [2, 2],
                        _ => [0, 2],
                    };
                    let right = now.iter().any(|byte| found == [*byte; 512])
                        || crash == Crash::Power
                            && [[0; 512], [1; 512]].contains(&found[..].try_into().unwrap());
                    assert!(
                        right,
                        "seed {seed}, {calls} calls, {crash:?}, block {block}: {}",
                        found[0]
                    );
                }
            }
        }
    }
}

#[test]
fn what_was_trimmed_stays_trimmed_when_the_process_dies() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, sealed);
    fill(&volume, 0, 300, 1);
    volume.flush().unwrap();
    volume.trim(0, CHUNK_LEN, false).unwrap();
    volume.trim(200 * SECTOR, SECTOR, false).unwrap();
    // Written again, to the same place.
    volume.trim(201 * SECTOR, SECTOR, false).unwrap();
    fill(&volume, 201, 1, 2);
    drop(volume);
    disk.restart(Crash::Process);
    let volume = open(&disk);
    assert!(read(&volume, 0, CHUNK_LEN).iter().all(|byte| *byte == 0));
    assert_eq!(read(&volume, 200 * SECTOR, SECTOR), [0; 4096]);
    assert_eq!(read(&volume, 201 * SECTOR, SECTOR), [2; 4096]);
    assert_eq!(read(&volume, 202 * SECTOR, SECTOR), [1; 4096]);
    assert_eq!(volume.extents(0, SIZE, 1).unwrap()[0].len, CHUNK_LEN);
}

#[test]
fn threads_that_write_flush_and_checkpoint_at_once_lose_nothing_when_the_process_dies() {
    const THREADS: u64 = 4;
    const EACH: u64 = 3 * CHUNK_SECTORS as u64;
    for seed in 0..5 {
        let disk = SimDisk::new(seed);
        let volume = new_volume(&disk, sealed);
        let answered: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
        let writing = AtomicU64::new(THREADS);
        std::thread::scope(|scope| {
            for (thread, answered) in (0..).zip(&answered) {
                let (volume, writing) = (&volume, &writing);
                scope.spawn(move || {
                    // Neighbouring sectors of every chunk: chunks are shared.
                    for n in 0..EACH {
                        let sector = n * THREADS + thread;
                        fill(volume, sector, 1, 1);
                        if n % 3 == 0 {
                            fill(volume, sector, 1, 2);
                        }
                        if n % 7 == 0 {
                            volume.trim(sector * SECTOR, SECTOR, false).unwrap();
                        }
                        answered.store(n + 1, SeqCst);
                    }
                    writing.fetch_sub(1, SeqCst);
                });
            }
            scope.spawn(|| {
                while writing.load(SeqCst) > 0 {
                    volume.flush().unwrap();
                    volume.tidy();
                }
            });
            scope.spawn(|| {
                while writing.load(SeqCst) > 0 {
                    volume.checkpoint().unwrap();
                }
            });
        });
        assert!(
            answered
                .iter()
                .all(|answered| answered.load(SeqCst) == EACH)
        );
        drop(volume);
        disk.restart(Crash::Process);
        let volume = open(&disk);
        for n in 0..EACH {
            let byte = match n {
                n if n % 7 == 0 => 0,
                n if n % 3 == 0 => 2,
                _ => 1,
            };
            for thread in 0..THREADS {
                let found = read(&volume, (n * THREADS + thread) * SECTOR, SECTOR);
                assert!(found == [byte; 4096], "seed {seed}, {n}, {thread}");
            }
        }
    }
}

#[test]
fn a_flush_covers_what_threads_were_answered_before_it_when_the_power_fails() {
    for seed in 0..5 {
        let disk = SimDisk::new(seed);
        let volume = new_volume(&disk, sealed);
        let before = AtomicU64::new(0);
        let going = AtomicBool::new(true);
        let mut flushed = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0;
                while going.load(SeqCst) && n < CHUNKS * u64::from(CHUNK_SECTORS) {
                    fill(&volume, n, 1, n as u8 | 1);
                    n += 1;
                    before.store(n, SeqCst);
                }
            });
            scope.spawn(|| {
                while going.load(SeqCst) {
                    volume.checkpoint().unwrap();
                }
            });
            for _ in 0..20 {
                flushed = before.load(SeqCst);
                volume.flush().unwrap();
            }
            going.store(false, SeqCst);
        });
        drop(volume);
        disk.restart(Crash::Power);
        let volume = open(&disk);
        for n in 0..flushed {
            assert!(
                read(&volume, n * SECTOR, SECTOR) == [n as u8 | 1; 4096],
                "seed {seed}, {n}"
            );
        }
    }
}

#[test]
fn requests_and_flushes_go_on_while_a_checkpoint_is_written() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, sealed);
    fill(&volume, 0, 1, 1);
    fill(&volume, 2000, 1, 1);
    let epoch = || volume.journal.file().log.header().epoch;
    std::thread::scope(|scope| {
        // The checkpoint comes to this chunk and waits.
        let held = volume.ranges.write(Chunk(0), Chunk(0));
        let checkpoint = scope.spawn(|| volume.checkpoint());
        while !disk.paths().contains(&Path::new("/map.log.new").to_owned()) {
            std::thread::yield_now();
        }
        fill(&volume, 2001, 1, 2);
        volume.flush().unwrap();
        fill(&volume, 2000, 1, 3);
        volume.trim(2001 * SECTOR, SECTOR, true).unwrap();
        fill(&volume, 2001, 1, 4);
        assert_eq!(epoch(), 1);
        drop(held);
        checkpoint.join().unwrap().unwrap();
    });
    assert_eq!(epoch(), 2);
    fill(&volume, 2002, 1, 5);
    drop(volume);
    disk.restart(Crash::Process);
    let volume = open(&disk);
    for (sector, byte) in [(0, 1), (2000, 3), (2001, 4), (2002, 5)] {
        assert_eq!(read(&volume, sector * SECTOR, SECTOR), [byte; 4096]);
    }
}

#[test]
fn a_new_log_does_not_forget_what_was_flushed_while_it_was_written() {
    const IDLE: u64 = 0;
    const ARMED: u64 = 1;
    const WAITING: u64 = 2;
    let disk = SimDisk::new(1);
    create(&media(&disk), shape(), &sealed()).unwrap();
    let state = Arc::new(AtomicU64::new(IDLE));
    let whole = media(&disk);
    let media = Media {
        slots: Arc::new(BeforeSync(
            whole.slots,
            Box::new({
                let state = Arc::clone(&state);
                move || {
                    // The first one waits, others pass.
                    if state
                        .compare_exchange(ARMED, WAITING, SeqCst, SeqCst)
                        .is_ok()
                    {
                        while state.load(SeqCst) == WAITING {
                            std::thread::yield_now();
                        }
                    }
                }
            }),
        )),
        ..whole
    };
    let volume = Engine::open(media, shape(), sealed()).unwrap();
    fill(&volume, 0, 1, 1);
    std::thread::scope(|scope| {
        state.store(ARMED, SeqCst);
        let checkpoint = scope.spawn(|| volume.checkpoint());
        while state.load(SeqCst) != WAITING {
            std::thread::yield_now();
        }
        // The map is in the new file, and the slots are being synced for it.
        fill(&volume, 2000, 1, 2);
        fill(&volume, 2001, 1, 2);
        volume.flush().unwrap();
        // Settled: overwritten without a record, so it must not be compared with the one that it has.
        fill(&volume, 2000, 1, 3);
        fill(&volume, 2002, 1, 4);
        state.store(IDLE, SeqCst);
        checkpoint.join().unwrap().unwrap();
    });
    assert_eq!(volume.journal.file().log.header().epoch, 2);
    fill(&volume, 2002, 1, 5);
    drop(volume);
    disk.restart(Crash::Process);
    let volume = open(&disk);
    for (sector, byte) in [(0, 1), (2000, 3), (2001, 2), (2002, 5)] {
        assert_eq!(read(&volume, sector * SECTOR, SECTOR), [byte; 4096]);
    }
}

#[test]
fn sectors_in_order_need_one_record_a_request_and_settled_ones_none() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, sealed);
    let mib = 256;
    let before = log_end(&volume);
    let calls = disk.calls();
    fill(&volume, 0, mib, 1);
    // Frame, record, 64 bytes a sector.
    assert_eq!(log_end(&volume) - before, 104 + 32 + mib * 64);
    // Room in the slot file and in the log, the owners of the slots, the data of each, the record.
    assert!(disk.calls() - calls <= 7, "{}", disk.calls() - calls);
    volume.flush().unwrap();
    let (before, calls) = (log_end(&volume), disk.calls());
    fill(&volume, 0, mib, 2);
    assert_eq!((log_end(&volume), disk.calls()), (before, calls + 1));
    volume.flush().unwrap();
    // The slot file alone is synced.
    assert_eq!((log_end(&volume), disk.calls()), (before, calls + 2));
}

#[test]
fn much_that_nobody_flushes_is_flushed_in_the_background() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, sealed);
    fill(&volume, 0, 300, 1);
    volume.tidy();
    let log = log_end(&volume);
    fill(&volume, 0, 300, 2);
    assert_eq!(log_end(&volume), log);
    drop(volume);
    disk.restart(Crash::Power);
    let bytes = read(&open(&disk), 0, 300 * SECTOR);
    assert!(bytes.iter().all(|byte| [1, 2].contains(byte)));
}

#[test]
fn a_record_that_cannot_be_written_fails_the_volume_and_every_later_request() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, sealed);
    fill(&volume, 0, 1, 1);
    disk.fail(Fault::new(Failure::Io).on(&[Call::Write]).at(LOG));
    let outcome = volume.write(SECTOR, &mut [2; 4096], false);
    assert!(matches!(outcome, Err(VolumeError::Failed(_))));
    assert!(matches!(volume.flush(), Err(VolumeError::Failed(_))));
    assert!(matches!(
        volume.read(0, &mut [0; 4096]),
        Err(VolumeError::Failed(_))
    ));
    drop(volume);
    disk.restart(Crash::Process);
    assert_eq!(read(&open(&disk), 0, SECTOR), [1; 4096]);
}

#[test]
fn what_an_unencrypted_volume_answered_outlives_the_process_too() {
    let disk = SimDisk::new(1);
    let volume = new_volume(&disk, Unencrypted::new);
    volume.write(100, &mut [0; 8192], false).unwrap();
    volume.write(9000, &mut [5; 100], false).unwrap();
    drop(volume);
    disk.restart(Crash::Process);
    let volume = Engine::open(media(&disk), shape(), Unencrypted::new()).unwrap();
    let mut bytes = [1; 300];
    volume.read(8900, &mut bytes).unwrap();
    assert_eq!(bytes[..100], [0; 100]);
    assert_eq!(bytes[100..200], [5; 100]);
    assert_eq!(bytes[200..], [0; 100]);
}

/// A file that does something before each sync.
struct BeforeSync(Arc<dyn File>, Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for BeforeSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl File for BeforeSync {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.1)();
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.allocate(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.punch(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn lock(&self) -> io::Result<()> {
        self.0.lock()
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.0.forget_cached()
    }
}

#[test]
fn a_flush_or_a_checkpoint_that_panics_fails_the_volume() {
    for checkpoint in [false, true] {
        let disk = SimDisk::new(1);
        create(&media(&disk), shape(), &sealed()).unwrap();
        let panics = Arc::new(AtomicBool::new(false));
        let told = Arc::new(AtomicU64::new(0));
        let whole = media(&disk);
        let media = Media {
            slots: Arc::new(BeforeSync(
                whole.slots,
                Box::new({
                    let panics = Arc::clone(&panics);
                    move || assert!(!panics.load(SeqCst), "on purpose")
                }),
            )),
            on_failed: Box::new({
                let told = Arc::clone(&told);
                move || {
                    told.fetch_add(1, SeqCst);
                }
            }),
            ..whole
        };
        let volume = Engine::open(media, shape(), sealed()).unwrap();
        fill(&volume, 0, 1, 1);
        panics.store(true, SeqCst);
        let caught = catch_unwind(AssertUnwindSafe(|| match checkpoint {
            false => volume.flush(),
            true => volume.checkpoint(),
        }));
        assert!(caught.is_err());
        panics.store(false, SeqCst);
        for outcome in [
            volume.flush(),
            volume.checkpoint(),
            volume.write(0, &mut [1; 4096], false),
        ] {
            assert!(matches!(outcome, Err(VolumeError::Failed(_))));
        }
        assert_eq!(told.load(SeqCst), 1);
        drop(volume);
        disk.restart(Crash::Process);
        assert_eq!(read(&open(&disk), 0, SECTOR), [1; 4096]);
    }
}
