//! The sealed record that goes with every object, part and upload.
//!
//! It holds everything about an object that its reader needs and its store must
//! not see: how its key is wrapped, salts, the entity tag, checksums (an MD5 or
//! CRC of the plaintext would let whoever has the disk confirm a guess), user
//! metadata, content headers and tags. `FORMAT.md` beside this file fixes every
//! byte.
//!
//! Promises: an envelope opens only where it was sealed (bucket and key; for
//! parts object and number), so records cannot be swapped; the object's
//! envelope carries a digest over its parts, so parts cannot be exchanged,
//! dropped or reordered; an unknown version or a leftover byte is refused. Each
//! says which generation of the store key it is sealed under, and can be sealed
//! anew knowing only where it stands.
//!
//! Not promised: that the newest envelope is the one given back. A store that
//! is rolled back as a whole shows an older state.

mod codec;

use std::sync::Arc;

use bytes::Bytes;
use crypto::chunk::{Algorithm as ChunkAlgorithm, StreamAad};
use crypto::context::EncryptionContext;
use crypto::hash::Sha256;
use crypto::random::Random;
use crypto::record;
use crypto::secret::SecretVec;
use root::{RecordKey, Sealing, StoreKey};

use crate::bucket::BucketId;
use crate::checksum::{self, Checksum, Coverage, Plan, Value};
use crate::error::Error;
use crate::store::{PartRecord, SealedAt, SealedRow};
use codec::{Malformed, Reader, Writer};

const VERSION: u8 = 2;
const KIND_OBJECT: u8 = 1;
const KIND_UPLOAD: u8 = 2;
const KIND_PART: u8 = 3;

/// Binds a record to its kind.
const TABLE_OBJECT: &str = "object";
const TABLE_UPLOAD: &str = "upload";
const TABLE_PART: &str = "part";

/// Drawn for each object and upload; binds what belongs together.
pub(crate) type ObjectId = [u8; 16];

/// How the object's key can be had again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Protection {
    /// SSE-S3: wrapped under a bucket key of the gateway's own KMS key.
    Owned {
        /// The bucket key as the keyring wrapped it.
        bucket_key: Vec<u8>,
        /// The object key under the bucket key.
        wrapped: Vec<u8>,
    },
    /// SSE-KMS, a data key of its own.
    Kms {
        /// Full ARN of the KMS key.
        key_arn: String,
        /// The object key as the keyring wrapped it.
        data_key: Vec<u8>,
        /// The client's context, without what S3 adds.
        context: EncryptionContext,
    },
    /// SSE-KMS with a bucket key.
    KmsBucketKey {
        /// Full ARN of the KMS key.
        key_arn: String,
        /// The bucket key as the keyring wrapped it.
        bucket_key: Vec<u8>,
        /// The object key under the bucket key.
        wrapped: Vec<u8>,
        /// The client's context, without what S3 adds.
        context: EncryptionContext,
    },
    /// SSE-C: the client has the key; this recognises it.
    Customer {
        /// Salt of the verifier.
        salt: [u8; 32],
        /// HKDF of the key under the salt.
        verifier: [u8; 32],
    },
}

/// Content headers, user metadata and tags: what the client gave to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `content-type` and the like, lower-case names, sorted.
    pub(crate) headers: Vec<(String, String)>,
    /// User metadata without its prefix, sorted.
    pub(crate) metadata: Vec<(String, String)>,
    /// Object tags, sorted by key.
    pub(crate) tags: Vec<(String, String)>,
}

/// Where an object's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One chunk stream.
    Single {
        /// Salt of its one-use key.
        salt: [u8; 32],
    },
    /// The parts of an upload.
    Parts {
        /// How many.
        count: u32,
        /// Over their numbers, lengths and envelopes; see [`parts_digest`].
        digest: [u8; 32],
    },
}

/// An object's envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) id: ObjectId,
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) algorithm: ChunkAlgorithm,
    pub(crate) layout: Layout,
    pub(crate) protection: Protection,
    pub(crate) attributes: Attributes,
    pub(crate) checksum: Option<Checksum>,
}

/// The envelope of an upload in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    pub(crate) id: ObjectId,
    pub(crate) algorithm: ChunkAlgorithm,
    pub(crate) protection: Protection,
    pub(crate) attributes: Attributes,
    pub(crate) plan: Plan,
}

/// The envelope of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) salt: [u8; 32],
    pub(crate) size: u64,
    /// 16 bytes, shown in hex: the MD5 of the plaintext or random.
    pub(crate) etag: [u8; 16],
    pub(crate) checksum: Option<Value>,
}

/// A sealed envelope on its way to a store.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) envelope: Bytes,
    /// Held until the fate of the commit is known: a rotation of the store key waits for it, or would miss an envelope
    /// that was sealed before it and committed behind it.
    pub(crate) sealing: Sealing,
}

/// Seals and opens envelopes.
pub(crate) struct Envelopes {
    objects: RecordKey,
    uploads: RecordKey,
    parts: RecordKey,
    random: Arc<dyn Random>,
}

impl Envelopes {
    pub(crate) fn new(store_key: &StoreKey, random: Arc<dyn Random>) -> Self {
        Self {
            objects: store_key.table(TABLE_OBJECT),
            uploads: store_key.table(TABLE_UPLOAD),
            parts: store_key.table(TABLE_PART),
            random,
        }
    }

    fn seal(&self, key: &RecordKey, table: &str, id: &[u8], head: &[u8], plain: &[u8]) -> Sealed {
        let sealing = key.sealing();
        let sealed = sealing.seal(&place(table, id), plain, &*self.random);
        Sealed {
            envelope: [head, sealed.as_bytes()].concat().into(),
            sealing,
        }
    }

    pub(crate) fn seal_object(&self, bucket: &BucketId, key: &str, object: &Object) -> Sealed {
        let plain = encode_object(object);
        let id = entry_id(bucket, key);
        self.seal(&self.objects, TABLE_OBJECT, &id, &[], &plain)
    }

    pub(crate) fn open_object(
        &self,
        bucket: &BucketId,
        key: &str,
        sealed: &[u8],
    ) -> Result<Object, Error> {
        let plain = open(&self.objects, TABLE_OBJECT, &entry_id(bucket, key), sealed)?;
        decode_object(plain.expose()).map_err(|_| Error::Integrity)
    }

    pub(crate) fn seal_upload(&self, bucket: &BucketId, key: &str, upload: &Upload) -> Sealed {
        let plain = encode_upload(upload);
        let id = entry_id(bucket, key);
        self.seal(&self.uploads, TABLE_UPLOAD, &id, &[], &plain)
    }

    pub(crate) fn open_upload(
        &self,
        bucket: &BucketId,
        key: &str,
        sealed: &[u8],
    ) -> Result<Upload, Error> {
        let plain = open(&self.uploads, TABLE_UPLOAD, &entry_id(bucket, key), sealed)?;
        decode_upload(plain.expose()).map_err(|_| Error::Integrity)
    }

    pub(crate) fn seal_part(&self, at: &PartPlace, part: &Part) -> Sealed {
        let head = PartHead {
            object: at.object,
            salt: part.salt,
        };
        let (id, plain) = (head.id(at.number), encode_part(part));
        self.seal(&self.parts, TABLE_PART, &id, &head.encode(), &plain)
    }

    pub(crate) fn open_part(&self, at: &PartPlace, sealed: &[u8]) -> Result<Part, Error> {
        let (head, sealed) = PartHead::split(sealed)?;
        if head.object != at.object {
            return Err(Error::Integrity);
        }
        let plain = open(&self.parts, TABLE_PART, &head.id(at.number), sealed)?;
        decode_part(head.salt, plain.expose()).map_err(|_| Error::Integrity)
    }

    /// Rights to seal every kind of envelope.
    pub(crate) fn seals(&self) -> Seals {
        Seals {
            objects: self.objects.sealing(),
            uploads: self.uploads.sealing(),
            parts: self.parts.sealing(),
        }
    }

    /// Whether the envelope in a row is under an older generation of the store key than the newest.
    pub(crate) fn is_stale(&self, row: &SealedRow) -> bool {
        match &row.at {
            SealedAt::Object { .. } => self.objects.is_stale(&row.envelope),
            SealedAt::Upload { .. } => self.uploads.is_stale(&row.envelope),
            SealedAt::Part { .. } => match PartHead::split(&row.envelope) {
                Ok((_, sealed)) => self.parts.is_stale(sealed),
                Err(_) => true,
            },
        }
    }

    /// The envelope in a row, sealed anew for the same place; what is in it is not looked at.
    pub(crate) fn seal_again(&self, seals: &Seals, row: &SealedRow) -> Result<Bytes, Error> {
        let again = |key: &RecordKey, sealing: &Sealing, table, id: &[u8], sealed: &[u8]| {
            let plain = open(key, table, id, sealed)?;
            Ok(sealing.seal(&place(table, id), plain.expose(), &*self.random))
        };
        let sealed = match &row.at {
            SealedAt::Object { bucket, key } => {
                let id = entry_id(&BucketId::parse(bucket).ok_or(Error::Integrity)?, key);
                let (key, seals) = (&self.objects, &seals.objects);
                again(key, seals, TABLE_OBJECT, &id, &row.envelope)
            }
            SealedAt::Upload { bucket, key, .. } => {
                let id = entry_id(&BucketId::parse(bucket).ok_or(Error::Integrity)?, key);
                let (key, seals) = (&self.uploads, &seals.uploads);
                again(key, seals, TABLE_UPLOAD, &id, &row.envelope)
            }
            SealedAt::Part { number, .. } => {
                let (head, sealed) = PartHead::split(&row.envelope)?;
                let id = head.id(*number);
                let sealed = again(&self.parts, &seals.parts, TABLE_PART, &id, sealed)?;
                return Ok([&head.encode(), sealed.as_bytes()].concat().into());
            }
        };
        sealed.map(|sealed| sealed.into_bytes().into())
    }
}

/// The rights to seal each kind of envelope, held until the fate of the commit is known.
pub(crate) struct Seals {
    objects: Sealing,
    uploads: Sealing,
    parts: Sealing,
}

fn open(key: &RecordKey, table: &str, id: &[u8], sealed: &[u8]) -> Result<SecretVec, Error> {
    key.open(&place(table, id), sealed)
        .map_err(|_| Error::Integrity)
}

/// Envelopes are in no account's and no region's scope: a bucket's id says whose it is. They have no versions.
fn place<'a>(table: &'a str, id: &'a [u8]) -> record::Place<'a> {
    record::Place {
        table,
        account: "",
        region: "",
        id,
        version: 1,
    }
}

/// Where a part belongs.
pub(crate) struct PartPlace {
    pub(crate) object: ObjectId,
    pub(crate) number: u32,
}

/// What stands in the clear before a part's sealed record: what it is bound to, and the salt that its data is read
/// with. An object's envelope has a digest over those of its parts.
pub(crate) struct PartHead {
    pub(crate) object: ObjectId,
    pub(crate) salt: [u8; 32],
}

impl PartHead {
    const LEN: usize = 16 + 32;

    fn encode(&self) -> Vec<u8> {
        [&self.object[..], &self.salt].concat()
    }

    /// Takes the head off a part's envelope.
    pub(crate) fn split(envelope: &[u8]) -> Result<(Self, &[u8]), Error> {
        let (head, sealed) = envelope
            .split_first_chunk::<{ Self::LEN }>()
            .ok_or(Error::Integrity)?;
        let mut from = Reader::new(head);
        let (object, salt) = (from.array(), from.array());
        let head = Self {
            object: object.map_err(|_| Error::Integrity)?,
            salt: salt.map_err(|_| Error::Integrity)?,
        };
        Ok((head, sealed))
    }

    /// What the record of part `number` is bound to.
    fn id(&self, number: u32) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.array(&self.object);
        writer.u32(number);
        writer.array(&self.salt);
        writer.finish()
    }
}

/// What an object's or an upload's envelope is bound to: bucket and key.
fn entry_id(bucket: &BucketId, key: &str) -> Vec<u8> {
    [bucket.as_bytes(), key.as_bytes()].concat()
}

/// What the chunks of a stream are bound to: bucket, key and part number (0 for
/// an object in one piece).
pub(crate) fn stream_place(bucket: &str, key: &str, part: u32) -> StreamAad {
    StreamAad::new([bucket.as_bytes(), key.as_bytes(), &part.to_be_bytes()])
}

/// What a wrapped object key is bound to.
pub(crate) fn key_place(bucket: &str, key: &str, object: &ObjectId) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.bytes(bucket.as_bytes());
    writer.bytes(key.as_bytes());
    writer.array(object);
    writer.finish()
}

/// SHA-256 over each part's number, length and head, in order. What is sealed behind the heads may be sealed anew.
pub(crate) fn parts_digest(parts: &[PartRecord]) -> Result<[u8; 32], Error> {
    let mut hasher = Sha256::new();
    for part in parts {
        let (head, _) = PartHead::split(&part.envelope)?;
        let mut writer = Writer::default();
        writer.u32(part.number);
        writer.u64(part.plain_len);
        writer.array(&head.object);
        writer.array(&head.salt);
        hasher.update(&writer.finish());
    }
    Ok(hasher.finish())
}

fn encode_object(object: &Object) -> Vec<u8> {
    let mut out = Writer::default();
    out.u8(VERSION);
    out.u8(KIND_OBJECT);
    out.array(&object.id);
    out.u64(object.size);
    out.bytes(object.etag.as_bytes());
    out.u8(object.algorithm.number());
    match &object.layout {
        Layout::Single { salt } => {
            out.u8(1);
            out.array(salt);
        }
        Layout::Parts { count, digest } => {
            out.u8(2);
            out.u32(*count);
            out.array(digest);
        }
    }
    encode_protection(&mut out, &object.protection);
    encode_attributes(&mut out, &object.attributes);
    match &object.checksum {
        None => out.u8(0),
        Some(checksum) => {
            out.u8(checksum.coverage.code());
            out.u32(checksum.parts);
            encode_value(&mut out, Some(&checksum.value));
        }
    }
    out.finish()
}

fn decode_object(bytes: &[u8]) -> Result<Object, Malformed> {
    let mut from = Reader::new(bytes);
    head(&mut from, KIND_OBJECT)?;
    let id = from.array()?;
    let size = from.u64()?;
    let etag = from.text()?;
    let algorithm = chunk_algorithm(from.u8()?)?;
    let layout = match from.u8()? {
        1 => Layout::Single {
            salt: from.array()?,
        },
        2 => Layout::Parts {
            count: from.u32()?,
            digest: from.array()?,
        },
        _ => return Err(Malformed),
    };
    let protection = decode_protection(&mut from)?;
    let attributes = decode_attributes(&mut from)?;
    let checksum = match from.u8()? {
        0 => None,
        code => {
            let coverage = Coverage::of_code(code).ok_or(Malformed)?;
            let parts = from.u32()?;
            let value = decode_value(&mut from)?.ok_or(Malformed)?;
            Some(Checksum {
                value,
                coverage,
                parts,
            })
        }
    };
    from.end()?;
    Ok(Object {
        id,
        size,
        etag,
        algorithm,
        layout,
        protection,
        attributes,
        checksum,
    })
}

fn encode_upload(upload: &Upload) -> Vec<u8> {
    let mut out = Writer::default();
    out.u8(VERSION);
    out.u8(KIND_UPLOAD);
    out.array(&upload.id);
    out.u8(upload.algorithm.number());
    encode_protection(&mut out, &upload.protection);
    encode_attributes(&mut out, &upload.attributes);
    out.u8(upload.plan.algorithm.code());
    out.u8(upload.plan.coverage.code());
    out.u8(u8::from(upload.plan.asked));
    out.finish()
}

fn decode_upload(bytes: &[u8]) -> Result<Upload, Malformed> {
    let mut from = Reader::new(bytes);
    head(&mut from, KIND_UPLOAD)?;
    let upload = Upload {
        id: from.array()?,
        algorithm: chunk_algorithm(from.u8()?)?,
        protection: decode_protection(&mut from)?,
        attributes: decode_attributes(&mut from)?,
        plan: Plan {
            algorithm: checksum::Algorithm::of_code(from.u8()?).ok_or(Malformed)?,
            coverage: Coverage::of_code(from.u8()?).ok_or(Malformed)?,
            asked: match from.u8()? {
                0 => false,
                1 => true,
                _ => return Err(Malformed),
            },
        },
    };
    from.end()?;
    Ok(upload)
}

fn encode_part(part: &Part) -> Vec<u8> {
    let mut out = Writer::default();
    out.u8(VERSION);
    out.u8(KIND_PART);
    out.u64(part.size);
    out.array(&part.etag);
    encode_value(&mut out, part.checksum.as_ref());
    out.finish()
}

fn decode_part(salt: [u8; 32], bytes: &[u8]) -> Result<Part, Malformed> {
    let mut from = Reader::new(bytes);
    head(&mut from, KIND_PART)?;
    let part = Part {
        salt,
        size: from.u64()?,
        etag: from.array()?,
        checksum: decode_value(&mut from)?,
    };
    from.end()?;
    Ok(part)
}

fn head(from: &mut Reader<'_>, kind: u8) -> Result<(), Malformed> {
    if from.u8()? != VERSION || from.u8()? != kind {
        return Err(Malformed);
    }
    Ok(())
}

fn chunk_algorithm(number: u8) -> Result<ChunkAlgorithm, Malformed> {
    ChunkAlgorithm::from_number(number).ok_or(Malformed)
}

fn encode_protection(out: &mut Writer, protection: &Protection) {
    match protection {
        Protection::Owned {
            bucket_key,
            wrapped,
        } => {
            out.u8(1);
            out.bytes(bucket_key);
            out.bytes(wrapped);
        }
        Protection::Kms {
            key_arn,
            data_key,
            context,
        } => {
            out.u8(2);
            out.bytes(key_arn.as_bytes());
            out.bytes(data_key);
            encode_context(out, context);
        }
        Protection::KmsBucketKey {
            key_arn,
            bucket_key,
            wrapped,
            context,
        } => {
            out.u8(3);
            out.bytes(key_arn.as_bytes());
            out.bytes(bucket_key);
            out.bytes(wrapped);
            encode_context(out, context);
        }
        Protection::Customer { salt, verifier } => {
            out.u8(4);
            out.array(salt);
            out.array(verifier);
        }
    }
}

fn decode_protection(from: &mut Reader<'_>) -> Result<Protection, Malformed> {
    Ok(match from.u8()? {
        1 => Protection::Owned {
            bucket_key: from.bytes()?.to_vec(),
            wrapped: from.bytes()?.to_vec(),
        },
        2 => Protection::Kms {
            key_arn: from.text()?,
            data_key: from.bytes()?.to_vec(),
            context: decode_context(from)?,
        },
        3 => Protection::KmsBucketKey {
            key_arn: from.text()?,
            bucket_key: from.bytes()?.to_vec(),
            wrapped: from.bytes()?.to_vec(),
            context: decode_context(from)?,
        },
        4 => Protection::Customer {
            salt: from.array()?,
            verifier: from.array()?,
        },
        _ => return Err(Malformed),
    })
}

fn encode_context(out: &mut Writer, context: &EncryptionContext) {
    let pairs: Vec<(&str, &str)> = context.iter().collect();
    out.map(pairs.into_iter());
}

fn decode_context(from: &mut Reader<'_>) -> Result<EncryptionContext, Malformed> {
    EncryptionContext::from_pairs(from.map()?).map_err(|_| Malformed)
}

fn encode_attributes(out: &mut Writer, attributes: &Attributes) {
    for map in [&attributes.headers, &attributes.metadata, &attributes.tags] {
        out.map(
            map.iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
    }
}

fn decode_attributes(from: &mut Reader<'_>) -> Result<Attributes, Malformed> {
    Ok(Attributes {
        headers: from.map()?,
        metadata: from.map()?,
        tags: from.map()?,
    })
}

fn encode_value(out: &mut Writer, value: Option<&Value>) {
    match value {
        None => out.u8(0),
        Some(value) => {
            out.u8(value.algorithm.code());
            out.array(value.bytes());
        }
    }
}

fn decode_value(from: &mut Reader<'_>) -> Result<Option<Value>, Malformed> {
    let code = from.u8()?;
    if code == 0 {
        return Ok(None);
    }
    let algorithm = checksum::Algorithm::of_code(code).ok_or(Malformed)?;
    let value = match algorithm.len() {
        4 => Value::new(algorithm, &from.array::<4>()?),
        8 => Value::new(algorithm, &from.array::<8>()?),
        20 => Value::new(algorithm, &from.array::<20>()?),
        _ => Value::new(algorithm, &from.array::<32>()?),
    };
    value.map(Some).ok_or(Malformed)
}

/// For the fuzz targets: whatever decodes, encodes to the same bytes.
#[cfg(any(fuzzing, test))]
pub(crate) fn decode_any(data: &[u8]) {
    if let Ok(object) = decode_object(data) {
        assert_eq!(encode_object(&object), data);
    }
    if let Ok(upload) = decode_upload(data) {
        assert_eq!(encode_upload(&upload), data);
    }
    if let Ok(part) = decode_part([0; 32], data) {
        assert_eq!(encode_part(&part), data);
    }
}

#[cfg(test)]
mod tests;
