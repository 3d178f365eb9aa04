//! The machine's disk, with syncs that fail once they are told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use host::OsDisk;
use host::disk::HookedDisk;
use host::disk::sim::{Call, Failure};

#[derive(Debug, Clone)]
pub(super) struct FailingDisk {
    pub(super) fails: Arc<AtomicBool>,
    pub(super) disk: HookedDisk,
}

impl Default for FailingDisk {
    fn default() -> Self {
        let fails = Arc::<AtomicBool>::default();
        let told = Arc::clone(&fails);
        let disk = HookedDisk::new(Arc::new(OsDisk), move |call, _| match call {
            Call::SyncData | Call::SyncAll if told.load(Ordering::SeqCst) => {
                Err(Failure::Io.error())
            }
            _ => Ok(()),
        });
        Self { fails, disk }
    }
}
