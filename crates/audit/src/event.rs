//! What a record says.

use std::{io::Write as _, net::IpAddr, time::SystemTime};

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

impl Event<'_> {
    /// Appends the JSON object without its braces to `out`; `intent` is the number of the intent that this
    /// is the outcome of.
    ///
    /// Not through serde: it looks at each byte for what has to be escaped, also in names that are constants, which for
    /// a record of each use of a key takes longer than its digest.
    pub(super) fn write_to(&self, out: &mut Vec<u8>, intent: Option<u64>) {
        let mut fields = Fields { out, any: false };
        fields.text("time", &timestamp(self.time));
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
            fields.plain("material", material);
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
        if let Some(source) = self.source {
            // Digits, dots, colons and letters.
            fields.plain("source", format_args!("\"{source}\""));
        }
        if let Some(count) = self.count {
            fields.plain("count", count);
        }
        if let Some(intent) = intent {
            fields.plain("intent", intent);
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

    /// What is JSON as it prints.
    fn plain(&mut self, name: &'static str, value: impl std::fmt::Display) {
        self.name(name);
        write!(self.out, "{value}").expect("into memory");
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

/// RFC 3339 in UTC with microseconds; a time outside the calendar (before year -9999) is its start.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let at = Timestamp::try_from(time).unwrap_or(Timestamp::MIN);
    format!("{at:.6}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

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
