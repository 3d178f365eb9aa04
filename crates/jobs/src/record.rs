//! A job's record. `FORMAT.md` has the fields.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use catalogue::{Key, Record, Scope, Table};
use crypto::random::Random;
use root::{RecordKey, Sealing};
use serde::{Deserialize, Serialize};

use crate::{
    error::JobError,
    job::{Job, JobId, Outcome, Progress, ServicePrincipal, State},
    rate::RateLimit,
};

/// Where jobs stand.
pub(crate) const TABLE: Table = Table::new("job");
/// Says of a kind and subject which job works on it: one at a time.
pub(crate) const SUBJECTS: Table = Table::new("job-subject");
/// The first byte of a record's contents.
const FORMAT: u8 = 1;

/// A time in a record: milliseconds since 1970, UTC. Earlier ones are 0.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Bounded so that the sum exists: year 9999.
pub(crate) fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.min(253_402_300_799_999))
}

/// Who works on a job, and until when nobody else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lease {
    /// A number that the process drew when it started.
    pub(crate) holder: u64,
    pub(crate) until: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobRecord {
    pub(crate) kind: String,
    pub(crate) principal: ServicePrincipal,
    pub(crate) subject: String,
    #[serde(with = "base64_bytes")]
    pub(crate) input: Vec<u8>,
    #[serde(with = "base64_bytes")]
    pub(crate) cursor: Vec<u8>,
    pub(crate) progress: Progress,
    pub(crate) rate: Option<RateLimit>,
    pub(crate) created: u64,
    pub(crate) updated: u64,
    /// Not to be worked on before.
    pub(crate) not_before: u64,
    pub(crate) lease: Option<Lease>,
    /// Whether it is to be undone, and how it ends then.
    pub(crate) undoing: Option<Outcome>,
    pub(crate) failures: u32,
    pub(crate) last_failure: Option<String>,
    pub(crate) ended: Option<Outcome>,
}

impl JobRecord {
    pub(crate) fn job(&self, id: JobId, now: u64) -> Job {
        let leased = self.lease.is_some_and(|lease| lease.until > now);
        let state = match (&self.ended, &self.undoing) {
            (Some(outcome), _) => State::Ended(outcome.clone()),
            (None, Some(_)) => State::Cancelling,
            (None, None) if leased => State::Running,
            (None, None) => State::Waiting,
        };
        Job {
            id,
            kind: self.kind.clone(),
            principal: self.principal.clone(),
            subject: self.subject.clone(),
            state,
            progress: self.progress,
            rate: self.rate,
            created: time(self.created),
            updated: time(self.updated),
            failures: self.failures,
            last_failure: self.last_failure.clone(),
        }
    }
}

/// A job's record as it is in the catalogue.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) id: JobId,
    pub(crate) version: u64,
    pub(crate) record: JobRecord,
}

/// Seals and opens jobs' records.
pub(crate) struct Vault {
    pub(crate) scope: Scope,
    pub(crate) records: RecordKey,
    pub(crate) subjects: RecordKey,
    pub(crate) random: std::sync::Arc<dyn Random>,
}

impl Vault {
    pub(crate) fn key(&self, id: JobId) -> Key {
        Key::new(self.scope.clone(), id.as_bytes().as_slice())
    }

    pub(crate) fn seal(
        &self,
        sealing: &Sealing,
        id: JobId,
        version: u64,
        record: &JobRecord,
    ) -> catalogue::SealedRecord {
        let place = self.key(id);
        let place = place.place(TABLE, version);
        sealing.seal(&place, &encode(record), self.random.as_ref())
    }

    /// Says that job `id` works on what `key` names.
    pub(crate) fn seal_subject(
        &self,
        sealing: &Sealing,
        key: &Key,
        id: JobId,
    ) -> catalogue::SealedRecord {
        let contents = [&[FORMAT], id.as_bytes().as_slice()].concat();
        // The first: only a rotation of the store key writes it again.
        sealing.seal(&key.place(SUBJECTS, 1), &contents, self.random.as_ref())
    }

    pub(crate) fn open_subject(&self, stored: &Record) -> Result<JobId, JobError> {
        let damaged = |why| JobError::Damaged {
            id: hex::encode(&stored.key.id),
            why,
        };
        let contents = self
            .subjects
            .open(&stored.place(SUBJECTS), &stored.sealed)
            .map_err(|_| damaged("it does not authenticate"))?;
        match contents.expose().split_first() {
            Some((&FORMAT, id)) => JobId::from_bytes(id).ok_or_else(|| damaged("it names no job")),
            _ => Err(damaged("its format is not known")),
        }
    }

    pub(crate) fn open(&self, stored: &Record) -> Result<Stored, JobError> {
        let damaged = |why| JobError::Damaged {
            id: hex::encode(&stored.key.id),
            why,
        };
        let id = JobId::from_bytes(&stored.key.id).ok_or_else(|| damaged("its id is none"))?;
        let contents = self
            .records
            .open(&stored.place(TABLE), &stored.sealed)
            .map_err(|_| damaged("it does not authenticate"))?;
        Ok(Stored {
            id,
            version: stored.version,
            record: decode(contents.expose()).map_err(damaged)?,
        })
    }
}

/// Writes a record's contents.
pub(crate) fn encode(record: &JobRecord) -> Vec<u8> {
    let mut contents = vec![FORMAT];
    serde_json::to_writer(&mut contents, record).expect("plain strings and numbers, into memory");
    contents
}

/// Reads a record's contents.
pub(crate) fn decode(contents: &[u8]) -> Result<JobRecord, &'static str> {
    match contents.split_first() {
        Some((&FORMAT, json)) => serde_json::from_slice(json).map_err(|_| "it does not read"),
        _ => Err("its format is not known"),
    }
}

mod base64_bytes {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../golden/job.record");

    fn record() -> JobRecord {
        JobRecord {
            kind: "copy".to_owned(),
            principal: ServicePrincipal::of("ec2"),
            subject: "vol-0123456789abcdef0".to_owned(),
            input: b"\x00input\xff".to_vec(),
            cursor: vec![0, 0, 1],
            progress: Progress {
                done: 3,
                total: Some(9),
            },
            rate: RateLimit::per_second(1 << 20),
            created: 1_800_000_000_000,
            updated: 1_800_000_001_000,
            not_before: 0,
            lease: Some(Lease {
                holder: u64::MAX,
                until: 1_800_000_031_000,
            }),
            undoing: Some(Outcome::Failed("the key is disabled".to_owned())),
            failures: 2,
            last_failure: Some("the disk is full".to_owned()),
            ended: None,
        }
    }

    #[test]
    fn the_golden_record_is_read_and_written_the_same() {
        assert_eq!(decode(GOLDEN).unwrap(), record());
        assert_eq!(encode(&record()), GOLDEN);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let mut newer = GOLDEN.to_vec();
        newer[0] = 2;
        assert_eq!(decode(&newer), Err("its format is not known"));
        assert_eq!(decode(b""), Err("its format is not known"));
        let text = String::from_utf8(GOLDEN[1..].to_vec()).unwrap();
        let more = text.replacen('{', "{\"more\":1,", 1);
        let less = text.replacen("\"failures\":2,", "", 1);
        for bad in [more, less, text[..text.len() - 1].to_owned()] {
            let bad = [&[FORMAT], bad.as_bytes()].concat();
            assert_eq!(decode(&bad), Err("it does not read"));
        }
    }
}
