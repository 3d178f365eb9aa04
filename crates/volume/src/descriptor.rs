//! A volume's descriptor: what it is, sealed, in its folder. `FORMAT.md`, "Descriptor".
//!
//! Sealed under a record key from the root key and bound to the volume's id. So whoever has the disk can neither read
//! tags, nor give one volume another's descriptor, nor say of a sealed volume that it is a plain one. An older
//! descriptor of the same volume put back is not noticed; it names the same data key and the same protection, since
//! neither changes in a volume's life.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use crypto::{random::Random, record::RecordKey};
use host::{Disk, private};
use keyring::KeyArn;
use serde::{Deserialize, Serialize};

use crate::{
    Tag, VolumeError, VolumeId, VolumeSize, VolumeType,
    engine::{BASE_GENERATION, BASE_LAYER},
};

/// Name of the file in a volume's folder.
const NAME: &str = "volume.json";
/// Version of the format.
const FORMAT: u32 = 1;
/// The table that descriptors are bound to.
const TABLE: &str = "volume";
/// Longest file that is read. Fifty tags of the longest kind are well below.
const LEN_MAX: u64 = 1 << 20;

/// What a volume is, for its life; tags alone change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) id: VolumeId,
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

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: u32,
    id: String,
    /// The sealed [`Body`], in base64.
    sealed: String,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    id: String,
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
    /// The bytes of the file.
    pub(crate) fn seal(&self, records: &RecordKey, random: &dyn Random) -> Vec<u8> {
        let body = Body {
            id: self.id.to_string(),
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
        };
        let body = serde_json::to_vec(&body).expect("strings and numbers become JSON");
        let envelope = Envelope {
            format: FORMAT,
            id: self.id.to_string(),
            sealed: BASE64_STANDARD.encode(records.seal(TABLE, &self.id.to_bytes(), &body, random)),
        };
        let mut file = serde_json::to_vec_pretty(&envelope).expect("strings become JSON");
        file.push(b'\n');
        file
    }

    /// Opens the descriptor of volume `id`.
    pub(crate) fn open(
        file: &[u8],
        id: VolumeId,
        records: &RecordKey,
    ) -> Result<Self, &'static str> {
        let envelope: Envelope =
            serde_json::from_slice(file).map_err(|_| "not a volume descriptor")?;
        if envelope.format != FORMAT {
            return Err("a format version that this program does not know");
        }
        if envelope.id != id.to_string() {
            return Err("it is another volume's");
        }
        let sealed = BASE64_STANDARD
            .decode(&envelope.sealed)
            .map_err(|_| "not a volume descriptor")?;
        let body = records
            .open(TABLE, &id.to_bytes(), &sealed)
            .map_err(|_| "it is not authentic, or another volume's")?;
        Self::open_body(body.expose(), id)
    }

    /// What was sealed, so that it is our own.
    pub(crate) fn open_body(body: &[u8], id: VolumeId) -> Result<Self, &'static str> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|_| "it has fields that this program does not know")?;
        if body.id != id.to_string() {
            return Err("it is another volume's");
        }
        if body.layers != [base_layer()] {
            return Err("it has layers that this program does not know");
        }
        Ok(Self {
            id,
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

    /// Writes the descriptor into a volume's folder, durably: the old one or the new one, whole.
    pub(crate) fn write(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        records: &RecordKey,
        random: &dyn Random,
    ) -> io::Result<()> {
        private::replace(disk, &dir.join(NAME), &self.seal(records, random))
    }

    /// Reads the descriptor in a volume's folder.
    pub(crate) fn read(
        disk: &dyn Disk,
        dir: &Path,
        id: VolumeId,
        records: &RecordKey,
    ) -> Result<Self, VolumeError> {
        let path = dir.join(NAME);
        let file = private::read(disk, &path, LEN_MAX).map_err(|error| VolumeError::Io {
            what: "reading a volume's descriptor",
            source: error.into(),
        })?;
        Self::open(&file, id, records).map_err(|why| VolumeError::Damaged {
            file: path,
            at: 0,
            why,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crypto::{random::SeededRandom, secret::SecretBytes, store_key::GenerationKey};

    pub(crate) fn records() -> RecordKey {
        GenerationKey::from_secret(SecretBytes::init_with(|key| key.fill(1)))
            .record_key("volume-descriptors")
    }

    fn id() -> VolumeId {
        "vol-0123456789abcdef0".parse().unwrap()
    }

    fn descriptor() -> Descriptor {
        Descriptor {
            id: id(),
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
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
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
    fn a_descriptor_reads_back_as_it_was_written() {
        for protection in [descriptor().protection, Protected::Unencrypted] {
            let descriptor = Descriptor {
                protection,
                ..descriptor()
            };
            let file = descriptor.seal(&records(), &SeededRandom::new(1));
            assert_eq!(
                Descriptor::open(&file, id(), &records()).unwrap(),
                descriptor
            );
            assert!(!file.windows(4).any(|bytes| bytes == b"data"));
        }
    }

    #[test]
    fn the_golden_descriptor_reads_and_is_written_the_same() {
        let golden = golden(
            "volume.json",
            &descriptor().seal(&records(), &SeededRandom::new(1)),
        );
        assert_eq!(
            Descriptor::open(&golden, id(), &records()).unwrap(),
            descriptor()
        );
    }

    #[test]
    fn a_descriptor_does_not_pass_for_another_volumes_or_under_another_store_key() {
        let file = descriptor().seal(&records(), &SeededRandom::new(1));
        let other: VolumeId = "vol-0123456789abcdef1".parse().unwrap();
        assert!(Descriptor::open(&file, other, &records()).is_err());
        let renamed = String::from_utf8(file.clone())
            .unwrap()
            .replace(&id().to_string(), &other.to_string());
        assert!(Descriptor::open(renamed.as_bytes(), other, &records()).is_err());
        assert!(Descriptor::open(renamed.as_bytes(), id(), &records()).is_err());
        let other_root = GenerationKey::from_secret(SecretBytes::init_with(|key| key.fill(2)))
            .record_key("volume-descriptors");
        assert!(Descriptor::open(&file, id(), &other_root).is_err());
    }

    #[test]
    fn a_forged_descriptor_that_says_unencrypted_is_refused() {
        let forged = serde_json::json!({
            "format": 1,
            "id": id().to_string(),
            "sealed": BASE64_STANDARD.encode(br#"{"protection":{"unencrypted":{}}}"#),
        });
        let forged = serde_json::to_vec(&forged).unwrap();
        assert!(Descriptor::open(&forged, id(), &records()).is_err());
        assert!(Descriptor::open(b"", id(), &records()).is_err());
    }
}
