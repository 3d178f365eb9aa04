//! Jobs as callers see them.

use std::{fmt, str::FromStr, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::rate::RateLimit;

/// The name of a job: `job-` and 32 hexadecimal digits. Ids rise with the time of submission (to the millisecond), so
/// that a list is in that order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId([u8; 16]);

impl JobId {
    /// Milliseconds since 1970 (u64 big endian), then random bytes.
    pub(crate) fn new(millis: u64, random: u64) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&millis.to_be_bytes());
        id[8..].copy_from_slice(&random.to_be_bytes());
        Self(id)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job-{}", hex::encode(self.0))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a job's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job id is job- and 32 lower-case hexadecimal digits")]
pub struct NotAJobId;

impl FromStr for JobId {
    type Err = NotAJobId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("job-").ok_or(NotAJobId)?;
        if digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return Err(NotAJobId);
        }
        let mut id = [0; 16];
        hex::decode_to_slice(digits, &mut id).map_err(|_| NotAJobId)?;
        Ok(Self(id))
    }
}

/// The service that a job acts as, such as `ec2.amazonaws.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServicePrincipal(String);

impl ServicePrincipal {
    /// The service called `name`, without its domain: `ec2`.
    pub fn of(name: &str) -> Self {
        Self(format!("{name}.amazonaws.com"))
    }

    /// The principal, as policies write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A job to be submitted.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its kind, as [`Work::kind`](crate::Work::kind) says it.
    pub kind: &'static str,
    /// Whose doing it is.
    pub principal: ServicePrincipal,
    /// What it is about, in the form that its kind knows. At most 64 KiB.
    pub input: Vec<u8>,
    /// What it works on, such as a volume's id: of a kind, one job at a time works on a subject.
    pub subject: String,
    /// How fast it may go.
    pub rate: Option<RateLimit>,
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, if known.
    pub total: Option<u64>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did all it had to.
    Done,
    /// It could not.
    Failed(String),
    /// It was cancelled, and cleaned up after.
    Cancelled,
}

/// What a job is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It waits for a process, or for a failed step's next try.
    Waiting,
    /// A process works on it.
    Running,
    /// It was cancelled and is being cleaned up after, or waits for that.
    Cancelling,
    /// It ended.
    Ended(Outcome),
}

impl State {
    /// A word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Ended(Outcome::Done) => "done",
            Self::Ended(Outcome::Failed(_)) => "failed",
            Self::Ended(Outcome::Cancelled) => "cancelled",
        }
    }
}

/// A job as it is at one moment.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Whose doing it is.
    pub principal: ServicePrincipal,
    /// What it works on.
    pub subject: String,
    /// What it is doing.
    pub state: State,
    /// How far it has come.
    pub progress: Progress,
    /// How fast it may go.
    pub rate: Option<RateLimit>,
    /// When it was submitted.
    pub created: SystemTime,
    /// When its record was last written.
    pub updated: SystemTime,
    /// Steps that failed in a row.
    pub failures: u32,
    /// What the last of them said.
    pub last_failure: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_rises_with_time() {
        let (a, b) = (JobId::new(1, u64::MAX), JobId::new(2, 0));
        assert!(a < b);
        assert_eq!(a.to_string().parse(), Ok(a));
        let upper = a.to_string().replace('f', "F");
        for bad in ["", "job-", "job-12", &upper, &a.to_string()[4..]] {
            assert_eq!(bad.parse::<JobId>(), Err(NotAJobId), "{bad}");
        }
    }
}
