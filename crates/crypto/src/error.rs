//! The crate's one error: a variant for each thing a caller would act on.

/// Why a cryptographic operation was refused, and whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// The data, the key, or the place it was said to belong to is wrong. Which
    /// of them is deliberately not said.
    #[error("sealed data failed authentication")]
    Unauthentic,
    /// The bytes do not have the shape of the format named: found before any
    /// key was touched. The store's fault, or the peer's.
    #[error("these bytes are not a {what}")]
    Malformed {
        /// The format that was expected, in words for a log line.
        what: &'static str,
    },
    /// Both halves of an XTS key are equal, which IEEE 1619 implementations
    /// under FIPS 140 must refuse (SP 800-38E, IG C.I).
    #[error("the two halves of the XTS key are equal")]
    EqualKeyHalves,
    /// Key material of the wrong length.
    #[error("a key of {expected} bytes is needed, {actual} were given")]
    KeyLength {
        /// What the key's type needs.
        expected: usize,
        /// What was given.
        actual: usize,
    },
    /// This processor lacks the instructions of the kernel asked for.
    #[error("this processor cannot run the {kernel} kernel")]
    KernelUnavailable {
        /// Name of the kernel.
        kernel: &'static str,
    },
    /// A sector buffer is not a whole number of sectors: the caller's fault.
    #[error("{len} bytes are no whole number of {sector_size}-byte sectors")]
    NotWholeSectors {
        /// Length of the buffer in bytes.
        len: usize,
        /// Size of the data unit in bytes.
        sector_size: usize,
    },
    /// Plaintext shorter or longer than the format takes: the caller's fault.
    #[error("a plaintext of {len} bytes is outside {min}..={max}")]
    PlaintextLength {
        /// Length given, in bytes.
        len: usize,
        /// Least length taken, in bytes.
        min: usize,
        /// Greatest length taken, in bytes.
        max: usize,
    },
    /// A chunk of the wrong length for its place in the stream: the caller's
    /// fault when sealing, the store's when opening.
    #[error("a chunk of {len} bytes does not belong here, {expected} bytes do")]
    ChunkLength {
        /// Length given, in bytes.
        len: usize,
        /// Length that was needed (the most, for a last chunk), in bytes.
        expected: usize,
    },
    /// A chunk after the last one, or an index past it: the caller's fault.
    #[error("the stream has ended")]
    StreamEnded,
    /// More chunks than the nonce can count (2^32, 256 TiB).
    #[error("the stream is longer than 2^32 chunks")]
    StreamTooLong,
    /// An encryption context names the same thing twice: the caller's fault.
    #[error("the encryption context names a key twice")]
    DuplicateContextName,
    /// An encryption context above the limit: the caller's fault.
    #[error("the encryption context is {len} bytes, {max} are allowed")]
    ContextTooLong {
        /// Length of the canonical form, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
}
