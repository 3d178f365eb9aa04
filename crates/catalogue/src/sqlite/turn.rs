//! One handle opens at a time: renewing replaces the file under whoever is about to open it.

use std::{io, sync::Arc, time::Duration};

use host::{File, Mode};

use super::options::Options;
use crate::{CatalogueError, database};

/// The empty file whose lock a handle has while it opens.
const LOCK: &str = ".lock";
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Takes the lock that lets one handle open at a time, or finds it held for longer than there is patience.
pub(super) fn lock(options: &Options) -> Result<Arc<dyn File>, CatalogueError> {
    let file = options
        .disk
        .open(&options.site().beside(LOCK), Mode::Create)
        .map_err(database::io)?;
    let mut waited = Duration::ZERO;
    loop {
        match file.lock() {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if waited >= options.patience {
                    let what = "another process is opening it".to_owned();
                    return Err(CatalogueError::Unavailable(what));
                }
                std::thread::sleep(LOCK_RETRY);
                waited += LOCK_RETRY;
            }
            Err(error) => return Err(database::io(error)),
        }
    }
}
