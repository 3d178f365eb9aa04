//! Claims on client tokens. Of two processes, or two registries of one, that are asked with the same token at the same
//! time, one makes the volume: its claim is in the batch of the volume's row, on the expectation that there is none.
//!
//! A claim goes with the volume, in the batch that marks the row as deleted. One that names no volume counts for
//! nothing: whoever brings the token next takes it over. `FORMAT.md`, "Client token".

use catalogue::{Key, Record, Scope, SealedRecord, Table};
use crypto::{hash::Sha256, random::Random};
use root::{RecordKey, Sealing, StoreKey};

use crate::{VolumeError, VolumeId};

/// Where claims stand; id: SHA-256 of the token.
pub(crate) const TOKENS: Table = Table::new("volume-token");
/// The first byte of a claim's contents.
const FORMAT: u8 = 1;

/// Seals and opens claims.
pub(crate) struct Tokens(RecordKey);

impl Tokens {
    pub(crate) fn new(store_key: &StoreKey) -> Self {
        Self(store_key.table(TOKENS.name()))
    }

    pub(crate) fn sealing(&self) -> Sealing {
        self.0.sealing()
    }

    /// The claim of a volume, as version `version` of the token's.
    pub(crate) fn seal(
        sealing: &Sealing,
        key: &Key,
        version: u64,
        id: VolumeId,
        random: &dyn Random,
    ) -> SealedRecord {
        sealing.seal(&key.place(TOKENS, version), &encode(id), random)
    }

    /// The volume that has the token.
    pub(crate) fn open(&self, record: &Record) -> Result<VolumeId, VolumeError> {
        let damaged = |why| VolumeError::DamagedRow {
            id: hex::encode(&record.key.id),
            why,
        };
        let contents = self
            .0
            .open(&record.place(TOKENS), &record.sealed)
            .map_err(|_| damaged("it does not authenticate"))?;
        decode(contents.expose()).ok_or_else(|| damaged("it does not read"))
    }
}

/// Where the claim on a token stands.
pub(crate) fn token_key(scope: &Scope, token: &str) -> Key {
    Key::new(scope.clone(), Sha256::digest(token.as_bytes()).as_slice())
}

fn encode(id: VolumeId) -> Vec<u8> {
    [&[FORMAT][..], &id.to_bytes()].concat()
}

fn decode(contents: &[u8]) -> Option<VolumeId> {
    let (&FORMAT, id) = contents.split_first()? else {
        return None;
    };
    VolumeId::from_bytes(id.try_into().ok()?)
}

/// For the fuzz targets: what is read is written so that it is the same.
#[cfg(any(fuzzing, test))]
pub(crate) fn decode_any(contents: &[u8]) {
    if let Some(id) = decode(contents) {
        assert_eq!(encode(id), contents);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::tests::id;

    const GOLDEN: &[u8] = include_bytes!("../golden/token.contents");

    #[test]
    fn the_golden_claim_is_read_and_written_the_same() {
        assert_eq!(encode(id()), GOLDEN);
        assert_eq!(decode(GOLDEN), Some(id()));
    }

    #[test]
    fn what_is_not_the_format_is_refused() {
        let mut newer = GOLDEN.to_vec();
        newer[0] = 2;
        let mut large = GOLDEN.to_vec();
        large[1] = 0xff;
        let longer = [GOLDEN, &[0]].concat();
        for bad in [&newer[..], &large, &longer, &GOLDEN[..16], &[]] {
            assert_eq!(decode(bad), None);
            decode_any(bad);
        }
    }
}
