//! Bytes to messages and back, without I/O.
//!
//! Every parser takes a slice that is already in memory and checks every length inside it against what
//! is there; none allocates by a length that a peer wrote.

use crate::observer::Command;
use crate::protocol::{
    CHUNK_HEADER_LEN, REQUEST_LEN, REQUEST_MAGIC, SIMPLE_REPLY_LEN, SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC, command,
};
use crate::{Errno, ExportName};

/// Takes values off the front of a slice; `None` where it is too short.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string behind its length as 32 bits.
    fn string(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.u32()?).ok()?;
        std::str::from_utf8(self.bytes(len)?).ok()
    }

    /// `Some` if nothing is left.
    fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// A request of the transmission phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) flags: u16,
    pub(crate) command: Command,
    /// The client's, handed back as it is.
    pub(crate) cookie: [u8; 8],
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

impl Request {
    /// `None` if the magic is wrong: the stream has lost its way and cannot be followed further.
    pub(crate) fn parse(bytes: &[u8; REQUEST_LEN]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        if cursor.u32()? != REQUEST_MAGIC {
            return None;
        }
        Some(Self {
            flags: cursor.u16()?,
            command: match cursor.u16()? {
                command::READ => Command::Read,
                command::WRITE => Command::Write,
                command::DISCONNECT => Command::Disconnect,
                command::FLUSH => Command::Flush,
                command::TRIM => Command::Trim,
                command::CACHE => Command::Cache,
                command::WRITE_ZEROES => Command::WriteZeroes,
                command::BLOCK_STATUS => Command::BlockStatus,
                _ => Command::Unknown,
            },
            cookie: cursor.array()?,
            offset: cursor.u64()?,
            len: cursor.u32()?,
        })
    }
}

/// A simple reply's bytes.
pub(crate) fn simple_reply(cookie: [u8; 8], outcome: Result<(), Errno>) -> [u8; SIMPLE_REPLY_LEN] {
    let mut bytes = [0; SIMPLE_REPLY_LEN];
    bytes[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    let code = outcome.map_or_else(Errno::code, |()| 0);
    bytes[4..8].copy_from_slice(&code.to_be_bytes());
    bytes[8..].copy_from_slice(&cookie);
    bytes
}

/// The header of a chunk of a structured reply, for `len` bytes that follow it.
pub(crate) fn chunk_header(
    cookie: [u8; 8],
    flags: u16,
    kind: u16,
    len: u32,
) -> [u8; CHUNK_HEADER_LEN] {
    let mut bytes = [0; CHUNK_HEADER_LEN];
    bytes[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie);
    bytes[16..].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// The data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GoData {
    pub(crate) name: ExportName,
    /// `NBD_INFO_*` that the client asks for; unknown ones are kept and ignored.
    pub(crate) requests: Vec<u16>,
}

impl GoData {
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(data);
        let name = ExportName::new(cursor.string()?).ok()?;
        let count = usize::from(cursor.u16()?);
        // Two bytes each, all of them here: the count cannot claim more memory than was received.
        if cursor.0.len() != 2 * count {
            return None;
        }
        let requests = (0..count).map_while(|_| cursor.u16()).collect();
        Some(Self { name, requests })
    }
}

/// The data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetaContextData {
    pub(crate) name: ExportName,
    pub(crate) queries: Vec<String>,
}

impl MetaContextData {
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(data);
        let name = ExportName::new(cursor.string()?).ok()?;
        let count = cursor.u32()?;
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(cursor.string()?.to_owned());
        }
        cursor.end()?;
        Some(Self { name, queries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(flags: u16, command: u16, cookie: u64, offset: u64, len: u32) -> [u8; REQUEST_LEN] {
        let mut bytes = Vec::new();
        bytes.extend(REQUEST_MAGIC.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.try_into().unwrap()
    }

    #[test]
    fn a_request_is_read_field_by_field() {
        let parsed = Request::parse(&request(1, 6, 0x0102, 1 << 40, 4096)).unwrap();
        assert_eq!(parsed.flags, 1);
        assert_eq!(parsed.command, Command::WriteZeroes);
        assert_eq!(parsed.cookie, [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((parsed.offset, parsed.len), (1 << 40, 4096));
        assert_eq!(
            Request::parse(&request(0, 99, 0, 0, 0)).unwrap().command,
            Command::Unknown
        );
    }

    #[test]
    fn a_request_with_another_magic_is_none() {
        let mut bytes = request(0, 0, 0, 0, 0);
        bytes[3] ^= 1;
        assert_eq!(Request::parse(&bytes), None);
    }

    /// Golden bytes, from the layout in the protocol's description.
    #[test]
    fn replies_have_the_bytes_of_the_protocol() {
        assert_eq!(
            simple_reply([1, 2, 3, 4, 5, 6, 7, 8], Err(Errno::NoSpc)),
            [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 1, 2, 3, 4, 5, 6, 7, 8]
        );
        assert_eq!(
            chunk_header([8; 8], 1, 0x8001, 6),
            [
                0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, 8, 8, 8, 8, 8, 8, 8, 8, 0, 0, 0, 6
            ]
        );
    }

    #[test]
    fn option_data_whose_lengths_lie_is_refused() {
        let good = [0, 0, 0, 2, b'a', b'b', 0, 1, 0, 3];
        let parsed = GoData::parse(&good).unwrap();
        assert_eq!(parsed.name.as_str(), "ab");
        assert_eq!(parsed.requests, [3]);
        for cut in 0..good.len() {
            assert_eq!(GoData::parse(&good[..cut]), None, "cut at {cut}");
        }
        assert_eq!(GoData::parse(&[0xff; 12]), None);
        assert_eq!(GoData::parse(&[0, 0, 0, 1, 0xff, 0, 0]), None, "no UTF-8");
        let mut long = good.to_vec();
        long.push(0);
        assert_eq!(GoData::parse(&long), None);
    }

    #[test]
    fn a_count_of_queries_that_lies_takes_no_memory() {
        let mut data = vec![0, 0, 0, 0];
        data.extend(u32::MAX.to_be_bytes());
        assert_eq!(MetaContextData::parse(&data), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(data: Vec<u8>) {
            let _ = GoData::parse(&data);
            let _ = MetaContextData::parse(&data);
            if let Some(head) = data.first_chunk() {
                let _ = Request::parse(head);
            }
        }
    }
}
