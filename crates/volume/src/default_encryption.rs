//! What volumes get that are made without a word about encryption, and how that is written. `FORMAT.md`, "Default
//! encryption".

use std::str::FromStr;

use catalogue::Table;
use keyring::{KeyArgument, KeyArn};
use serde::{Deserialize, Serialize};

/// Where the record stands.
pub(crate) const TABLE: Table = Table::new("volume-default");
/// The first byte of its contents.
const FORMAT: u8 = 1;
/// The key of volumes for which none is named, unless another one was chosen.
pub(crate) const DEFAULT_KEY: &str = "alias/aws/ebs";

/// Whether volumes are encrypted without a word, and under which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefaultEncryption {
    /// Whether a volume is encrypted although its request did not ask for it.
    pub(crate) by_default: bool,
    /// The key of volumes whose request names none; `None`: [`DEFAULT_KEY`].
    pub(crate) key: Option<KeyArn>,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    by_default: bool,
    key: Option<String>,
}

impl DefaultEncryption {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = Body {
            by_default: self.by_default,
            key: self.key.as_ref().map(|key| key.as_str().to_owned()),
        };
        let mut contents = vec![FORMAT];
        serde_json::to_writer(&mut contents, &body).expect("a structure, into memory");
        contents
    }

    /// What the contents of a record say; why they do not read.
    pub(crate) fn decode(contents: &[u8]) -> Result<Self, &'static str> {
        let body = match contents {
            [FORMAT, body @ ..] => body,
            _ => return Err("its format is not known"),
        };
        let body: Body = serde_json::from_slice(body).map_err(|_| "its contents do not read")?;
        let key = match body.key {
            Some(key) => Some(KeyArn::from_str(&key).map_err(|_| "its key is no key's ARN")?),
            None => None,
        };
        Ok(Self {
            by_default: body.by_default,
            key,
        })
    }

    /// The key that is used where none is named.
    pub(crate) fn key_argument(&self) -> KeyArgument {
        match &self.key {
            Some(key) => KeyArgument::from(key),
            // Made on first use.
            None => DEFAULT_KEY.parse().expect("it is an alias's name"),
        }
    }

    /// The name of that key, as EC2 tells it.
    pub(crate) fn key_name(&self) -> String {
        match &self.key {
            Some(key) => key.as_str().to_owned(),
            None => DEFAULT_KEY.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::tests::golden;

    fn default() -> DefaultEncryption {
        let key = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        DefaultEncryption {
            by_default: false,
            key: Some(key.parse().unwrap()),
        }
    }

    #[test]
    fn the_golden_contents_read_and_are_written_the_same() {
        let golden = golden("default.contents", &default().encode());
        assert_eq!(DefaultEncryption::decode(&golden).unwrap(), default());
    }

    #[test]
    fn unknown_formats_fields_and_keys_are_refused() {
        let good = default().encode();
        let text = String::from_utf8(good[1..].to_vec()).unwrap();
        let mut newer = good.clone();
        newer[0] = 2;
        assert_eq!(
            DefaultEncryption::decode(&newer),
            Err("its format is not known")
        );
        assert_eq!(
            DefaultEncryption::decode(b""),
            Err("its format is not known")
        );
        for bad in [
            text.replacen("false", "0", 1),
            text.replacen("\"by_default\":false", "\"by_default\":false,\"more\":1", 1),
            text.replacen("\"by_default\":false,", "", 1),
            text.replacen("arn:aws:kms", "arn:aws:ec2", 1),
            text[..text.len() - 1].to_owned(),
        ] {
            assert_ne!(bad, text);
            let bad = [&[FORMAT], bad.as_bytes()].concat();
            assert!(DefaultEncryption::decode(&bad).is_err());
        }
    }
}
