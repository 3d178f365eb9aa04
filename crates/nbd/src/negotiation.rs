//! The handshake: fixed newstyle, from the first magic to the transmission phase.
//!
//! Asynchronous over any stream, so the same code serves unix sockets, TCP and TLS. A client is given the time that
//! [`Terms`] says, not counting the server's own, and as many options as [`OPTIONS_MAX`] says; no option may be longer
//! than [`OPTION_LEN_MAX`].

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::attached::Attached;
use crate::codec::{GoData, MetaContextData};
use crate::door::Guest;
use crate::observer::{Closed, Observer};
use crate::protocol::{
    ALLOCATION_CONTEXT, ALLOCATION_CONTEXT_ID, INIT_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC,
    handshake, info, option, reply, transmission,
};
use crate::transmission::Negotiated;
use crate::{ExportInfo, ExportName, Exports, OpenError, Peer, STRING_LEN_MAX};

/// A name of 4096 bytes, and as much again for what goes with it, eight times over.
const OPTION_LEN_MAX: u32 = 64 * 1024;
/// Clients send three to ten to attach an export; one that lists asks two or three things of each.
const OPTIONS_MAX: usize = 1 << 17;

/// How a handshake ended.
pub(crate) enum Outcome {
    /// Requests follow, in a place of their own.
    Transmission(Negotiated, OwnedSemaphorePermit),
    /// The client wants TLS, and the answer that it may begin has been sent.
    StartTls {
        /// What the client flags said, which hold inside TLS too.
        no_zeroes: bool,
    },
    /// The connection is over.
    Closed(Closed),
}

/// What TLS is to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// There is none.
    Unavailable,
    /// It is to begin before anything else.
    Required,
    /// It has begun, after client flags that said this.
    Established {
        /// The client wants no padding after `NBD_OPT_EXPORT_NAME`.
        no_zeroes: bool,
    },
}

/// What holds for a handshake as a whole, inside TLS and outside.
pub(crate) struct Terms<'a> {
    /// When the client has used up its time. Moves on while the server works.
    deadline: Instant,
    guest: Guest,
    observer: &'a dyn Observer,
}

impl<'a> Terms<'a> {
    pub(crate) fn new(patience: Duration, guest: Guest, observer: &'a dyn Observer) -> Self {
        Self {
            deadline: Instant::now() + patience,
            guest,
            observer,
        }
    }

    /// Waits for the client, as long as it has time left.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when it has none.
    pub(crate) async fn client<T>(
        &self,
        work: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        match tokio::time::timeout_at(self.deadline, work).await {
            Ok(done) => done,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// What options have settled so far. Begins anew after STARTTLS.
struct Session<'a, 'b> {
    exports: &'a dyn Exports,
    peer: &'a Peer,
    terms: &'a mut Terms<'b>,
    tls: Tls,
    no_zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was selected.
    allocation: Option<ExportName>,
}

/// Runs the server's side of the handshake.
pub(crate) async fn negotiate<S: AsyncRead + AsyncWrite + Unpin + Send + ?Sized>(
    stream: &mut S,
    exports: &dyn Exports,
    peer: &Peer,
    terms: &mut Terms<'_>,
    tls: Tls,
) -> io::Result<Outcome> {
    let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    // After STARTTLS the options go on inside TLS; the greeting is not repeated.
    let no_zeroes = if let Tls::Established { no_zeroes } = tls {
        no_zeroes
    } else {
        let mut greeting = Vec::with_capacity(18);
        greeting.extend(INIT_MAGIC.to_be_bytes());
        greeting.extend(OPTION_MAGIC.to_be_bytes());
        greeting.extend(flags.to_be_bytes());
        let client = terms
            .client(async {
                stream.write_all(&greeting).await?;
                stream.read_u32().await
            })
            .await?;
        if client & !u32::from(flags) != 0 {
            return Ok(Outcome::Closed(Closed::Misbehaved));
        }
        client & u32::from(handshake::NO_ZEROES) != 0
    };
    let mut session = Session {
        exports,
        peer,
        terms,
        tls,
        no_zeroes,
        structured: false,
        allocation: None,
    };
    let mut data = Vec::new();
    for _ in 0..OPTIONS_MAX {
        let head = session.terms.client(async {
            let magic = stream.read_u64().await?;
            Ok((magic, stream.read_u32().await?, stream.read_u32().await?))
        });
        let (magic, option, len) = head.await?;
        if magic != OPTION_MAGIC {
            return Ok(Outcome::Closed(Closed::Misbehaved));
        }
        if len > OPTION_LEN_MAX {
            let mut replies = Replies::default();
            replies.error(option, reply::ERR_TOO_BIG, "this option is too long");
            session.terms.client(stream.write_all(&replies.0)).await?;
            return Ok(Outcome::Closed(Closed::Misbehaved));
        }
        data.resize(len as usize, 0);
        session.terms.client(stream.read_exact(&mut data)).await?;
        let mut replies = Replies::default();
        let begun = Instant::now();
        let outcome = session.answer(option, &data, &mut replies).await;
        session.terms.deadline += begun.elapsed();
        let sent = session.terms.client(async {
            stream.write_all(&replies.0).await?;
            stream.flush().await
        });
        sent.await?;
        if let Some(outcome) = outcome {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Closed(Closed::Misbehaved))
}

impl Session<'_, '_> {
    /// Answers one option; `Some` ends the handshake once the replies are sent.
    async fn answer(&mut self, option: u32, data: &[u8], replies: &mut Replies) -> Option<Outcome> {
        let may_without_tls = matches!(option, option::STARTTLS | option::ABORT);
        if self.tls == Tls::Required && !may_without_tls {
            if option == option::EXPORT_NAME {
                return Some(Outcome::Closed(Closed::Refused));
            }
            replies.error(option, reply::ERR_TLS_REQD, "this server needs TLS");
            return None;
        }
        match option {
            option::EXPORT_NAME => return Some(self.export_name(data, replies).await),
            option::ABORT => {
                replies.ack(option);
                return Some(Outcome::Closed(Closed::ByClient));
            }
            option::LIST if data.is_empty() => self.list(replies).await,
            option::STARTTLS if data.is_empty() => match self.tls {
                Tls::Required => {
                    replies.ack(option);
                    return Some(Outcome::StartTls {
                        no_zeroes: self.no_zeroes,
                    });
                }
                Tls::Established { .. } => {
                    replies.error(option, reply::ERR_INVALID, "TLS has begun already");
                }
                Tls::Unavailable => {
                    replies.error(option, reply::ERR_UNSUP, "there is no TLS here");
                }
            },
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                replies.ack(option);
            }
            option::INFO | option::GO => match GoData::parse(data) {
                Some(go) => return self.go(option, &go, replies).await,
                None => replies.invalid(option),
            },
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                match MetaContextData::parse(data) {
                    Some(contexts) => self.meta_context(option, contexts, replies).await,
                    None => replies.invalid(option),
                }
            }
            option::LIST | option::STARTTLS | option::STRUCTURED_REPLY => replies.invalid(option),
            _ => replies.error(option, reply::ERR_UNSUP, "this option is not known"),
        }
        None
    }

    /// The option that cannot be refused in words: the connection is closed instead.
    async fn export_name(&mut self, data: &[u8], replies: &mut Replies) -> Outcome {
        let name = std::str::from_utf8(data).ok().map(ExportName::new);
        let Some(Ok(name)) = name else {
            return Outcome::Closed(Closed::Misbehaved);
        };
        match self.open(&name).await {
            Ok((info, export, place)) => {
                replies.0.extend(info.size.to_be_bytes());
                replies.0.extend(self.flags(&info).to_be_bytes());
                if !self.no_zeroes {
                    replies.0.extend([0; 124]);
                }
                Outcome::Transmission(self.negotiated(export, info, &name), place)
            }
            Err(_) => Outcome::Closed(Closed::Refused),
        }
    }

    /// Attaches an export, if there is a place for one more connection.
    async fn open(
        &mut self,
        name: &ExportName,
    ) -> Result<(ExportInfo, Attached, OwnedSemaphorePermit), OpenError> {
        let Some(place) = self.terms.guest.admit() else {
            self.terms.observer.connection_refused(self.peer);
            return Err(OpenError::Unavailable(
                "the server has as many connections as it may".into(),
            ));
        };
        match self.exports.open(self.peer, name).await {
            Ok(export) => {
                let export = Attached::new(export);
                Ok((export.info(), export, place))
            }
            Err(error) => {
                drop(place);
                self.terms.guest.wait_again();
                Err(error)
            }
        }
    }

    async fn list(&mut self, replies: &mut Replies) {
        match self.exports.list(self.peer).await {
            Ok(names) => {
                for name in names {
                    let mut data = Vec::with_capacity(4 + name.as_str().len());
                    put_string(&mut data, name.as_str());
                    replies.put(option::LIST, reply::SERVER, &data);
                }
                replies.ack(option::LIST);
            }
            Err(error) => replies.open_error(option::LIST, &error),
        }
    }

    async fn go(&mut self, option: u32, go: &GoData, replies: &mut Replies) -> Option<Outcome> {
        let asked = match option {
            option::GO => self
                .open(&go.name)
                .await
                .map(|(info, export, place)| (info, Some((export, place)))),
            _ => self
                .exports
                .describe(self.peer, &go.name)
                .await
                .map(|info| (info, None)),
        };
        let (info, opened) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                replies.open_error(option, &error);
                return None;
            }
        };
        let mut data = Vec::with_capacity(12);
        data.extend(info::EXPORT.to_be_bytes());
        data.extend(info.size.to_be_bytes());
        data.extend(self.flags(&info).to_be_bytes());
        replies.put(option, reply::INFO, &data);
        for request in [info::NAME, info::DESCRIPTION, info::BLOCK_SIZE] {
            if !go.requests.contains(&request) {
                continue;
            }
            data.clear();
            data.extend(request.to_be_bytes());
            match request {
                info::NAME => data.extend(info.name.as_str().bytes()),
                info::DESCRIPTION => {
                    if info.description.is_empty() || info.description.len() > STRING_LEN_MAX {
                        continue;
                    }
                    data.extend(info.description.bytes());
                }
                _ => {
                    let sizes = info.block_sizes;
                    for size in [sizes.minimum, sizes.preferred, sizes.maximum] {
                        data.extend(size.to_be_bytes());
                    }
                }
            }
            replies.put(option, reply::INFO, &data);
        }
        replies.ack(option);
        let (export, place) = opened?;
        let negotiated = self.negotiated(export, info, &go.name);
        Some(Outcome::Transmission(negotiated, place))
    }

    async fn meta_context(
        &mut self,
        option: u32,
        contexts: MetaContextData,
        replies: &mut Replies,
    ) {
        let set = option == option::SET_META_CONTEXT;
        if set {
            self.allocation = None;
            if !self.structured {
                replies.error(
                    option,
                    reply::ERR_INVALID,
                    "ask for structured replies first",
                );
                return;
            }
        }
        if let Err(error) = self.exports.describe(self.peer, &contexts.name).await {
            replies.open_error(option, &error);
            return;
        }
        // A list may ask for all of a namespace, or for everything by asking for nothing.
        let asks = |query: &String| {
            query == ALLOCATION_CONTEXT || (!set && (query == "base:" || query == "base"))
        };
        if contexts.queries.iter().any(asks) || (!set && contexts.queries.is_empty()) {
            let id = if set { ALLOCATION_CONTEXT_ID } else { 0 };
            let mut data = Vec::with_capacity(4 + ALLOCATION_CONTEXT.len());
            data.extend(id.to_be_bytes());
            data.extend(ALLOCATION_CONTEXT.bytes());
            replies.put(option, reply::META_CONTEXT, &data);
            if set {
                self.allocation = Some(contexts.name);
            }
        }
        replies.ack(option);
    }

    fn flags(&self, info: &ExportInfo) -> u16 {
        use transmission::{
            CAN_MULTI_CONN, HAS_FLAGS, READ_ONLY, SEND_CACHE, SEND_DF, SEND_FAST_ZERO, SEND_FLUSH,
            SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES,
        };
        let mut flags = HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_CACHE;
        flags |= if info.read_only {
            READ_ONLY
        } else {
            SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO
        };
        if self.structured {
            flags |= SEND_DF;
        }
        if info.multi_conn {
            flags |= CAN_MULTI_CONN;
        }
        flags
    }

    fn negotiated(&self, export: Attached, info: ExportInfo, name: &ExportName) -> Negotiated {
        Negotiated {
            export,
            info,
            structured: self.structured,
            // Contexts selected for one export do not hold for another.
            allocation: self.allocation.as_ref() == Some(name),
        }
    }
}

/// Replies to an option, to be sent together.
#[derive(Debug, Default)]
struct Replies(Vec<u8>);

impl Replies {
    fn put(&mut self, option: u32, kind: u32, data: &[u8]) {
        self.0.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        self.0.extend(option.to_be_bytes());
        self.0.extend(kind.to_be_bytes());
        let len = u32::try_from(data.len()).expect("replies are strings of at most 4096 bytes");
        self.0.extend(len.to_be_bytes());
        self.0.extend(data);
    }

    fn ack(&mut self, option: u32) {
        self.put(option, reply::ACK, &[]);
    }

    fn invalid(&mut self, option: u32) {
        self.error(
            option,
            reply::ERR_INVALID,
            "this option's data is malformed",
        );
    }

    fn error(&mut self, option: u32, kind: u32, message: &str) {
        let mut end = message.len().min(STRING_LEN_MAX);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        self.put(option, kind, &message.as_bytes()[..end]);
    }

    fn open_error(&mut self, option: u32, error: &OpenError) {
        let kind = match error {
            OpenError::Unknown => reply::ERR_UNKNOWN,
            OpenError::Denied(_) | OpenError::Unavailable(_) => reply::ERR_POLICY,
            OpenError::ShuttingDown => reply::ERR_SHUTDOWN,
        };
        self.error(option, kind, &error.to_string());
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    let len = u32::try_from(text.len()).expect("names have at most 4096 bytes");
    out.extend(len.to_be_bytes());
    out.extend(text.bytes());
}
