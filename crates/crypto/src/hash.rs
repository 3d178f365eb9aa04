//! Checksums and digests of the object side, behind one small interface.
//!
//! For ETags, `Content-MD5`, `x-amz-checksum-*` and payload hashes. MD5 and
//! SHA-1 are here because S3 promises them, not because they resist anybody.

use aws_lc_rs::digest;
use md5::Digest as _;

/// The algorithms S3 knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HashAlgorithm {
    /// RFC 1321; 16 bytes.
    Md5,
    /// FIPS 180-4; 20 bytes.
    Sha1,
    /// FIPS 180-4; 32 bytes.
    Sha256,
    /// ISO-HDLC, as in Ethernet and gzip; 4 bytes, big endian.
    Crc32,
    /// Castagnoli (RFC 3720); 4 bytes, big endian.
    Crc32c,
    /// CRC-64/NVME; 8 bytes, big endian.
    Crc64Nvme,
}

impl HashAlgorithm {
    /// Length of the digest in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
        }
    }

    /// The digest of `data`.
    pub fn digest(self, data: &[u8]) -> Digest {
        let mut hasher = Hasher::new(self);
        hasher.update(data);
        hasher.finish()
    }

    /// The digest of `a ‖ b` from the digests of `a` and `b` and the length of
    /// `b` in bytes; `None` for what is not a CRC, or digests of another kind.
    pub fn combine(self, a: &Digest, b: &Digest, b_len: u64) -> Option<Digest> {
        let algorithm = self.crc()?;
        if a.algorithm != self || b.algorithm != self {
            return None;
        }
        let crc = crc_fast::checksum_combine(algorithm, a.crc(), b.crc(), b_len);
        Some(Digest::from_crc(self, crc))
    }

    fn crc(self) -> Option<crc_fast::CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(crc_fast::CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(crc_fast::CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(crc_fast::CrcAlgorithm::Crc64Nvme),
            Self::Md5 | Self::Sha1 | Self::Sha256 => None,
        }
    }
}

/// A finished digest, in the byte order S3 sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: HashAlgorithm,
    bytes: [u8; 32],
}

impl Digest {
    /// Which algorithm made it.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The digest's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.digest_len()]
    }

    /// Reads a digest as S3 sends it (after base64); `None` on another length.
    pub fn from_bytes(algorithm: HashAlgorithm, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == algorithm.digest_len()).then(|| {
            let mut digest = Self {
                algorithm,
                bytes: [0; 32],
            };
            digest.bytes[..bytes.len()].copy_from_slice(bytes);
            digest
        })
    }

    fn from_crc(algorithm: HashAlgorithm, crc: u64) -> Self {
        let skip = 8 - algorithm.digest_len();
        Self::from_bytes(algorithm, &crc.to_be_bytes()[skip..]).expect("a CRC's own length")
    }

    fn crc(&self) -> u64 {
        self.as_bytes()
            .iter()
            .fold(0, |crc, byte| crc << 8 | u64::from(*byte))
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// A digest in the making, of an algorithm chosen at run time.
#[derive(Clone)]
pub struct Hasher(State);

// A box would save bytes in a value of which there is one for each body being hashed.
#[allow(clippy::large_enum_variant)]
#[derive(Clone)]
enum State {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Crc(HashAlgorithm, crc_fast::Digest),
}

impl Hasher {
    /// Starts a digest.
    pub fn new(algorithm: HashAlgorithm) -> Self {
        Self(match algorithm {
            HashAlgorithm::Md5 => State::Md5(Md5::new()),
            HashAlgorithm::Sha1 => State::Sha1(Sha1::new()),
            HashAlgorithm::Sha256 => State::Sha256(Sha256::new()),
            HashAlgorithm::Crc32 => Crc32::new().0.0,
            HashAlgorithm::Crc32c => Crc32c::new().0.0,
            HashAlgorithm::Crc64Nvme => Crc64Nvme::new().0.0,
        })
    }

    /// Which algorithm runs.
    pub fn algorithm(&self) -> HashAlgorithm {
        match &self.0 {
            State::Md5(_) => HashAlgorithm::Md5,
            State::Sha1(_) => HashAlgorithm::Sha1,
            State::Sha256(_) => HashAlgorithm::Sha256,
            State::Crc(algorithm, _) => *algorithm,
        }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            State::Md5(hash) => hash.update(data),
            State::Sha1(hash) => hash.update(data),
            State::Sha256(hash) => hash.update(data),
            State::Crc(_, hash) => hash.update(data),
        }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let digest = match self.0 {
            State::Md5(hash) => Digest::from_bytes(algorithm, &hash.finish()),
            State::Sha1(hash) => Digest::from_bytes(algorithm, &hash.finish()),
            State::Sha256(hash) => Digest::from_bytes(algorithm, &hash.finish()),
            State::Crc(_, hash) => Some(Digest::from_crc(algorithm, hash.finalize())),
        };
        digest.expect("each algorithm gives its own length")
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hasher").field(&self.algorithm()).finish()
    }
}

/// Streaming MD5.
#[derive(Clone)]
pub struct Md5(md5::Md5);

impl Md5 {
    /// Starts a digest.
    pub fn new() -> Self {
        Self(md5::Md5::new())
    }

    /// Takes in more bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> [u8; 16] {
        self.0.finalize().into()
    }

    /// The digest of `data`.
    pub fn digest(data: &[u8]) -> [u8; 16] {
        md5::Md5::digest(data).into()
    }
}

macro_rules! sha {
    ($(#[$doc:meta])* $name:ident, $algorithm:path, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(digest::Context);

        impl $name {
            /// Starts a digest.
            pub fn new() -> Self {
                Self(digest::Context::new(&$algorithm))
            }

            /// Takes in more bytes.
            pub fn update(&mut self, data: &[u8]) {
                self.0.update(data);
            }

            /// The digest of all bytes taken in.
            pub fn finish(self) -> [u8; $len] {
                let mut out = [0; $len];
                out.copy_from_slice(self.0.finish().as_ref());
                out
            }

            /// The digest of `data`.
            pub fn digest(data: &[u8]) -> [u8; $len] {
                let mut hash = Self::new();
                hash.update(data);
                hash.finish()
            }
        }
    };
}

sha! {
    /// Streaming SHA-1.
    Sha1, digest::SHA1_FOR_LEGACY_USE_ONLY, 20
}
sha! {
    /// Streaming SHA-256.
    Sha256, digest::SHA256, 32
}

macro_rules! crc {
    ($(#[$doc:meta])* $name:ident, $algorithm:ident, $crc:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Hasher);

        impl $name {
            /// Starts a checksum.
            pub fn new() -> Self {
                let hash = crc_fast::Digest::new(crc_fast::CrcAlgorithm::$crc);
                Self(Hasher(State::Crc(HashAlgorithm::$algorithm, hash)))
            }

            /// Takes in more bytes.
            pub fn update(&mut self, data: &[u8]) {
                self.0.update(data);
            }

            /// The checksum of all bytes taken in.
            pub fn finish(self) -> $int {
                <$int>::try_from(self.0.finish().crc()).expect("a checksum of that many bits")
            }

            /// The checksum of `data`.
            pub fn digest(data: &[u8]) -> $int {
                let mut hash = Self::new();
                hash.update(data);
                hash.finish()
            }
        }
    };
}

crc! {
    /// Streaming CRC-32 (ISO-HDLC).
    Crc32, Crc32, Crc32IsoHdlc, u32
}
crc! {
    /// Streaming CRC-32C (Castagnoli).
    Crc32c, Crc32c, Crc32Iscsi, u32
}
crc! {
    /// Streaming CRC-64/NVME.
    Crc64Nvme, Crc64Nvme, Crc64Nvme, u64
}

macro_rules! default_and_debug {
    ($($name:ident)*) => {$(
        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
default_and_debug!(Md5 Sha1 Sha256 Crc32 Crc32c Crc64Nvme);

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [HashAlgorithm; 6] = [
        HashAlgorithm::Md5,
        HashAlgorithm::Sha1,
        HashAlgorithm::Sha256,
        HashAlgorithm::Crc32,
        HashAlgorithm::Crc32c,
        HashAlgorithm::Crc64Nvme,
    ];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn each_algorithm_gives_its_published_check_value() {
        // RFC 1321 and FIPS 180-4 for "abc"; the CRC catalogue's "123456789".
        let abc = |a: HashAlgorithm| hex(a.digest(b"abc").as_bytes());
        assert_eq!(abc(HashAlgorithm::Md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            abc(HashAlgorithm::Sha1),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        assert_eq!(
            abc(HashAlgorithm::Sha256),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Crc32::digest(b"123456789"), 0xcbf4_3926);
        assert_eq!(Crc32c::digest(b"123456789"), 0xe306_9283);
        assert_eq!(Crc64Nvme::digest(b"123456789"), 0xae8b_1486_0a79_9888);
        assert_eq!(
            hex(HashAlgorithm::Crc32.digest(b"123456789").as_bytes()),
            "cbf43926"
        );
    }

    #[test]
    fn a_digest_does_not_depend_on_how_the_bytes_arrive() {
        let data: Vec<u8> = (0..1000u32).map(|i| (i * 7).to_le_bytes()[0]).collect();
        for algorithm in ALL {
            let mut hasher = Hasher::new(algorithm);
            for part in data.chunks(77) {
                hasher.update(part);
            }
            assert_eq!(hasher.finish(), algorithm.digest(&data));
        }
    }

    #[test]
    fn crcs_of_parts_combine_and_digests_do_not() {
        let (a, b) = (b"the first part".as_slice(), b"and the second".as_slice());
        for algorithm in ALL {
            let combined =
                algorithm.combine(&algorithm.digest(a), &algorithm.digest(b), b.len() as u64);
            let whole = algorithm.digest(&[a, b].concat());
            assert_eq!(combined, algorithm.crc().map(|_| whole));
        }
    }

    #[test]
    fn a_digest_of_the_wrong_length_is_refused() {
        assert_eq!(Digest::from_bytes(HashAlgorithm::Md5, &[0; 15]), None);
    }
}
