//! How records follow one another: what a line is made of, and the digest that ties it to all before it.
//!
//! A record's digest is SHA-256 over the digest of the record before it (32 bytes; zeroes before the first) and
//! the record's own line up to, and without, `,"hash":"`. The digest stands at the line's end, so a line can be
//! checked without knowing JSON.

use crypto::hash::Sha256;

use crate::event::push_number;

/// The digest of a record and, through it, of all before it.
pub(crate) type Link = [u8; 32];

/// What the first record of all follows.
pub(crate) const GENESIS: Link = [0; 32];

/// What stands before the digest in a line.
const HASH: &[u8] = b",\"hash\":\"";
/// What stands after it.
const END: &[u8] = b"\"}";
/// `,"hash":"`, 64 digits, `"}`.
const SUFFIX_LEN: usize = HASH.len() + 64 + END.len();
const SEQ: &[u8] = b"{\"seq\":";
const PREV: &[u8] = b",\"prev\":\"";

/// A line that reads. Whether its digest is right is for [`Line::follows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Its number.
    pub(crate) sequence: u64,
    /// What it says the record before it has as its digest; on the first record of a segment.
    pub(crate) prev: Option<Link>,
    /// Its own digest, as written.
    pub(crate) hash: Link,
    /// What the digest is over.
    body: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line without its newline.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let split = line.len().checked_sub(SUFFIX_LEN)?;
        let (body, suffix) = line.split_at(split);
        let digits = suffix.strip_prefix(HASH)?.strip_suffix(END)?;
        let hash = link(digits)?;
        let rest = body.strip_prefix(SEQ)?;
        let len = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        let (number, rest) = rest.split_at(len);
        // One way to write a number.
        if number.is_empty() || (number[0] == b'0' && number.len() > 1) {
            return None;
        }
        let sequence = std::str::from_utf8(number).ok()?.parse().ok()?;
        if rest.first() != Some(&b',') || body.contains(&b'\n') {
            return None;
        }
        let prev = match rest.strip_prefix(PREV) {
            Some(digits) => Some(link(digits.get(..64)?)?),
            None => None,
        };
        Some(Self {
            sequence,
            prev,
            hash,
            body,
        })
    }

    /// Whether the digest is that of this line after `prev`.
    pub(crate) fn follows(&self, prev: &Link) -> bool {
        self.prev.is_none_or(|said| said == *prev) && digest(prev, self.body) == self.hash
    }
}

/// Writes the record `sequence` that follows `prev` to `out`, newline included, and returns its digest.
///
/// `rest` is the record's JSON object from after its opening brace to before its closing one. `first` says that a
/// segment begins with it.
pub(crate) fn write(
    out: &mut Vec<u8>,
    sequence: u64,
    prev: &Link,
    first: bool,
    rest: &[u8],
) -> Link {
    let start = out.len();
    out.extend_from_slice(SEQ);
    push_number(out, sequence);
    out.push(b',');
    if first {
        out.extend_from_slice(&PREV[1..]);
        push_hex(out, prev);
        out.extend_from_slice(b"\",");
    }
    out.extend_from_slice(rest);
    let hash = digest(prev, &out[start..]);
    out.extend_from_slice(HASH);
    push_hex(out, &hash);
    out.extend_from_slice(END);
    out.push(b'\n');
    hash
}

/// The greatest length that [`write`] adds to `rest`.
pub(crate) const OVERHEAD_MAX: usize = SEQ.len() + 20 + 1 + PREV.len() + 64 + 2 + SUFFIX_LEN + 1;

/// Where a run of records has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The number of the last record; 0 before the first.
    pub(crate) last: u64,
    /// Its digest.
    pub(crate) link: Link,
}

/// The last durable record: what another part keeps to know when this one is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its number; 0 before the first.
    pub sequence: u64,
    /// Its digest.
    pub digest: [u8; 32],
}

/// Takes whole lines that follow `head` one by one off the front of `bytes`, moves `head` on, and returns how
/// many bytes they are. Numbers may be missing where the record after them names them as lost.
pub(crate) fn take_lines(bytes: &[u8], head: &mut Head, mut each: impl FnMut(u64, &[u8])) -> usize {
    let mut end = 0;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else {
            break;
        };
        let Some(read) = Line::parse(text) else { break };
        let next = head.last + 1;
        let in_turn = read.sequence == next
            || (read.sequence > next && names_lost(text, next, read.sequence - 1));
        if !in_turn || !read.follows(&head.link) {
            break;
        }
        *head = Head {
            last: read.sequence,
            link: read.hash,
        };
        each(read.sequence, text);
        end += line.len();
    }
    end
}

/// The ranges of numbers that a record names as lost.
pub(crate) fn lost(text: &[u8]) -> Vec<(u64, u64)> {
    #[derive(serde::Deserialize)]
    struct Lost {
        #[serde(default)]
        lost: Vec<(u64, u64)>,
    }
    // Looked for first: hardly any record has it.
    if !text.windows(8).any(|part| part == b"\"lost\":[") {
        return Vec::new();
    }
    serde_json::from_slice::<Lost>(text).map_or_else(|_| Vec::new(), |read| read.lost)
}

fn names_lost(text: &[u8], from: u64, to: u64) -> bool {
    lost(text).iter().any(|&(a, b)| a <= from && to <= b)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(link: &Link) -> String {
    let mut digits = Vec::with_capacity(64);
    push_hex(&mut digits, link);
    String::from_utf8(digits).expect("digits")
}

fn push_hex(out: &mut Vec<u8>, link: &Link) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 64];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(link) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out.extend_from_slice(&digits);
}

fn link(digits: &[u8]) -> Option<Link> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if digits.len() != 64 {
        return None;
    }
    let mut link = GENESIS;
    for (byte, pair) in link.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(link)
}

fn digest(prev: &Link, body: &[u8]) -> Link {
    let mut hash = Sha256::new();
    hash.update(prev);
    hash.update(body);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_as_it_was_written_and_follows_only_what_it_was_written_after() {
        let mut out = Vec::new();
        let one = write(&mut out, 1, &GENESIS, true, b"\"operation\":\"Encrypt\"");
        let first = out.len();
        let two = write(&mut out, 2, &one, false, b"\"operation\":\"Decrypt\"");
        let line = Line::parse(&out[..first - 1]).unwrap();
        assert_eq!(
            (line.sequence, line.prev, line.hash),
            (1, Some(GENESIS), one)
        );
        assert!(line.follows(&GENESIS) && !line.follows(&one));
        let line = Line::parse(&out[first..out.len() - 1]).unwrap();
        assert_eq!((line.sequence, line.prev, line.hash), (2, None, two));
        assert!(line.follows(&one) && !line.follows(&GENESIS));
        assert!(serde_json::from_slice::<serde_json::Value>(&out[..first]).is_ok());
        assert!(first <= "\"operation\":\"Encrypt\"".len() + OVERHEAD_MAX);
    }

    #[test]
    fn a_line_changed_at_any_byte_no_longer_follows() {
        let mut out = Vec::new();
        write(&mut out, 10, &[7; 32], false, b"\"time\":\"x\"");
        out.pop();
        for at in 0..out.len() {
            for bit in 0..8 {
                let mut bad = out.clone();
                bad[at] ^= 1 << bit;
                let good = Line::parse(&bad).is_some_and(|line| line.follows(&[7; 32]));
                assert!(!good, "byte {at}, bit {bit}");
            }
        }
    }
}
