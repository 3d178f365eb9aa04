//! Times as the XML APIs write them.
use std::time::SystemTime;

/// `2026-11-22T04:06:00.123Z`.
pub(crate) fn iso8601(time: SystemTime) -> String {
    // A time out of jiff's range, beyond the year 9999, is nobody's clock.
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_have_milliseconds_and_a_zone() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_369_353_600_042);
        assert_eq!(iso8601(time), "2013-05-24T00:00:00.042Z");
        assert_eq!(iso8601(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
