//! The time of a signature.
use std::{
    fmt,
    time::{Duration, SystemTime},
};

use jiff::{civil::DateTime, tz::TimeZone};

/// A moment in UTC, to the second, that prints as `20130524T000000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timestamp {
    text: [u8; 16],
    time: SystemTime,
}

impl Timestamp {
    /// Parses `20130524T000000Z`, a day of the calendar.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 16] = text.as_bytes().try_into().ok()?;
        let digits = |from: usize, to: usize| -> Option<i16> {
            bytes[from..to].iter().try_fold(0, |number, byte| {
                let digit = byte.is_ascii_digit().then(|| i16::from(byte - b'0'))?;
                Some(number * 10 + digit)
            })
        };
        let small = |from: usize, to: usize| i8::try_from(digits(from, to)?).ok();
        if bytes[8] != b'T' || bytes[15] != b'Z' {
            return None;
        }
        let time = DateTime::new(
            digits(0, 4)?,
            small(4, 6)?,
            small(6, 8)?,
            small(9, 11)?,
            small(11, 13)?,
            small(13, 15)?,
            0,
        )
        .ok()?;
        let time = TimeZone::UTC.to_timestamp(time).ok()?;
        Some(Self {
            text: bytes,
            time: time.into(),
        })
    }

    /// Parses an HTTP date, `Fri, 24 May 2013 00:00:00 GMT`.
    pub(super) fn parse_http(text: &str) -> Option<Self> {
        let time = jiff::fmt::rfc2822::DateTimeParser::new()
            .parse_timestamp(text)
            .ok()?;
        let time = TimeZone::UTC.to_datetime(time);
        Self::parse(&time.strftime("%Y%m%dT%H%M%SZ").to_string())
    }

    /// `20130524`.
    pub(super) fn date(&self) -> &str {
        std::str::from_utf8(&self.text[..8]).expect("digits, checked when parsed")
    }

    /// `20130524T000000Z`.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("ASCII, checked when parsed")
    }

    /// The moment.
    pub(super) fn time(&self) -> SystemTime {
        self.time
    }

    /// How long before `now` it is; zero if after.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.time).unwrap_or_default()
    }

    /// How long after `now` it is; zero if before.
    pub(super) fn after(&self, now: SystemTime) -> Duration {
        self.time.duration_since(now).unwrap_or_default()
    }

    /// How far from `now` it is, either way.
    pub(super) fn distance(&self, now: SystemTime) -> Duration {
        self.age(now).max(self.after(now))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_basic_format_and_nothing_else() {
        let parsed = Timestamp::parse("20130524T000000Z").unwrap();
        assert_eq!(
            parsed.time(),
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600)
        );
        assert_eq!(
            (parsed.to_string().as_str(), parsed.date()),
            ("20130524T000000Z", "20130524")
        );
        for bad in [
            "20130524T000000",
            "2013-05-24T00:00:00Z",
            "20130230T000000Z",
            "20130524T240000Z",
            "20130524t000000z",
            "2013052+T000000Z",
            "+0130524T000000Z",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
        let http = Timestamp::parse_http("Fri, 24 May 2013 00:00:00 GMT");
        assert_eq!(http, Some(parsed));
    }
}
