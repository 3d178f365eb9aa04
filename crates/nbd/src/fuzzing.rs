//! Doors for fuzz targets, in builds with `--cfg fuzzing` only.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::attached::Attached;
use crate::door::Door;
use crate::negotiation::{Terms, Tls, negotiate};
use crate::transmission::{Core, Negotiated, Step};
use crate::{
    BlockSizes, Errno, Export, ExportInfo, ExportName, Exports, OpenError, Peer, Unobserved,
    ZeroOptions,
};

/// A small export that checks what the protocol layer promises it.
struct Checked(Mutex<Vec<u8>>);

const SIZE: u64 = 256 * 1024;

impl Checked {
    fn range(offset: u64, len: u64) -> std::ops::Range<usize> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= SIZE));
        offset as usize..(offset + len) as usize
    }

    fn fill(&self, offset: u64, len: u64) {
        self.0.lock().expect("no panic while held")[Self::range(offset, len)].fill(0);
    }
}

impl Export for Checked {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            name: ExportName::new("fuzz").expect("short"),
            description: String::new(),
            size: SIZE,
            read_only: false,
            multi_conn: true,
            block_sizes: BlockSizes::default(),
        }
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
        let data = self.0.lock().expect("no panic while held");
        buf.copy_from_slice(&data[Self::range(offset, buf.len() as u64)]);
        Ok(())
    }
    fn write(&self, offset: u64, buf: &mut [u8], _: bool) -> Result<(), Errno> {
        let mut data = self.0.lock().expect("no panic while held");
        data[Self::range(offset, buf.len() as u64)].copy_from_slice(buf);
        buf.fill(0xEE);
        Ok(())
    }
    fn flush(&self) -> Result<(), Errno> {
        Ok(())
    }
    fn trim(&self, offset: u64, len: u64, _: bool) -> Result<(), Errno> {
        self.fill(offset, len);
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, len: u64, _: ZeroOptions) -> Result<(), Errno> {
        self.fill(offset, len);
        Ok(())
    }
}

/// One connection's requests; the first byte chooses what was negotiated and how the rest is cut.
pub fn requests(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let export = Arc::new(Checked(Mutex::new(vec![0; SIZE as usize])));
    let negotiated = Negotiated {
        info: export.info(),
        export: Attached::new(export),
        structured: choice & 1 != 0,
        allocation: choice & 2 != 0,
    };
    let mut core = Core::new(
        negotiated,
        Arc::new(Unobserved),
        Arc::new(AtomicBool::new(false)),
    );
    for piece in data.chunks(usize::from(choice >> 2) * 97 + 1) {
        let mut piece = piece;
        loop {
            let step = core.step();
            core.sent();
            match step {
                Step::Send => {}
                Step::Close(_) => return,
                Step::Receive if piece.is_empty() => break,
                Step::Receive => {
                    let space = core.space();
                    assert!(!space.is_empty());
                    let len = space.len().min(piece.len());
                    space[..len].copy_from_slice(&piece[..len]);
                    core.received(len);
                    piece = &piece[len..];
                }
            }
        }
    }
}

struct One;

#[async_trait::async_trait]
impl Exports for One {
    async fn list(&self, _: &Peer) -> Result<Vec<ExportName>, OpenError> {
        Ok(vec![
            ExportName::new("fuzz").map_err(|_| OpenError::Unknown)?,
        ])
    }
    async fn describe(&self, peer: &Peer, name: &ExportName) -> Result<ExportInfo, OpenError> {
        Ok(self.open(peer, name).await?.info())
    }
    async fn open(&self, _: &Peer, name: &ExportName) -> Result<Arc<dyn Export>, OpenError> {
        match name.as_str() {
            "fuzz" => Ok(Arc::new(Checked(Mutex::new(vec![0; SIZE as usize])))),
            _ => Err(OpenError::Unknown),
        }
    }
}

/// One client's side of a handshake.
pub fn handshake(data: &[u8]) {
    let peer = Peer::Unix {
        uid: 0,
        gid: 0,
        pid: 1,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    if let Ok(runtime) = runtime {
        let mut stream = tokio::io::join(data, tokio::io::sink());
        let _ = runtime.block_on(async {
            let guest = Door::new(1, 1).enter(&peer);
            let mut terms = Terms::new(Duration::from_secs(60), guest, &Unobserved);
            negotiate(&mut stream, &One, &peer, &mut terms, Tls::Unavailable).await
        });
    }
}

/// Runs the client's side of a handshake against a server that says `says`, whatever that is.
pub fn client(says: &[u8]) {
    struct Peer<'a>(&'a [u8]);
    impl std::io::Read for Peer<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buf)
        }
    }
    impl std::io::Write for Peer<'_> {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            Ok(buf.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let name = ExportName::new("fuzz").expect("short");
    let _ = crate::client::attach(&mut Peer(says), &name);
}
