//! How far each part was: the record that the catalogue keeps.

use std::collections::BTreeMap;

use crate::part::Part;

/// The first byte of a record's contents.
const FORMAT: u8 = 1;
const DIGEST_LEN: usize = 32;
const ENTRY_LEN: usize = 1 + 8 + DIGEST_LEN;

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
pub(crate) struct Marks(pub(crate) BTreeMap<Part, Mark>);

impl Marks {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for (part, mark) in &self.0 {
            out.push(part.to_byte());
            out.extend(mark.sequence.to_be_bytes());
            out.extend(mark.digest);
        }
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
        let mut marks = BTreeMap::new();
        for entry in entries {
            let (part, rest) = entry.split_first()?;
            let (sequence, digest) = rest.split_first_chunk()?;
            let mark = Mark {
                sequence: u64::from_be_bytes(*sequence),
                digest: digest.try_into().ok()?,
            };
            let part = Part::from_byte(*part)?;
            // In rising order, each once.
            if marks
                .last_key_value()
                .is_some_and(|(last, _)| *last >= part)
            {
                return None;
            }
            marks.insert(part, mark);
        }
        Some(Self(marks))
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
        let marks = Marks(
            [
                (Part::Credentials, mark(1, 2)),
                (Part::Audit, mark(u64::MAX, 3)),
            ]
            .into(),
        );
        let bytes = marks.encode();
        assert_eq!(hex(&bytes[..10]), "01030000000000000001");
        assert_eq!(Marks::decode(&bytes), Some(marks));
        assert_eq!(Marks::decode(&[1]), Some(Marks::default()));
        for wrong in [&bytes[..bytes.len() - 1], &[], &[2], &[1, 3]] {
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
