//! The lengths that RFC 8452 sets, for every kernel.

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;
/// Bytes of a tag.
pub const TAG_LEN: usize = 16;
/// Bytes a message, and its additional data, may have (RFC 8452, 6): 64 GiB.
pub const MESSAGE_LEN_MAX: u64 = 1 << 36;
