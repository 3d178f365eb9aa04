//! Sealed records, page by page, and put anew: for a rotation of the key that they are sealed under.
//!
//! A page is found by the primary keys alone, whatever the number of objects, and is one view of the index; the next
//! one sees what changed in between.

use bytes::Bytes;
use rusqlite::{Connection, Params, Row, params};

use super::lookup::{key_text, view};
use super::schema::failed;
use crate::store::{Page, Resealed, SealedAt, SealedRow, StoreError};

const WHAT: &str = "read sealed records";

/// The tables with sealed records, in the order in which they are gone through.
const TABLES: [Table; 3] = [Table::Object, Table::Upload, Table::Part];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Object,
    Upload,
    Part,
}

impl SealedAt {
    fn table(&self) -> Table {
        match self {
            Self::Object { .. } => Table::Object,
            Self::Upload { .. } => Table::Upload,
            Self::Part { .. } => Table::Part,
        }
    }
}

/// Records after `after`, `limit` at most.
pub(super) fn page(
    index: &Connection,
    after: Option<&SealedAt>,
    limit: usize,
) -> Result<Page<SealedRow>, StoreError> {
    let index = &*view(index)?;
    let mut page = Page::default();
    if limit == 0 {
        return Ok(page);
    }
    // One more than asked for tells whether there is more.
    let mut rows = Rows {
        index,
        entries: Vec::new(),
        limit: limit.saturating_add(1),
    };
    let begin = after.map_or(Table::Object, SealedAt::table);
    for table in TABLES.into_iter().filter(|table| *table >= begin) {
        // Only the first table has a place to go on from.
        let after = after.filter(|after| after.table() == table);
        match table {
            Table::Part => rows.parts(after)?,
            _ => rows.in_buckets(table, after)?,
        }
    }
    page.truncated = rows.entries.len() > limit;
    page.entries = rows.entries;
    page.entries.truncate(limit);
    Ok(page)
}

struct Rows<'c> {
    index: &'c Connection,
    entries: Vec<SealedRow>,
    limit: usize,
}

impl Rows<'_> {
    fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }

    /// Goes through the buckets, each by itself: their numbers are not in the order of their ids.
    fn in_buckets(&mut self, table: Table, after: Option<&SealedAt>) -> Result<(), StoreError> {
        let (mut key, mut upload) = (Vec::new(), -1);
        let mut begin = String::new();
        match after {
            Some(SealedAt::Object { bucket, key: at }) => {
                begin.clone_from(bucket);
                key = [at.as_bytes(), &[0]].concat();
            }
            Some(SealedAt::Upload {
                bucket,
                key: at,
                number,
            }) => {
                begin.clone_from(bucket);
                key = at.as_bytes().to_vec();
                upload = number.cast_signed();
            }
            _ => {}
        }
        let mut buckets = self
            .index
            .prepare_cached("SELECT id, number FROM bucket WHERE id >= ?1 ORDER BY id")
            .map_err(failed(WHAT))?;
        let mut buckets = buckets.query([&begin]).map_err(failed(WHAT))?;
        while let Some(row) = buckets.next().map_err(failed(WHAT))? {
            if self.is_full() {
                break;
            }
            let (id, number) = (|| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))()
                .map_err(failed(WHAT))?;
            if id != begin {
                (key, upload) = (Vec::new(), -1);
            }
            let left = self.left();
            match table {
                Table::Object => self.take(
                    "SELECT envelope, key FROM object WHERE bucket = ?1 AND key >= ?2 ORDER BY key LIMIT ?3",
                    params![number, key, left],
                    |row| {
                        Ok(SealedAt::Object {
                            bucket: id.clone(),
                            key: key_of(row)?,
                        })
                    },
                )?,
                _ => self.take(
                    "SELECT envelope, key, content FROM upload
                     WHERE bucket = ?1 AND (key, content) > (?2, ?3) ORDER BY key, content LIMIT ?4",
                    params![number, key, upload, left],
                    |row| {
                        Ok(SealedAt::Upload {
                            bucket: id.clone(),
                            key: key_of(row)?,
                            number: row.get::<_, i64>(2).map_err(failed(WHAT))?.cast_unsigned(),
                        })
                    },
                )?,
            }
        }
        Ok(())
    }

    fn parts(&mut self, after: Option<&SealedAt>) -> Result<(), StoreError> {
        let (of, number) = match after {
            Some(SealedAt::Part { of, number }) => (of.cast_signed(), *number),
            _ => (-1, 0),
        };
        let left = self.left();
        self.take(
            "SELECT envelope, content, number FROM part
             WHERE (content, number) > (?1, ?2) ORDER BY content, number LIMIT ?3",
            params![of, number, left],
            |row| {
                let read = || -> rusqlite::Result<_> { Ok((row.get::<_, i64>(1)?, row.get(2)?)) };
                let (of, number) = read().map_err(failed(WHAT))?;
                Ok(SealedAt::Part {
                    of: of.cast_unsigned(),
                    number,
                })
            },
        )
    }

    fn left(&self) -> i64 {
        i64::try_from(self.limit - self.entries.len()).unwrap_or(i64::MAX)
    }

    fn take(
        &mut self,
        sql: &str,
        values: impl Params,
        at: impl Fn(&Row<'_>) -> Result<SealedAt, StoreError>,
    ) -> Result<(), StoreError> {
        let mut statement = self.index.prepare_cached(sql).map_err(failed(WHAT))?;
        let mut rows = statement.query(values).map_err(failed(WHAT))?;
        while let Some(row) = rows.next().map_err(failed(WHAT))? {
            let envelope = row
                .get_ref(0)
                .and_then(|envelope| Ok(Bytes::copy_from_slice(envelope.as_blob()?)))
                .map_err(failed(WHAT))?;
            self.entries.push(SealedRow {
                at: at(row)?,
                envelope,
            });
        }
        Ok(())
    }
}

/// The key in column 1.
fn key_of(row: &Row<'_>) -> Result<String, StoreError> {
    let key = row.get_ref(1).and_then(|key| Ok(key.as_blob()?));
    key_text(key.map_err(failed(WHAT))?)
}

/// Puts the new records in the place of those that still stand there.
pub(super) fn replace(index: &Connection, records: &[Resealed]) -> Result<u64, StoreError> {
    let mut replaced = 0;
    for Resealed { row, envelope } in records {
        let (old, new) = (&row.envelope[..], &envelope[..]);
        let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
            index
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute(values))
                .map_err(failed("put a record that was sealed anew"))
        };
        // The whole record is compared: what anybody else wrote meanwhile stays.
        let changed = match &row.at {
            SealedAt::Object { bucket, key } => run(
                "UPDATE object SET envelope = ?4 WHERE bucket = (SELECT number FROM bucket WHERE id = ?1)
                 AND key = ?2 AND envelope = ?3",
                &[bucket, &key.as_bytes(), &old, &new],
            )?,
            SealedAt::Upload {
                bucket,
                key,
                number,
            } => run(
                "UPDATE upload SET envelope = ?5 WHERE bucket = (SELECT number FROM bucket WHERE id = ?1)
                 AND key = ?2 AND content = ?3 AND envelope = ?4",
                &[bucket, &key.as_bytes(), &number.cast_signed(), &old, &new],
            )?,
            SealedAt::Part { of, number } => run(
                "UPDATE part SET envelope = ?4 WHERE content = ?1 AND number = ?2 AND envelope = ?3",
                &[&of.cast_signed(), number, &old, &new],
            )?,
        };
        replaced += changed as u64;
    }
    Ok(replaced)
}
