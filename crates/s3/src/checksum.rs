//! S3's additional checksums: CRC32, CRC32C, CRC64NVME, SHA-1 and SHA-256 over
//! the plaintext.
//!
//! A full-object checksum covers the object's bytes; a composite one is the
//! checksum of the parts' checksums, written with `-` and their number. The
//! three CRCs of parts combine into that of the whole without reading it again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto::hash::{Digest, HashAlgorithm};
use http::HeaderMap;

use crate::error::Error;

/// Which checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// S3's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header or trailer that carries it.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// Reads a name, in any case.
    pub(crate) fn parse(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name.trim()))
            .ok_or_else(|| {
                Error::invalid_request(
                    "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
                )
            })
    }

    /// Finds the one a header or trailer name belongs to.
    pub(crate) fn of_header(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|a| a.header().eq_ignore_ascii_case(name))
    }

    /// Length of its value in bytes.
    pub(crate) fn len(self) -> usize {
        self.hash().digest_len()
    }

    /// The byte that stands for it in an envelope.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Crc32 => 1,
            Self::Crc32c => 2,
            Self::Crc64Nvme => 3,
            Self::Sha1 => 4,
            Self::Sha256 => 5,
        }
    }

    pub(crate) fn of_code(code: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.code() == code)
    }

    /// Whether the parts' values combine into that of the whole.
    fn combines(self) -> bool {
        matches!(self, Self::Crc32 | Self::Crc32c | Self::Crc64Nvme)
    }

    fn hash(self) -> HashAlgorithm {
        match self {
            Self::Crc32 => HashAlgorithm::Crc32,
            Self::Crc32c => HashAlgorithm::Crc32c,
            Self::Crc64Nvme => HashAlgorithm::Crc64Nvme,
            Self::Sha1 => HashAlgorithm::Sha1,
            Self::Sha256 => HashAlgorithm::Sha256,
        }
    }
}

/// A checksum in the making.
pub(crate) struct Hasher {
    algorithm: Algorithm,
    inner: crypto::hash::Hasher,
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            inner: crypto::hash::Hasher::new(algorithm.hash()),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    pub(crate) fn finish(self) -> Value {
        Value {
            algorithm: self.algorithm,
            digest: self.inner.finish(),
        }
    }
}

/// What a multipart object's checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coverage {
    FullObject,
    Composite,
}

impl Coverage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::FullObject => 1,
            Self::Composite => 2,
        }
    }

    pub(crate) fn of_code(code: u8) -> Option<Self> {
        [Self::FullObject, Self::Composite]
            .into_iter()
            .find(|c| c.code() == code)
    }
}

/// A checksum's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) algorithm: Algorithm,
    digest: Digest,
}

impl Value {
    /// `None` unless `bytes` is as long as the algorithm's values are.
    pub(crate) fn new(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        Digest::from_bytes(algorithm.hash(), bytes).map(|digest| Self { algorithm, digest })
    }

    /// Reads base64 as it stands in headers.
    pub(crate) fn parse(algorithm: Algorithm, text: &str) -> Result<Self, Error> {
        STANDARD
            .decode(text.trim())
            .ok()
            .and_then(|bytes| Self::new(algorithm, &bytes))
            .ok_or_else(|| {
                Error::invalid_request(format!(
                    "Value for {} header is invalid.",
                    algorithm.header()
                ))
            })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.digest.as_bytes()
    }

    pub(crate) fn to_base64(&self) -> String {
        STANDARD.encode(self.bytes())
    }
}

/// A stored object's checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub(crate) value: Value,
    pub(crate) coverage: Coverage,
    /// Number of parts behind a composite checksum, otherwise 0.
    pub(crate) parts: u32,
}

impl Checksum {
    /// As headers and XML show it.
    pub(crate) fn text(&self) -> String {
        match self.coverage {
            Coverage::FullObject => self.value.to_base64(),
            Coverage::Composite => format!("{}-{}", self.value.to_base64(), self.parts),
        }
    }
}

/// What a multipart upload was created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) algorithm: Algorithm,
    pub(crate) coverage: Coverage,
    /// Whether the client asked for it; otherwise it is our own default and
    /// parts may come with another.
    pub(crate) asked: bool,
}

impl Plan {
    /// Reads `x-amz-checksum-algorithm` and `x-amz-checksum-type`.
    pub(crate) fn of_create(headers: &HeaderMap) -> Result<Self, Error> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let algorithm = text("x-amz-checksum-algorithm")
            .map(Algorithm::parse)
            .transpose()?;
        let asked = algorithm.is_some();
        let algorithm = algorithm.unwrap_or(Algorithm::Crc64Nvme);
        let coverage = match text("x-amz-checksum-type") {
            Some(_) if !asked => {
                return Err(Error::invalid_request(
                    "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
                ));
            }
            Some("FULL_OBJECT") if algorithm.combines() => Coverage::FullObject,
            Some("COMPOSITE") if algorithm != Algorithm::Crc64Nvme => Coverage::Composite,
            Some(_) => {
                return Err(Error::invalid_request(format!(
                    "The checksum type requested cannot be used with the {} checksum algorithm.",
                    algorithm.name()
                )));
            }
            None if algorithm == Algorithm::Crc64Nvme => Coverage::FullObject,
            None => Coverage::Composite,
        };
        Ok(Self {
            algorithm,
            coverage,
            asked,
        })
    }

    /// The object's checksum from its parts' values and lengths, in order.
    /// `None` if a part lacks a value of this algorithm.
    pub(crate) fn combine(self, parts: &[(Option<Value>, u64)]) -> Option<Checksum> {
        let count = u32::try_from(parts.len()).ok()?;
        let values: Vec<(&Value, u64)> = parts
            .iter()
            .map(|(value, len)| {
                value
                    .as_ref()
                    .filter(|v| v.algorithm == self.algorithm)
                    .map(|v| (v, *len))
            })
            .collect::<Option<_>>()?;
        match self.coverage {
            Coverage::Composite => {
                let mut hasher = Hasher::new(self.algorithm);
                for (value, _) in values {
                    hasher.update(value.bytes());
                }
                Some(Checksum {
                    value: hasher.finish(),
                    coverage: self.coverage,
                    parts: count,
                })
            }
            Coverage::FullObject => {
                let (first, rest) = values.split_first()?;
                let hash = self.algorithm.hash();
                let digest = rest.iter().try_fold(first.0.digest, |sum, (value, len)| {
                    hash.combine(&sum, &value.digest, *len)
                })?;
                let value = Value {
                    algorithm: self.algorithm,
                    digest,
                };
                Some(Checksum {
                    value,
                    coverage: self.coverage,
                    parts: 0,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(algorithm: Algorithm, data: &[u8]) -> Value {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(data);
        hasher.finish()
    }

    #[test]
    fn values_are_those_of_the_published_check_strings() {
        for (algorithm, expected) in [
            (Algorithm::Crc32, "y/Q5Jg=="),
            (Algorithm::Crc32c, "4waSgw=="),
            (Algorithm::Crc64Nvme, "rosUhgp5mIg="),
        ] {
            assert_eq!(
                value(algorithm, b"123456789").to_base64(),
                expected,
                "{algorithm:?}"
            );
        }
        assert!(Value::parse(Algorithm::Crc32, "AAECAwQ=").is_err());
        assert!(Value::parse(Algorithm::Sha256, "?").is_err());
    }

    #[test]
    fn crcs_of_parts_combine_into_that_of_the_whole() {
        let data: Vec<u8> = (0..100_000u32)
            .map(|n| ((n * 31) >> 3).to_le_bytes()[0])
            .collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let plan = Plan {
                algorithm,
                coverage: Coverage::FullObject,
                asked: true,
            };
            let parts: Vec<_> = data
                .chunks(33_333)
                .map(|part| (Some(value(algorithm, part)), part.len() as u64))
                .collect();
            let combined = plan.combine(&parts).unwrap();
            assert_eq!(combined.value, value(algorithm, &data), "{algorithm:?}");
            assert_eq!(combined.text(), value(algorithm, &data).to_base64());
        }
    }

    #[test]
    fn a_composite_checksum_is_that_of_the_parts_values() {
        let parts = [
            value(Algorithm::Sha256, b"a"),
            value(Algorithm::Sha256, b"b"),
        ];
        let concat = [parts[0].bytes(), parts[1].bytes()].concat();
        let plan = Plan {
            algorithm: Algorithm::Sha256,
            coverage: Coverage::Composite,
            asked: true,
        };
        let with_len: Vec<_> = parts.iter().map(|part| (Some(part.clone()), 1)).collect();
        let combined = plan.combine(&with_len).unwrap();
        assert_eq!(combined.value, value(Algorithm::Sha256, &concat));
        assert!(combined.text().ends_with("-2"));
        assert_eq!(plan.combine(&[(None, 1)]), None);
    }
}
