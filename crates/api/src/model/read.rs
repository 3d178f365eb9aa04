//! Reading a JSON body by a shape.
use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    secret_text::SecretText,
    shape::{Kind, Member, Shape},
};

/// A value that has the type its shape asks for.
pub(crate) enum Value<'a> {
    Null,
    /// One slot for each member of the shape; `None` for one that is not there.
    Structure(Vec<Option<Value<'a>>>),
    List(Vec<Value<'a>>),
    Map(BTreeMap<Cow<'a, str>, Value<'a>>),
    Text(Cow<'a, str>),
    /// A text that is sensitive.
    Secret(SecretText<'a>),
    /// A blob of this many bytes: in base64, of which all but the bits that its last symbol has too many were seen.
    Blob(u64, SecretText<'a>),
    Integer(i64),
    Double(f64),
    Boolean(bool),
    /// A time: no more to be checked of it.
    Sound,
}

/// Reads a body, of which the rest borrows; the error is for the client, and has nothing of the body's values.
pub(super) fn read<'a>(shape: &'static Shape, body: &'a [u8]) -> Result<Value<'a>, String> {
    // An empty body is how some clients write "no parameters".
    let body = match body.trim_ascii() {
        b"" => b"{}",
        body => body,
    };
    if body == b"null" {
        return Err("Unexpected null".to_owned());
    }
    // As text, of which no string is looked through again for what is not UTF-8.
    match std::str::from_utf8(body) {
        Ok(text) => read_all(shape, serde_json::Deserializer::from_str(text)),
        Err(_) => read_all(shape, serde_json::Deserializer::from_slice(body)),
    }
    .map_err(|error| explain(&error))
}

fn read_all<'a, R: serde_json::de::Read<'a>>(
    shape: &'static Shape,
    mut deserializer: serde_json::Deserializer<R>,
) -> serde_json::Result<Value<'a>> {
    let value = shape.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

fn explain(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    if error.is_data() {
        // Ours: `wrong` and the like, with the position behind it.
        let said = error.to_string();
        match said.rsplit_once(" at line ") {
            Some((said, _)) => said.to_owned(),
            None => said,
        }
    } else {
        format!("The request is not JSON at line {line} column {column}")
    }
}

/// A JSON token where another type was to be.
fn wrong<E: Error>(token: &str, shape: &Shape) -> E {
    let wanted = match shape.kind {
        Kind::Structure(_) => return E::custom("Expected structure or null"),
        Kind::List(..) => return E::custom("Expected list or null"),
        Kind::Map { .. } => return E::custom("Expected map or null"),
        Kind::Text { .. } => "a String",
        Kind::Blob(_) => "a Blob",
        Kind::Integer { .. } => "an Integer",
        Kind::Double { .. } => "a Double",
        Kind::Boolean => "a Boolean",
        Kind::Timestamp => "a Timestamp",
    };
    E::custom(format_args!("{token} can not be converted to {wanted}"))
}

fn unexpected_list<E: Error>() -> E {
    E::custom("Start of list found where not expected")
}

fn unexpected_map<E: Error>() -> E {
    E::custom("Start of structure or map found where not expected.")
}

impl<'de> DeserializeSeed<'de> for &'static Shape {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        match self.kind {
            // Not through the visitor: it would get a copy of an escaped text that nobody wipes.
            Kind::Blob(_) => raw(self, deserializer),
            Kind::Text { .. } if self.sensitive => raw(self, deserializer),
            _ => deserializer.deserialize_any(Reader(self)),
        }
    }
}

/// A blob or a sensitive text.
fn raw<'de, D: Deserializer<'de>>(shape: &Shape, deserializer: D) -> Result<Value<'de>, D::Error> {
    let json = <&RawValue>::deserialize(deserializer)?.get();
    match json.as_bytes().first() {
        Some(b'n') => Ok(Value::Null),
        Some(b't') => Err(wrong("TRUE_VALUE", shape)),
        Some(b'f') => Err(wrong("FALSE_VALUE", shape)),
        Some(b'[') => Err(unexpected_list()),
        Some(b'{') => Err(unexpected_map()),
        Some(b'"') => {
            let text = SecretText::parse(json)
                .map_err(|_| D::Error::custom("A string is not well-formed"))?;
            if matches!(shape.kind, Kind::Blob(_)) {
                let len = text
                    .base64_len()
                    .ok_or_else(|| D::Error::custom("A blob is not in base64, or not padded"))?;
                Ok(Value::Blob(len, text))
            } else {
                Ok(Value::Secret(text))
            }
        }
        _ => Err(wrong("NUMBER_VALUE", shape)),
    }
}

struct Reader(&'static Shape);

impl<'de> Visitor<'de> for Reader {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the model's type")
    }

    fn visit_unit<E: Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value<'de>, E> {
        match self.0.kind {
            Kind::Boolean => Ok(Value::Boolean(value)),
            _ if value => Err(wrong("TRUE_VALUE", self.0)),
            _ => Err(wrong("FALSE_VALUE", self.0)),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value<'de>, E> {
        match self.0.kind {
            Kind::Integer { .. } => Ok(Value::Integer(value)),
            #[allow(clippy::cast_precision_loss)] // for bounds, which are small numbers
            _ => self.visit_f64(value as f64),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value<'de>, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            #[allow(clippy::cast_precision_loss)]
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value<'de>, E> {
        match self.0.kind {
            Kind::Double { .. } => Ok(Value::Double(value)),
            Kind::Timestamp => Ok(Value::Sound),
            _ => Err(wrong("NUMBER_VALUE", self.0)),
        }
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        match self.0.kind {
            Kind::Text { .. } => Ok(Value::Text(Cow::Borrowed(text))),
            _ => Err(wrong("STRING_VALUE", self.0)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value<'de>, E> {
        match self.0.kind {
            Kind::Text { .. } => Ok(Value::Text(Cow::Owned(text.to_owned()))),
            _ => Err(wrong("STRING_VALUE", self.0)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        let Kind::List(element, _) = self.0.kind else {
            return Err(unexpected_list());
        };
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(element)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value<'de>, A::Error> {
        match self.0.kind {
            Kind::Structure(members) => structure(members, map),
            Kind::Map { value, .. } => entries(value, map),
            _ => Err(unexpected_map()),
        }
    }
}

fn structure<'de, A: MapAccess<'de>>(
    members: &'static [Member],
    mut map: A,
) -> Result<Value<'de>, A::Error> {
    let mut values: Vec<Option<Value<'de>>> = members.iter().map(|_| None).collect();
    while let Some(Name(name)) = map.next_key()? {
        match members.iter().position(|member| member.name == name) {
            None => {
                map.next_value::<IgnoredAny>()?;
            }
            Some(at) if values[at].is_some() => {
                return Err(A::Error::custom(format_args!(
                    "duplicate member '{}'",
                    members[at].name
                )));
            }
            Some(at) => values[at] = Some(map.next_value_seed(members[at].shape)?),
        }
    }
    Ok(Value::Structure(values))
}

fn entries<'de, A: MapAccess<'de>>(
    shape: &'static Shape,
    mut map: A,
) -> Result<Value<'de>, A::Error> {
    let mut values = BTreeMap::new();
    while let Some(Name(name)) = map.next_key()? {
        let value = map.next_value_seed(shape)?;
        if values.insert(name, value).is_some() {
            return Err(A::Error::custom("duplicate name in a map"));
        }
    }
    Ok(Value::Map(values))
}

/// A name, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Visit)
    }
}
