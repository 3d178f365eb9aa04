//! Volumes as NBD exports: who may attach which, and the engine's answers in NBD's words.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use crypto::random::Random;
use iam::{AttachVolume, Authorizer, Caller, DescribeVolumes, Principal, RequestContext, Via};
use nbd::{
    BlockSizes, Errno, Export, ExportInfo, ExportName, Exports, Extent, ExtentKind, OpenError,
    Peer, ZeroOptions,
};
use volume::{AttachedVolume, ErrorKind, VolumeError, VolumeId, VolumeInfo, Volumes};

/// The account's volumes, for peers that may have them.
pub(crate) struct VolumeExports {
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) random: Arc<dyn Random>,
    /// The user this process runs as: on the unix socket, it and root may attach.
    pub(crate) uid: u32,
}

impl VolumeExports {
    /// Who a peer is to the rest of the program, if it is anybody.
    fn context(&self, peer: &Peer) -> Result<Arc<RequestContext>, OpenError> {
        let source: Option<IpAddr> = match peer {
            Peer::Unix { uid, .. } if *uid == self.uid || *uid == 0 => None,
            // The configuration allows loopback only, where anybody on this machine is the administrator: the
            // threat model says so.
            Peer::Tcp { addr } if addr.ip().is_loopback() => Some(addr.ip()),
            _ => return Err(OpenError::Denied("this peer may not attach volumes".into())),
        };
        let mut id = [0; 8];
        self.random.fill(&mut id);
        let principal = Principal::root(*self.authorizer.account());
        let mut context = RequestContext::new(principal, format!("nbd-{}", hex::encode(id)));
        context.source = source;
        Ok(Arc::new(context))
    }

    /// Every volume there is.
    fn all(&self, caller: Caller<'_>) -> Result<Vec<VolumeInfo>, OpenError> {
        let authorized = self
            .authorizer
            .authorize::<DescribeVolumes, _>(caller, self.volumes.every())
            .map_err(|denied| OpenError::Denied(denied.to_string()))?;
        self.volumes
            .describe(authorized, &[])
            .map_err(|e| refuse(&e))
    }

    fn find(&self, caller: Caller<'_>, name: &ExportName) -> Result<VolumeId, OpenError> {
        if !name.as_str().is_empty() {
            return self
                .volumes
                .find_by_export_name(name.as_str())
                .map_err(|e| refuse(&e));
        }
        // The default export: the volume, if there is only one.
        match self.all(caller)?.as_slice() {
            [only] => Ok(only.id),
            [] => Err(OpenError::Unknown),
            _ => Err(OpenError::Unavailable(
                "there are several volumes: name one".into(),
            )),
        }
    }
}

#[async_trait]
impl Exports for VolumeExports {
    async fn list(&self, peer: &Peer) -> Result<Vec<ExportName>, OpenError> {
        let context = self.context(peer)?;
        let caller = Caller::new(&context, Via::Volume);
        let volumes = self.all(caller)?;
        Ok(volumes
            .iter()
            .filter_map(|volume| ExportName::new(volume.id.to_string()).ok())
            .collect())
    }

    async fn describe(&self, peer: &Peer, name: &ExportName) -> Result<ExportInfo, OpenError> {
        let context = self.context(peer)?;
        let caller = Caller::new(&context, Via::Volume);
        let id = self.find(caller, name)?;
        // Decided, but nothing is attached and no key is used: the permission is not spent, and there is nothing to record.
        let _may = self
            .authorizer
            .authorize::<AttachVolume, _>(caller, self.volumes.one(id))
            .map_err(|denied| OpenError::Denied(denied.to_string()))?;
        let authorized = self
            .authorizer
            .authorize::<DescribeVolumes, _>(caller, self.volumes.every())
            .map_err(|denied| OpenError::Denied(denied.to_string()))?;
        let described = self
            .volumes
            .describe(authorized, &[id])
            .map_err(|e| refuse(&e))?;
        let [volume] = described.as_slice() else {
            return Err(OpenError::Unknown);
        };
        export_info(id, volume.size.bytes())
    }

    async fn open(&self, peer: &Peer, name: &ExportName) -> Result<Arc<dyn Export>, OpenError> {
        let context = self.context(peer)?;
        let caller = Caller::new(&context, Via::Volume);
        let id = self.find(caller, name)?;
        let authorized = self
            .authorizer
            .authorize(caller, self.volumes.one(id))
            .map_err(|denied| OpenError::Denied(denied.to_string()))?;
        let volume = self.volumes.attach(authorized).await.map_err(|e| {
            tracing::warn!(volume = %id, %peer, error = %e, "a volume could not be attached");
            refuse(&e)
        })?;
        tracing::info!(volume = %id, %peer, "volume attached");
        let info = export_info(id, volume.size())?;
        Ok(Arc::new(VolumeExport { volume, info }))
    }
}

/// An engine's error in the words of a handshake, without what is ours alone.
fn refuse(error: &VolumeError) -> OpenError {
    match error {
        VolumeError::NotFound(_) | VolumeError::MalformedId(_) => OpenError::Unknown,
        VolumeError::ShuttingDown => OpenError::ShuttingDown,
        other if other.kind() == ErrorKind::Denied => OpenError::Denied(other.message()),
        other => OpenError::Unavailable(other.message()),
    }
}

/// What a volume is to a client.
fn export_info(id: VolumeId, size: u64) -> Result<ExportInfo, OpenError> {
    let name =
        ExportName::new(id.to_string()).map_err(|e| OpenError::Unavailable(e.to_string()))?;
    Ok(ExportInfo {
        name,
        description: String::new(),
        size,
        read_only: false,
        // A flush covers what was answered on every connection: the engine has one log a volume.
        multi_conn: true,
        block_sizes: BlockSizes::default(),
    })
}

/// One connection's hold on an attached volume.
struct VolumeExport {
    volume: Arc<AttachedVolume>,
    info: ExportInfo,
}

impl Export for VolumeExport {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.volume
            .read(offset, buf)
            .map_err(|e| self.errno("read", &e))
    }

    fn write(&self, offset: u64, buf: &mut [u8], fua: bool) -> Result<(), Errno> {
        self.volume
            .write(offset, buf, fua)
            .map_err(|e| self.errno("write", &e))
    }

    fn flush(&self) -> Result<(), Errno> {
        self.volume.flush().map_err(|e| self.errno("flush", &e))
    }

    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), Errno> {
        self.volume
            .trim(offset, len, fua)
            .map_err(|e| self.errno("trim", &e))
    }

    fn write_zeroes(&self, offset: u64, len: u64, options: ZeroOptions) -> Result<(), Errno> {
        // Zeroes are a change of the map, so they are fast unless the space is to be kept.
        if options.fast && options.no_hole {
            return Err(Errno::NotSup);
        }
        self.volume
            .write_zeroes(offset, len, options.no_hole, options.fua)
            .map_err(|e| self.errno("write_zeroes", &e))
    }

    fn extents(
        &self,
        offset: u64,
        len: u64,
        max: usize,
        out: &mut Vec<Extent>,
    ) -> Result<(), Errno> {
        let found = self
            .volume
            .extents(offset, len, max)
            .map_err(|e| self.errno("extents", &e))?;
        out.extend(found.into_iter().map(|extent| Extent {
            len: extent.len,
            kind: match extent.kind {
                volume::ExtentKind::Data => ExtentKind::Data,
                volume::ExtentKind::Zero => ExtentKind::Zero,
                volume::ExtentKind::Hole => ExtentKind::Hole,
            },
        }));
        Ok(())
    }
}

impl VolumeExport {
    fn errno(&self, operation: &'static str, error: &VolumeError) -> Errno {
        let errno = match error.kind() {
            ErrorKind::OutOfRange if operation == "write" => Errno::NoSpc,
            ErrorKind::OutOfRange | ErrorKind::Invalid => Errno::Inval,
            ErrorKind::NoSpace => Errno::NoSpc,
            ErrorKind::Denied => Errno::Perm,
            ErrorKind::ShuttingDown => Errno::Shutdown,
            ErrorKind::Io => Errno::Io,
        };
        if errno == Errno::Io {
            tracing::error!(volume = %self.info.name, operation, %error, "a volume failed a request");
        }
        errno
    }
}
