//! The `Range` header: which bytes of an object a GET asks for.
//!
//! RFC 9110 section 14: a header that does not parse, has another unit or asks
//! for several ranges is ignored and the whole object is answered, as S3 does.
//! A well-formed range that lies outside the object is [`Unsatisfiable`] (416).

use std::ops::Range;

/// One requested range, before the object's size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteRange {
    /// `bytes=first-` or `bytes=first-last`, both ends inclusive.
    From {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte, if given.
        last: Option<u64>,
    },
    /// `bytes=-length`: the last `length` bytes.
    Suffix {
        /// How many bytes from the end.
        length: u64,
    },
}

/// The range lies outside the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsatisfiable;

impl ByteRange {
    /// Reads a header's value; `None` means "answer the whole object".
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (unit, set) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
            return None;
        }
        let (first, last) = set.trim().split_once('-')?;
        if first.is_empty() {
            return Some(Self::Suffix {
                length: number(last)?,
            });
        }
        let first = number(first)?;
        let last = if last.is_empty() {
            None
        } else {
            Some(number(last)?)
        };
        if last.is_some_and(|last| last < first) {
            return None;
        }
        Some(Self::From { first, last })
    }

    /// The bytes it means in an object of `size` bytes.
    pub(crate) fn resolve(self, size: u64) -> Result<Range<u64>, Unsatisfiable> {
        match self {
            Self::From { first, last } => {
                if first >= size {
                    return Err(Unsatisfiable);
                }
                let end = last.map_or(size, |last| last.saturating_add(1).min(size));
                Ok(first..end)
            }
            Self::Suffix { length } => {
                if length == 0 || size == 0 {
                    return Err(Unsatisfiable);
                }
                Ok(size - length.min(size)..size)
            }
        }
    }

    /// Reads `x-amz-copy-source-range`, which S3 takes in one form only:
    /// `bytes=first-last` inside the source.
    pub(crate) fn parse_copy_source(value: &str) -> Option<Range<u64>> {
        let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        (first <= last && last < u64::MAX).then(|| first..last + 1)
    }
}

/// Digits only: `u64::from_str` would take a leading plus. Too many digits
/// saturate, since "beyond every object" is what they mean.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolve(value: &str, size: u64) -> Option<Result<Range<u64>, Unsatisfiable>> {
        ByteRange::parse(value).map(|range| range.resolve(size))
    }

    #[test]
    fn every_form_resolves_as_rfc_9110_says() {
        for (value, size, expected) in [
            ("bytes=0-499", 1000, Some(Ok(0..500))),
            ("bytes=0-0", 1000, Some(Ok(0..1))),
            ("bytes=900-", 1000, Some(Ok(900..1000))),
            ("bytes=900-5000", 1000, Some(Ok(900..1000))),
            ("bytes=-1", 1000, Some(Ok(999..1000))),
            ("bytes=-5000", 1000, Some(Ok(0..1000))),
            ("bytes=999-", 1000, Some(Ok(999..1000))),
            ("bytes=1000-", 1000, Some(Err(Unsatisfiable))),
            ("bytes=1000-2000", 1000, Some(Err(Unsatisfiable))),
            ("bytes=-0", 1000, Some(Err(Unsatisfiable))),
            ("bytes=0-", 0, Some(Err(Unsatisfiable))),
            ("bytes=-1", 0, Some(Err(Unsatisfiable))),
            ("bytes=0-18446744073709551615", 10, Some(Ok(0..10))),
            ("bytes=99999999999999999999-", 10, Some(Err(Unsatisfiable))),
            ("Bytes=0-1", 10, Some(Ok(0..2))),
        ] {
            assert_eq!(resolve(value, size), expected, "{value} of {size}");
        }
    }

    #[test]
    fn what_does_not_parse_means_the_whole_object() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=+1-2",
            "bytes=0-1,3-4",
            "chars=0-1",
            "bytes=1-2-3",
            "bytes= ",
        ] {
            assert_eq!(ByteRange::parse(value), None, "{value}");
        }
    }

    #[test]
    fn a_copy_source_range_needs_both_ends() {
        assert_eq!(ByteRange::parse_copy_source("bytes=0-9"), Some(0..10));
        for value in [
            "bytes=0-",
            "bytes=-5",
            "0-9",
            "bytes=9-0",
            "bytes=0-9,11-12",
        ] {
            assert_eq!(ByteRange::parse_copy_source(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_range_never_leaves_the_object(first in 0u64..2000, last in proptest::option::of(0u64..4000), size in 0u64..1500) {
            let value = match last {
                Some(last) => format!("bytes={first}-{last}"),
                None => format!("bytes={first}-"),
            };
            if let Some(Ok(range)) = resolve(&value, size) {
                prop_assert!(range.start < range.end && range.end <= size);
                prop_assert_eq!(range.start, first);
            }
        }
    }
}
