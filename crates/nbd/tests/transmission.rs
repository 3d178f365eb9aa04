//! The transmission phase over a real socket: every command, every limit, and nothing that loses the stream's way.
#![allow(clippy::unwrap_used, missing_docs, clippy::cast_possible_truncation)]

mod support;

use std::io::Write;
use std::time::Duration;

use nbd::Options;
use support::{Client, Memory, Running};

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;
const FUA: u16 = 1;
const DF: u16 = 4;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8 | 1).collect()
}

#[test]
fn what_is_written_is_read_at_any_offset_and_length() {
    let running = Running::start(4 << 20);
    let mut plain = running.connect(false);
    let mut structured = running.connect(true);
    let mut expected = vec![0u8; 4 << 20];
    for (i, (offset, len)) in [
        (0, 1),
        (4095, 2),
        (1, 4096),
        (511, 70_000),
        (1_000_003, 1_500_001),
        (4_194_303, 1),
        (0, 4_194_304),
    ]
    .into_iter()
    .enumerate()
    {
        let data: Vec<u8> = pattern(len)
            .iter()
            .map(|b| b.wrapping_add(i as u8))
            .collect();
        plain.request(0, 1, 9, offset as u64, len as u32, &data);
        assert_eq!(plain.simple(), (0, 9));
        expected[offset..offset + len].copy_from_slice(&data);
        let read = structured.read(0, 4 << 20, 0).unwrap();
        assert!(read == expected, "structured read after write {i}");
        plain.request(0, 0, 10, 0, 4 << 20, &[]);
        assert_eq!(plain.simple(), (0, 10));
        assert!(
            plain.take(4 << 20) == expected,
            "simple read after write {i}"
        );
    }
    // Whole sectors stayed whole: every cut but a request's own ends is at a multiple of 4096.
    for line in running.log().iter().filter(|l| l.starts_with("write")) {
        let fields: Vec<u64> = line
            .split(' ')
            .skip(1)
            .filter_map(|f| f.parse().ok())
            .collect();
        let (start, end) = (fields[0], fields[0] + fields[1]);
        let ends = [
            0, 1, 4095, 4097, 511, 70_511, 1_000_003, 2_500_004, 4_194_303, 4_194_304,
        ];
        assert!(start % 4096 == 0 || ends.contains(&start), "{line}");
        assert!(end % 4096 == 0 || ends.contains(&end), "{line}");
    }
}

#[test]
fn many_requests_in_one_send_are_answered_in_order() {
    let running = Running::start(1 << 20);
    let mut client = running.connect(false);
    let mut bytes = Vec::new();
    for i in 0..200u64 {
        bytes.extend(Client::request_bytes(
            0,
            1,
            i,
            i * 4096,
            4096,
            &[i as u8 + 1; 4096],
        ));
    }
    for i in 0..200u64 {
        bytes.extend(Client::request_bytes(0, 0, 1000 + i, i * 4096, 4096, &[]));
    }
    let mut sender = client.0.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&bytes).unwrap());
    for i in 0..200 {
        assert_eq!(client.simple(), (0, i));
    }
    for i in 0..200 {
        assert_eq!(client.simple(), (0, 1000 + i));
        assert_eq!(client.take(4096), [i as u8 + 1; 4096]);
    }
    sending.join().unwrap();
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let running = Running::start(1 << 20);
    let mut client = running.connect(false);
    for byte in Client::request_bytes(0, 1, 3, 100, 50, &[7; 50]) {
        client.0.write_all(&[byte]).unwrap();
    }
    assert_eq!(client.simple(), (0, 3));
    assert_eq!(running.memory.data.lock().unwrap()[100..150], [7; 50]);
}

#[test]
fn ranges_past_the_end_are_refused_and_the_stream_goes_on() {
    let running = Running::start(1 << 20);
    let mut client = running.connect(false);
    let end = 1u64 << 20;
    for (command, offset, len, errno) in [
        (0, end, 1, EINVAL),
        (0, end - 1, 2, EINVAL),
        (0, u64::MAX, 4096, EINVAL),
        (1, end - 1, 2, ENOSPC),
        (1, u64::MAX, 4096, ENOSPC),
        (4, end, 1, EINVAL),
        (5, end, 1, EINVAL),
        (6, end, 1, ENOSPC),
        (9, 0, 1, EINVAL),
        (0, 0, (32 << 20) + 1, EINVAL),
    ] {
        let payload = if command == 1 {
            vec![1; len as usize]
        } else {
            vec![]
        };
        client.request(0, command, 4, offset, len, &payload);
        assert_eq!(
            client.simple(),
            (errno, 4),
            "command {command} at {offset} for {len}"
        );
    }
    client.request(0, 0, 5, 0, 8, &[]);
    assert_eq!(client.simple(), (0, 5));
    assert_eq!(client.take(8), [0; 8]);
}

#[test]
fn unknown_flags_are_refused_and_fua_is_allowed_everywhere() {
    let running = Running::start(1 << 20);
    let mut client = running.connect(false);
    for command in [0, 1, 3, 4, 5, 6] {
        let payload: &[u8] = if command == 1 { &[0; 16] } else { &[] };
        client.request(1 << 9, command, 1, 0, 16, payload);
        assert_eq!(client.simple(), (EINVAL, 1), "command {command}");
        client.request(FUA, command, 2, 0, 16, payload);
        assert_eq!(client.simple(), (0, 2), "command {command}");
        if command == 0 {
            client.take(16);
        }
    }
    // Without structured replies DF has no meaning that could be kept.
    client.request(DF, 0, 3, 0, 16, &[]);
    assert_eq!(client.simple(), (EINVAL, 3));
}

#[test]
fn fua_reaches_the_export_once_whatever_the_length() {
    let running = Running::start(4 << 20);
    let mut client = running.connect(false);
    client.request(FUA, 1, 1, 0, 4096, &[1; 4096]);
    assert_eq!(client.simple(), (0, 1));
    assert_eq!(running.log(), ["write 0 4096 true"]);
    running.memory.log.lock().unwrap().clear();
    client.request(FUA, 1, 1, 0, 1 << 20, &vec![1; 1 << 20]);
    assert_eq!(client.simple(), (0, 1));
    let log = running.log();
    assert_eq!(log.last().unwrap(), "flush");
    assert!(
        log[..log.len() - 1].iter().all(|l| l.ends_with("false")),
        "{log:?}"
    );
}

#[test]
fn trims_and_zeroes_carry_their_flags() {
    let running = Running::start(1 << 20);
    let mut client = running.connect(true);
    client.request(FUA, 4, 1, 4096, 8192, &[]);
    assert_eq!(client.simple(), (0, 1));
    client.request(FUA | 2 | 16, 6, 2, 0, 4096, &[]);
    assert_eq!(client.simple(), (0, 2));
    client.request(0, 6, 3, 0, 1 << 20, &[]);
    assert_eq!(client.simple(), (0, 3));
    assert_eq!(
        running.log(),
        [
            "trim 4096 8192 true",
            "zero 0 4096 ZeroOptions { no_hole: true, fua: true, fast: true }",
            "zero 0 1048576 ZeroOptions { no_hole: false, fua: false, fast: false }"
        ]
    );
}

#[test]
fn holes_are_left_out_of_long_reads_and_told_by_block_status() {
    let running = Running::start(1 << 20);
    let mut client = running.connect(true);
    client.request(0, 1, 1, 131_072, 65_536, &pattern(65_536));
    assert_eq!(client.simple(), (0, 1));
    client.request(0, 0, 2, 0, 1 << 20, &[]);
    let (mut kinds, mut bytes) = (Vec::new(), 0);
    loop {
        let (flags, kind, _, payload) = client.chunk();
        bytes += payload.len();
        kinds.push(kind);
        if flags & 1 != 0 {
            break;
        }
    }
    assert!(kinds.contains(&2) && kinds.contains(&1));
    assert!(
        bytes < 70_000 + 16 * 12,
        "{bytes} bytes were sent for 64 KiB of data"
    );
    client.request(0, 7, 3, 0, 1 << 20, &[]);
    let (flags, kind, _, payload) = client.chunk();
    assert_eq!((flags, kind), (1, 5));
    let words: Vec<u32> = payload
        .chunks(4)
        .map(|w| u32::from_be_bytes(w.try_into().unwrap()))
        .collect();
    assert_eq!(words, [1, 131_072, 3, 65_536, 0, (1 << 20) - 196_608, 3]);
    // REQ_ONE: one extent, not longer than asked for.
    client.request(8, 7, 4, 131_072, 1000, &[]);
    let words: Vec<u32> = client
        .chunk()
        .3
        .chunks(4)
        .map(|w| u32::from_be_bytes(w.try_into().unwrap()))
        .collect();
    assert_eq!(words, [1, 1000, 0]);
}

#[test]
fn an_unfragmented_read_is_one_chunk_or_an_error() {
    let running = Running::start(1 << 20);
    let mut client = running.connect(true);
    client.request(DF, 0, 1, 0, 65_536, &[]);
    let (flags, kind, _, payload) = client.chunk();
    assert_eq!((flags, kind, payload.len()), (1, 1, 65_544));
    assert_eq!(client.read(0, 1 << 20, DF), Err(EOVERFLOW));
    assert_eq!(client.read(0, 16, 0).unwrap(), [0; 16]);
}

#[test]
fn a_failed_write_is_taken_whole_and_the_next_request_is_understood() {
    let mut memory = Memory::new(4 << 20);
    memory.bad_byte = Some(300_000);
    let running = Running::new(memory, Options::default());
    let mut client = running.connect(true);
    client.request(0, 1, 1, 0, 2 << 20, &vec![5; 2 << 20]);
    assert_eq!(client.simple(), (EIO, 1));
    client.request(0, 1, 2, 0, 4096, &[6; 4096]);
    assert_eq!(client.simple(), (0, 2));
    assert_eq!(client.read(0, 4096, 0).unwrap(), [6; 4096]);
    assert_eq!(client.read(299_990, 20, 0), Err(EIO));
    assert_eq!(client.read(0, 16, 0).unwrap(), [6; 16]);
}

#[test]
fn a_simple_read_that_fails_late_ends_the_connection_instead_of_lying() {
    let mut memory = Memory::new(4 << 20);
    memory.bad_byte = Some(3 << 20);
    let running = Running::new(memory, Options::default());
    let mut client = running.connect(false);
    client.request(0, 0, 1, 0, 4 << 20, &[]);
    assert_eq!(client.simple(), (0, 1));
    assert!(client.is_closed());
}

#[test]
fn a_read_only_export_is_not_written() {
    let mut memory = Memory::new(1 << 20);
    memory.read_only = true;
    let running = Running::new(memory, Options::default());
    let mut client = running.connect(false);
    for command in [1, 4, 6] {
        let payload: &[u8] = if command == 1 { &[1; 16] } else { &[] };
        client.request(0, command, 1, 0, 16, payload);
        assert_eq!(client.simple(), (EPERM, 1));
    }
    assert!(running.log().is_empty());
}

#[test]
fn garbage_instead_of_a_request_ends_the_connection() {
    let running = Running::start(1 << 20);
    let mut client = running.connect(false);
    client.0.write_all(&[0x5a; 64]).unwrap();
    assert!(client.is_closed());
}

#[test]
fn disc_ends_the_connection_after_what_came_before_it() {
    let running = Running::start(1 << 20);
    let mut client = running.connect(false);
    let mut bytes = Client::request_bytes(0, 1, 1, 0, 16, &[9; 16]);
    bytes.extend(Client::request_bytes(0, 2, 2, 0, 0, &[]));
    client.0.write_all(&bytes).unwrap();
    assert_eq!(client.simple(), (0, 1));
    assert!(client.is_closed());
}

#[test]
fn shutdown_answers_what_has_arrived_and_then_closes() {
    let running = Running::start(1 << 20);
    let mut client = running.connect(false);
    client.request(0, 1, 1, 0, 16, &[9; 16]);
    assert_eq!(client.simple(), (0, 1));
    let drained = running
        .runtime
        .block_on(running.server.shutdown(Duration::from_secs(5)));
    assert_eq!((drained.finished, drained.cut), (1, 0));
    assert!(client.is_closed());
    assert_eq!(running.server.connections(), 0);
    // The listener's backlog may still take a connection; nobody greets it.
    if let Ok(late) = std::os::unix::net::UnixStream::connect(&running.path) {
        assert!(Client(late).is_closed());
    }
}

#[test]
fn a_client_that_has_rested_goes_on_in_the_middle_of_a_write() {
    let mut options = nbd::Options::default();
    options.rest_after = std::time::Duration::from_millis(5);
    let running = support::Running::new(support::Memory::new(1 << 20), options);
    let mut client = running.connect(false);
    let payload: Vec<u8> = (0..256u32 << 10).map(|i| (i / 7) as u8).collect();
    let bytes = support::Client::request_bytes(0, 1, 1, 4096, payload.len() as u32, &payload);
    // Some pauses fall into the header, some into a sector.
    for piece in bytes.chunks(31_337) {
        std::io::Write::write_all(&mut client.0, piece).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(client.simple(), (0, 1));
    client.request(0, 0, 2, 4096, payload.len() as u32, &[]);
    assert_eq!(client.simple(), (0, 2));
    assert_eq!(client.take(payload.len()), payload);
}
