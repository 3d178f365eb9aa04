//! How far each part was: the record that the catalogue keeps.

use std::collections::BTreeMap;

use crate::part::Part;

/// The first byte of a record's contents.
const FORMAT: u8 = 2;
const DIGEST_LEN: usize = 32;
const ENTRY_LEN: usize = 1 + 8 + DIGEST_LEN;
/// Added to what stands for a part in an entry about what is in it.
const CONTENTS: u8 = 0x80;

/// How far a part was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Rises with what happens to the part.
    pub sequence: u64,
    /// What the part was at that sequence; zeroes where the sequence says enough.
    pub digest: [u8; DIGEST_LEN],
}

impl Mark {
    /// A mark of a part whose sequence says enough.
    pub const fn at(sequence: u64) -> Self {
        Self {
            sequence,
            digest: [0; DIGEST_LEN],
        }
    }
}

/// The marks of all parts that have one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    /// By the part's stamp, or by what the part says of itself if it has none.
    pub(crate) parts: BTreeMap<Part, Mark>,
    /// How far what is in a stamped part was: a stamp stays as new as it is when what is beside it is set back.
    pub(crate) contents: BTreeMap<Part, Mark>,
}

impl Marks {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        let entries = |marks: &BTreeMap<Part, Mark>, kind, out: &mut Vec<u8>| {
            for (part, mark) in marks {
                out.push(part.to_byte() | kind);
                out.extend(mark.sequence.to_be_bytes());
                out.extend(mark.digest);
            }
        };
        entries(&self.parts, 0, &mut out);
        entries(&self.contents, CONTENTS, &mut out);
        out
    }

    /// `None` for what [`encode`](Self::encode) does not write.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, entries) = bytes.split_first()? else {
            return None;
        };
        let (entries, []) = entries.as_chunks::<ENTRY_LEN>() else {
            return None;
        };
        let mut marks = Self::default();
        let mut last = None;
        for entry in entries {
            let (&kind, rest) = entry.split_first()?;
            let (sequence, digest) = rest.split_first_chunk()?;
            let mark = Mark {
                sequence: u64::from_be_bytes(*sequence),
                digest: digest.try_into().ok()?,
            };
            // In rising order, each once.
            if last.is_some_and(|last| last >= kind) {
                return None;
            }
            last = Some(kind);
            let part = Part::from_byte(kind & !CONTENTS)?;
            match kind & CONTENTS {
                0 => marks.parts.insert(part, mark),
                _ => marks.contents.insert(part, mark),
            };
        }
        Some(marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_are_written_and_nothing_else_is() {
        let mark = |sequence, byte| Mark {
            sequence,
            digest: [byte; 32],
        };
        let marks = Marks {
            parts: [
                (Part::Credentials, mark(1, 2)),
                (Part::Audit, mark(u64::MAX, 3)),
            ]
            .into(),
            contents: [(Part::Audit, mark(7, 4))].into(),
        };
        let bytes = marks.encode();
        assert_eq!(hex(&bytes[..10]), "02030000000000000001");
        assert_eq!(hex(&bytes[83..92]), "840000000000000007");
        assert_eq!(Marks::decode(&bytes), Some(marks));
        assert_eq!(Marks::decode(&[2]), Some(Marks::default()));
        for wrong in [&bytes[..bytes.len() - 1], &[], &[1], &[3], &[2, 3]] {
            assert_eq!(Marks::decode(wrong), None, "{wrong:?}");
        }
        let twice = [&bytes[..], &bytes[1..42]].concat();
        assert_eq!(Marks::decode(&twice), None);
        let mut unknown = bytes;
        unknown[1] = 99;
        assert_eq!(Marks::decode(&unknown), None);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
