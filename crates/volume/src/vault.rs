//! Seals and opens a volume's row, and the copy of it that its folder keeps.

use std::sync::Arc;

use catalogue::{Key, Record, Scope, SealedRecord, Table};
use crypto::{random::Random, record::Place};
use root::{RecordKey, RootError, Sealing, StoreId, StoreKey};

use crate::{
    VolumeError, VolumeId, default_encryption,
    descriptor::{Descriptor, Row},
};

/// Where volumes stand in the catalogue.
pub(crate) const TABLE: Table = Table::new("volume");
/// What the copies in the folders are sealed as: a copy does not pass for a row, nor a row for a copy.
pub(crate) const COPIES: &str = "volume-copy";

/// The record keys of rows and of copies.
pub(crate) struct Vault {
    pub(crate) store: StoreId,
    pub(crate) rows: RecordKey,
    pub(crate) copies: RecordKey,
    /// Of the record of what new volumes get.
    pub(crate) defaults: RecordKey,
    random: Arc<dyn Random>,
}

/// The right to seal a row and its copy, held until both are where they belong.
pub(crate) struct Seals {
    row: Sealing,
    copy: Sealing,
}

impl Vault {
    pub(crate) fn new(store_key: &StoreKey, random: Arc<dyn Random>) -> Self {
        Self {
            store: store_key.store(),
            rows: store_key.table(TABLE.name()),
            copies: store_key.table(COPIES),
            defaults: store_key.table(default_encryption::TABLE.name()),
            random,
        }
    }

    pub(crate) fn seals(&self) -> Seals {
        Seals {
            row: self.rows.sealing(),
            copy: self.copies.sealing(),
        }
    }

    /// The row of a volume, as version `version` of it.
    pub(crate) fn seal_row(
        &self,
        seals: &Seals,
        key: &Key,
        version: u64,
        row: &Row,
    ) -> SealedRecord {
        let place = key.place(TABLE, version);
        seals.row.seal(&place, &row.encode(), &*self.random)
    }

    /// What a row says; the volume's id too, which may be all that can be said.
    pub(crate) fn open_row(&self, record: &Record) -> Result<Row, VolumeError> {
        let damaged = |why| VolumeError::DamagedRow {
            id: hex::encode(&record.key.id),
            why,
        };
        let id = volume_id(&record.key).ok_or_else(|| damaged("its id is no volume's"))?;
        let contents = self
            .rows
            .open(&record.place(TABLE), &record.sealed)
            .map_err(|_| damaged("it does not authenticate"))?;
        Row::decode(contents.expose(), id).map_err(damaged)
    }

    /// Whether a row is sealed under a generation of the store key that this process does not have.
    pub(crate) fn is_other_generation(&self, record: &Record) -> bool {
        let opened = self.rows.open(&record.place(TABLE), &record.sealed);
        matches!(opened, Err(RootError::Generation { .. }))
    }

    /// The copy for a volume's folder.
    pub(crate) fn seal_copy(
        &self,
        seals: &Seals,
        scope: &Scope,
        descriptor: &Descriptor,
    ) -> Vec<u8> {
        let contents = Row::Present(Box::new(descriptor.clone())).encode();
        self.seal_copy_of(
            &seals.copy,
            scope,
            descriptor.id,
            descriptor.revision,
            &contents,
        )
    }

    pub(crate) fn seal_copy_of(
        &self,
        sealing: &Sealing,
        scope: &Scope,
        id: VolumeId,
        revision: u64,
        contents: &[u8],
    ) -> Vec<u8> {
        let bytes = id.to_bytes();
        let place = copy_place(scope, &bytes, revision);
        sealing.seal(&place, contents, &*self.random).into_bytes()
    }

    /// The contents of a copy.
    pub(crate) fn open_copy(
        &self,
        scope: &Scope,
        id: VolumeId,
        revision: u64,
        sealed: &[u8],
    ) -> Result<crypto::secret::SecretVec, RootError> {
        let bytes = id.to_bytes();
        self.copies
            .open(&copy_place(scope, &bytes, revision), sealed)
    }
}

/// The version that a copy is sealed for is the descriptor's revision: it says which of two is the newer one before
/// either is opened, and a re-sealed copy is no newer.
fn copy_place<'a>(scope: &'a Scope, id: &'a [u8], revision: u64) -> Place<'a> {
    Place {
        table: COPIES,
        account: &scope.account,
        region: &scope.region,
        id,
        version: revision,
    }
}

/// The key of a volume's row.
pub(crate) fn row_key(scope: &Scope, id: VolumeId) -> Key {
    Key::new(scope.clone(), id.to_bytes().as_slice())
}

/// Whose row it is.
pub(crate) fn volume_id(key: &Key) -> Option<VolumeId> {
    VolumeId::from_bytes(key.id.as_slice().try_into().ok()?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::descriptor::tests::{descriptor, id};
    use crypto::random::SeededRandom;
    use host::disk::sim::SimDisk;

    /// The vault of a store that `seed` makes.
    pub(crate) fn vault(seed: u64) -> Vault {
        let (disk, random) = (
            Arc::new(SimDisk::new(seed)),
            Arc::new(SeededRandom::new(seed)),
        );
        let provider = root::FileProvider::new("/root.key", disk.clone(), random.clone());
        let options = root::Options {
            disk,
            dir: "/".into(),
            provider: Arc::new(provider),
            random: random.clone(),
            may_make: true,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let key = runtime.unwrap().block_on(StoreKey::open(options)).unwrap();
        Vault::new(&key, random)
    }

    pub(crate) fn scope() -> Scope {
        Scope {
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
        }
    }

    fn sealed(vault: &Vault, key: &Key, version: u64, row: &Row) -> Record {
        Record {
            key: key.clone(),
            version,
            sealed: vault
                .seal_row(&vault.seals(), key, version, row)
                .into_bytes(),
        }
    }

    #[test]
    fn a_row_opens_in_its_place_and_version_alone() {
        let vault = vault(1);
        let row = Row::Present(Box::new(descriptor()));
        let record = sealed(&vault, &row_key(&scope(), id()), 5, &row);
        assert_eq!(vault.open_row(&record).unwrap(), row);
        assert!(!record.sealed.windows(4).any(|bytes| bytes == b"data"));
        let other: VolumeId = "vol-0123456789abcdef1".parse().unwrap();
        let mut elsewhere = scope();
        elsewhere.region = "eu-west-1".to_owned();
        for moved in [
            Record {
                version: 4,
                ..record.clone()
            },
            Record {
                key: row_key(&scope(), other),
                ..record.clone()
            },
            Record {
                key: row_key(&elsewhere, id()),
                ..record.clone()
            },
        ] {
            assert!(vault.open_row(&moved).is_err());
        }
        assert!(super::tests::vault(2).open_row(&record).is_err());
    }

    #[test]
    fn a_copy_is_no_row_and_a_row_no_copy() {
        let vault = vault(1);
        let key = row_key(&scope(), id());
        let row = sealed(&vault, &key, 3, &Row::Present(Box::new(descriptor())));
        assert!(vault.open_copy(&scope(), id(), 3, &row.sealed).is_err());
        let copy = vault.seal_copy(&vault.seals(), &scope(), &descriptor());
        assert!(vault.open_copy(&scope(), id(), 3, &copy).is_ok());
        assert!(vault.open_copy(&scope(), id(), 4, &copy).is_err());
        let forged = Record {
            key,
            version: 3,
            sealed: copy,
        };
        assert!(vault.open_row(&forged).is_err());
    }
}
