//! How long keys, records, batches and pages may be; every implementation checks requests here, so that all refuse
//! the same.

use std::collections::HashSet;

use crate::{Batch, CatalogueError, Key, Scope, Write};

/// Length of an id in bytes, at most; at least 1.
pub const ID_LEN_MAX: usize = 1024;
/// Length of an account or a region in bytes, at most.
pub const SCOPE_PART_LEN_MAX: usize = 64;
/// Length of a sealed record in bytes, at most.
pub const RECORD_LEN_MAX: usize = 1 << 20;
/// Steps of a batch, at most.
pub const BATCH_STEPS_MAX: usize = 1000;
/// Sealed bytes in a batch, at most.
pub const BATCH_LEN_MAX: usize = 4 << 20;
/// Records of a page, at most, whatever its limit says.
pub const PAGE_RECORDS_MAX: usize = 1000;
/// A page ends with the record that brings its sealed bytes to this.
pub const PAGE_LEN_MAX: usize = 4 << 20;
/// Changes that one call of [`Catalogue::changes`](crate::Catalogue::changes) is asked for, at most.
pub const CHANGES_MAX: usize = 1000;
/// Changes that a catalogue keeps unless it is told otherwise. The oldest commits go first, whole.
pub const CHANGES_KEPT: u64 = 100_000;

/// Refuses a batch that is empty, too long, or names a record twice. For implementations of the trait.
pub fn check_batch(batch: &Batch) -> Result<(), CatalogueError> {
    if batch.is_empty() {
        return Err(CatalogueError::Invalid("a batch of nothing"));
    }
    if batch.writes().len() > BATCH_STEPS_MAX {
        return Err(CatalogueError::Invalid("a batch of more than 1000 steps"));
    }
    let mut seen = HashSet::with_capacity(batch.writes().len());
    let mut len = 0;
    for write in batch.writes() {
        let (table, key) = write.target();
        check_key(key)?;
        if !seen.insert((table, key)) {
            return Err(CatalogueError::Invalid("a record is named twice"));
        }
        if let Write::Put { record, .. } = write {
            if record.as_bytes().len() > RECORD_LEN_MAX {
                return Err(CatalogueError::Invalid("a record longer than 1 MiB"));
            }
            len += record.as_bytes().len();
        }
    }
    if len > BATCH_LEN_MAX {
        return Err(CatalogueError::Invalid("a batch longer than 4 MiB"));
    }
    Ok(())
}

/// Refuses a key that no record can have. For implementations of the trait.
pub fn check_key(key: &Key) -> Result<(), CatalogueError> {
    check_scope(&key.scope)?;
    if key.id.is_empty() || key.id.len() > ID_LEN_MAX {
        return Err(CatalogueError::Invalid(
            "an id of no byte, or of more than 1024",
        ));
    }
    Ok(())
}

/// Refuses a scope that no key can have. For implementations of the trait.
pub fn check_scope(scope: &Scope) -> Result<(), CatalogueError> {
    for part in [&scope.account, &scope.region] {
        if part.len() > SCOPE_PART_LEN_MAX || !part.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(CatalogueError::Invalid(
                "an account or a region that is not at most 64 visible ASCII characters",
            ));
        }
    }
    Ok(())
}

/// Refuses a page of nothing, and keys that no record can have; returns how many records the page has at most.
/// For implementations of the trait.
pub fn check_page(
    scope: Option<&Scope>,
    after: Option<&Key>,
    limit: usize,
) -> Result<usize, CatalogueError> {
    scope.map_or(Ok(()), check_scope)?;
    after.map_or(Ok(()), check_key)?;
    check_limit(limit, PAGE_RECORDS_MAX)
}

/// Refuses to be asked for no changes; returns how many are asked for. For implementations of the trait.
pub fn check_changes(limit: usize) -> Result<usize, CatalogueError> {
    check_limit(limit, CHANGES_MAX)
}

fn check_limit(limit: usize, max: usize) -> Result<usize, CatalogueError> {
    if limit == 0 {
        return Err(CatalogueError::Invalid("a limit of 0"));
    }
    Ok(limit.min(max))
}
