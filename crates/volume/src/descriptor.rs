//! What a volume is, and the contents of its records: of its row in the catalogue and of the copy in its folder.
//! `FORMAT.md`, "Contents".

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use keyring::KeyArn;
use serde::{Deserialize, Serialize};

use crate::{
    Tag, VolumeId, VolumeSize, VolumeType,
    engine::{BASE_GENERATION, BASE_LAYER},
};

/// The first byte of a record's contents.
const FORMAT: u8 = 1;

/// What a volume is, for its life; tags alone change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) id: VolumeId,
    /// Counts the changes, from 1. Sealing it again is none.
    pub(crate) revision: u64,
    pub(crate) size: VolumeSize,
    pub(crate) protection: Protected,
    pub(crate) volume_type: VolumeType,
    pub(crate) availability_zone: String,
    pub(crate) tags: Vec<Tag>,
    pub(crate) created: SystemTime,
    pub(crate) request: Option<Request>,
}

/// How a volume is protected, and what it takes to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Protected {
    Sealed {
        key: KeyArn,
        /// The data key, wrapped under the encryption context `aws:ebs:id` = the volume's id.
        wrapped_data_key: Vec<u8>,
    },
    Unencrypted,
}

/// The request that made a volume, to answer it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) client_token: String,
    /// Of the parameters.
    pub(crate) sha256: String,
}

/// What the catalogue says of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Row {
    Present(Box<Descriptor>),
    /// It is deleted, and its folder may not be gone yet. Nothing is left here that opens it.
    Deleting,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Contents {
    Present(Box<Body>),
    Deleting {},
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    id: String,
    revision: u64,
    size_bytes: u64,
    protection: BodyProtection,
    volume_type: String,
    availability_zone: String,
    tags: BTreeMap<String, String>,
    created_ms: u64,
    request: Option<Request>,
    layers: Vec<Layer>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum BodyProtection {
    Sealed {
        key: String,
        wrapped_data_key: String,
    },
    Unencrypted {},
}

/// A layer; one a volume, for now.
#[derive(Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Layer {
    id: u32,
    below: Option<u32>,
    generation: u32,
}

fn base_layer() -> Layer {
    Layer {
        id: BASE_LAYER.0,
        below: None,
        generation: BASE_GENERATION.0,
    }
}

impl Descriptor {
    fn body(&self) -> Body {
        Body {
            id: self.id.to_string(),
            revision: self.revision,
            size_bytes: self.size.bytes(),
            protection: match &self.protection {
                Protected::Sealed {
                    key,
                    wrapped_data_key,
                } => BodyProtection::Sealed {
                    key: key.as_str().to_owned(),
                    wrapped_data_key: BASE64_STANDARD.encode(wrapped_data_key),
                },
                Protected::Unencrypted => BodyProtection::Unencrypted {},
            },
            volume_type: self.volume_type.to_string(),
            availability_zone: self.availability_zone.clone(),
            tags: self
                .tags
                .iter()
                .map(|tag| (tag.key.clone(), tag.value.clone()))
                .collect(),
            created_ms: self
                .created
                .duration_since(SystemTime::UNIX_EPOCH)
                .ok()
                .and_then(|since| u64::try_from(since.as_millis()).ok())
                .unwrap_or(0),
            request: self.request.clone(),
            layers: vec![base_layer()],
        }
    }

    fn from_body(body: Body, id: VolumeId) -> Result<Self, &'static str> {
        if body.id != id.to_string() {
            return Err("it is another volume's");
        }
        if body.revision == 0 {
            return Err("its revision is none");
        }
        if body.layers != [base_layer()] {
            return Err("it has layers that this program does not know");
        }
        Ok(Self {
            id,
            revision: body.revision,
            size: VolumeSize::from_bytes(body.size_bytes).map_err(|_| "its size is impossible")?,
            protection: match body.protection {
                BodyProtection::Sealed {
                    key,
                    wrapped_data_key,
                } => Protected::Sealed {
                    key: key.parse().map_err(|_| "it names no key")?,
                    wrapped_data_key: BASE64_STANDARD
                        .decode(wrapped_data_key)
                        .map_err(|_| "its data key is not base64")?,
                },
                BodyProtection::Unencrypted {} => Protected::Unencrypted,
            },
            volume_type: body
                .volume_type
                .parse()
                .map_err(|_| "it is of an unknown type")?,
            availability_zone: body.availability_zone,
            tags: body
                .tags
                .into_iter()
                .map(|(key, value)| Tag { key, value })
                .collect(),
            created: SystemTime::UNIX_EPOCH + Duration::from_millis(body.created_ms),
            request: body.request,
        })
    }
}

impl Row {
    /// Writes a record's contents.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let contents = match self {
            Self::Present(descriptor) => Contents::Present(Box::new(descriptor.body())),
            Self::Deleting => Contents::Deleting {},
        };
        let mut bytes = vec![FORMAT];
        serde_json::to_writer(&mut bytes, &contents).expect("strings and numbers, into memory");
        bytes
    }

    /// Reads the contents of a record of volume `id`.
    pub(crate) fn decode(contents: &[u8], id: VolumeId) -> Result<Self, &'static str> {
        let json = match contents.split_first() {
            Some((&FORMAT, json)) => json,
            _ => return Err("its format is not known"),
        };
        match serde_json::from_slice(json).map_err(|_| "it does not read")? {
            Contents::Present(body) => Descriptor::from_body(*body, id)
                .map(|descriptor| Self::Present(Box::new(descriptor))),
            Contents::Deleting {} => Ok(Self::Deleting),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn id() -> VolumeId {
        "vol-0123456789abcdef0".parse().unwrap()
    }

    pub(crate) fn descriptor() -> Descriptor {
        Descriptor {
            id: id(),
            revision: 3,
            size: VolumeSize::from_gib(8).unwrap(),
            protection: Protected::Sealed {
                key: "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
                    .parse()
                    .unwrap(),
                wrapped_data_key: vec![1, 2, 3],
            },
            volume_type: VolumeType::Gp3,
            availability_zone: "us-east-1a".to_owned(),
            tags: vec![Tag::new("Name", "data").unwrap()],
            created: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            request: Some(Request {
                client_token: "token".to_owned(),
                sha256: "00".to_owned(),
            }),
        }
    }

    /// The golden file of that name, which `written` must equal. `BLESS=1` writes it anew: only when a format changes on
    /// purpose, with a new version.
    pub(crate) fn golden(name: &str, written: &[u8]) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("golden")
            .join(name);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, written).unwrap();
        }
        let golden = std::fs::read(&path).unwrap();
        assert!(golden == written, "the format of {name} has changed");
        golden
    }

    #[test]
    fn contents_read_back_as_they_were_written() {
        for protection in [descriptor().protection, Protected::Unencrypted] {
            let row = Row::Present(Box::new(Descriptor {
                protection,
                ..descriptor()
            }));
            assert_eq!(Row::decode(&row.encode(), id()).unwrap(), row);
        }
        let deleting = Row::Deleting.encode();
        assert_eq!(Row::decode(&deleting, id()).unwrap(), Row::Deleting);
    }

    #[test]
    fn the_golden_contents_read_and_are_written_the_same() {
        let row = Row::Present(Box::new(descriptor()));
        let golden = golden("volume.contents", &row.encode());
        assert_eq!(Row::decode(&golden, id()).unwrap(), row);
    }

    #[test]
    fn contents_of_another_volume_and_unknown_ones_are_refused() {
        let good = Row::Present(Box::new(descriptor())).encode();
        let other: VolumeId = "vol-0123456789abcdef1".parse().unwrap();
        assert!(Row::decode(&good, other).is_err());
        let mut newer = good.clone();
        newer[0] = 2;
        assert_eq!(Row::decode(&newer, id()), Err("its format is not known"));
        assert_eq!(Row::decode(b"", id()), Err("its format is not known"));
        let text = String::from_utf8(good[1..].to_vec()).unwrap();
        for bad in [
            text.replacen("\"revision\":3", "\"revision\":0", 1),
            text.replacen("\"revision\":3", "\"revision\":3,\"more\":1", 1),
            text.replacen("\"below\":null", "\"below\":7", 1),
            text.replacen("\"revision\":3,", "", 1),
            text[..text.len() - 1].to_owned(),
        ] {
            assert_ne!(bad, text);
            let bad = [&[FORMAT], bad.as_bytes()].concat();
            assert!(Row::decode(&bad, id()).is_err());
        }
    }
}
