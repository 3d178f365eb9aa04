//! What the process does to itself before it touches a key: no core dumps, no debugger of the same
//! user, keys not swapped out, enough file descriptors.
//!
//! What this cannot reach (registers, a hibernated machine, root on the same host) is in the manual's
//! threat model.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// How memory is kept from the swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockedMemory {
    /// All of it, now and later.
    Locked,
    /// The limit is too small: locking would make later allocations fail.
    Unlocked,
}

/// No core file and no `ptrace` by the same user, so that keys cannot be read out of a crash.
pub(crate) fn forbid_core_dumps() -> std::io::Result<()> {
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Locks all memory if the limit is, or can be made, infinite.
///
/// Below an infinite limit nothing is locked: with `MCL_FUTURE` an allocation past the limit fails,
/// and a server that aborts under load is worse than one whose pages may be swapped, which is said
/// in the log.
pub(crate) fn lock_memory() -> LockedMemory {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let infinite = getrlimit(Resource::Memlock).current.is_none()
        || setrlimit(Resource::Memlock, unlimited).is_ok();
    // ONFAULT: a page is locked when it is first used, so stacks and caches that are never touched cost nothing.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if infinite && mlockall(flags).is_ok() {
        LockedMemory::Locked
    } else {
        LockedMemory::Unlocked
    }
}

/// Raises the number of open files to the hard limit: every connection, volume and object read holds some. Returns how many
/// there may be; `None` if there is no limit.
pub(crate) fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refusal leaves the soft limit, which works until many clients come.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        );
    }
    getrlimit(Resource::Nofile).current
}
