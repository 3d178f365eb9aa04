//! Conditional requests: `If-Match`, `If-None-Match` and the two dates.
//!
//! Reads follow RFC 9110 section 13.2.2: an entity-tag condition overrules the
//! date beside it; failures are 412, an unchanged entity is 304. Sources of
//! copies have the same four under `x-amz-copy-source-`, all failing with 412.
//! Writes know `If-Match` and `If-None-Match: *`; they become a condition on
//! the sequence of the record that was read, so that check and commit are one.

use std::time::SystemTime;

use http::HeaderMap;
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};

use crate::dates::{parse_http_date, whole_seconds};
use crate::error::Error;

/// A list of entity tags, or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tags {
    Any,
    List(Vec<String>),
}

impl Tags {
    /// Reads `*` or a list of entity tags; clients also send them unquoted.
    fn parse(value: &str) -> Self {
        if value.trim() == "*" {
            return Self::Any;
        }
        // S3's entity tags are hex and a dash, so no comma hides inside quotes.
        let tags = value.split(',').map(|tag| {
            let tag = tag.trim();
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            tag.trim_matches('"').to_owned()
        });
        Self::List(tags.collect())
    }

    fn matches(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::List(tags) => tags.iter().any(|tag| tag == etag),
        }
    }
}

/// The four conditions of a read.
#[derive(Debug, Default, Clone)]
pub(crate) struct ReadConditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    if_modified_since: Option<SystemTime>,
    if_unmodified_since: Option<SystemTime>,
}

impl ReadConditions {
    /// The conditions of a GET or HEAD.
    pub(crate) fn of_read(headers: &HeaderMap) -> Self {
        Self {
            if_match: tags(headers, IF_MATCH.as_str()),
            if_none_match: tags(headers, IF_NONE_MATCH.as_str()),
            if_modified_since: date(headers, IF_MODIFIED_SINCE.as_str()),
            if_unmodified_since: date(headers, IF_UNMODIFIED_SINCE.as_str()),
        }
    }

    /// The conditions on the source of a copy.
    pub(crate) fn of_copy_source(headers: &HeaderMap) -> Self {
        Self {
            if_match: tags(headers, "x-amz-copy-source-if-match"),
            if_none_match: tags(headers, "x-amz-copy-source-if-none-match"),
            if_modified_since: date(headers, "x-amz-copy-source-if-modified-since"),
            if_unmodified_since: date(headers, "x-amz-copy-source-if-unmodified-since"),
        }
    }

    /// Passes, or fails with 412 or 304.
    pub(crate) fn check_read(&self, etag: &str, modified: SystemTime) -> Result<(), Error> {
        let shown = whole_seconds(modified);
        match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) if !tags.matches(etag) => return Err(Error::precondition_failed()),
            (None, Some(limit)) if shown > limit => return Err(Error::precondition_failed()),
            _ => {}
        }
        let unchanged = match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) => tags.matches(etag),
            (None, Some(since)) => shown <= since,
            (None, None) => false,
        };
        if unchanged {
            return Err(Error::NotModified {
                etag: etag.to_owned(),
                modified,
            });
        }
        Ok(())
    }

    /// Passes, or fails with 412: what a copy's source gets for either.
    pub(crate) fn check_copy_source(&self, etag: &str, modified: SystemTime) -> Result<(), Error> {
        self.check_read(etag, modified)
            .map_err(|error| match error {
                Error::NotModified { .. } => Error::precondition_failed(),
                other => other,
            })
    }
}

/// `If-Range` (RFC 9110 section 13.1.5): whether a range is of the content the
/// client has the rest of. Otherwise it gets the whole.
pub(crate) fn range_holds(headers: &HeaderMap, etag: &str, modified: SystemTime) -> bool {
    let Some(value) = headers.get(IF_RANGE) else {
        return true;
    };
    let value = value.to_str().unwrap_or_default().trim();
    match parse_http_date(value) {
        Some(date) => date == whole_seconds(modified),
        // A weak tag never holds for a range.
        None => !value.starts_with("W/") && value.trim_matches('"') == etag,
    }
}

/// The condition of a write or delete.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum WriteCondition {
    /// None.
    #[default]
    Always,
    /// `If-None-Match: *`: only where there is no object.
    Absent,
    /// `If-Match`: only over an object with one of these tags.
    Matches(Tags),
}

impl WriteCondition {
    /// The condition of a PUT, COPY or COMPLETE.
    pub(crate) fn of_write(headers: &HeaderMap) -> Result<Self, Error> {
        refuse_dates(headers)?;
        match (
            tags(headers, IF_MATCH.as_str()),
            tags(headers, IF_NONE_MATCH.as_str()),
        ) {
            (None, None) => Ok(Self::Always),
            (Some(tags), None) => Ok(Self::Matches(tags)),
            (None, Some(Tags::Any)) => Ok(Self::Absent),
            (Some(_), Some(_)) | (None, Some(Tags::List(_))) => Err(unknown()),
        }
    }

    /// The condition of a DELETE, which knows `If-Match` alone.
    pub(crate) fn of_delete(headers: &HeaderMap) -> Result<Self, Error> {
        refuse_dates(headers)?;
        if headers.contains_key(IF_NONE_MATCH) {
            return Err(unknown());
        }
        Ok(tags(headers, IF_MATCH.as_str()).map_or(Self::Always, Self::Matches))
    }

    /// The condition of an entry of a multi-object delete.
    pub(crate) fn of_etag(etag: Option<&str>) -> Self {
        etag.map_or(Self::Always, |etag| Self::Matches(Tags::parse(etag)))
    }

    /// Whether the current object must be read to decide.
    pub(crate) fn is_always(&self) -> bool {
        *self == Self::Always
    }

    /// Checks against the object as it is (`None`: there is none).
    pub(crate) fn check(&self, etag: Option<&str>) -> Result<(), Error> {
        match (self, etag) {
            (Self::Always, _) | (Self::Absent, None) => Ok(()),
            (Self::Absent, Some(_)) => Err(Error::precondition_failed()),
            (Self::Matches(_), None) => Err(Error::no_such_key()),
            (Self::Matches(tags), Some(etag)) if tags.matches(etag) => Ok(()),
            (Self::Matches(_), Some(_)) => Err(Error::precondition_failed()),
        }
    }
}

/// A write whose condition we do not check must not happen.
fn refuse_dates(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(IF_MODIFIED_SINCE) || headers.contains_key(IF_UNMODIFIED_SINCE) {
        return Err(unknown());
    }
    Ok(())
}

fn unknown() -> Error {
    Error::not_implemented("A header you provided implies functionality that is not implemented")
}

/// All lines of a header are one list (RFC 9110 section 5.3). What is not text is a tag that
/// matches nothing: a condition that cannot be read must not count as none.
fn tags(headers: &HeaderMap, name: &str) -> Option<Tags> {
    let lines: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|line| String::from_utf8_lossy(line.as_bytes()))
        .collect();
    (!lines.is_empty()).then(|| Tags::parse(&lines.join(",")))
}

fn date(headers: &HeaderMap, name: &str) -> Option<SystemTime> {
    parse_http_date(headers.get(name)?.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn read(pairs: &[(&'static str, &'static str)]) -> u16 {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            })
            .collect();
        let modified = UNIX_EPOCH + Duration::from_millis(784_111_777_900);
        match ReadConditions::of_read(&headers).check_read("abc", modified) {
            Ok(()) => 200,
            Err(error) => error.status().as_u16(),
        }
    }

    #[test]
    fn reads_follow_the_order_of_rfc_9110() {
        for (pairs, expected) in [
            (&[][..], 200),
            (&[("if-match", "\"abc\"")][..], 200),
            (&[("if-match", "\"x\", \"abc\"")][..], 200),
            (&[("if-match", "abc")][..], 200),
            (&[("if-match", "*")][..], 200),
            (&[("if-match", "\"x\"")][..], 412),
            (&[("if-none-match", "\"abc\"")][..], 304),
            (&[("if-none-match", "W/\"abc\"")][..], 304),
            (&[("if-none-match", "\"x\"")][..], 200),
            (&[("if-modified-since", EARLIER)][..], 200),
            (&[("if-modified-since", SAME)][..], 304),
            (&[("if-unmodified-since", EARLIER)][..], 412),
            (&[("if-unmodified-since", SAME)][..], 200),
            // A tag overrules the date beside it.
            (
                &[("if-match", "\"abc\""), ("if-unmodified-since", EARLIER)][..],
                200,
            ),
            (
                &[("if-none-match", "\"x\""), ("if-modified-since", LATER)][..],
                200,
            ),
            // A date that does not parse is no condition.
            (&[("if-modified-since", "soon")][..], 200),
        ] {
            assert_eq!(read(pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_condition_that_cannot_be_read_never_lets_a_write_pass() {
        let one = |name: &'static str, value: &'static [u8]| {
            let value = http::HeaderValue::from_bytes(value).unwrap();
            HeaderMap::from_iter([(http::HeaderName::from_static(name), value)])
        };
        for write in [WriteCondition::of_write, WriteCondition::of_delete] {
            let condition = write(&one("if-match", b"\"\xff\"")).unwrap();
            assert!(!condition.is_always());
            assert!(condition.check(Some("abc")).is_err());
            for name in ["if-modified-since", "if-unmodified-since"] {
                let refused = write(&one(name, EARLIER.as_bytes())).unwrap_err();
                assert_eq!(refused.code(), "NotImplemented", "{name}");
            }
            assert!(write(&one("if-none-match", b"\xff")).is_err());
        }
        assert!(WriteCondition::of_delete(&one("if-none-match", b"*")).is_err());
    }

    #[test]
    fn the_lines_of_a_header_are_one_list() {
        assert_eq!(read(&[("if-match", "\"x\""), ("if-match", "\"abc\"")]), 200);
        assert_eq!(
            read(&[("if-none-match", "\"x\""), ("if-none-match", "\"abc\"")]),
            304
        );
    }

    #[test]
    fn writes_know_absent_and_matching() {
        let tags = |tag: &str| WriteCondition::Matches(Tags::parse(tag));
        assert!(WriteCondition::Absent.check(None).is_ok());
        assert_eq!(
            WriteCondition::Absent
                .check(Some("a"))
                .unwrap_err()
                .status(),
            412
        );
        assert!(tags("\"a\"").check(Some("a")).is_ok());
        assert_eq!(tags("\"b\"").check(Some("a")).unwrap_err().status(), 412);
        assert_eq!(tags("\"b\"").check(None).unwrap_err().code(), "NoSuchKey");
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, http::HeaderValue::from_static("\"a\""));
        assert_eq!(
            WriteCondition::of_write(&headers).unwrap_err().status(),
            501
        );
    }
}
