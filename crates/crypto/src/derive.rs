//! Sub-keys by HKDF-SHA256 (RFC 5869), with one way to spell the info string.
//!
//! Every info string opens with a label of its own and length-prefixes what
//! varies in length, so no two purposes and no two places can share a key.

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};

/// How many bytes are wanted.
struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// Extracts from `ikm` under `salt` and expands into `out` under the
/// concatenation of `info`.
pub(crate) fn hkdf_sha256(salt: &[u8], ikm: &[u8], info: &[&[u8]], out: &mut [u8]) {
    let key = Salt::new(HKDF_SHA256, salt).extract(ikm);
    key.expand(info, Len(out.len()))
        .and_then(|expanded| expanded.fill(out))
        .expect("no key in this crate comes near HKDF's 8160 bytes");
}

/// Appends `field` behind its length as 32 bits, big endian.
pub(crate) fn push_prefixed(out: &mut Vec<u8>, field: &[u8]) {
    let len = u32::try_from(field.len()).expect("fields of AAD are far below 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(field);
}
