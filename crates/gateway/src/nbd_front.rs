//! Volumes as NBD exports: who may attach which, and the engine's answers in NBD's words.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use crypto::random::Random;
use iam::{AttachVolume, Authorizer, Caller, DescribeVolumes, Principal, RequestContext, Via};
use nbd::{
    BlockSizes, Errno, Export, ExportInfo, ExportName, Exports, Extent, ExtentKind, OpenError,
    Peer, ZeroOptions,
};
use tokio::runtime::Handle;
use volume::{AttachedVolume, ErrorKind, OneVolume, VolumeError, VolumeId, VolumeInfo, Volumes};

use crate::metrics::Front;
use crate::refusal_reason::Reason;
use crate::refusals::{self, Refusals, Refused};
/// What an export's description begins with (`NBD_INFO_DESCRIPTION`, in answer to `NBD_OPT_GO`); the volume's cache epoch
/// follows, in hexadecimal digits.
pub(crate) const EPOCH_PREFIX: &str = "sealgate:epoch=";

/// The volumes of every account and region, for peers that may have them.
pub(crate) struct VolumeExports {
    /// What is served, and who decides about it.
    pub(crate) accounts: Vec<(Arc<Volumes>, Arc<Authorizer>)>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) random: Arc<dyn Random>,
    /// The user this process runs as: on the unix socket, it and root may attach.
    pub(crate) uid: u32,
}

/// One account in one region, as its root user sees it.
struct Place<'a> {
    volumes: &'a Arc<Volumes>,
    authorizer: &'a Authorizer,
    context: Arc<RequestContext>,
}

impl Place<'_> {
    fn caller(&self) -> Caller<'_> {
        Caller::new(&self.context, Via::Volume)
    }

    /// The volumes named, or every one there is.
    fn describe(&self, ids: &[VolumeId]) -> Result<Vec<VolumeInfo>, OpenError> {
        let authorized = self
            .authorizer
            .authorize::<DescribeVolumes, _>(self.caller(), self.volumes.every())
            .map_err(|denied| OpenError::Denied(denied.to_string()))?;
        self.volumes
            .describe(authorized, ids)
            .map_err(|e| refuse(&e))
    }

    fn may_attach(
        &self,
        id: VolumeId,
    ) -> Result<iam::Authorized<AttachVolume, OneVolume>, OpenError> {
        self.authorizer
            .authorize(self.caller(), self.volumes.one(id))
            .map_err(|denied| OpenError::Denied(denied.to_string()))
    }

    /// Refuses what attaching a volume would refuse, as far as that can be known without trying.
    fn could_attach(&self, volume: &VolumeInfo) -> Result<(), OpenError> {
        let _may = self.may_attach(volume.id)?;
        let may = self.volumes.may_be_attached(volume);
        may.map_err(|error| refuse_volume(volume.id, &error))
    }
}

impl VolumeExports {
    /// What a peer may reach, if it is anybody: it is every account's root user.
    fn places(&self, peer: &Peer) -> Result<Vec<Place<'_>>, OpenError> {
        let source: Option<IpAddr> = match peer {
            Peer::Unix { uid, .. } if *uid == self.uid || *uid == 0 => None,
            // The configuration allows loopback only, where anybody on this machine is the administrator: the
            // threat model says so.
            Peer::Tcp { addr } if addr.ip().is_loopback() => Some(addr.ip()),
            _ => return Err(OpenError::Denied("this peer may not attach volumes".into())),
        };
        let mut id = [0; 8];
        self.random.fill(&mut id);
        let id = format!("nbd-{}", hex::encode(id));
        let accounts = self.accounts.iter().map(|(volumes, authorizer)| {
            let principal = Principal::root(*authorizer.account());
            let mut context = RequestContext::new(principal, id.clone());
            context.source = source;
            Place {
                volumes,
                authorizer,
                context: Arc::new(context),
            }
        });
        Ok(accounts.collect())
    }

    /// The volume that a name means, and where it is. Names are looked for everywhere: one that two have means neither.
    fn find<'p, 'a>(
        places: &'p [Place<'a>],
        name: &ExportName,
    ) -> Result<(&'p Place<'a>, VolumeId), OpenError> {
        let mut found = None;
        for place in places {
            let ids = if name.as_str().is_empty() {
                // The default export: the volume, if there is only one.
                let all = place.describe(&[])?;
                all.iter().map(|volume| volume.id).collect()
            } else {
                match place.volumes.find_by_export_name(name.as_str()) {
                    Ok(id) => vec![id],
                    Err(VolumeError::NotFound(_) | VolumeError::MalformedId(_)) => Vec::new(),
                    Err(error) => return Err(refuse(&error)),
                }
            };
            for id in ids {
                if found.replace((place, id)).is_some() {
                    let why = match name.as_str() {
                        "" => "there are several volumes: name one",
                        _ => "volumes of several accounts or regions have this name: use the id",
                    };
                    return Err(OpenError::Unavailable(why.into()));
                }
            }
        }
        found.ok_or(OpenError::Unknown)
    }
}

impl VolumeExports {
    /// Tells of a peer that did not get what it asked for. `recorded` says whether the audit log has it already.
    fn refused(
        &self,
        peer: &Peer,
        name: Option<&ExportName>,
        context: Option<&RequestContext>,
        error: &OpenError,
        recorded: bool,
    ) {
        let (reason, code) = match error {
            OpenError::Unknown => (Reason::UnknownExport, "InvalidVolume.NotFound"),
            OpenError::Denied(_) => (Reason::Denied, "UnauthorizedOperation"),
            OpenError::Unavailable(_) => (Reason::Unavailable, "IncorrectState"),
            OpenError::ShuttingDown => return,
        };
        if let OpenError::Denied(why) | OpenError::Unavailable(why) = error {
            tracing::debug!(%peer, why, "an export was refused");
        }
        let (shown, source) = refusals::nbd_peer(peer);
        self.refusals.note(Refused {
            front: Front::NBD,
            operation: "AttachVolume",
            reason,
            code: code.into(),
            peer: shown,
            source,
            access_key: None,
            principal: context.map(|context| context.principal_arn().to_string()),
            request_id: context.map_or_else(String::new, |context| context.request_id().to_owned()),
            subject: name.map(|name| name.as_str().to_owned()),
            recorded,
        });
    }

    /// What a peer may reach; who is nobody is told of.
    fn admitted(
        &self,
        peer: &Peer,
        name: Option<&ExportName>,
    ) -> Result<Vec<Place<'_>>, OpenError> {
        self.places(peer).inspect_err(|error| {
            self.refused(peer, name, None, error, false);
        })
    }

    /// What an export is, for who may attach it.
    fn looked_at(places: &[Place<'_>], name: &ExportName) -> Result<ExportInfo, OpenError> {
        let (place, id) = Self::find(places, name)?;
        let described = place.describe(&[id])?;
        let [volume] = described.as_slice() else {
            return Err(OpenError::Unknown);
        };
        place.could_attach(volume)?;
        // Nothing is attached, so there is no epoch to tell.
        export_info(id, volume.size.bytes(), String::new())
    }
}

#[async_trait]
impl Exports for VolumeExports {
    async fn list(&self, peer: &Peer) -> Result<Vec<ExportName>, OpenError> {
        let mut names = Vec::new();
        for place in self.admitted(peer, None)? {
            let mut volumes = place.describe(&[])?;
            volumes.retain(|volume| place.could_attach(volume).is_ok());
            let ids = volumes.iter().map(|volume| volume.id.to_string());
            names.extend(ids.filter_map(|id| ExportName::new(id).ok()));
        }
        Ok(names)
    }

    async fn describe(&self, peer: &Peer, name: &ExportName) -> Result<ExportInfo, OpenError> {
        let places = self.admitted(peer, Some(name))?;
        // Nothing is attached and no key is used, so there is nothing to record; what a client may not have it is told,
        // and the log too.
        Self::looked_at(&places, name).inspect_err(|error| {
            let asked = places.first().map(|place| &*place.context);
            self.refused(peer, Some(name), asked, error, false);
        })
    }

    async fn open(&self, peer: &Peer, name: &ExportName) -> Result<Arc<dyn Export>, OpenError> {
        let places = self.admitted(peer, Some(name))?;
        let found = Self::find(&places, name)
            .and_then(|(place, id)| Ok((place, id, place.may_attach(id)?)));
        let (place, id, authorized) = found.inspect_err(|error| {
            let asked = places.first().map(|place| &*place.context);
            self.refused(peer, Some(name), asked, error, false);
        })?;
        let volume = place.volumes.attach(authorized).await.map_err(|error| {
            tracing::debug!(volume = %id, %peer, %error, "a volume could not be attached");
            let said = refuse_volume(id, &error);
            // The volumes have recorded it.
            self.refused(peer, Some(name), Some(&place.context), &said, true);
            said
        })?;
        tracing::info!(volume = %id, %peer, "volume attached");
        let attachment = Attachment {
            volumes: Arc::clone(place.volumes),
            context: Arc::clone(&place.context),
            id,
            runtime: Handle::current(),
        };
        let description = format!("{EPOCH_PREFIX}{}", volume.epoch());
        let info = export_info(id, volume.size(), description)?;
        Ok(Arc::new(VolumeExport {
            volume,
            info,
            done: Done::default(),
            attachment,
        }))
    }
}

/// As [`refuse`]; of damage, who may attach the volume is to know what is wrong, and what to do.
fn refuse_volume(id: VolumeId, error: &VolumeError) -> OpenError {
    match error.way_out(id) {
        Some(way_out) => OpenError::Unavailable(format!("{error}; {way_out}")),
        None => refuse(error),
    }
}

/// An engine's error in the words of a handshake, without what is ours alone.
fn refuse(error: &VolumeError) -> OpenError {
    let unavailable = |why: &str| OpenError::Unavailable(why.to_owned());
    match error {
        VolumeError::FolderMissing(_) => unavailable("the volume's folder is missing"),
        VolumeError::Damaged { .. } | VolumeError::DamagedRow { .. } => {
            unavailable("the volume is damaged: the server's log says where")
        }
        VolumeError::Audit(_) => {
            unavailable("the audit log takes no records, so nothing can be attached")
        }
        VolumeError::Io { .. } => {
            unavailable("the volume's files cannot be used: the server's log says why")
        }
        VolumeError::NotFound(_) | VolumeError::MalformedId(_) => OpenError::Unknown,
        VolumeError::ShuttingDown => OpenError::ShuttingDown,
        other if other.kind() == ErrorKind::Denied => OpenError::Denied(other.message()),
        other => OpenError::Unavailable(other.message()),
    }
}

/// What a volume is to a client.
fn export_info(id: VolumeId, size: u64, description: String) -> Result<ExportInfo, OpenError> {
    let name =
        ExportName::new(id.to_string()).map_err(|e| OpenError::Unavailable(e.to_string()))?;
    Ok(ExportInfo {
        name,
        description,
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
    done: Done,
    /// Behind the volume: dropped when that was let go of.
    attachment: Attachment,
}

/// What one connection did. It has one thread, so nobody else counts here meanwhile.
#[derive(Debug, Default)]
struct Done {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
}

impl Done {
    fn add(count: &AtomicU64, bytes: &AtomicU64, len: usize) {
        count.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(len as u64, Ordering::Relaxed);
    }
}

/// Who attached what, for the record of its end.
struct Attachment {
    volumes: Arc<Volumes>,
    context: Arc<RequestContext>,
    id: VolumeId,
    runtime: Handle,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let (volumes, context, id) = (
            Arc::clone(&self.volumes),
            Arc::clone(&self.context),
            self.id,
        );
        // Nobody waits for it: the client has gone.
        self.runtime.spawn(async move {
            let caller = Caller::new(&context, Via::Volume);
            volumes.record_detach(caller, id).await;
        });
    }
}

impl Drop for VolumeExport {
    fn drop(&mut self) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        tracing::info!(
            volume = %self.attachment.id,
            reads = count(&self.done.reads),
            read_bytes = count(&self.done.read_bytes),
            writes = count(&self.done.writes),
            written_bytes = count(&self.done.written_bytes),
            request_id = self.attachment.context.request_id(),
            "a connection has let go of a volume"
        );
    }
}

impl Export for VolumeExport {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
        Done::add(&self.done.reads, &self.done.read_bytes, buf.len());
        self.volume
            .read(offset, buf)
            .map_err(|e| self.errno("read", &e))
    }

    fn write(&self, offset: u64, buf: &mut [u8], fua: bool) -> Result<(), Errno> {
        Done::add(&self.done.writes, &self.done.written_bytes, buf.len());
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
