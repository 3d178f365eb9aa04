//! The client's side of the handshake: from a fresh connection to one that is ready for requests.
//!
//! Blocking, over any stream; whoever calls it sets the time-outs. It reads **not one byte beyond** the server's last
//! reply, so that the stream can be handed to another reader, such as the kernel. It speaks fixed newstyle without TLS,
//! asks for the export with `NBD_OPT_GO` and for nothing else: replies in transmission will be simple ones.

use std::io::{self, Read, Write};

use thiserror::Error;

use crate::codec::Cursor;
use crate::protocol::{
    INIT_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, handshake, info, option, reply, transmission,
};
use crate::{ExportName, STRING_LEN_MAX};

/// What a server may send in reply to one option: a handful of facts, each at most a string long.
const REPLIES_MAX: usize = 64;
/// The longest reply: a string behind its kind.
const REPLY_LEN_MAX: usize = 2 + STRING_LEN_MAX;

/// What a server said of an export when it gave it to this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Size in bytes.
    pub size: u64,
    /// Transmission flags, `NBD_FLAG_*`, as they were received.
    pub flags: u16,
    /// The export's canonical name, if the server told one (`NBD_INFO_NAME`).
    pub name: Option<ExportName>,
    /// For people, if the server told one (`NBD_INFO_DESCRIPTION`).
    pub description: Option<String>,
}

impl Offer {
    /// Whether writes are refused (`NBD_FLAG_READ_ONLY`).
    pub fn is_read_only(&self) -> bool {
        self.flags & transmission::READ_ONLY != 0
    }

    /// Whether a flush on one connection covers what was answered on every other (`NBD_FLAG_CAN_MULTI_CONN`).
    pub fn may_have_several_connections(&self) -> bool {
        self.flags & transmission::CAN_MULTI_CONN != 0
    }
}

/// Why a connection did not get an export.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The connection broke, or a time-out of the stream expired.
    #[error("the connection to the server broke")]
    Io(#[from] io::Error),
    /// There is no such export, or none that this client may know of (`NBD_REP_ERR_UNKNOWN`).
    #[error("the server has no such export")]
    Unknown,
    /// The server is going away (`NBD_REP_ERR_SHUTDOWN`); the one that follows may have the export.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The server refused for another reason; the text is the server's.
    #[error("the server refused: {0}")]
    Refused(String),
    /// What came is not a fixed newstyle NBD server's.
    #[error("the peer does not speak NBD as it should: {0}")]
    Misbehaved(&'static str),
}

/// Attaches the export `name` on a connection that was just made.
///
/// # Errors
/// [`ClientError`]; the connection is of no use any more.
pub fn attach(stream: &mut (impl Read + Write), name: &ExportName) -> Result<Offer, ClientError> {
    let mut hello = [0; 18];
    stream.read_exact(&mut hello)?;
    let mut cursor = Cursor(&hello);
    let magics = (cursor.u64(), cursor.u64());
    let flags = cursor.u16().unwrap_or_default();
    if magics != (Some(INIT_MAGIC), Some(OPTION_MAGIC)) || flags & handshake::FIXED_NEWSTYLE == 0 {
        return Err(ClientError::Misbehaved("not a fixed newstyle server"));
    }
    let flags = flags & (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
    let mut ask = Vec::with_capacity(64);
    ask.extend(u32::from(flags).to_be_bytes());
    go(&mut ask, name);
    stream.write_all(&ask)?;
    stream.flush()?;

    let (mut told, mut export) = (Told::default(), None);
    let mut data = Vec::new();
    for _ in 0..REPLIES_MAX {
        let mut head = [0; 20];
        stream.read_exact(&mut head)?;
        let head = ReplyHead::parse(&head)?;
        data.resize(head.len, 0);
        stream.read_exact(&mut data)?;
        match head.kind {
            reply::ACK => {
                let (size, flags) =
                    export.ok_or(ClientError::Misbehaved("it told no size of the export"))?;
                return Ok(Offer {
                    size,
                    flags,
                    name: told.name,
                    description: told.description,
                });
            }
            reply::INFO => {
                if let Some(found) = told.learn(&data)? {
                    export = Some(found);
                }
            }
            error => return Err(refusal(error, &data)),
        }
    }
    Err(ClientError::Misbehaved("it replies without end"))
}

/// `NBD_OPT_GO` for an export, with what is asked of it.
fn go(ask: &mut Vec<u8>, name: &ExportName) {
    let requests = [info::NAME, info::DESCRIPTION];
    let name = name.as_str().as_bytes();
    let name_len = u32::try_from(name.len()).expect("names have at most 4096 bytes");
    ask.extend(OPTION_MAGIC.to_be_bytes());
    ask.extend(option::GO.to_be_bytes());
    ask.extend((4 + name_len + 2 + 2 * 2).to_be_bytes());
    ask.extend(name_len.to_be_bytes());
    ask.extend(name);
    ask.extend(2_u16.to_be_bytes());
    for request in requests {
        ask.extend(request.to_be_bytes());
    }
}

/// The header of a reply to `NBD_OPT_GO`.
struct ReplyHead {
    kind: u32,
    len: usize,
}

impl ReplyHead {
    fn parse(bytes: &[u8; 20]) -> Result<Self, ClientError> {
        let mut cursor = Cursor(bytes);
        let begins = (cursor.u64(), cursor.u32());
        match (begins, cursor.u32(), cursor.u32()) {
            ((Some(OPTION_REPLY_MAGIC), Some(option::GO)), Some(kind), Some(len)) => {
                match usize::try_from(len) {
                    Ok(len) if len <= REPLY_LEN_MAX => Ok(Self { kind, len }),
                    _ => Err(ClientError::Misbehaved("a reply is too long")),
                }
            }
            _ => Err(ClientError::Misbehaved("a reply to nothing that was asked")),
        }
    }
}

/// What was told besides size and flags.
#[derive(Default)]
struct Told {
    name: Option<ExportName>,
    description: Option<String>,
}

impl Told {
    /// Takes in the data of an `NBD_REP_INFO`; size and flags if it has them. Kinds that are not known say nothing.
    fn learn(&mut self, data: &[u8]) -> Result<Option<(u64, u16)>, ClientError> {
        let malformed = ClientError::Misbehaved("a malformed reply");
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let mut cursor = Cursor(data);
        match cursor.u16() {
            Some(info::EXPORT) => match (cursor.u64(), cursor.u16(), cursor.0) {
                (Some(size), Some(flags), []) => return Ok(Some((size, flags))),
                _ => return Err(malformed),
            },
            Some(info::NAME) => {
                let name = text(cursor.0).and_then(|name| ExportName::new(name).ok());
                self.name = Some(name.ok_or(malformed)?);
            }
            Some(info::DESCRIPTION) => {
                self.description = Some(text(cursor.0).ok_or(malformed)?);
            }
            Some(_) => {}
            None => return Err(malformed),
        }
        Ok(None)
    }
}

fn refusal(kind: u32, message: &[u8]) -> ClientError {
    match kind {
        reply::ERR_UNKNOWN => ClientError::Unknown,
        reply::ERR_SHUTDOWN => ClientError::ShuttingDown,
        reply::ERR_UNSUP => ClientError::Misbehaved("it does not know NBD_OPT_GO"),
        reply::ERR_TLS_REQD => ClientError::Refused("it needs TLS".into()),
        error if error & (1 << 31) != 0 => {
            let text = String::from_utf8_lossy(message);
            // It goes to a terminal or a log.
            let text = text.chars().filter(|c| !c.is_control());
            ClientError::Refused(text.collect())
        }
        _ => ClientError::Misbehaved("a reply of an unknown kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that says what it was told to, and keeps what it hears.
    struct Script<'a> {
        says: &'a [u8],
        heard: Vec<u8>,
    }

    impl Read for Script<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.says.read(buf)
        }
    }

    impl Write for Script<'_> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.heard.write(buf)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn hello(flags: u16) -> Vec<u8> {
        let mut bytes = INIT_MAGIC.to_be_bytes().to_vec();
        bytes.extend(OPTION_MAGIC.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes
    }

    fn put(bytes: &mut Vec<u8>, kind: u32, data: &[u8]) {
        bytes.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        bytes.extend(option::GO.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    }

    fn told(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes(), data].concat()
    }

    fn run(says: &[u8]) -> (Result<Offer, ClientError>, Vec<u8>, usize) {
        let mut script = Script {
            says,
            heard: Vec::new(),
        };
        let name = ExportName::new("db").unwrap();
        let result = attach(&mut script, &name);
        (result, script.heard, script.says.len())
    }

    fn good() -> Vec<u8> {
        let mut says = hello(3);
        put(&mut says, reply::INFO, &told(info::NAME, b"vol-1"));
        let export = [&8192_u64.to_be_bytes()[..], &0x16d_u16.to_be_bytes()].concat();
        put(&mut says, reply::INFO, &told(info::EXPORT, &export));
        put(&mut says, reply::INFO, &told(info::DESCRIPTION, b"text"));
        put(&mut says, reply::INFO, &told(99, b"what nobody knows"));
        put(&mut says, reply::ACK, b"");
        says
    }

    #[test]
    fn an_export_is_had_with_all_that_is_said_of_it_and_no_byte_more_is_read() {
        let mut says = good();
        says.extend(b"REPLY");
        let (offer, heard, left) = run(&says);
        let offer = offer.unwrap();
        assert_eq!((offer.size, offer.flags), (8192, 0x16d));
        assert_eq!(offer.name.unwrap().as_str(), "vol-1");
        assert_eq!(offer.description.unwrap(), "text");
        assert_eq!(left, 5);
        // Client flags; IHAVEOPT, GO, 14 bytes: name, two requests.
        let expected = [
            &[0, 0, 0, 3][..],
            b"IHAVEOPT",
            &[0, 0, 0, 7, 0, 0, 0, 12, 0, 0, 0, 2],
            b"db",
            &[0, 2, 0, 1, 0, 2],
        ];
        assert_eq!(heard, expected.concat());
    }

    #[test]
    fn a_refusal_says_why() {
        for (kind, text) in [
            (reply::ERR_UNKNOWN, "no such export"),
            (reply::ERR_SHUTDOWN, "shutting down"),
            (reply::ERR_POLICY, "refused: the key is disabled"),
            (reply::ERR_TLS_REQD, "needs TLS"),
        ] {
            let mut says = hello(1);
            put(&mut says, kind, b"the key \x1bis disabled");
            let error = run(&says).0.unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn what_is_cut_off_anywhere_is_an_error_and_so_is_what_nobody_asked_for() {
        let says = good();
        for end in 0..says.len() {
            assert!(
                matches!(run(&says[..end]).0, Err(ClientError::Io(_))),
                "{end}"
            );
        }
        let mut sizeless = hello(3);
        put(&mut sizeless, reply::ACK, b"");
        let mut long = hello(3);
        long.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        long.extend([0, 0, 0, 7, 0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff]);
        let mut endless = hello(3);
        for _ in 0..REPLIES_MAX {
            put(&mut endless, reply::INFO, &told(99, b""));
        }
        let mut short = hello(3);
        put(&mut short, reply::INFO, &told(info::EXPORT, &[0; 9]));
        for says in [sizeless, long, endless, short, hello(2), vec![0; 18]] {
            let result = run(&says).0;
            assert!(
                matches!(result, Err(ClientError::Misbehaved(_))),
                "{result:?}"
            );
        }
    }
}
