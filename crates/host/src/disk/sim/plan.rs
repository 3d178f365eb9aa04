//! What is to go wrong, and when.

use std::{io, path::Path};

/// The calls of [`Disk`](crate::Disk) and [`File`](crate::File).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "named as the calls are")]
pub enum Call {
    Open,
    Rename,
    Link,
    Remove,
    CreateDir,
    RemoveDir,
    FreeBytes,
    List,
    Kind,
    SyncDir,
    Read,
    Write,
    SyncData,
    SyncAll,
    Allocate,
    Punch,
    SetLen,
    Len,
    Lock,
    ForgetCached,
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// EIO. A write has written any of its first sectors; a file's sync has synced any part, and what it was to sync
    /// counts as clean; anything else has done nothing.
    Io,
    /// ENOSPC, else as [`Io`](Self::Io).
    NoSpace,
    /// The machine stops in the middle of the call: a write has written any of its first sectors, a change of names
    /// has happened or not. This call and all after it fail, until the machine is started again.
    Stop,
}

impl Failure {
    /// The error of a call that goes wrong so.
    pub fn error(self) -> io::Error {
        match self {
            Self::Io => rustix::io::Errno::IO.into(),
            Self::NoSpace => rustix::io::Errno::NOSPC.into(),
            Self::Stop => io::Error::other("the machine went down"),
        }
    }
}

/// One thing that is to go wrong.
#[derive(Debug, Clone)]
pub struct Fault {
    failure: Failure,
    calls: Vec<Call>,
    suffix: Option<String>,
    after: u64,
    lasting: bool,
}

impl Fault {
    /// The next call fails, whatever it is.
    pub fn new(failure: Failure) -> Self {
        Self {
            failure,
            calls: Vec::new(),
            suffix: None,
            after: 0,
            lasting: false,
        }
    }

    /// Only one of these calls.
    pub fn on(mut self, calls: &[Call]) -> Self {
        self.calls = calls.to_vec();
        self
    }

    /// Only a call for a path that ends so. An open file is known by the name it had last.
    pub fn at(mut self, suffix: &str) -> Self {
        self.suffix = Some(suffix.to_owned());
        self
    }

    /// Not before so many such calls have gone well.
    pub fn after(mut self, calls: u64) -> Self {
        self.after = calls;
        self
    }

    /// Not once, but from then on.
    pub fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }

    fn concerns(&self, call: Call, path: &Path) -> bool {
        (self.calls.is_empty() || self.calls.contains(&call))
            && self.suffix.as_ref().is_none_or(|suffix| {
                path.as_os_str()
                    .as_encoded_bytes()
                    .ends_with(suffix.as_bytes())
            })
    }
}

/// All that is to go wrong.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan(Vec<Fault>);

impl Plan {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// How many faults have not happened.
    pub(super) fn left(&self) -> usize {
        self.0.iter().filter(|fault| !fault.lasting).count()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What happens to this call.
    pub(super) fn meets(&mut self, call: Call, path: &Path) -> Option<Failure> {
        let mut met = None;
        let mut at = 0;
        while at < self.0.len() {
            let fault = &mut self.0[at];
            if !fault.concerns(call, path) {
                at += 1;
            } else if fault.after > 0 {
                fault.after -= 1;
                at += 1;
            } else if met.is_some() {
                at += 1;
            } else {
                met = Some(fault.failure);
                if fault.lasting {
                    at += 1;
                } else {
                    self.0.remove(at);
                }
            }
        }
        met
    }
}
