//! What a server serves: the seam between the protocol and the storage behind it.
//!
//! [`Export`] is synchronous, because a request runs to its end on its connection's own thread: a hop to
//! another thread costs more than a cached read (15 us against 1.2 us, measured). [`Exports`] is asynchronous,
//! because finding and attaching a volume asks a keyring and waits for an audit record.

use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

use crate::{Errno, Peer};

/// The longest string NBD allows, in bytes (proto.md, "Conventions").
pub const STRING_LEN_MAX: usize = 4096;

/// What an export is, fixed for the life of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// Canonical name, told to clients that ask (`NBD_INFO_NAME`).
    pub name: ExportName,
    /// For people (`NBD_INFO_DESCRIPTION`); at most [`STRING_LEN_MAX`] bytes, else it is left out.
    pub description: String,
    /// Size in bytes.
    pub size: u64,
    /// Writes are answered `EPERM` and never reach the export.
    pub read_only: bool,
    /// A flush on any connection covers writes answered on every other (`NBD_FLAG_CAN_MULTI_CONN`).
    pub multi_conn: bool,
    /// What the client is told about alignment.
    pub block_sizes: BlockSizes,
}

/// `NBD_INFO_BLOCK_SIZE`. The server itself accepts any offset and length; these are for the client's benefit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Smallest unit, a power of two, 1..=65536.
    pub minimum: u32,
    /// Unit without read-modify-write, a power of two, at least `minimum` and 512.
    pub preferred: u32,
    /// Longest payload of a read or write; longer ones are answered `EINVAL`.
    pub maximum: u32,
}

impl Default for BlockSizes {
    /// 1 byte, 4096 bytes, 32 MiB.
    fn default() -> Self {
        Self {
            minimum: 1,
            preferred: 4096,
            maximum: 32 << 20,
        }
    }
}

/// The name of an export: UTF-8, no NUL, at most [`STRING_LEN_MAX`] bytes. The empty name asks for a default export.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExportName(String);

impl ExportName {
    /// Checks the bounds of a name.
    ///
    /// # Errors
    /// [`InvalidName`] if it is longer than [`STRING_LEN_MAX`] bytes or has a NUL in it.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
        let name = name.into();
        if name.len() > STRING_LEN_MAX || name.contains('\0') {
            return Err(InvalidName);
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ExportName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name is too long, no UTF-8, or has a NUL in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an export name is UTF-8 without NUL, at most {STRING_LEN_MAX} bytes")]
pub struct InvalidName;

/// What is in a range of an export (`base:allocation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Allocated; may hold anything.
    Data,
    /// Allocated, reads as zeroes.
    Zero,
    /// Not allocated, reads as zeroes.
    Hole,
}

/// A run of bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes, not zero.
    pub len: u64,
    /// What it holds.
    pub kind: ExtentKind,
}

/// How `NBD_CMD_WRITE_ZEROES` is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZeroOptions {
    /// Keep (or make) the range allocated (`NBD_CMD_FLAG_NO_HOLE`).
    pub no_hole: bool,
    /// Durable before the answer (`NBD_CMD_FLAG_FUA`).
    pub fua: bool,
    /// Answer [`Errno::NotSup`] at once unless it is much faster than writing (`NBD_CMD_FLAG_FAST_ZERO`).
    pub fast: bool,
}

/// A block device. Called from several threads at once, one for each connection.
///
/// The protocol layer has checked every range against [`ExportInfo::size`] and [`ExportInfo::read_only`] before it calls.
/// A method runs to its end on the calling thread; while it runs, its connection does nothing else.
pub trait Export: Send + Sync + 'static {
    /// What this export is. Asked once for a connection.
    fn info(&self) -> ExportInfo;

    /// Fills `buf` from `offset`. Any offset and length; a long request comes in several calls.
    ///
    /// # Errors
    /// What the client is told.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Errno>;

    /// Writes `buf` at `offset`; with `fua` it is durable on return. **May destroy the content of `buf`**, so that
    /// sectors can be sealed in place; the caller never looks at it again.
    ///
    /// A long request comes in several calls, cut at multiples of 4096 of the export's offset; if it carries FUA and
    /// took more than one call, `fua` is false in all of them and a [`flush`](Self::flush) follows before the answer.
    ///
    /// # Errors
    /// What the client is told; part of the range may have been written.
    fn write(&self, offset: u64, buf: &mut [u8], fua: bool) -> Result<(), Errno>;

    /// Makes durable whatever was answered before, on any connection to the same export.
    ///
    /// # Errors
    /// What the client is told.
    fn flush(&self) -> Result<(), Errno>;

    /// The client needs the range no longer; what it reads as afterwards is the export's choice.
    ///
    /// # Errors
    /// What the client is told.
    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), Errno>;

    /// The range reads as zeroes afterwards.
    ///
    /// # Errors
    /// What the client is told.
    fn write_zeroes(&self, offset: u64, len: u64, options: ZeroOptions) -> Result<(), Errno>;

    /// Appends to `out` what the range holds, from `offset` on without gaps, at most `max` extents and possibly less
    /// than `len` (but at least one extent). Cheap: it is asked before long reads too, to leave holes out of the answer.
    ///
    /// # Errors
    /// What the client is told.
    fn extents(
        &self,
        offset: u64,
        len: u64,
        max: usize,
        out: &mut Vec<Extent>,
    ) -> Result<(), Errno> {
        let _ = (offset, max);
        out.push(Extent {
            len,
            kind: ExtentKind::Data,
        });
        Ok(())
    }

    /// A hint that the range is wanted soon (`NBD_CMD_CACHE`). The default ignores it.
    ///
    /// # Errors
    /// What the client is told.
    fn cache(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let _ = (offset, len);
        Ok(())
    }
}

/// Why an export cannot be had. The text is sent to the client (as far as NBD has room for one), so it must not tell
/// a stranger more than it may know.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// No such export, or none that this peer may know of (`NBD_REP_ERR_UNKNOWN`).
    #[error("no such export")]
    Unknown,
    /// The peer may not attach it; the text names the missing permission (`NBD_REP_ERR_POLICY`).
    #[error("{0}")]
    Denied(String),
    /// It exists but cannot be served now: its key is disabled, its store failed (`NBD_REP_ERR_POLICY` too, since NBD
    /// has no better word for it).
    #[error("{0}")]
    Unavailable(String),
    /// The server is going away (`NBD_REP_ERR_SHUTDOWN`).
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// The exports of a server, each peer's own view of them.
#[async_trait]
pub trait Exports: Send + Sync + 'static {
    /// What this peer may attach now, for `NBD_OPT_LIST`. An error refuses the whole list.
    async fn list(&self, peer: &Peer) -> Result<Vec<ExportName>, OpenError>;

    /// What an export is, for a client that asks before it attaches or instead of it (`NBD_OPT_INFO`, meta contexts).
    /// Attaches nothing and uses no key: a client may ask as often as it likes. Refuses what
    /// [`open`](Self::open) would refuse, as far as that can be known without trying.
    async fn describe(&self, peer: &Peer, name: &ExportName) -> Result<ExportInfo, OpenError>;

    /// Attaches an export for one connection, whose client has asked for nothing less (`NBD_OPT_GO`,
    /// `NBD_OPT_EXPORT_NAME`). It is detached when the last `Arc` is dropped, which happens where blocking is allowed.
    async fn open(&self, peer: &Peer, name: &ExportName) -> Result<Arc<dyn Export>, OpenError>;
}
