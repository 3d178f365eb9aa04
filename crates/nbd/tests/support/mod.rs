//! An export in memory, and a client that sends what it is told, right or wrong.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nbd::{
    BlockSizes, Errno, Export, ExportInfo, ExportName, Exports, Extent, ExtentKind, OpenError,
    Options, Peer, Server, Unobserved, ZeroOptions,
};
use tempfile::TempDir;

/// 64 KiB blocks, each there or a hole.
const BLOCK: u64 = 65536;

pub(crate) struct Memory {
    pub(crate) data: Mutex<Vec<u8>>,
    pub(crate) log: Mutex<Vec<String>>,
    pub(crate) read_only: bool,
    /// Reads and writes that reach this byte fail.
    pub(crate) bad_byte: Option<u64>,
}

impl Memory {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            data: Mutex::new(vec![0; size]),
            log: Mutex::default(),
            read_only: false,
            bad_byte: None,
        }
    }

    fn note(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), Errno> {
        match self.bad_byte {
            Some(bad) if (offset..offset + len as u64).contains(&bad) => Err(Errno::Io),
            _ => Ok(()),
        }
    }
}

pub(crate) struct Shared(pub(crate) Arc<Memory>);

impl Export for Shared {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            name: ExportName::new("vol").unwrap(),
            description: "in memory".into(),
            size: self.0.data.lock().unwrap().len() as u64,
            read_only: self.0.read_only,
            multi_conn: true,
            block_sizes: BlockSizes::default(),
        }
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.0.check(offset, buf.len())?;
        let at = offset as usize;
        buf.copy_from_slice(&self.0.data.lock().unwrap()[at..at + buf.len()]);
        Ok(())
    }
    fn write(&self, offset: u64, buf: &mut [u8], fua: bool) -> Result<(), Errno> {
        self.0.check(offset, buf.len())?;
        let at = offset as usize;
        self.0.data.lock().unwrap()[at..at + buf.len()].copy_from_slice(buf);
        // Sealing in place destroys the payload; whoever looks at it again must not pass.
        buf.fill(0xEE);
        self.0.note(format!("write {offset} {} {fua}", buf.len()));
        Ok(())
    }
    fn flush(&self) -> Result<(), Errno> {
        self.0.note("flush".into());
        Ok(())
    }
    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), Errno> {
        self.0.note(format!("trim {offset} {len} {fua}"));
        self.0.data.lock().unwrap()[offset as usize..(offset + len) as usize].fill(0);
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, len: u64, options: ZeroOptions) -> Result<(), Errno> {
        self.0.note(format!("zero {offset} {len} {options:?}"));
        self.0.data.lock().unwrap()[offset as usize..(offset + len) as usize].fill(0);
        Ok(())
    }
    fn extents(
        &self,
        offset: u64,
        len: u64,
        max: usize,
        out: &mut Vec<Extent>,
    ) -> Result<(), Errno> {
        let data = self.0.data.lock().unwrap();
        let mut at = offset;
        while at < offset + len && out.len() < max {
            let end = ((at / BLOCK + 1) * BLOCK).min(offset + len);
            let start = (at / BLOCK * BLOCK) as usize;
            let block = &data[start..(start + BLOCK as usize).min(data.len())];
            let kind = if block.iter().all(|b| *b == 0) {
                ExtentKind::Hole
            } else {
                ExtentKind::Data
            };
            out.push(Extent {
                len: end - at,
                kind,
            });
            at = end;
        }
        Ok(())
    }
}

pub(crate) struct One(pub(crate) Arc<Memory>);

impl One {
    fn find(&self, name: &ExportName) -> Result<Shared, OpenError> {
        match name.as_str() {
            "vol" | "" => Ok(Shared(Arc::clone(&self.0))),
            "secret" => Err(OpenError::Denied("not allowed: ec2:AttachVolume".into())),
            _ => Err(OpenError::Unknown),
        }
    }
}

#[async_trait::async_trait]
impl Exports for One {
    async fn list(&self, _: &Peer) -> Result<Vec<ExportName>, OpenError> {
        Ok(vec![ExportName::new("vol").unwrap()])
    }
    async fn describe(&self, _: &Peer, name: &ExportName) -> Result<ExportInfo, OpenError> {
        Ok(self.find(name)?.info())
    }
    async fn open(&self, _: &Peer, name: &ExportName) -> Result<Arc<dyn Export>, OpenError> {
        let export = self.find(name)?;
        self.0.note("open".into());
        Ok(Arc::new(export))
    }
}

/// A server on a unix socket, and the runtime it runs in.
pub(crate) struct Running {
    pub(crate) memory: Arc<Memory>,
    pub(crate) server: Server,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) path: std::path::PathBuf,
    _dir: TempDir,
}

impl Running {
    pub(crate) fn new(memory: Memory, options: Options) -> Self {
        let memory = Arc::new(memory);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let server = Server::new(
            options,
            Arc::new(One(Arc::clone(&memory))),
            Arc::new(Unobserved),
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nbd.sock");
        let listener = {
            let _guard = runtime.enter();
            tokio::net::UnixListener::bind(&path).unwrap()
        };
        let serving = server.clone();
        runtime.spawn(async move { serving.serve_unix(listener).await });
        Self {
            memory,
            server,
            runtime,
            path,
            _dir: dir,
        }
    }

    pub(crate) fn start(size: usize) -> Self {
        Self::new(Memory::new(size), Options::default())
    }

    /// What the export was told to do, but for being opened.
    pub(crate) fn log(&self) -> Vec<String> {
        let log = self.memory.log.lock().unwrap();
        log.iter().filter(|line| *line != "open").cloned().collect()
    }

    /// How often the export was opened.
    pub(crate) fn opened(&self) -> usize {
        let log = self.memory.log.lock().unwrap();
        log.iter().filter(|line| *line == "open").count()
    }

    /// A connection past the greeting.
    pub(crate) fn greet(&self) -> Client {
        let mut client = Client(UnixStream::connect(&self.path).unwrap());
        client
            .0
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        assert_eq!(client.take(18), *b"NBDMAGICIHAVEOPT\0\x03");
        client.0.write_all(&3u32.to_be_bytes()).unwrap();
        client
    }

    /// A connection in its transmission phase.
    pub(crate) fn connect(&self, structured: bool) -> Client {
        let mut client = self.greet();
        if structured {
            client.option(8, &[]);
            assert_eq!(client.reply(), (8, 1, vec![]));
            client.option(
                10,
                &[
                    &[0, 0, 0, 3][..],
                    b"vol",
                    &[0, 0, 0, 1, 0, 0, 0, 15],
                    b"base:allocation",
                ]
                .concat(),
            );
            assert_eq!(client.reply().1, 4);
            assert_eq!(client.reply().1, 1);
        }
        client.option(7, &[&[0, 0, 0, 3][..], b"vol", &[0, 0]].concat());
        assert_eq!(client.reply().1, 3);
        assert_eq!(client.reply().1, 1);
        client
    }
}

pub(crate) struct Client(pub(crate) UnixStream);

impl Client {
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    pub(crate) fn option(&mut self, option: u32, data: &[u8]) {
        let mut bytes = b"IHAVEOPT".to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.0.write_all(&bytes).unwrap();
    }

    /// Option, type and data of a reply.
    pub(crate) fn reply(&mut self) -> (u32, u32, Vec<u8>) {
        assert_eq!(self.u64(), 0x3e889045565a9);
        let (option, kind, len) = (self.u32(), self.u32(), self.u32());
        (option, kind, self.take(len as usize))
    }

    pub(crate) fn request(
        &mut self,
        flags: u16,
        command: u16,
        cookie: u64,
        offset: u64,
        len: u32,
        payload: &[u8],
    ) {
        self.0
            .write_all(&Self::request_bytes(
                flags, command, cookie, offset, len, payload,
            ))
            .unwrap();
    }

    pub(crate) fn request_bytes(
        flags: u16,
        command: u16,
        cookie: u64,
        offset: u64,
        len: u32,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// Error and cookie of a simple reply.
    pub(crate) fn simple(&mut self) -> (u32, u64) {
        assert_eq!(self.u32(), 0x6744_6698);
        (self.u32(), self.u64())
    }

    /// Flags, type, cookie and payload of a chunk.
    pub(crate) fn chunk(&mut self) -> (u16, u16, u64, Vec<u8>) {
        assert_eq!(self.u32(), 0x668e_33ef);
        let (flags, kind, cookie, len) = (self.u16(), self.u16(), self.u64(), self.u32());
        (flags, kind, cookie, self.take(len as usize))
    }

    /// A structured read's answer put together: data, or the error.
    pub(crate) fn read(&mut self, offset: u64, len: u32, flags: u16) -> Result<Vec<u8>, u32> {
        self.request(flags, 0, 77, offset, len, &[]);
        let mut data = vec![0xAA; len as usize];
        loop {
            let (done, kind, cookie, payload) = self.chunk();
            assert_eq!(cookie, 77);
            match kind {
                0 => {}
                1 => {
                    let at =
                        (u64::from_be_bytes(payload[..8].try_into().unwrap()) - offset) as usize;
                    data[at..at + payload.len() - 8].copy_from_slice(&payload[8..]);
                }
                2 => {
                    let at =
                        (u64::from_be_bytes(payload[..8].try_into().unwrap()) - offset) as usize;
                    let len = u32::from_be_bytes(payload[8..].try_into().unwrap()) as usize;
                    data[at..at + len].fill(0);
                }
                0x8001 => return Err(u32::from_be_bytes(payload[..4].try_into().unwrap())),
                other => panic!("chunk type {other}"),
            }
            if done & 1 != 0 {
                return Ok(data);
            }
        }
    }

    /// Whether the server has hung up, once all that it sent is read.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            // Closed before it was accepted, or with something of ours unread.
            Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
