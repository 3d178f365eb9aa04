//! Every connection that was opened is closed once, to the observer and to the limit, however it ends.
#![allow(clippy::unwrap_used, missing_docs, clippy::cast_possible_truncation)]

mod support;

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nbd::{
    Closed, Errno, Export, ExportInfo, ExportName, Exports, Observer, OpenError, Options, Peer,
    Server, ZeroOptions,
};
use support::{Client, Memory, One};

/// Counts what is open, and keeps why the others closed.
#[derive(Default)]
struct Book(Mutex<(i64, Vec<Closed>)>);

impl Observer for Book {
    fn connection_opened(&self, _: &Peer) {
        self.0.lock().unwrap().0 += 1;
    }
    fn connection_closed(&self, _: &Peer, why: Closed) {
        let mut book = self.0.lock().unwrap();
        book.0 -= 1;
        book.1.push(why);
    }
}

/// Panics where it is told to.
struct Faulty {
    good: One,
}

struct FaultyExport(Arc<dyn Export>);

impl Export for FaultyExport {
    fn info(&self) -> ExportInfo {
        self.0.info()
    }
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Errno> {
        panic!("an export with a bug")
    }
    fn write(&self, offset: u64, buf: &mut [u8], fua: bool) -> Result<(), Errno> {
        self.0.write(offset, buf, fua)
    }
    fn flush(&self) -> Result<(), Errno> {
        self.0.flush()
    }
    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), Errno> {
        self.0.trim(offset, len, fua)
    }
    fn write_zeroes(&self, offset: u64, len: u64, options: ZeroOptions) -> Result<(), Errno> {
        self.0.write_zeroes(offset, len, options)
    }
}

#[async_trait::async_trait]
impl Exports for Faulty {
    async fn list(&self, peer: &Peer) -> Result<Vec<ExportName>, OpenError> {
        self.good.list(peer).await
    }
    async fn describe(&self, peer: &Peer, name: &ExportName) -> Result<ExportInfo, OpenError> {
        self.good.describe(peer, name).await
    }
    async fn open(&self, peer: &Peer, name: &ExportName) -> Result<Arc<dyn Export>, OpenError> {
        assert_ne!(name.as_str(), "bug");
        let good = self.good.open(peer, name).await?;
        Ok(Arc::new(FaultyExport(good)))
    }
}

#[test]
fn connections_that_end_in_a_panic_are_closed_to_the_observer_and_to_the_limit() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let book = Arc::new(Book::default());
    let exports = Faulty {
        good: One(Arc::new(Memory::new(1 << 20))),
    };
    let mut options = Options::default();
    options.connections_max = 1;
    let server = Server::new(options, Arc::new(exports), Arc::clone(&book) as _);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = {
        let _guard = runtime.enter();
        tokio::net::UnixListener::bind(&path).unwrap()
    };
    let serving = server.clone();
    runtime.spawn(async move { serving.serve_unix(listener).await });

    let connect = || {
        let mut client = Client(UnixStream::connect(&path).unwrap());
        client
            .0
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client.take(18);
        std::io::Write::write_all(&mut client.0, &3u32.to_be_bytes()).unwrap();
        client
    };
    let gone = || {
        while server.connections() > 0 {
            std::thread::yield_now();
        }
    };
    // In the handshake, with a place already.
    let mut client = connect();
    client.option(7, b"\0\0\0\x03bug\0\0");
    assert!(client.is_closed());
    gone();
    // In the transmission phase.
    let mut client = connect();
    client.option(7, b"\0\0\0\x03vol\0\0");
    client.reply();
    client.reply();
    client.request(0, 0, 1, 0, 4096, &[]);
    assert!(client.is_closed());
    gone();
    // And one as it should be.
    let mut client = connect();
    client.option(2, &[]);
    client.reply();
    assert!(client.is_closed());
    gone();
    let book = book.0.lock().unwrap();
    assert_eq!(book.0, 0);
    assert_eq!(book.1, [Closed::Failed, Closed::Failed, Closed::ByClient]);
}
