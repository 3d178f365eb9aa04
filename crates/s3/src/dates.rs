//! Times as S3 writes them: HTTP dates with one-second precision.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// An IMF-fixdate such as `Wed, 21 Oct 2015 07:28:00 GMT`, for headers.
pub(crate) fn http_date(time: SystemTime) -> HeaderValue {
    let text = jiff::Timestamp::try_from(whole_seconds(time))
        .map(|time| time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .unwrap_or_default();
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Reads an HTTP date in any of the forms RFC 9110 section 5.6.7 wants read.
/// `None` for anything else: a condition with a date that does not parse is
/// ignored (section 13.1.3).
pub(crate) fn parse_http_date(text: &str) -> Option<SystemTime> {
    const FORMS: [&str; 3] = [
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y",
    ];
    FORMS.iter().find_map(|form| {
        let time = jiff::civil::DateTime::strptime(form, text.trim()).ok()?;
        let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(SystemTime::from(time.timestamp()))
    })
}

/// Cuts the fraction of a second off, as `Last-Modified` shows it; conditions
/// compare with what the client was shown.
pub(crate) fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_http_date_is_read_and_one_is_written() {
        let time = UNIX_EPOCH + Duration::from_millis(784_111_777_250);
        assert_eq!(http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_date(text), Some(whole_seconds(time)), "{text}");
        }
        assert_eq!(parse_http_date("yesterday"), None);
    }
}
