//! Records as they stand in the store: their contents, sealed and bound to table and id.
//!
//! Opening says which record does not belong where it was found and never returns another one's
//! contents. Beyond that, what a record says must agree with where it stands: an id inside that
//! differs from the row's, or a field out of its range, is damage too. `FORMAT.md` has the fields.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crypto::{
    random::Random,
    record::RecordKey,
    secret::{SecretBytes, SecretVec},
    wrap::BackingKey,
};
use root::StoreId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::KeyringError,
    key::{AliasName, KeyId, KeyState},
    metadata::{RotationKind, Tag, Tier},
    store::{KeyStore, SealedRecord, StoredRecord, Table},
};

/// The one id in the table `header`.
pub(crate) const HEADER_ID: &[u8] = b"store";
/// The first byte of every record's contents.
const FORMAT: u8 = 1;

/// What the store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderRecord {
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) created: Instant,
}

/// A key, without its material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRecord {
    pub(crate) multi_region: bool,
    pub(crate) tier: Tier,
    pub(crate) description: String,
    pub(crate) state: KeyState,
    pub(crate) created: Instant,
    /// There if and only if the state is pending deletion.
    pub(crate) deletion: Option<Instant>,
    pub(crate) tags: Vec<Tag>,
    /// Rotation by the calendar.
    pub(crate) rotation: Option<RotationRecord>,
    /// Every material, number 1 first; never empty, never shorter than it was.
    pub(crate) materials: Vec<MaterialRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotationRecord {
    pub(crate) period_days: u32,
    pub(crate) next: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MaterialRecord {
    pub(crate) created: Instant,
    pub(crate) kind: RotationKind,
}

/// An alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasRecord {
    /// The target's id as it is written in ARNs.
    pub(crate) target: String,
    pub(crate) created: Instant,
    pub(crate) updated: Instant,
}

impl KeyRecord {
    /// The number of the material that seals now.
    pub(crate) fn current(&self) -> u32 {
        u32::try_from(self.materials.len()).expect("checked when opened and when rotated")
    }
}

/// A time in the store: milliseconds since 1970, UTC. Earlier ones are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Instant(u64);

impl Instant {
    pub(crate) fn plus_days(self, days: u32) -> Self {
        Self(self.0.saturating_add(u64::from(days) * 86_400_000))
    }
}

impl From<SystemTime> for Instant {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Instant> for SystemTime {
    fn from(instant: Instant) -> Self {
        // Bounded so that the sum exists: year 9999.
        UNIX_EPOCH + Duration::from_millis(instant.0.min(253_402_300_799_999))
    }
}

/// Seals and opens records.
pub(crate) struct Vault {
    key: RecordKey,
    of: StoreId,
    random: Arc<dyn Random>,
}

impl Vault {
    pub(crate) fn new(key: RecordKey, of: StoreId, random: Arc<dyn Random>) -> Self {
        Self { key, of, random }
    }

    /// The store's id in clear, then the sealed record.
    pub(crate) fn seal_header(&self, header: &HeaderRecord) -> SealedRecord {
        let mut bytes = self.of.as_bytes().to_vec();
        bytes.extend_from_slice(
            self.seal(Table::Header, HEADER_ID, &encode(header))
                .as_bytes(),
        );
        SealedRecord::new(bytes)
    }

    /// Fails with `WrongStore` if the header names another store than ours.
    pub(crate) fn open_header(&self, stored: &StoredRecord) -> Result<HeaderRecord, KeyringError> {
        let (keyring, sealed) = split_header(stored)?;
        if keyring != self.of {
            return Err(KeyringError::WrongStore {
                keyring,
                header: self.of,
            });
        }
        let contents = self.open(Table::Header, &stored.id, sealed)?;
        decode(Table::Header, &stored.id, &contents)
    }

    pub(crate) fn seal_key(&self, id: KeyId, record: &KeyRecord) -> SealedRecord {
        self.seal(Table::Key, id.as_bytes(), &encode(record))
    }

    pub(crate) fn open_key(
        &self,
        stored: &StoredRecord,
    ) -> Result<(KeyId, KeyRecord), KeyringError> {
        let contents = self.open(Table::Key, &stored.id, &stored.sealed)?;
        let record: KeyRecord = decode(Table::Key, &stored.id, &contents)?;
        let bytes = stored.id[..]
            .try_into()
            .map_err(|_| damaged(Table::Key, &stored.id, "its id is not 16 bytes"))?;
        let pending = record.state == KeyState::PendingDeletion;
        if record.materials.is_empty()
            || u32::try_from(record.materials.len()).is_err()
            || pending != record.deletion.is_some()
        {
            return Err(damaged(Table::Key, &stored.id, "it contradicts itself"));
        }
        Ok((KeyId::from_parts(bytes, record.multi_region), record))
    }

    pub(crate) fn seal_material(
        &self,
        key: KeyId,
        number: u32,
        material: &BackingKey,
    ) -> SealedRecord {
        let contents = SecretVec::init_with(33, |out| {
            out[0] = FORMAT;
            out[1..].copy_from_slice(material.secret().expose());
        });
        self.seal(
            Table::Material,
            &material_id(key, number),
            contents.expose(),
        )
    }

    pub(crate) fn open_material(&self, stored: &StoredRecord) -> Result<BackingKey, KeyringError> {
        let contents = self.open(Table::Material, &stored.id, &stored.sealed)?;
        match contents.expose().split_first() {
            Some((&FORMAT, secret)) if secret.len() == 32 => Ok(BackingKey::from_secret(
                SecretBytes::from_slice(secret)
                    .map_err(|_| damaged(Table::Material, &stored.id, "it is not 32 bytes"))?,
            )),
            _ => Err(damaged(
                Table::Material,
                &stored.id,
                "its format is not known",
            )),
        }
    }

    pub(crate) fn seal_alias(&self, name: &AliasName, record: &AliasRecord) -> SealedRecord {
        self.seal(Table::Alias, name.as_str().as_bytes(), &encode(record))
    }

    pub(crate) fn open_alias(
        &self,
        stored: &StoredRecord,
    ) -> Result<(AliasName, KeyId, AliasRecord), KeyringError> {
        let contents = self.open(Table::Alias, &stored.id, &stored.sealed)?;
        let record: AliasRecord = decode(Table::Alias, &stored.id, &contents)?;
        let wrong = |why| move |_| damaged(Table::Alias, &stored.id, why);
        let name = std::str::from_utf8(&stored.id)
            .map_err(|_| damaged(Table::Alias, &stored.id, "its name is not text"))?
            .parse()
            .map_err(wrong("its name is not an alias name"))?;
        let target = record
            .target
            .parse()
            .map_err(wrong("its target is not a key id"))?;
        Ok((name, target, record))
    }

    fn seal(&self, table: Table, id: &[u8], contents: &[u8]) -> SealedRecord {
        SealedRecord::new(
            self.key
                .seal(table.name(), id, contents, self.random.as_ref()),
        )
    }

    fn open(&self, table: Table, id: &[u8], sealed: &[u8]) -> Result<SecretVec, KeyringError> {
        self.key
            .open(table.name(), id, sealed)
            .map_err(|_| damaged(table, id, "it does not authenticate"))
    }
}

/// Which store `store` is a part of; `None` if it is empty. Needs no key.
pub(crate) fn belongs_to(store: &dyn KeyStore) -> Result<Option<StoreId>, KeyringError> {
    match store.get(Table::Header, HEADER_ID)? {
        Some(stored) => Ok(Some(split_header(&stored)?.0)),
        None => {
            for table in Table::ALL {
                if let Some(orphan) = store.scan(table)?.first() {
                    return Err(damaged(table, &orphan.id, "the store has no header"));
                }
            }
            Ok(None)
        }
    }
}

fn split_header(stored: &StoredRecord) -> Result<(StoreId, &[u8]), KeyringError> {
    let (id, sealed) = stored
        .sealed
        .split_first_chunk::<{ StoreId::LEN }>()
        .ok_or_else(|| damaged(Table::Header, &stored.id, "it is cut short"))?;
    Ok((StoreId::from_bytes(*id), sealed))
}

/// The id of a material: the key's 16 bytes and the number, u32 big endian.
pub(crate) fn material_id(key: KeyId, number: u32) -> Vec<u8> {
    let mut id = key.as_bytes().to_vec();
    id.extend_from_slice(&number.to_be_bytes());
    id
}

pub(crate) fn damaged(table: Table, id: &[u8], why: &'static str) -> KeyringError {
    let id = match (table, std::str::from_utf8(id)) {
        (Table::Header | Table::Alias, Ok(name)) => name.to_owned(),
        _ => hex::encode(id),
    };
    KeyringError::Damaged {
        table: table.name(),
        id,
        why,
    }
}

#[cfg(fuzzing)]
pub(crate) fn decode_any(contents: &[u8]) {
    let contents = SecretVec::from_slice(contents);
    let _ = decode::<HeaderRecord>(Table::Header, b"", &contents);
    let _ = decode::<AliasRecord>(Table::Alias, b"", &contents);
    if let Ok(record) = decode::<KeyRecord>(Table::Key, b"", &contents) {
        let again = SecretVec::from_vec(encode(&record));
        assert_eq!(
            decode::<KeyRecord>(Table::Key, b"", &again).ok(),
            Some(record)
        );
    }
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    let mut contents = vec![FORMAT];
    serde_json::to_writer(&mut contents, record).expect("plain strings and numbers, into memory");
    contents
}

fn decode<T: DeserializeOwned>(
    table: Table,
    id: &[u8],
    contents: &SecretVec,
) -> Result<T, KeyringError> {
    match contents.expose().split_first() {
        Some((&FORMAT, json)) => {
            serde_json::from_slice(json).map_err(|_| damaged(table, id, "its contents do not read"))
        }
        _ => Err(damaged(table, id, "its format is not known")),
    }
}

#[cfg(test)]
mod tests {
    use crypto::{random::SeededRandom, store_key::GenerationKey};

    use super::*;

    const GOLDEN: &str = include_str!("../tests/golden/records.json");

    fn vault() -> Vault {
        let key = GenerationKey::from_secret(SecretBytes::init_with(|key| {
            for (byte, value) in key.iter_mut().zip(0..) {
                *byte = value;
            }
        }));
        let of = StoreId::from_bytes(0xf7ab_becf_598f_eb72_1a76_b1f7_c6cd_ba6d_u128.to_be_bytes());
        Vault::new(
            key.record_key("keyring"),
            of,
            Arc::new(SeededRandom::new(7)),
        )
    }

    fn id() -> KeyId {
        "1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap()
    }

    fn header() -> HeaderRecord {
        HeaderRecord {
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            created: Instant(1_700_000_000_000),
        }
    }

    fn key() -> KeyRecord {
        KeyRecord {
            multi_region: false,
            tier: Tier::Managed(crate::Service::Ebs),
            description: "of volumes \u{e4}".to_owned(),
            state: KeyState::PendingDeletion,
            created: Instant(1_700_000_000_000),
            deletion: Some(Instant(1_702_592_000_000)),
            tags: vec![Tag {
                key: "k".to_owned(),
                value: "v".to_owned(),
            }],
            rotation: Some(RotationRecord {
                period_days: 365,
                next: Instant(1_731_536_000_000),
            }),
            materials: [RotationKind::Creation, RotationKind::OnDemand]
                .map(|kind| MaterialRecord {
                    created: Instant(1_700_000_000_000),
                    kind,
                })
                .to_vec(),
        }
    }

    fn alias() -> AliasRecord {
        AliasRecord {
            target: id().to_string(),
            created: Instant(1_700_000_000_000),
            updated: Instant(1_700_000_000_001),
        }
    }

    fn golden(table: Table) -> StoredRecord {
        let golden: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        let field = |name: &str| {
            let text = golden[table.name()][name].as_str().unwrap();
            hex::decode(text).unwrap()
        };
        StoredRecord {
            id: field("id"),
            version: 1,
            sealed: field("sealed"),
        }
    }

    #[test]
    fn the_golden_records_open_to_what_was_sealed() {
        let vault = vault();
        assert_eq!(vault.open_header(&golden(Table::Header)).unwrap(), header());
        assert_eq!(vault.open_key(&golden(Table::Key)).unwrap(), (id(), key()));
        let opened = vault.open_material(&golden(Table::Material)).unwrap();
        assert_eq!(opened.secret().expose(), &[0xa5; 32]);
        let name = "alias/app/main".parse().unwrap();
        assert_eq!(
            vault.open_alias(&golden(Table::Alias)).unwrap(),
            (name, id(), alias())
        );
        assert_eq!(golden(Table::Material).id, material_id(id(), 2));
    }

    #[test]
    fn the_contents_are_spelled_as_the_format_says() {
        let text = |contents: Vec<u8>| {
            assert_eq!(contents[0], 1);
            String::from_utf8(contents[1..].to_vec()).unwrap()
        };
        assert_eq!(
            text(encode(&key())),
            "{\"multi_region\":false,\"tier\":{\"Managed\":\"Ebs\"},\
             \"description\":\"of volumes \u{e4}\",\"state\":\"PendingDeletion\",\
             \"created\":1700000000000,\"deletion\":1702592000000,\
             \"tags\":[{\"key\":\"k\",\"value\":\"v\"}],\
             \"rotation\":{\"period_days\":365,\"next\":1731536000000},\
             \"materials\":[{\"created\":1700000000000,\"kind\":\"Creation\"},\
             {\"created\":1700000000000,\"kind\":\"OnDemand\"}]}"
        );
        assert_eq!(
            text(encode(&header())),
            "{\"account\":\"123456789012\",\"region\":\"us-east-1\",\"created\":1700000000000}"
        );
    }

    #[test]
    fn a_record_opens_only_in_its_table_and_under_its_id() {
        let vault = vault();
        let sealed = vault.seal_key(id(), &key()).as_bytes().to_vec();
        let at = |id: &[u8]| StoredRecord {
            id: id.to_vec(),
            version: 1,
            sealed: sealed.clone(),
        };
        assert!(vault.open_key(&at(id().as_bytes())).is_ok());
        assert!(vault.open_key(&at(&[0; 16])).is_err());
        assert!(vault.open_alias(&at(id().as_bytes())).is_err());
        assert!(vault.open_material(&at(id().as_bytes())).is_err());
    }

    #[test]
    fn a_record_that_contradicts_itself_or_says_more_than_we_know_is_damage() {
        let vault = vault();
        let open = |contents: &[u8]| {
            let sealed = vault.seal(Table::Key, id().as_bytes(), contents);
            let stored = StoredRecord {
                id: id().as_bytes().to_vec(),
                version: 1,
                sealed: sealed.as_bytes().to_vec(),
            };
            vault.open_key(&stored).is_ok()
        };
        let whole = encode(&key());
        assert!(open(&whole));
        let mut undated = key();
        undated.deletion = None;
        let mut empty = key();
        empty.materials.clear();
        let mut newer = whole.clone();
        newer[0] = 2;
        let more = String::from_utf8(whole.clone())
            .unwrap()
            .replacen('{', "{\"x\":1,", 1);
        for bad in [
            encode(&undated),
            encode(&empty),
            newer,
            more.into_bytes(),
            Vec::new(),
            whole[..whole.len() - 1].to_vec(),
        ] {
            assert!(!open(&bad));
        }
    }
}
