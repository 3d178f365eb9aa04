//! What requests do to the index, each within one change of the writer thread.
//!
//! A change that returns an error is undone whole, so each may check as it goes.

use bytes::Bytes;
use rusqlite::{Connection, params};

use super::data_file::Published;
use super::layout::FileId;
use super::lookup::{self, ObjectRow, Place, to_nanos};
use super::schema::failed;
use super::writer::Batch;
use crate::store::{
    Commit, Condition, ObjectRecord, PartRecord, PartSeen, StoreError, UploadId, UploadRecord,
};

/// Where the sealed bytes of a put are until it is committed.
pub(super) enum Body {
    /// Ciphertext, then tags.
    Inline(Vec<u8>),
    File(Published),
}

fn execute(
    index: &Connection,
    what: &'static str,
    sql: &str,
    values: impl rusqlite::Params,
) -> Result<usize, StoreError> {
    index
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(values))
        .map_err(failed(what))
}

pub(super) fn create_bucket(batch: &mut Batch<'_>, bucket: &str) -> Result<(), StoreError> {
    let number = batch.next_sequence();
    let sql = "INSERT INTO bucket (id, number, closed) VALUES (?1, ?2, 0)
               ON CONFLICT DO UPDATE SET closed = 0";
    let values = params![bucket, number.cast_signed()];
    execute(batch.index, "create a bucket", sql, values)?;
    Ok(())
}

/// The number of a bucket, closed or not, that holds no objects.
fn empty_bucket(index: &Connection, bucket: &str) -> Result<i64, StoreError> {
    let number = lookup::any_bucket_number(index, bucket)?.cast_signed();
    let occupied = index
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM object WHERE bucket = ?1)")
        .and_then(|mut statement| statement.query_row([number], |row| row.get::<_, bool>(0)))
        .map_err(failed("look for objects in a bucket"))?;
    if occupied {
        return Err(StoreError::BucketNotEmpty);
    }
    Ok(number)
}

pub(super) fn close_bucket(batch: &mut Batch<'_>, bucket: &str) -> Result<(), StoreError> {
    empty_bucket(batch.index, bucket)?;
    let sql = "UPDATE bucket SET closed = 1 WHERE id = ?1";
    execute(batch.index, "close a bucket", sql, [bucket])?;
    Ok(())
}

pub(super) fn delete_bucket(batch: &mut Batch<'_>, bucket: &str) -> Result<(), StoreError> {
    let (index, what) = (batch.index, "delete a bucket");
    let number = empty_bucket(index, bucket)?;
    let uploads: Vec<i64> = index
        .prepare_cached("SELECT content FROM upload WHERE bucket = ?1")
        .and_then(|mut statement| statement.query_map([number], |row| row.get(0))?.collect())
        .map_err(failed(what))?;
    for content in uploads {
        drop_parts(batch, content.cast_unsigned(), None)?;
    }
    execute(
        index,
        what,
        "DELETE FROM upload WHERE bucket = ?1",
        [number],
    )?;
    execute(index, what, "DELETE FROM bucket WHERE id = ?1", [bucket])?;
    Ok(())
}

/// Removes the parts of a content and has their files removed.
fn drop_parts(batch: &mut Batch<'_>, content: u64, pinned: Option<u64>) -> Result<(), StoreError> {
    let parts = lookup::parts(batch.index, content, 0, usize::MAX)?;
    execute(
        batch.index,
        "drop parts",
        "DELETE FROM part WHERE content = ?1",
        [content.cast_signed()],
    )?;
    batch.doom(
        pinned,
        parts.into_iter().filter_map(|part| part.file).collect(),
    );
    Ok(())
}

/// Removes what an object consists of; its row is the caller's affair.
fn drop_content(batch: &mut Batch<'_>, row: &ObjectRow) -> Result<(), StoreError> {
    match row.place {
        Place::Inline => {
            let sql = "DELETE FROM inline WHERE content = ?1";
            execute(
                batch.index,
                "drop an inline object",
                sql,
                [row.content.cast_signed()],
            )?;
        }
        Place::File(file) => batch.doom(Some(row.content), vec![file]),
        Place::Parts => drop_parts(batch, row.content, Some(row.content))?,
        Place::Lost => {}
    }
    Ok(())
}

struct NewObject<'a> {
    bucket: u64,
    content: u64,
    file: Option<FileId>,
    old: Option<&'a ObjectRow>,
}

/// Puts an object row in place, over the old one if there is one.
fn put_row(
    batch: &mut Batch<'_>,
    new: NewObject<'_>,
    record: &ObjectRecord,
) -> Result<(), StoreError> {
    if let Some(old) = new.old {
        drop_content(batch, old)?;
    }
    let sql = "INSERT OR REPLACE INTO object
               (bucket, key, sequence, content, size, modified, part_count, file, envelope)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let size = i64::try_from(record.size)
        .map_err(|_| StoreError::Misuse("an object of more than 2^63 bytes"))?;
    let values = params![
        new.bucket.cast_signed(),
        record.key.as_bytes(),
        record.sequence.cast_signed(),
        new.content.cast_signed(),
        size,
        to_nanos(record.modified),
        record.part_count,
        new.file.as_ref().map(|file| &file.as_bytes()[..]),
        &record.envelope[..],
    ];
    execute(batch.index, "put an object", sql, values)?;
    Ok(())
}

pub(super) fn put(
    batch: &mut Batch<'_>,
    bucket: &str,
    key: String,
    size: u64,
    body: Body,
    commit: Commit,
) -> Result<ObjectRecord, StoreError> {
    let bucket = lookup::bucket_number(batch.index, bucket)?;
    let old = lookup::object_in(batch.index, bucket, &key)?;
    commit
        .condition
        .check(old.as_ref().map(|old| old.record.sequence))?;
    let sequence = batch.next_sequence();
    let record = ObjectRecord {
        key,
        size,
        modified: commit.modified,
        sequence,
        part_count: 0,
        envelope: commit.envelope,
    };
    let file = match body {
        Body::File(file) => {
            let id = file.id();
            batch.adopt(file);
            Some(id)
        }
        Body::Inline(sealed) => {
            let sql = "INSERT INTO inline (content, sealed) VALUES (?1, ?2)";
            execute(
                batch.index,
                "put an inline object",
                sql,
                params![sequence.cast_signed(), sealed],
            )?;
            None
        }
    };
    put_row(
        batch,
        NewObject {
            bucket,
            content: sequence,
            file,
            old: old.as_ref(),
        },
        &record,
    )?;
    Ok(record)
}

pub(super) fn replace_envelope(
    batch: &mut Batch<'_>,
    bucket: &str,
    key: &str,
    sequence: u64,
    envelope: Bytes,
) -> Result<ObjectRecord, StoreError> {
    let bucket = lookup::bucket_number(batch.index, bucket)?;
    let row = lookup::object_in(batch.index, bucket, key)?.ok_or(StoreError::NoSuchKey)?;
    Condition::Sequence(sequence).check(Some(row.record.sequence))?;
    let record = ObjectRecord {
        sequence: batch.next_sequence(),
        envelope,
        ..row.record
    };
    let sql = "UPDATE object SET sequence = ?3, envelope = ?4 WHERE bucket = ?1 AND key = ?2";
    let values = params![
        bucket.cast_signed(),
        key.as_bytes(),
        record.sequence.cast_signed(),
        &record.envelope[..]
    ];
    execute(batch.index, "replace an envelope", sql, values)?;
    Ok(record)
}

/// Deletes an object of a bucket given by its number.
pub(super) fn delete(
    batch: &mut Batch<'_>,
    bucket: u64,
    key: &str,
    condition: Condition,
) -> Result<bool, StoreError> {
    let old = lookup::object_in(batch.index, bucket, key)?;
    condition.check(old.as_ref().map(|old| old.record.sequence))?;
    let Some(old) = old else { return Ok(false) };
    drop_content(batch, &old)?;
    let sql = "DELETE FROM object WHERE bucket = ?1 AND key = ?2";
    execute(
        batch.index,
        "delete an object",
        sql,
        params![bucket.cast_signed(), key.as_bytes()],
    )?;
    Ok(true)
}

pub(super) fn create_upload(
    batch: &mut Batch<'_>,
    bucket: &str,
    random: [u8; 16],
    record: impl FnOnce(UploadId) -> UploadRecord,
) -> Result<UploadRecord, StoreError> {
    let bucket = lookup::bucket_number(batch.index, bucket)?;
    let content = batch.next_sequence();
    let record = record(UploadId::new(content, random));
    let sql = "INSERT INTO upload (bucket, key, content, random, initiated, envelope) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![
        bucket.cast_signed(),
        record.key.as_bytes(),
        content.cast_signed(),
        random,
        to_nanos(record.initiated),
        &record.envelope[..],
    ];
    execute(batch.index, "create an upload", sql, values)?;
    Ok(record)
}

/// A part that is ready to be committed.
pub(super) struct NewPart {
    pub(super) number: u32,
    pub(super) plain_len: u64,
    pub(super) modified: std::time::SystemTime,
    pub(super) envelope: Bytes,
    pub(super) file: Published,
}

pub(super) fn put_part(
    batch: &mut Batch<'_>,
    bucket: &str,
    key: &str,
    id: &UploadId,
    part: NewPart,
) -> Result<PartRecord, StoreError> {
    let bucket = lookup::bucket_number(batch.index, bucket)?;
    let upload = lookup::upload_in(batch.index, bucket, key, id)?;
    let old = lookup::parts(batch.index, upload.content, part.number - 1, 1)?;
    if let Some(old) = old.into_iter().find(|old| old.record.number == part.number) {
        // Parts of an upload have no readers.
        batch.doom(None, old.file.into_iter().collect());
    }
    let sequence = batch.next_sequence();
    let NewPart {
        number,
        plain_len,
        modified,
        envelope,
        file,
    } = part;
    let id = file.id();
    let sql = "INSERT OR REPLACE INTO part (content, number, sequence, plain_len, modified, file, envelope)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let values = params![
        upload.content.cast_signed(),
        number,
        sequence.cast_signed(),
        plain_len.cast_signed(),
        to_nanos(modified),
        &id.as_bytes()[..],
        &envelope[..],
    ];
    execute(batch.index, "put a part", sql, values)?;
    batch.adopt(file);
    Ok(PartRecord {
        number,
        plain_len,
        modified,
        sequence,
        envelope,
    })
}

fn delete_upload_row(
    batch: &Batch<'_>,
    bucket: u64,
    key: &str,
    content: u64,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM upload WHERE bucket = ?1 AND key = ?2 AND content = ?3";
    execute(
        batch.index,
        "end an upload",
        sql,
        params![bucket.cast_signed(), key.as_bytes(), content.cast_signed()],
    )?;
    Ok(())
}

pub(super) fn complete_upload(
    batch: &mut Batch<'_>,
    bucket: &str,
    key: String,
    id: &UploadId,
    wanted: &[PartSeen],
    commit: Commit,
) -> Result<ObjectRecord, StoreError> {
    let bucket = lookup::bucket_number(batch.index, bucket)?;
    let content = lookup::upload_in(batch.index, bucket, &key, id)?.content;
    let mut there = lookup::parts(batch.index, content, 0, usize::MAX)?
        .into_iter()
        .peekable();
    let (mut size, mut unwanted) = (0u64, Vec::new());
    for seen in wanted {
        while let Some(part) = there.next_if(|part| part.record.number < seen.number) {
            unwanted.push(part);
        }
        let part = there.next_if(|part| {
            // A part whose file is not known is not there any more.
            part.record.number == seen.number
                && part.record.sequence == seen.sequence
                && part.file.is_some()
        });
        size += part
            .ok_or(StoreError::InvalidPart {
                number: seen.number,
            })?
            .record
            .plain_len;
    }
    unwanted.extend(there);
    for part in unwanted {
        let sql = "DELETE FROM part WHERE content = ?1 AND number = ?2";
        execute(
            batch.index,
            "drop a part",
            sql,
            params![content.cast_signed(), part.record.number],
        )?;
        batch.doom(None, part.file.into_iter().collect());
    }

    let old = lookup::object_in(batch.index, bucket, &key)?;
    commit
        .condition
        .check(old.as_ref().map(|old| old.record.sequence))?;
    delete_upload_row(batch, bucket, &key, content)?;
    let record = ObjectRecord {
        key,
        size,
        modified: commit.modified,
        sequence: batch.next_sequence(),
        part_count: u32::try_from(wanted.len()).expect("at most 10,000 parts"),
        envelope: commit.envelope,
    };
    put_row(
        batch,
        NewObject {
            bucket,
            content,
            file: None,
            old: old.as_ref(),
        },
        &record,
    )?;
    Ok(record)
}

pub(super) fn abort_upload(
    batch: &mut Batch<'_>,
    bucket: &str,
    key: &str,
    id: &UploadId,
) -> Result<(), StoreError> {
    let bucket = lookup::bucket_number(batch.index, bucket)?;
    let content = lookup::upload_in(batch.index, bucket, key, id)?.content;
    drop_parts(batch, content, None)?;
    delete_upload_row(batch, bucket, key, content)
}
