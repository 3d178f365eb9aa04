//! Reading the index: rows to records, and lists that seek past what they roll up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::layout::FileId;
use super::schema::failed;
use crate::store::list::common_prefix;
use crate::store::{
    BucketRecord, ListEntry, ListQuery, ObjectRecord, Page, PartRecord, StoreError, UploadEntry,
    UploadId, UploadQuery, UploadRecord,
};

/// Nanoseconds since 1970, negative before; what does not fit (before 1678, after 2262) is clamped.
pub(super) fn to_nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
    }
}

pub(super) fn from_nanos(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

/// Where the bytes of an object are.
#[derive(Debug)]
pub(super) enum Place {
    Inline,
    File(FileId),
    Parts,
    /// In a file, and which one is lost: the row is damaged. It cannot be read, only be replaced or removed; the file
    /// is then one that nothing names.
    Lost,
}

/// A row of `object`.
#[derive(Debug)]
pub(super) struct ObjectRow {
    pub(super) record: ObjectRecord,
    pub(super) content: u64,
    pub(super) place: Place,
}

pub(super) fn key_text(bytes: &[u8]) -> Result<String, StoreError> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| StoreError::Corrupt("a key in the index is not UTF-8".into()))
}

/// Reads the columns `key, sequence, content, size, modified, part_count, file, envelope`.
fn object_row(row: &Row<'_>) -> Result<ObjectRow, StoreError> {
    let read = || -> rusqlite::Result<_> {
        // More than there can be says that the row is damaged, and hides no other.
        let part_count = u32::try_from(row.get::<_, i64>(5)?).unwrap_or(u32::MAX);
        let file = row.get_ref(6)?.as_blob_or_null()?.map(FileId::from_index);
        let record = ObjectRecord {
            key: String::new(),
            sequence: row.get::<_, i64>(1)?.cast_unsigned(),
            size: row.get::<_, i64>(3)?.cast_unsigned(),
            modified: from_nanos(row.get(4)?),
            part_count,
            envelope: Bytes::copy_from_slice(row.get_ref(7)?.as_blob()?),
        };
        Ok((
            row.get_ref(0)?.as_blob()?,
            record,
            row.get::<_, i64>(2)?.cast_unsigned(),
            file,
        ))
    };
    let (key, mut record, content, file) = read().map_err(failed("read an object row"))?;
    record.key = key_text(key)?;
    let place = match file {
        Some(Ok(id)) => Place::File(id),
        Some(Err(_)) => Place::Lost,
        None if record.part_count > 0 => Place::Parts,
        None => Place::Inline,
    };
    Ok(ObjectRow {
        record,
        content,
        place,
    })
}

/// The number that stands for an open bucket in the other tables.
pub(super) fn bucket_number(index: &Connection, bucket: &str) -> Result<u64, StoreError> {
    number_by(
        index,
        "SELECT number FROM bucket WHERE id = ?1 AND closed = 0",
        bucket,
    )
}

/// As [`bucket_number`], closed or not.
pub(super) fn any_bucket_number(index: &Connection, bucket: &str) -> Result<u64, StoreError> {
    number_by(index, "SELECT number FROM bucket WHERE id = ?1", bucket)
}

fn number_by(index: &Connection, sql: &str, bucket: &str) -> Result<u64, StoreError> {
    index
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row([bucket], |row| row.get::<_, i64>(0)).optional())
        .map_err(failed("look a bucket up"))?
        .map(|number| number.cast_unsigned())
        .ok_or(StoreError::NoSuchBucket)
}

pub(super) fn buckets(
    index: &Connection,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<BucketRecord>, StoreError> {
    let read = || -> rusqlite::Result<Page<BucketRecord>> {
        let mut statement = index.prepare_cached(
            "SELECT id, closed FROM bucket WHERE ?1 IS NULL OR id > ?1 ORDER BY id",
        )?;
        let mut rows = statement.query([after])?;
        let mut page = Page::default();
        while let Some(row) = rows.next()? {
            if limit == 0 {
                break;
            }
            if page.entries.len() == limit {
                page.truncated = true;
                break;
            }
            page.entries.push(BucketRecord {
                id: row.get(0)?,
                closed: row.get(1)?,
            });
        }
        Ok(page)
    };
    read().map_err(failed("list buckets"))
}

/// The object, if it is there; `bucket` by its number.
pub(super) fn object_in(
    index: &Connection,
    bucket: u64,
    key: &str,
) -> Result<Option<ObjectRow>, StoreError> {
    let mut statement = index
        .prepare_cached(
            "SELECT key, sequence, content, size, modified, part_count, file, envelope FROM object
             WHERE bucket = ?1 AND key = ?2",
        )
        .map_err(failed("look an object up"))?;
    let mut rows = statement
        .query(params![bucket.cast_signed(), key.as_bytes()])
        .map_err(failed("look an object up"))?;
    rows.next()
        .map_err(failed("look an object up"))?
        .map(object_row)
        .transpose()
}

/// Runs a statement that finds at most one object by bucket and key.
fn one_object<T>(
    index: &Connection,
    sql: &str,
    bucket: &str,
    key: &str,
    read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let what = "look an object up";
    let mut statement = index.prepare_cached(sql).map_err(failed(what))?;
    let mut rows = statement
        .query(params![bucket, key.as_bytes()])
        .map_err(failed(what))?;
    match rows.next().map_err(failed(what))? {
        Some(row) => read(row),
        // Seldom, and only to say which of the two is missing.
        None => Err(bucket_number(index, bucket).map_or_else(|e| e, |_| StoreError::NoSuchKey)),
    }
}

pub(super) fn object(index: &Connection, bucket: &str, key: &str) -> Result<ObjectRow, StoreError> {
    let sql = "SELECT o.key, o.sequence, o.content, o.size, o.modified, o.part_count, o.file, o.envelope
               FROM bucket b CROSS JOIN object o ON o.bucket = b.number AND o.key = ?2 WHERE b.id = ?1 AND b.closed = 0";
    one_object(index, sql, bucket, key, object_row)
}

const OBJECT_AND_INLINE: &str = "SELECT o.key, o.sequence, o.content, o.size, o.modified, o.part_count, o.file, o.envelope, i.sealed
               FROM bucket b CROSS JOIN object o ON o.bucket = b.number AND o.key = ?2
               LEFT JOIN inline i ON o.file IS NULL AND o.part_count = 0 AND i.content = o.content
               WHERE b.id = ?1 AND b.closed = 0";

/// The object and, if it is inline, its sealed bytes. One statement, and so one view, without the
/// transaction that several would need: that and its locks were a tenth of the CPU of a 4 KiB GET.
pub(super) fn object_and_inline(
    index: &Connection,
    bucket: &str,
    key: &str,
) -> Result<(ObjectRow, Option<Bytes>), StoreError> {
    one_object(index, OBJECT_AND_INLINE, bucket, key, |row| {
        let sealed = row
            .get_ref(8)
            .and_then(|sealed| Ok(sealed.as_blob_or_null()?.map(Bytes::copy_from_slice)))
            .map_err(failed("read an inline object"))?;
        let object = object_row(row)?;
        if matches!(object.place, Place::Inline) && sealed.is_none() {
            return Err(StoreError::Corrupt("an inline object has no bytes".into()));
        }
        Ok((object, sealed))
    })
}

/// Which content an object has at this moment.
pub(super) fn content(index: &Connection, bucket: &str, key: &str) -> Result<u64, StoreError> {
    let sql =
        "SELECT o.content FROM bucket b CROSS JOIN object o ON o.bucket = b.number AND o.key = ?2
               WHERE b.id = ?1 AND b.closed = 0";
    one_object(index, sql, bucket, key, |row| {
        let content: i64 = row.get(0).map_err(failed("read an object row"))?;
        Ok(content.cast_unsigned())
    })
}

/// A row of `part`.
#[derive(Debug)]
pub(super) struct PartRow {
    pub(super) record: PartRecord,
    /// `None` if the row is damaged, and says no longer which it is.
    pub(super) file: Option<FileId>,
}

/// Parts of one content with numbers above `after`, `limit` at most.
pub(super) fn parts(
    index: &Connection,
    content: u64,
    after: u32,
    limit: usize,
) -> Result<Vec<PartRow>, StoreError> {
    let what = "read parts";
    let mut statement = index
        .prepare_cached(
            "SELECT number, sequence, plain_len, modified, file, envelope FROM part
             WHERE content = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
        )
        .map_err(failed(what))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![content.cast_signed(), after, limit], |row| {
        let record = PartRecord {
            number: row.get(0)?,
            sequence: row.get::<_, i64>(1)?.cast_unsigned(),
            plain_len: row.get::<_, i64>(2)?.cast_unsigned(),
            modified: from_nanos(row.get(3)?),
            envelope: Bytes::copy_from_slice(row.get_ref(5)?.as_blob()?),
        };
        Ok((record, FileId::from_index(row.get_ref(4)?.as_blob()?)))
    });
    rows.map_err(failed(what))?
        .map(|row| {
            let (record, file) = row.map_err(failed(what))?;
            Ok(PartRow {
                record,
                file: file.ok(),
            })
        })
        .collect()
}

/// A row of `upload`.
#[derive(Debug)]
pub(super) struct UploadRow {
    pub(super) record: UploadRecord,
    pub(super) content: u64,
}

fn upload_row(row: &Row<'_>) -> Result<UploadRow, StoreError> {
    let read = || -> rusqlite::Result<_> {
        let content = row.get::<_, i64>(1)?.cast_unsigned();
        let id = UploadId::new(content, row.get(2)?);
        let envelope = Bytes::copy_from_slice(row.get_ref(4)?.as_blob()?);
        let record = UploadRecord {
            id,
            key: String::new(),
            initiated: from_nanos(row.get(3)?),
            envelope,
        };
        Ok((row.get_ref(0)?.as_blob()?, UploadRow { record, content }))
    };
    let (key, mut upload) = read().map_err(failed("read an upload row"))?;
    upload.record.key = key_text(key)?;
    Ok(upload)
}

/// The upload of this id, bucket (by number) and key.
pub(super) fn upload_in(
    index: &Connection,
    bucket: u64,
    key: &str,
    id: &UploadId,
) -> Result<UploadRow, StoreError> {
    let what = "look an upload up";
    let mut statement = index
        .prepare_cached(
            "SELECT key, content, random, initiated, envelope FROM upload
             WHERE bucket = ?1 AND key = ?2 AND content = ?3",
        )
        .map_err(failed(what))?;
    let mut rows = statement
        .query(params![
            bucket.cast_signed(),
            key.as_bytes(),
            id.sequence().cast_signed()
        ])
        .map_err(failed(what))?;
    let upload = rows
        .next()
        .map_err(failed(what))?
        .map(upload_row)
        .transpose()?;
    upload
        .filter(|upload| upload.record.id == *id)
        .ok_or(StoreError::NoSuchUpload)
}

/// One consistent view for several statements.
pub(super) fn view(index: &Connection) -> Result<rusqlite::Transaction<'_>, StoreError> {
    index
        .unchecked_transaction()
        .map_err(failed("begin to read"))
}

/// The least byte string above every string that begins with `prefix`, which is text that is not empty.
fn successor(prefix: &str) -> Vec<u8> {
    let mut bytes = prefix.as_bytes().to_vec();
    let last = bytes
        .last_mut()
        .expect("a common prefix ends with its delimiter");
    // No byte of UTF-8 is above 0xf4.
    *last += 1;
    bytes
}

/// Where to begin: the least key that may be listed.
fn first_key(prefix: &str, delimiter: Option<&str>, after: Option<&str>) -> Vec<u8> {
    match after {
        Some(after) if after >= prefix => {
            let rolled = after
                .starts_with(prefix)
                .then(|| common_prefix(after, prefix, delimiter))
                .flatten();
            match rolled {
                // Its common prefix sorts before (or is) the start, and so is over.
                Some(rolled) => successor(rolled),
                None => [after.as_bytes(), &[0]].concat(),
            }
        }
        _ => prefix.as_bytes().to_vec(),
    }
}

/// Lists objects. Each common prefix costs one seek, however many keys it covers.
pub(super) fn list(
    index: &Connection,
    bucket: &str,
    query: &ListQuery,
) -> Result<Page<ListEntry>, StoreError> {
    let what = "list objects";
    let view = view(index)?;
    let bucket = bucket_number(&view, bucket)?;
    let mut page = Page::default();
    if query.limit == 0 {
        return Ok(page);
    }
    let delimiter = query.delimiter.as_deref();
    let mut statement = view
        .prepare_cached(
            "SELECT key, sequence, content, size, modified, part_count, file, envelope FROM object
             WHERE bucket = ?1 AND key >= ?2 ORDER BY key",
        )
        .map_err(failed(what))?;
    let mut seek = Some(first_key(&query.prefix, delimiter, query.after.as_deref()));
    while let Some(from) = seek.take() {
        let mut rows = statement
            .query(params![bucket.cast_signed(), from])
            .map_err(failed(what))?;
        while let Some(row) = rows.next().map_err(failed(what))? {
            let key = row
                .get_ref(0)
                .and_then(|key| Ok(key.as_blob()?))
                .map_err(failed(what))?;
            if !key.starts_with(query.prefix.as_bytes()) {
                break;
            }
            if page.entries.len() == query.limit {
                page.truncated = true;
                break;
            }
            let Ok(key) = std::str::from_utf8(key) else {
                // It hides none of the others.
                tracing::error!(key = ?String::from_utf8_lossy(key), "a listed object's row is damaged: its key is no text");
                continue;
            };
            if let Some(rolled) = common_prefix(key, &query.prefix, delimiter) {
                page.entries
                    .push(ListEntry::CommonPrefix(rolled.to_owned()));
                seek = Some(successor(rolled));
                break;
            }
            page.entries
                .push(ListEntry::Object(object_row(row)?.record));
        }
    }
    Ok(page)
}

/// Lists uploads, likewise.
pub(super) fn uploads(
    index: &Connection,
    bucket: &str,
    query: &UploadQuery,
) -> Result<Page<UploadEntry>, StoreError> {
    let what = "list uploads";
    let view = view(index)?;
    let bucket = bucket_number(&view, bucket)?;
    let mut page = Page::default();
    if query.limit == 0 {
        return Ok(page);
    }
    let (prefix, delimiter) = (query.prefix.as_str(), query.delimiter.as_deref());
    let start = match (&query.after_key, &query.after_upload) {
        // The rest of the uploads of one key, unless that key is rolled up.
        (Some(key), Some(id))
            if key.starts_with(prefix) && common_prefix(key, prefix, delimiter).is_none() =>
        {
            (key.as_bytes().to_vec(), id.sequence().saturating_add(1))
        }
        (after, _) => (first_key(prefix, delimiter, after.as_deref()), 0),
    };
    let mut statement = view
        .prepare_cached(
            "SELECT key, content, random, initiated, envelope FROM upload
             WHERE bucket = ?1 AND (key, content) >= (?2, ?3) ORDER BY key, content",
        )
        .map_err(failed(what))?;
    let mut seek = Some(start);
    while let Some((key, content)) = seek.take() {
        let content = i64::try_from(content).unwrap_or(i64::MAX);
        let mut rows = statement
            .query(params![bucket.cast_signed(), key, content])
            .map_err(failed(what))?;
        while let Some(row) = rows.next().map_err(failed(what))? {
            let upload = upload_row(row)?;
            if !upload.record.key.starts_with(prefix) {
                break;
            }
            if page.entries.len() == query.limit {
                page.truncated = true;
                break;
            }
            if let Some(rolled) = common_prefix(&upload.record.key, prefix, delimiter) {
                page.entries
                    .push(UploadEntry::CommonPrefix(rolled.to_owned()));
                seek = Some((successor(rolled), 0));
                break;
            }
            page.entries.push(UploadEntry::Upload(upload.record));
        }
    }
    Ok(page)
}

/// The data files that rows name.
///
/// A row that is damaged names none: its file is put aside with those that nothing names, and not removed.
pub(super) fn files(index: &Connection) -> Result<std::collections::HashSet<FileId>, StoreError> {
    let what = "read the names of data files";
    let mut statement = index
        .prepare("SELECT file FROM object WHERE file IS NOT NULL UNION ALL SELECT file FROM part")
        .map_err(failed(what))?;
    let mut rows = statement.query([]).map_err(failed(what))?;
    let mut files = std::collections::HashSet::new();
    while let Some(row) = rows.next().map_err(failed(what))? {
        let name = row.get_ref(0).and_then(|name| Ok(name.as_blob()?));
        match FileId::from_index(name.map_err(failed(what))?) {
            Ok(file) => drop(files.insert(file)),
            Err(error) => tracing::error!(%error, "a row of the object index is damaged"),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::StatementStatus;

    #[test]
    fn looking_another_key_up_does_not_compile_the_statement_anew() {
        let dir = tempfile::tempdir().unwrap();
        let disk = std::sync::Arc::new(host::OsDisk);
        let directory =
            crate::store::local::layout::Directory::create(disk, dir.path(), 0xff).unwrap();
        let site = crate::store::local::schema::site(&directory, None);
        let index =
            crate::store::local::schema::open_for_writing(&site, crate::store::local::schema::LOOK)
                .unwrap();
        index
            .execute("INSERT INTO bucket VALUES ('b', 1, 0)", [])
            .unwrap();
        for key in ["x", "y", "z", "x"] {
            let found = object_and_inline(&index, "b", key);
            assert!(matches!(found, Err(StoreError::NoSuchKey)));
        }
        let statement = index.prepare_cached(OBJECT_AND_INLINE).unwrap();
        assert!(statement.get_status(StatementStatus::Run) >= 4);
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }

    #[test]
    fn times_survive_the_index_to_the_nanosecond() {
        for nanos in [0, 1, -1, 1_700_000_000_123_456_789, i64::MIN + 1, i64::MAX] {
            assert_eq!(to_nanos(from_nanos(nanos)), nanos);
        }
    }

    #[test]
    fn a_list_begins_after_the_common_prefix_it_is_continued_from() {
        assert_eq!(first_key("", None, None), b"");
        assert_eq!(first_key("p/", None, Some("a")), b"p/");
        assert_eq!(first_key("p/", Some("/"), Some("p/x/")), b"p/x0");
        assert_eq!(first_key("p/", Some("/"), Some("p/x/y")), b"p/x0");
        assert_eq!(first_key("p/", Some("/"), Some("p/x")), b"p/x\0");
        assert_eq!(first_key("p/", Some("/"), Some("q")), b"q\0");
    }
}
