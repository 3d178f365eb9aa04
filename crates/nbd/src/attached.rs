//! One connection's hold on an export.

use std::ops::Deref;
use std::sync::Arc;

use crate::Export;

/// An attached export. Detached by dropping it, wherever that happens: detaching may block on a disk, which the
/// runtime's own threads must not.
pub(crate) struct Attached(Option<Arc<dyn Export>>);

impl Attached {
    pub(crate) fn new(export: Arc<dyn Export>) -> Self {
        Self(Some(export))
    }
}

impl Deref for Attached {
    type Target = dyn Export;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().expect("only dropping it takes it out")
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let export = self.0.take();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(export))),
            Err(_) => drop(export),
        }
    }
}
