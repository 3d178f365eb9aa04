//! Serves a file as it is, in plaintext, on a unix socket: the protocol layer alone, to try clients on and to measure.
//!
//!     cargo run --release -p nbd@0.1.0 --example serve_file -- disk.img /tmp/nbd.sock
//!     nbdinfo 'nbd+unix:///?socket=/tmp/nbd.sock'

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use nbd::{
    BlockSizes, Errno, Export, ExportInfo, ExportName, Exports, OpenError, Options, Peer, Server,
    Unobserved, ZeroOptions,
};
use rustix::fs::FallocateFlags;

struct Disk(File, ExportInfo);

impl Disk {
    fn punch(&self, offset: u64, len: u64, fua: bool) -> Result<(), Errno> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.0, flags, offset, len)
            .map_err(|e| Errno::from(&io::Error::from(e)))?;
        if fua { self.flush() } else { Ok(()) }
    }
}

impl Export for Disk {
    fn info(&self) -> ExportInfo {
        self.1.clone()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.0
            .read_exact_at(buf, offset)
            .map_err(|e| Errno::from(&e))
    }
    fn write(&self, offset: u64, buf: &mut [u8], fua: bool) -> Result<(), Errno> {
        self.0
            .write_all_at(buf, offset)
            .map_err(|e| Errno::from(&e))?;
        if fua { self.flush() } else { Ok(()) }
    }
    fn flush(&self) -> Result<(), Errno> {
        self.0.sync_data().map_err(|e| Errno::from(&e))
    }
    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), Errno> {
        self.punch(offset, len, fua)
    }
    fn write_zeroes(&self, offset: u64, len: u64, options: ZeroOptions) -> Result<(), Errno> {
        if options.no_hole {
            return Err(Errno::NotSup);
        }
        self.punch(offset, len, options.fua)
    }
}

struct Only(Arc<Disk>);

#[async_trait::async_trait]
impl Exports for Only {
    async fn list(&self, _: &Peer) -> Result<Vec<ExportName>, OpenError> {
        Ok(vec![self.0.1.name.clone()])
    }
    async fn describe(&self, peer: &Peer, name: &ExportName) -> Result<ExportInfo, OpenError> {
        Ok(self.open(peer, name).await?.info())
    }
    async fn open(&self, _: &Peer, name: &ExportName) -> Result<Arc<dyn Export>, OpenError> {
        match name.as_str() {
            "" | "file" => Ok(self.0.clone()),
            _ => Err(OpenError::Unknown),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(path), Some(socket)) = (words.next(), words.next()) else {
        return Err("usage: serve_file FILE SOCKET".into());
    };
    let file = File::options().read(true).write(true).open(&path)?;
    let info = ExportInfo {
        name: ExportName::new("file")?,
        description: path,
        size: file.metadata()?.len(),
        read_only: false,
        multi_conn: true,
        block_sizes: BlockSizes::default(),
    };
    let exports = Arc::new(Only(Arc::new(Disk(file, info))));
    let server = Server::new(Options::default(), exports, Arc::new(Unobserved));
    let listener = tokio::net::UnixListener::bind(socket)?;
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve_unix(listener).await }
    });
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    server.shutdown(Duration::from_secs(5)).await;
    serving.await??;
    Ok(())
}
