//! Jobs' names, as requests write them.
use std::{fmt, str::FromStr};

/// The name of a job: `job-` and 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobId(String);

impl JobId {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobId {
    type Err = NotAJobId;

    fn from_str(text: &str) -> Result<Self, NotAJobId> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.strip_prefix("job-") {
            Some(digits) if digits.len() == 32 && digits.bytes().all(digit) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(NotAJobId),
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a job's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A job id is job- and 32 lower-case hexadecimal digits.")]
pub struct NotAJobId;
