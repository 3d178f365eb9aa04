//! The error numbers that may travel on the wire.
//!
//! NBD names a small, closed set of values, all with Linux's numbers; anything else is turned into `EIO`
//! here, in one place, so that no error of the host leaks a number that a client would misread.

use std::fmt;

/// An error as the client will see it (proto.md, "Error values").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Errno {
    /// The client may not do this (a write to a read-only export).
    Perm = 1,
    /// The store failed.
    Io = 5,
    /// Not enough memory on the server.
    NoMem = 12,
    /// The request is malformed, or a read, trim or query is out of range.
    Inval = 22,
    /// A write is out of range, or the store is full.
    NoSpc = 28,
    /// The answer does not fit the one chunk that the client demanded.
    Overflow = 75,
    /// Not supported; of a fast zero: it would not be fast.
    NotSup = 95,
    /// The server is going away.
    Shutdown = 108,
}

impl Errno {
    /// The number on the wire.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The value for a number, if it is one that NBD names.
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Perm,
            5 => Self::Io,
            12 => Self::NoMem,
            22 => Self::Inval,
            28 => Self::NoSpc,
            75 => Self::Overflow,
            95 => Self::NotSup,
            108 => Self::Shutdown,
            _ => return None,
        })
    }

    /// The conventional name, as used in logs and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Perm => "EPERM",
            Self::Io => "EIO",
            Self::NoMem => "ENOMEM",
            Self::Inval => "EINVAL",
            Self::NoSpc => "ENOSPC",
            Self::Overflow => "EOVERFLOW",
            Self::NotSup => "ENOTSUP",
            Self::Shutdown => "ESHUTDOWN",
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Errno {}

/// The nearest value that NBD names: quota and file-size limits are "no space", everything unknown is `EIO`.
impl From<&std::io::Error> for Errno {
    fn from(error: &std::io::Error) -> Self {
        use rustix::io::Errno as Os;
        match Os::from_io_error(error) {
            Some(Os::PERM | Os::ACCESS | Os::ROFS) => Self::Perm,
            Some(Os::NOMEM) => Self::NoMem,
            Some(Os::INVAL) => Self::Inval,
            Some(Os::NOSPC | Os::DQUOT | Os::FBIG) => Self::NoSpc,
            Some(Os::OVERFLOW) => Self::Overflow,
            Some(Os::NOTSUP) => Self::NotSup,
            Some(Os::SHUTDOWN) => Self::Shutdown,
            _ => Self::Io,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_wire_and_unknown_ones_do_not() {
        for code in 0..200 {
            if let Some(errno) = Errno::from_code(code) {
                assert_eq!(errno.code(), code);
            }
        }
        assert_eq!(Errno::from_code(0), None);
        assert_eq!(Errno::from_code(2), None);
    }

    #[test]
    fn a_host_error_without_a_name_in_nbd_becomes_eio() {
        let of = |os: rustix::io::Errno| Errno::from(&std::io::Error::from(os));
        assert_eq!(of(rustix::io::Errno::NOENT), Errno::Io);
        assert_eq!(of(rustix::io::Errno::DQUOT), Errno::NoSpc);
        assert_eq!(Errno::from(&std::io::Error::other("no number")), Errno::Io);
    }
}
