//! What a record says.

use std::{io::Write as _, net::IpAddr, time::SystemTime};

use crypto::context::EncryptionContext;
use jiff::Timestamp;
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeStruct},
};

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
    /// The id in the response.
    pub request_id: &'a str,
    /// The peer.
    pub source: Option<IpAddr>,
}

impl Event<'_> {
    /// Appends the JSON object without its braces to `out`; `intent` is the number of the intent that this
    /// is the outcome of.
    pub(super) fn write_to(&self, out: &mut Vec<u8>, intent: Option<u64>) {
        let start = out.len();
        serde_json::to_writer(&mut *out, self).expect("plain strings and numbers, into memory");
        debug_assert_eq!(out.get(start), Some(&b'{'));
        out.pop();
        out.remove(start);
        if let Some(intent) = intent {
            write!(out, ",\"intent\":{intent}").expect("into memory");
        }
    }
}

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn optional<T: Serialize, M: SerializeStruct>(
            map: &mut M,
            name: &'static str,
            value: Option<T>,
        ) -> Result<(), M::Error> {
            match value {
                Some(value) => map.serialize_field(name, &value),
                None => map.skip_field(name),
            }
        }
        let mut map = serializer.serialize_struct("Event", 14)?;
        map.serialize_field("time", &timestamp(self.time))?;
        map.serialize_field("operation", self.operation)?;
        map.serialize_field("outcome", self.outcome)?;
        map.serialize_field("principal", self.principal)?;
        optional(&mut map, "access_key", self.access_key)?;
        map.serialize_field("via", self.via)?;
        optional(&mut map, "key", self.key)?;
        optional(&mut map, "destination_key", self.destination_key)?;
        optional(&mut map, "alias", self.alias)?;
        optional(&mut map, "material", self.material)?;
        optional(
            &mut map,
            "encryption_context",
            self.encryption_context.map(Pairs),
        )?;
        optional(
            &mut map,
            "destination_encryption_context",
            self.destination_encryption_context.map(Pairs),
        )?;
        map.serialize_field("request_id", self.request_id)?;
        optional(&mut map, "source", self.source)?;
        map.end()
    }
}

/// RFC 3339 in UTC with microseconds; a time outside the calendar (before year -9999) is its start.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let at = Timestamp::try_from(time).unwrap_or(Timestamp::MIN);
    format!("{at:.6}")
}

struct Pairs<'a>(&'a EncryptionContext);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

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
            key: None,
            destination_key: None,
            alias: None,
            material: Some(2),
            encryption_context: Some(&context),
            destination_encryption_context: None,
            request_id: "r-1",
            source: Some("127.0.0.1".parse().unwrap()),
        };
        let mut line = Vec::new();
        event.write_to(&mut line, Some(7));
        let line = String::from_utf8(line).unwrap();
        assert_eq!(
            line,
            "\"time\":\"2023-11-14T22:13:20.000001Z\",\"operation\":\"Decrypt\",\
             \"outcome\":\"Success\",\"principal\":\"arn:aws:iam::123456789012:root\",\
             \"access_key\":\"AKIDEXAMPLE\",\"via\":\"api\",\"material\":2,\
             \"encryption_context\":{\"a\\n\\\"\":\"\\u0000\u{2028}b\"},\
             \"request_id\":\"r-1\",\"source\":\"127.0.0.1\",\"intent\":7"
        );
    }
}
