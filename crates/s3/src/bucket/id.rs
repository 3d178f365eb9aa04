//! What a bucket is called where its name must not matter.

use std::fmt;

use crypto::random::Random;

/// A bucket's id: 16 random bytes, in text 32 lower-case hexadecimal digits. Never used for another bucket.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BucketId {
    bytes: [u8; 16],
    /// At hand: the store of objects is asked by it with every request.
    text: Box<str>,
}

impl BucketId {
    /// A new one.
    pub(crate) fn draw(random: &dyn Random) -> Self {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        Self::from_bytes(bytes)
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self {
            bytes,
            text: hex::encode(bytes).into(),
        }
    }

    /// Reads the text form, as written by us; anything else is `None`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = hex::decode(text).ok()?.try_into().ok()?;
        Some(Self::from_bytes(bytes)).filter(|id| &*id.text == text)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.bytes
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
        let id = BucketId::from_bytes([0xab; 16]);
        assert_eq!(BucketId::parse(id.as_str()), Some(id));
        for bad in [
            "",
            "ab",
            &"AB".repeat(16),
            &"ab".repeat(17),
            &"xy".repeat(16),
        ] {
            assert_eq!(BucketId::parse(bad), None, "{bad}");
        }
    }
}
