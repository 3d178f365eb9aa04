//! The server under a client that shares no line with us: crate `nbd` of crates.io. It speaks newstyle with
//! `NBD_OPT_EXPORT_NAME`, and simple replies: the oldest form that a client may use.
#![allow(clippy::unwrap_used, missing_docs, clippy::cast_possible_truncation)]

mod support;

use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nbd::Options;
use nbd_client::Export;
use nbd_client::client::{NbdClient, NbdExt, handshake};
use support::{Memory, Running};

const SIZE: usize = 1 << 20;

/// A client in its transmission phase, and what the server told it.
fn connect(running: &Running, name: &str) -> (NbdClient<UnixStream>, Export) {
    let mut stream = UnixStream::connect(&running.path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let export = handshake(&mut stream, name.as_bytes()).unwrap();
    (NbdClient::new(stream, &export), export)
}

fn pattern(len: usize) -> Vec<u8> {
    (0u8..=250).cycle().take(len).collect()
}

#[test]
fn an_export_has_the_size_and_the_abilities_that_it_says() {
    let running = Running::start(SIZE);
    for name in ["vol", ""] {
        let (mut client, export) = connect(&running, name);
        assert_eq!(export.size, SIZE as u64);
        assert!(!export.readonly && !export.rotational && !export.resizeable);
        assert!(export.send_flush && export.send_trim);
        assert_eq!(client.seek(SeekFrom::End(0)).unwrap(), SIZE as u64);
    }
    for size in [512, 4096, 65_537 * 512] {
        let running = Running::start(size);
        assert_eq!(connect(&running, "vol").1.size, size as u64);
    }
}

#[test]
fn what_it_writes_it_reads_and_so_does_another_connection() {
    let running = Running::start(SIZE);
    let (mut client, _) = connect(&running, "vol");
    let (mut other, _) = connect(&running, "vol");
    let mut expected = vec![0; SIZE];
    for (offset, len) in [(0, 4096), (1, 1), (4095, 70_000), (SIZE - 3, 3), (0, SIZE)] {
        let data = pattern(len);
        client.seek(SeekFrom::Start(offset as u64)).unwrap();
        client.write_all(&data).unwrap();
        expected[offset..offset + len].copy_from_slice(&data);
        for client in [&mut client, &mut other] {
            let mut read = vec![0; SIZE];
            client.seek(SeekFrom::Start(0)).unwrap();
            client.read_exact(&mut read).unwrap();
            assert!(read == expected, "after {len} bytes at {offset}");
        }
    }
    assert!(*running.memory.data.lock().unwrap() == expected);
}

#[test]
fn a_flush_reaches_the_export_after_the_writes_before_it() {
    let running = Running::start(SIZE);
    let (mut client, _) = connect(&running, "vol");
    client.write_all(&pattern(4096)).unwrap();
    client.flush().unwrap();
    let log = running.log();
    assert_eq!(log, ["write 0 4096 false", "flush"]);
}

#[test]
fn a_trim_reaches_the_export_and_the_connection_goes_on() {
    let running = Running::start(SIZE);
    let (mut client, _) = connect(&running, "vol");
    client.write_all(&pattern(8192)).unwrap();
    client.seek(SeekFrom::Start(4096)).unwrap();
    client.trim(4096).unwrap();
    let mut read = vec![1; 8192];
    client.seek(SeekFrom::Start(0)).unwrap();
    client.read_exact(&mut read).unwrap();
    assert_eq!(read[..4096], pattern(8192)[..4096]);
    assert_eq!(read[4096..], [0; 4096]);
    assert!(running.log().contains(&"trim 4096 4096 false".to_owned()));
}

#[test]
fn a_read_only_export_says_so_and_refuses_what_would_change_it() {
    let mut memory = Memory::new(SIZE);
    memory.read_only = true;
    let running = Running::new(memory, Options::default());
    let (mut client, export) = connect(&running, "vol");
    assert!(export.readonly);
    let refused = client.write_all(&pattern(4096)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
    let mut read = vec![1; 4096];
    client.read_exact(&mut read).unwrap();
    assert_eq!(read, [0; 4096]);
    assert!(!running.log().iter().any(|line| line.starts_with("write")));
}

#[test]
fn errors_have_the_protocols_numbers_and_do_not_end_the_connection() {
    let mut memory = Memory::new(SIZE);
    memory.bad_byte = Some(5000);
    let running = Running::new(memory, Options::default());
    let (mut client, export) = connect(&running, "vol");
    client.seek(SeekFrom::Start(4096)).unwrap();
    let refused = client.write_all(&pattern(4096)).unwrap_err();
    assert_eq!(refused.to_string(), "EIO");
    let refused = client.read(&mut [0; 4096]).unwrap_err();
    assert_eq!(refused.to_string(), "EIO");
    // The client knows no bounds but the size it was told: told a greater one, it asks past the end.
    drop(client);
    let mut stream = UnixStream::connect(&running.path).unwrap();
    handshake(&mut stream, b"vol").unwrap();
    let greater = Export {
        size: export.size + 4096,
        ..export
    };
    let mut client = NbdClient::new(stream, &greater);
    client.seek(SeekFrom::Start(export.size)).unwrap();
    let refused = client.read(&mut [0; 4096]).unwrap_err();
    assert_eq!(refused.to_string(), "EINVAL");
    let refused = client.write(&[0; 4096]).unwrap_err();
    assert_eq!(refused.to_string(), "ENOSPC");
    client.seek(SeekFrom::Start(0)).unwrap();
    client.write_all(&pattern(512)).unwrap();
}

#[test]
fn an_export_that_is_not_there_or_not_for_it_ends_the_handshake() {
    let running = Running::start(SIZE);
    for name in ["nothing", "secret"] {
        let mut stream = UnixStream::connect(&running.path).unwrap();
        // `NBD_OPT_EXPORT_NAME` has no reply for a refusal: the server hangs up.
        let refused = handshake(&mut stream, name.as_bytes()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::UnexpectedEof, "{name}");
    }
    connect(&running, "vol");
}

#[test]
fn a_tcp_client_is_served_as_one_on_a_unix_socket() {
    let running = Running::start(SIZE);
    let listener = running
        .runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let serving = running.server.clone();
    running
        .runtime
        .spawn(async move { serving.serve_tcp(listener).await });
    let mut stream = TcpStream::connect(address).unwrap();
    let export = handshake(&mut stream, b"vol").unwrap();
    let mut client = NbdClient::new(stream, &export);
    client.seek(SeekFrom::Start(12_345)).unwrap();
    client.write_all(&pattern(100_000)).unwrap();
    client.flush().unwrap();
    let mut read = vec![0; 100_000];
    client.seek(SeekFrom::Start(12_345)).unwrap();
    client.read_exact(&mut read).unwrap();
    assert!(read == pattern(100_000));
}
