//! The handshake over a real socket: what is offered, refused, and survived.
#![allow(clippy::unwrap_used, missing_docs, clippy::cast_possible_truncation)]

mod support;

use std::io::Write;
use std::time::Duration;

use nbd::Options;
use support::{Memory, Running};

const UNSUP: u32 = 0x8000_0001;
const POLICY: u32 = 0x8000_0002;
const INVALID: u32 = 0x8000_0003;
const UNKNOWN: u32 = 0x8000_0006;

#[test]
fn exports_are_listed() {
    let running = Running::start(1 << 20);
    let mut client = running.greet();
    client.option(3, &[]);
    assert_eq!(client.reply(), (3, 2, b"\0\0\0\x03vol".to_vec()));
    assert_eq!(client.reply(), (3, 1, vec![]));
}

#[test]
fn info_tells_size_name_description_and_block_sizes() {
    let running = Running::start(1 << 20);
    let mut client = running.greet();
    client.option(6, &[&[0, 0, 0, 0, 0, 3][..], &[0, 1, 0, 2, 0, 3]].concat());
    let (_, kind, export) = client.reply();
    assert_eq!(
        (kind, &export[..10]),
        (3, &[0, 0, 0, 0, 0, 0, 0, 16, 0, 0][..])
    );
    assert_eq!(client.reply().2, b"\0\x01vol");
    assert_eq!(client.reply().2, b"\0\x02in memory");
    assert_eq!(
        client.reply().2,
        [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0]
    );
    assert_eq!(client.reply().1, 1);
    // And the handshake goes on.
    client.option(2, &[]);
    assert_eq!(client.reply(), (2, 1, vec![]));
    assert!(client.is_closed());
}

#[test]
fn an_unknown_option_is_refused_and_the_next_one_is_heard() {
    let running = Running::start(1 << 20);
    let mut client = running.greet();
    for option in [4, 11, 99, u32::MAX] {
        client.option(option, b"some data");
        assert_eq!(client.reply().1, UNSUP, "option {option}");
    }
    client.option(3, &[]);
    assert_eq!(client.reply().1, 2);
}

#[test]
fn what_may_not_be_had_is_refused_in_words() {
    let running = Running::start(1 << 20);
    let mut client = running.greet();
    client.option(7, b"\0\0\0\x04nope\0\0");
    assert_eq!(client.reply().1, UNKNOWN);
    client.option(7, b"\0\0\0\x06secret\0\0");
    let (_, kind, text) = client.reply();
    assert_eq!(kind, POLICY);
    assert_eq!(text, b"not allowed: ec2:AttachVolume");
    client.option(5, &[]);
    assert_eq!(client.reply().1, UNSUP);
}

#[test]
fn malformed_options_are_refused_and_survived() {
    let running = Running::start(1 << 20);
    let mut client = running.greet();
    for (option, data) in [
        (3, &b"x"[..]),
        (8, b"x"),
        (7, b""),
        (7, b"\0\0\0\xffvol\0\0"),
        (7, b"\xff\xff\xff\xff\0\0"),
        (7, b"\0\0\0\x03vol\0\x09"),
        (9, b"\0\0\0\x03vol\xff\xff\xff\xff"),
        (10, b"\0\0\0\x03vol\0\0\0\0"),
    ] {
        client.option(option, data);
        assert_eq!(client.reply().1, INVALID, "option {option} {data:?}");
    }
    client.option(3, &[]);
    assert_eq!(client.reply().1, 2);
}

#[test]
fn an_option_that_claims_gigabytes_ends_the_connection_and_takes_no_memory() {
    let running = Running::start(1 << 20);
    let mut client = running.greet();
    client
        .0
        .write_all(b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff")
        .unwrap();
    assert_eq!(client.reply().1, 0x8000_0009);
    assert!(client.is_closed());
}

#[test]
fn a_client_that_never_stops_asking_runs_out_of_time() {
    let mut options = Options::default();
    options.handshake_timeout = Duration::from_millis(300);
    let running = Running::new(Memory::new(1 << 20), options);
    let mut client = running.greet();
    // It asks again as soon as it is answered: nothing else would end this.
    loop {
        let option = [&b"IHAVEOPT"[..], &[0, 0, 0, 3, 0, 0, 0, 0]].concat();
        if client.0.write_all(&option).is_err() {
            break;
        }
        let mut answer = [0; 47];
        if std::io::Read::read_exact(&mut client.0, &mut answer).is_err() {
            break;
        }
    }
}

#[test]
fn a_client_may_ask_three_things_of_each_of_ten_thousand_exports() {
    let running = Running::start(1 << 20);
    let mut client = running.greet();
    client.option(8, &[]);
    client.reply();
    let info = |client: &mut support::Client| {
        client.option(6, b"\0\0\0\x03vol\0\0");
        assert_eq!(client.reply().1, 3);
        assert_eq!(client.reply().1, 1);
    };
    for _ in 0..30_000 {
        info(&mut client);
    }
    client.option(7, b"\0\0\0\x03vol\0\0");
    assert_eq!(client.reply().1, 3);
}

#[test]
fn only_who_goes_on_to_use_an_export_opens_it() {
    let running = Running::start(1 << 20);
    let mut client = running.greet();
    client.option(8, &[]);
    client.reply();
    client.option(6, b"\0\0\0\x03vol\0\0");
    client.reply();
    client.reply();
    client.option(10, b"\0\0\0\x03vol\0\0\0\x01\0\0\0\x0fbase:allocation");
    client.reply();
    client.reply();
    assert_eq!(running.opened(), 0);
    client.option(7, b"\0\0\0\x03vol\0\0");
    client.reply();
    assert_eq!(running.opened(), 1);
}

#[test]
fn unknown_client_flags_and_a_wrong_magic_end_the_connection() {
    let running = Running::start(1 << 20);
    let mut client =
        support::Client(std::os::unix::net::UnixStream::connect(&running.path).unwrap());
    client.take(18);
    client.0.write_all(&7u32.to_be_bytes()).unwrap();
    assert!(client.is_closed());
    let mut client = running.greet();
    client.0.write_all(b"GIVEMEIT\0\0\0\x03\0\0\0\0").unwrap();
    assert!(client.is_closed());
}

#[test]
fn the_old_way_to_choose_an_export_works_with_and_without_zeroes() {
    let running = Running::start(1 << 20);
    for (flags, padding) in [(1u32, 124), (3, 0)] {
        let mut client =
            support::Client(std::os::unix::net::UnixStream::connect(&running.path).unwrap());
        client.take(18);
        client.0.write_all(&flags.to_be_bytes()).unwrap();
        client.option(1, b"vol");
        assert_eq!(client.u64(), 1 << 20);
        assert_eq!(client.u16() & 1, 1);
        assert_eq!(client.take(padding), vec![0; padding]);
        client.request(0, 0, 5, 0, 16, &[]);
        assert_eq!(client.simple(), (0, 5));
        assert_eq!(client.take(16), [0; 16]);
    }
    let mut client = running.greet();
    client.option(1, b"nope");
    assert!(client.is_closed());
}

#[test]
fn meta_contexts_need_structured_replies_and_hold_for_their_export_alone() {
    let running = Running::start(1 << 20);
    let mut client = running.greet();
    let query = b"\0\0\0\x03vol\0\0\0\x01\0\0\0\x0fbase:allocation";
    client.option(10, query);
    assert_eq!(client.reply().1, INVALID);
    client.option(9, b"\0\0\0\x03vol\0\0\0\0");
    assert_eq!(client.reply(), (9, 4, b"\0\0\0\0base:allocation".to_vec()));
    assert_eq!(client.reply().1, 1);
    client.option(8, &[]);
    client.reply();
    client.option(10, query);
    assert_eq!(
        client.reply(),
        (10, 4, b"\0\0\0\x01base:allocation".to_vec())
    );
    assert_eq!(client.reply().1, 1);
    // The default export is another name, so the context does not hold.
    client.option(7, b"\0\0\0\0\0\0");
    client.reply();
    client.reply();
    client.request(0, 7, 1, 0, 4096, &[]);
    let (_, kind, _, payload) = client.chunk();
    assert_eq!((kind, &payload[..4]), (0x8001, &22u32.to_be_bytes()[..]));
}

#[test]
fn a_client_that_dawdles_is_timed_out() {
    let mut options = Options::default();
    options.handshake_timeout = Duration::from_millis(100);
    let running = Running::new(Memory::new(1 << 20), options);
    let mut client = running.greet();
    assert!(client.is_closed());
}

#[test]
fn connections_beyond_the_limit_are_refused_in_words_and_come_back_when_one_ends() {
    let mut options = Options::default();
    options.connections_max = 1;
    let running = Running::new(Memory::new(1 << 20), options);
    let first = running.connect(false);
    let mut second = running.greet();
    second.option(7, b"\0\0\0\x03vol\0\0");
    let (_, kind, text) = second.reply();
    assert_eq!(kind, POLICY);
    assert_eq!(text, b"the server has as many connections as it may");
    // It may still ask.
    second.option(3, &[]);
    assert_eq!(second.reply().1, 2);
    drop((first, second));
    while running.server.connections() > 0 {
        std::thread::yield_now();
    }
    running.connect(false);
}
