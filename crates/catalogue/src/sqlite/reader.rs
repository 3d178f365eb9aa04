//! What is asked: one record, a page, the changes.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{
    CatalogueError, Changed, Changes, Key, Page, Record, Scope, Sequence, Table, database::failed,
    limits::PAGE_LEN_MAX,
};

pub(super) fn get(
    connection: &Connection,
    table: Table,
    key: &Key,
) -> Result<Option<Record>, CatalogueError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT account, region, id, version, sealed FROM record
             WHERE tbl = ?1 AND account = ?2 AND region = ?3 AND id = ?4",
        )
        .map_err(failed)?;
    let place = params![table.name(), key.scope.account, key.scope.region, key.id];
    statement
        .query_row(place, record)
        .optional()
        .map_err(failed)
}

/// One statement, so one moment.
pub(super) fn page(
    connection: &Connection,
    table: Table,
    scope: Option<&Scope>,
    after: Option<&Key>,
    limit: usize,
) -> Result<Page, CatalogueError> {
    // Ids are never empty: behind the empty one is all of a scope.
    let start = Key::new(scope.cloned().unwrap_or_default(), Vec::new());
    let after = after.unwrap_or(&start).max(&start);
    let (account, region) = (&after.scope.account, &after.scope.region);
    let sql = match scope {
        Some(scope) if *scope != after.scope => return Ok(Page::default()),
        Some(_) => {
            "SELECT account, region, id, version, sealed FROM record
             WHERE tbl = ?1 AND account = ?2 AND region = ?3 AND id > ?4
             ORDER BY account, region, id"
        }
        None => {
            "SELECT account, region, id, version, sealed FROM record
             WHERE tbl = ?1 AND (account, region, id) > (?2, ?3, ?4)
             ORDER BY account, region, id"
        }
    };
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let place = params![table.name(), account, region, after.id];
    let mut rows = statement.query(place).map_err(failed)?;
    let mut page = Page::default();
    let mut len = 0;
    while let Some(row) = rows.next().map_err(failed)? {
        if page.records.len() == limit || len >= PAGE_LEN_MAX {
            page.next = page.records.last().map(|last| last.key.clone());
            break;
        }
        let record = record(row).map_err(failed)?;
        len += record.sealed.len();
        page.records.push(record);
    }
    Ok(page)
}

pub(super) fn sequence(connection: &Connection) -> Result<Sequence, CatalogueError> {
    let mut statement = connection
        .prepare_cached("SELECT sequence FROM meta")
        .map_err(failed)?;
    statement
        .query_row([], |row| row.get(0))
        .map(Sequence)
        .map_err(failed)
}

pub(super) fn changes(
    connection: &Connection,
    after: Sequence,
    limit: usize,
) -> Result<Changes, CatalogueError> {
    // Several statements: one transaction, so that they see one moment.
    let transaction = connection.unchecked_transaction().map_err(failed)?;
    let (sequence, trimmed): (u64, u64) = transaction
        .prepare_cached("SELECT sequence, trimmed FROM meta")
        .and_then(|mut meta| meta.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(failed)?;
    if after.0 < trimmed || after.0 > sequence {
        return Err(CatalogueError::Trimmed);
    }
    // The commit that the last of `limit` changes belongs to is read to its end.
    let upto: Option<u64> = transaction
        .prepare_cached(
            "SELECT sequence FROM change WHERE sequence > ?1
             ORDER BY sequence, position LIMIT 1 OFFSET ?2",
        )
        .and_then(|mut last| {
            last.query_row(params![after.0, limit - 1], |row| row.get(0))
                .optional()
        })
        .map_err(failed)?;
    let upto = upto.unwrap_or(sequence);
    let mut statement = transaction
        .prepare_cached(
            "SELECT account, region, id, sequence, tbl, version FROM change
             WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence, position",
        )
        .map_err(failed)?;
    let changes = statement
        .query_map([after.0, upto], |row| {
            Ok(Changed {
                key: key(row)?,
                sequence: Sequence(row.get(3)?),
                table: row.get(4)?,
                version: row.get(5)?,
            })
        })
        .and_then(Iterator::collect)
        .map_err(failed)?;
    Ok(Changes {
        changes,
        upto: Sequence(upto),
    })
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        key: key(row)?,
        version: row.get(3)?,
        sealed: row.get(4)?,
    })
}

/// From the first three columns.
fn key(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key {
        scope: Scope {
            account: row.get(0)?,
            region: row.get(1)?,
        },
        id: row.get(2)?,
    })
}
