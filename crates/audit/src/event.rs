//! What a record says.

use std::{
    io::Write as _,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use crypto::context::EncryptionContext;
use jiff::Timestamp;

/// One request, done or refused. Names no secret: an encryption context is public by definition.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// When the request was decided.
    pub time: SystemTime,
    /// The API's name of the operation: `Decrypt`.
    pub operation: &'static str,
    /// `Success` or the code of the exception.
    pub outcome: &'a str,
    /// Who: an ARN, or a service (`s3.amazonaws.com`) that acted for itself.
    pub principal: &'a str,
    /// With which access key.
    pub access_key: Option<&'a str>,
    /// Through which side of the gateway: `api`, `s3`, `volume`, `internal`.
    pub via: &'a str,
    /// The account that it was asked of, unless it is the whole store's.
    pub account: Option<&'a str>,
    /// The region that it was asked of, likewise.
    pub region: Option<&'a str>,
    /// The ARN of the key; with ReEncrypt the one sealed under before.
    pub key: Option<&'a str>,
    /// The ARN of the key sealed under after ReEncrypt.
    pub destination_key: Option<&'a str>,
    /// The alias made, changed or deleted.
    pub alias: Option<&'a str>,
    /// The number of the material used or made.
    pub material: Option<u32>,
    /// The encryption context given.
    pub encryption_context: Option<&'a EncryptionContext>,
    /// The one given for the new blob by ReEncrypt.
    pub destination_encryption_context: Option<&'a EncryptionContext>,
    /// The bucket, in the record of an access to an object.
    pub bucket: Option<&'a str>,
    /// The object's key in the bucket.
    pub object: Option<&'a str>,
    /// What a management call of Sealgate's own is about, such as the id of a job.
    pub resource: Option<&'a str>,
    /// The id in the response.
    pub request_id: &'a str,
    /// The peer.
    pub source: Option<IpAddr>,
    /// For how many requests the record stands, where it stands for several: refusals that came faster than they are
    /// recorded one by one.
    pub count: Option<u64>,
}

impl<'a> Event<'a> {
    /// One that says when, what, its outcome, who and through which side, and nothing else.
    pub fn new(
        time: SystemTime,
        operation: &'static str,
        outcome: &'a str,
        principal: &'a str,
        via: &'a str,
    ) -> Self {
        Self {
            time,
            operation,
            outcome,
            principal,
            access_key: None,
            via,
            account: None,
            region: None,
            key: None,
            destination_key: None,
            alias: None,
            material: None,
            encryption_context: None,
            destination_encryption_context: None,
            bucket: None,
            object: None,
            resource: None,
            request_id: "",
            source: None,
            count: None,
        }
    }
}

impl Event<'_> {
    /// Appends the JSON object without its braces to `out`; `intent` is the number of the intent that this
    /// is the outcome of.
    ///
    /// Not through serde: it looks at each byte for what has to be escaped, also in names that are constants, which for
    /// a record of each use of a key takes longer than its digest.
    pub(super) fn write_to(&self, out: &mut Vec<u8>, intent: Option<u64>) {
        let mut fields = Fields { out, any: false };
        fields.name("time");
        fields.out.push(b'"');
        push_timestamp(fields.out, self.time);
        fields.out.push(b'"');
        fields.text("operation", self.operation);
        fields.text("outcome", self.outcome);
        fields.text("principal", self.principal);
        fields.text_if_any("access_key", self.access_key);
        fields.text("via", self.via);
        fields.text_if_any("account", self.account);
        fields.text_if_any("region", self.region);
        fields.text_if_any("key", self.key);
        fields.text_if_any("destination_key", self.destination_key);
        fields.text_if_any("alias", self.alias);
        if let Some(material) = self.material {
            fields.number("material", u64::from(material));
        }
        fields.pairs_if_any("encryption_context", self.encryption_context);
        fields.pairs_if_any(
            "destination_encryption_context",
            self.destination_encryption_context,
        );
        fields.text_if_any("bucket", self.bucket);
        fields.text_if_any("object", self.object);
        fields.text_if_any("resource", self.resource);
        fields.text("request_id", self.request_id);
        match self.source {
            Some(IpAddr::V4(source)) => {
                fields.name("source");
                for (at, octet) in source.octets().into_iter().enumerate() {
                    fields.out.push(if at == 0 { b'"' } else { b'.' });
                    push_number(fields.out, u64::from(octet));
                }
                fields.out.push(b'"');
            }
            // Digits, colons, dots and letters.
            Some(source) => {
                fields.name("source");
                write!(fields.out, "\"{source}\"").expect("into memory");
            }
            None => {}
        }
        if let Some(count) = self.count {
            fields.number("count", count);
        }
        if let Some(intent) = intent {
            fields.number("intent", intent);
        }
    }
}

/// The members of a JSON object on their way out, in the order they are given.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    any: bool,
}

impl Fields<'_> {
    /// `name` is a constant that needs no escape.
    fn name(&mut self, name: &'static str) {
        if std::mem::replace(&mut self.any, true) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        push_text(self.out, value);
    }

    fn text_if_any(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        push_number(self.out, value);
    }

    fn pairs_if_any(&mut self, name: &'static str, context: Option<&EncryptionContext>) {
        let Some(context) = context else { return };
        self.name(name);
        self.out.push(b'{');
        for (at, (name, value)) in context.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            push_text(self.out, name);
            self.out.push(b':');
            push_text(self.out, value);
        }
        self.out.push(b'}');
    }
}

/// Appends a JSON string.
fn push_text(out: &mut Vec<u8>, text: &str) {
    // To the end without a branch, so that many bytes are compared at a time.
    let plain = |byte: u8| (byte >= 0x20) & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("a string, into memory");
    }
}

/// Appends a number in decimal.
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = digit(rest);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The last decimal digit.
fn digit(number: u64) -> u8 {
    b'0' + u8::try_from(number % 10).expect("below ten")
}

/// RFC 3339 in UTC with microseconds; a time outside the calendar (before year -9999) is its start.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let mut text = Vec::with_capacity(27);
    push_timestamp(&mut text, time);
    String::from_utf8(text).expect("digits, signs and letters")
}

/// The first second of the year 10000.
const YEAR_10000: u64 = 253_402_300_800;

/// Appends [`timestamp`]. A formatter takes ten times as long, and each record has one.
fn push_timestamp(out: &mut Vec<u8>, time: SystemTime) {
    let since = match time.duration_since(UNIX_EPOCH) {
        Ok(since) if since.as_secs() < YEAR_10000 => since,
        _ => {
            let at = Timestamp::try_from(time).unwrap_or(Timestamp::MIN);
            return write!(out, "{at:.6}").expect("into memory");
        }
    };
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // The Gregorian calendar repeats itself after 400 years, which are counted from a first of March, so that the day that
    // is there or not is the last of a year. The first of March of the year 0 is 719,468 days before 1970.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on have 153 days in five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = match month {
        0..10 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    let year = era * 400 + year + next;
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |range: std::ops::Range<usize>, mut number: u64| {
        for place in text[range].iter_mut().rev() {
            *place = digit(number);
            number /= 10;
        }
    };
    put(0..4, year);
    put(5..7, month);
    put(8..10, day);
    put(11..13, seconds / 3600);
    put(14..16, seconds / 60 % 60);
    put(17..19, seconds % 60);
    put(20..26, u64::from(since.subsec_micros()));
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_written_as_the_calendar_says() {
        let expect = |time: SystemTime| {
            let at = Timestamp::try_from(time).unwrap_or(Timestamp::MIN);
            assert_eq!(timestamp(time), format!("{at:.6}"));
        };
        // Each day of 500 years at another time of the day, and the ends.
        for day in 0..183_000_u64 {
            let micros = day * 86_400_000_000 + (day * 7_919_777_777) % 86_400_000_000;
            expect(UNIX_EPOCH + Duration::from_micros(micros));
        }
        expect(Timestamp::MAX.into());
        expect(UNIX_EPOCH + Duration::from_secs(YEAR_10000));
        expect(UNIX_EPOCH - Duration::from_nanos(1));
        expect(UNIX_EPOCH - Duration::from_secs(86_400 * 365 * 500));
    }

    #[test]
    fn a_number_is_written_in_decimal() {
        for number in [0, 9, 10, 255, 1_000_000, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_text_is_written_as_serde_json_writes_it_whatever_it_holds() {
        let everything: String = ('\0'..'\u{200}').chain(['\u{2028}', '\u{1f512}']).collect();
        let each = everything.chars().map(String::from);
        for text in each.chain([String::new(), "a plain text".to_owned(), everything.clone()]) {
            let mut out = Vec::new();
            push_text(&mut out, &text);
            assert_eq!(out, serde_json::to_vec(&text).unwrap(), "{text:?}");
        }
    }

    #[test]
    fn a_record_is_one_line_whatever_the_context_holds() {
        let context = EncryptionContext::from_pairs([("a\n\"", "\u{0}\u{2028}b")]).unwrap();
        let event = Event {
            time: UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001),
            operation: "Decrypt",
            outcome: "Success",
            principal: "arn:aws:iam::123456789012:root",
            access_key: Some("AKIDEXAMPLE"),
            via: "api",
            account: Some("123456789012"),
            region: Some("us-east-1"),
            key: None,
            destination_key: None,
            alias: None,
            material: Some(2),
            encryption_context: Some(&context),
            destination_encryption_context: None,
            bucket: Some("b"),
            object: Some("k \"\n"),
            resource: None,
            request_id: "r-1",
            source: Some("127.0.0.1".parse().unwrap()),
            count: Some(3),
        };
        let mut line = Vec::new();
        event.write_to(&mut line, Some(7));
        let line = String::from_utf8(line).unwrap();
        assert_eq!(
            line,
            "\"time\":\"2023-11-14T22:13:20.000001Z\",\"operation\":\"Decrypt\",\
             \"outcome\":\"Success\",\"principal\":\"arn:aws:iam::123456789012:root\",\
             \"access_key\":\"AKIDEXAMPLE\",\"via\":\"api\",\
             \"account\":\"123456789012\",\"region\":\"us-east-1\",\"material\":2,\
             \"encryption_context\":{\"a\\n\\\"\":\"\\u0000\u{2028}b\"},\
             \"bucket\":\"b\",\"object\":\"k \\\"\\n\",\
             \"request_id\":\"r-1\",\"source\":\"127.0.0.1\",\"count\":3,\"intent\":7"
        );
    }
}
