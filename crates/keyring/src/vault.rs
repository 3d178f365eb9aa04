//! Records as they stand in the catalogue: their contents, sealed for their place and version.
//!
//! Opening says which record does not belong where it was found and never returns another one's
//! contents. Beyond that, what a record says must agree with where it stands: a field out of its
//! range is damage too. `FORMAT.md` has the fields.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use catalogue::{Expect, Key, Record, Scope, SealedRecord, Table};
use crypto::{random::Random, secret::SecretVec};
use root::{RecordKey, Sealing, StoreKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::KeyringError,
    key::{AliasName, KeyId},
    key_state::KeyState,
    metadata::{RotationKind, Tag, Tier},
    spec::{KeyOrigin, KeySpec, KeyUsage},
};

/// A key's metadata; id: the key's 16 bytes.
pub(crate) const KEYS: Table = Table::new("key");
/// One version of a key's material; id: the key's 16 bytes and the number, u32 big endian.
pub(crate) const MATERIALS: Table = Table::new("material");
/// An alias; id: its name in UTF-8.
pub(crate) const ALIASES: Table = Table::new("alias");
/// All of them.
pub(crate) const TABLES: [Table; 3] = [KEYS, MATERIALS, ALIASES];
/// The first byte of every record's contents: which of the layouts in `FORMAT.md` follows.
const FORMAT: u8 = 1;

/// A key, without its material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRecord {
    pub(crate) spec: KeySpec,
    pub(crate) usage: KeyUsage,
    pub(crate) origin: KeyOrigin,
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
    scope: Scope,
    keys: RecordKey,
    materials: RecordKey,
    aliases: RecordKey,
    random: Arc<dyn Random>,
}

/// The right to seal records of each table, held until the fate of their commit is known: a rotation of the store key
/// waits for it, or would miss what was sealed before and committed behind it.
pub(crate) struct Seals {
    keys: Sealing,
    materials: Sealing,
    aliases: Sealing,
}

impl Vault {
    pub(crate) fn new(store_key: &StoreKey, scope: Scope, random: Arc<dyn Random>) -> Self {
        Self {
            scope,
            keys: store_key.table(KEYS.name()),
            materials: store_key.table(MATERIALS.name()),
            aliases: store_key.table(ALIASES.name()),
            random,
        }
    }

    /// Whose keys these are.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn seals(&self) -> Seals {
        Seals {
            keys: self.keys.sealing(),
            materials: self.materials.sealing(),
            aliases: self.aliases.sealing(),
        }
    }

    /// Where a record of ours stands.
    pub(crate) fn at(&self, id: impl Into<Vec<u8>>) -> Key {
        Key::new(self.scope.clone(), id)
    }

    pub(crate) fn seal_key(
        &self,
        seals: &Seals,
        id: KeyId,
        version: u64,
        record: &KeyRecord,
    ) -> SealedRecord {
        let place = self.at(*id.as_bytes());
        let place = place.place(KEYS, version);
        let random = self.random.as_ref();
        seals.keys.seal(&place, &encode(record), random)
    }

    pub(crate) fn open_key(&self, stored: &Record) -> Result<(KeyId, KeyRecord), KeyringError> {
        let id = &stored.key.id;
        let contents = open(&self.keys, KEYS, stored)?;
        let record: KeyRecord = decode(KEYS, id, &contents)?;
        let bytes = id[..]
            .try_into()
            .map_err(|_| damaged(KEYS, id, "its id is not 16 bytes"))?;
        let pending = record.state == KeyState::PendingDeletion;
        if record.materials.is_empty()
            || u32::try_from(record.materials.len()).is_err()
            || pending != record.deletion.is_some()
        {
            return Err(damaged(KEYS, id, "it contradicts itself"));
        }
        Ok((KeyId::from_parts(bytes, record.multi_region), record))
    }

    /// Seals new material, in the form its key's spec has.
    pub(crate) fn seal_material(
        &self,
        seals: &Seals,
        key: KeyId,
        number: u32,
        material: &SecretVec,
    ) -> SealedRecord {
        let contents = SecretVec::init_with(1 + material.len(), |out| {
            out[0] = FORMAT;
            out[1..].copy_from_slice(material.expose());
        });
        let place = self.at(material_id(key, number));
        // A material is never replaced, only sealed again.
        let place = place.place(MATERIALS, Expect::Absent.next_version());
        let random = self.random.as_ref();
        seals.materials.seal(&place, contents.expose(), random)
    }

    /// Opens material, in the form its key's spec has.
    pub(crate) fn open_material(&self, stored: &Record) -> Result<SecretVec, KeyringError> {
        let contents = open(&self.materials, MATERIALS, stored)?;
        match contents.expose().split_first() {
            Some((&FORMAT, material)) => Ok(SecretVec::from_slice(material)),
            _ => Err(damaged(
                MATERIALS,
                &stored.key.id,
                "its format is not known",
            )),
        }
    }

    pub(crate) fn seal_alias(
        &self,
        seals: &Seals,
        name: &AliasName,
        version: u64,
        record: &AliasRecord,
    ) -> SealedRecord {
        let place = self.at(name.as_str());
        let place = place.place(ALIASES, version);
        let random = self.random.as_ref();
        seals.aliases.seal(&place, &encode(record), random)
    }

    pub(crate) fn open_alias(
        &self,
        stored: &Record,
    ) -> Result<(AliasName, KeyId, AliasRecord), KeyringError> {
        let id = &stored.key.id;
        let contents = open(&self.aliases, ALIASES, stored)?;
        let record: AliasRecord = decode(ALIASES, id, &contents)?;
        let wrong = |why| move |_| damaged(ALIASES, id, why);
        let name = std::str::from_utf8(id)
            .map_err(|_| damaged(ALIASES, id, "its name is not text"))?
            .parse()
            .map_err(wrong("its name is not an alias name"))?;
        let target = record
            .target
            .parse()
            .map_err(wrong("its target is not a key id"))?;
        Ok((name, target, record))
    }
}

fn open(key: &RecordKey, table: Table, stored: &Record) -> Result<SecretVec, KeyringError> {
    key.open(&stored.place(table), &stored.sealed)
        .map_err(|_| damaged(table, &stored.key.id, "it does not authenticate"))
}

/// The id of a material: the key's 16 bytes and the number, u32 big endian.
pub(crate) fn material_id(key: KeyId, number: u32) -> Vec<u8> {
    let mut id = key.as_bytes().to_vec();
    id.extend_from_slice(&number.to_be_bytes());
    id
}

pub(crate) fn damaged(table: Table, id: &[u8], why: &'static str) -> KeyringError {
    let id = match std::str::from_utf8(id) {
        Ok(name) if table == ALIASES => name.to_owned(),
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
    let _ = decode::<AliasRecord>(ALIASES, b"", &contents);
    if let Ok(record) = decode::<KeyRecord>(KEYS, b"", &contents) {
        let again = SecretVec::from_vec(encode(&record));
        assert_eq!(decode::<KeyRecord>(KEYS, b"", &again).ok(), Some(record));
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
    use crypto::random::SeededRandom;
    use host::disk::sim::SimDisk;

    use super::*;

    const GOLDEN: &str = include_str!("../tests/golden/records.json");

    /// Everything in it is drawn from the seed, the store key too.
    async fn vault() -> Vault {
        let (disk, random) = (Arc::new(SimDisk::new(1)), Arc::new(SeededRandom::new(7)));
        let provider = root::FileProvider::new("/root.key", disk.clone(), random.clone());
        let options = root::Options {
            disk,
            dir: "/".into(),
            provider: Arc::new(provider),
            random: random.clone(),
            may_make: true,
        };
        let store_key = StoreKey::open(options).await.unwrap();
        let scope = Scope {
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
        };
        Vault::new(&store_key, scope, random)
    }

    fn id() -> KeyId {
        "1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap()
    }

    fn key() -> KeyRecord {
        KeyRecord {
            spec: KeySpec::SymmetricDefault,
            usage: KeyUsage::EncryptDecrypt,
            origin: KeyOrigin::AwsKms,
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

    fn material() -> SecretVec {
        SecretVec::from_slice(&[0xa5; 32])
    }

    fn name() -> AliasName {
        "alias/app/main".parse().unwrap()
    }

    fn record(key: Key, version: u64, sealed: &SealedRecord) -> Record {
        Record {
            key,
            version,
            sealed: sealed.as_bytes().to_vec(),
        }
    }

    /// One of each, as they were sealed under the store key that [`vault`] draws.
    fn sealed(vault: &Vault) -> [(Table, Record); 3] {
        let seals = vault.seals();
        let key = vault.seal_key(&seals, id(), 3, &key());
        let material = vault.seal_material(&seals, id(), 2, &material());
        let alias = vault.seal_alias(&seals, &name(), 2, &alias());
        [
            (KEYS, record(vault.at(*id().as_bytes()), 3, &key)),
            (
                MATERIALS,
                record(vault.at(material_id(id(), 2)), 1, &material),
            ),
            (ALIASES, record(vault.at(name().as_str()), 2, &alias)),
        ]
    }

    fn golden(vault: &Vault, table: Table) -> Record {
        let golden: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        let golden = &golden[table.name()];
        let field = |name: &str| hex::decode(golden[name].as_str().unwrap()).unwrap();
        Record {
            key: vault.at(field("id")),
            version: golden["version"].as_u64().unwrap(),
            sealed: field("sealed"),
        }
    }

    #[tokio::test]
    async fn the_golden_records_open_to_what_was_sealed() {
        let vault = vault().await;
        let stored = golden(&vault, KEYS);
        assert_eq!(vault.open_key(&stored).unwrap(), (id(), key()));
        let stored = golden(&vault, MATERIALS);
        let opened = vault.open_material(&stored).unwrap();
        assert_eq!(opened.expose(), &[0xa5; 32]);
        assert_eq!(stored.key.id, material_id(id(), 2));
        let stored = golden(&vault, ALIASES);
        assert_eq!(vault.open_alias(&stored).unwrap(), (name(), id(), alias()));
    }

    #[tokio::test]
    async fn the_golden_records_are_written_the_same() {
        let vault = vault().await;
        for (table, record) in sealed(&vault) {
            let golden = golden(&vault, table);
            assert_eq!(record, golden, "{table}: {}", hex::encode(&record.sealed));
        }
    }

    #[test]
    fn the_contents_are_spelled_as_the_format_says() {
        let text = |contents: Vec<u8>| {
            assert_eq!(contents[0], 1);
            String::from_utf8(contents[1..].to_vec()).unwrap()
        };
        assert_eq!(
            text(encode(&key())),
            "{\"spec\":\"SYMMETRIC_DEFAULT\",\"usage\":\"ENCRYPT_DECRYPT\",\
             \"origin\":\"AWS_KMS\",\"multi_region\":false,\"tier\":{\"Managed\":\"Ebs\"},\
             \"description\":\"of volumes \u{e4}\",\"state\":\"PendingDeletion\",\
             \"created\":1700000000000,\"deletion\":1702592000000,\
             \"tags\":[{\"key\":\"k\",\"value\":\"v\"}],\
             \"rotation\":{\"period_days\":365,\"next\":1731536000000},\
             \"materials\":[{\"created\":1700000000000,\"kind\":\"Creation\"},\
             {\"created\":1700000000000,\"kind\":\"OnDemand\"}]}"
        );
        assert_eq!(
            text(encode(&alias())),
            "{\"target\":\"1234abcd-12ab-34cd-56ef-1234567890ab\",\
             \"created\":1700000000000,\"updated\":1700000000001}"
        );
    }

    #[tokio::test]
    async fn a_record_opens_only_in_its_table_under_its_id_and_in_its_version() {
        let vault = vault().await;
        let [(_, stored), ..] = sealed(&vault);
        assert!(vault.open_key(&stored).is_ok());
        let mut elsewhere = stored.clone();
        elsewhere.key = vault.at([0; 16]);
        let mut older = stored.clone();
        older.version -= 1;
        let mut foreign = stored.clone();
        foreign.key.scope.account = "210987654321".to_owned();
        for moved in [elsewhere, older, foreign] {
            assert!(vault.open_key(&moved).is_err());
        }
        assert!(vault.open_alias(&stored).is_err());
        assert!(vault.open_material(&stored).is_err());
    }

    #[tokio::test]
    async fn a_record_that_contradicts_itself_or_says_more_than_we_know_is_damage() {
        let vault = vault().await;
        let open = |contents: &[u8]| {
            let key = vault.at(*id().as_bytes());
            let place = key.place(KEYS, 1);
            let sealed = vault.seals().keys.seal(&place, contents, &*vault.random);
            vault.open_key(&record(key.clone(), 1, &sealed)).is_ok()
        };
        let whole = encode(&key());
        assert!(open(&whole));
        let mut undated = key();
        undated.deletion = None;
        let mut empty = key();
        empty.materials.clear();
        let mut newer = whole.clone();
        newer[0] = 2;
        let text = String::from_utf8(whole.clone()).unwrap();
        let more = text.replacen('{', "{\"x\":1,", 1);
        let unknown_spec = text.replacen("SYMMETRIC_DEFAULT", "RSA_2048", 1);
        for bad in [
            encode(&undated),
            encode(&empty),
            newer,
            more.into_bytes(),
            unknown_spec.into_bytes(),
            Vec::new(),
            whole[..whole.len() - 1].to_vec(),
        ] {
            assert!(!open(&bad));
        }
    }
}
