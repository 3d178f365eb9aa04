//! ListObjects, versions 1 and 2.

use iam::action::s3 as action;
use s3s::S3Response;
use s3s::dto::*;

use super::page_token::{parse_token, token};
use super::{Front, answer};
use crate::access::OnBucket;
use crate::bucket::BucketId;
use crate::error::Error;
use crate::request::Request;
use crate::store::{ListEntry, ListQuery, ObjectRecord};
use crate::url::encode_key;

/// Entries a page, as in S3.
const KEYS_MAX: usize = 1000;

/// How names are written into the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Url,
}

impl Encoding {
    /// `encoding-type`.
    pub(super) fn of(request: &Request) -> Result<Self, Error> {
        match request.query.get("encoding-type") {
            None => Ok(Self::Plain),
            Some("url") => Ok(Self::Url),
            Some(_) => Err(Error::invalid_argument(
                "Invalid Encoding Method specified in Request",
            )),
        }
    }

    pub(super) fn apply(self, name: &str) -> String {
        match self {
            Self::Plain => name.to_owned(),
            Self::Url => encode_key(name),
        }
    }

    pub(super) fn dto(self) -> Option<EncodingType> {
        (self == Self::Url).then(|| EncodingType::from_static(EncodingType::URL))
    }
}

/// A count between 0 and 1000; more is cut, as S3 does.
pub(super) fn count(request: &Request, name: &str) -> Result<usize, Error> {
    match request.query.get(name).filter(|text| !text.is_empty()) {
        None => Ok(KEYS_MAX),
        Some(text) => match text.parse::<i64>() {
            Ok(n) if (0..=i64::from(i32::MAX)).contains(&n) => {
                Ok(usize::try_from(n).unwrap_or(KEYS_MAX).min(KEYS_MAX))
            }
            _ => Err(Error::invalid_argument(format!(
                "Argument {name} must be an integer between 0 and 2147483647"
            ))),
        },
    }
}

struct Listed {
    contents: Vec<Object>,
    prefixes: Vec<CommonPrefix>,
    truncated: bool,
    last: Option<String>,
}

impl Front {
    pub(super) async fn list_objects(
        &self,
        request: &Request,
        input: ListObjectsInput,
    ) -> Result<S3Response<ListObjectsOutput>, Error> {
        let on = self
            .access
            .bucket::<action::ListBucket>(request.caller(), &input.bucket)?;
        let encoding = Encoding::of(request)?;
        let limit = count(request, "max-keys")?;
        let marker = request.query.get("marker").unwrap_or_default();
        let after = (!marker.is_empty()).then(|| marker.to_owned());
        let listed = self
            .listed(&on, request, after, limit, encoding, true)
            .await?;
        let delimiter = request.query.get("delimiter").filter(|d| !d.is_empty());
        // Without a delimiter the last key is the marker, and clients know it.
        let next = listed
            .last
            .filter(|_| listed.truncated && delimiter.is_some());
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.apply(request.query.get("prefix").unwrap_or_default())),
            marker: Some(encoding.apply(marker)),
            max_keys: i32::try_from(limit).ok(),
            is_truncated: Some(listed.truncated),
            contents: some(listed.contents),
            common_prefixes: some(listed.prefixes),
            delimiter: delimiter.map(|d| encoding.apply(d)),
            next_marker: next.map(|name| encoding.apply(&name)),
            encoding_type: encoding.dto(),
            request_charged: None,
        }))
    }

    pub(super) async fn list_objects_v2(
        &self,
        request: &Request,
        input: ListObjectsV2Input,
    ) -> Result<S3Response<ListObjectsV2Output>, Error> {
        let on = self
            .access
            .bucket::<action::ListBucket>(request.caller(), &input.bucket)?;
        let encoding = Encoding::of(request)?;
        let limit = count(request, "max-keys")?;
        let given = request.query.get("continuation-token");
        let start_after = request
            .query
            .get("start-after")
            .filter(|after| !after.is_empty());
        let after = match given {
            Some(token) => Some(parse_token(token)?),
            None => start_after.map(str::to_owned),
        };
        let owner = request.query.get("fetch-owner") == Some("true");
        let listed = self
            .listed(&on, request, after, limit, encoding, owner)
            .await?;
        let next = listed.last.filter(|_| listed.truncated);
        let key_count = listed.contents.len() + listed.prefixes.len();
        let delimiter = request.query.get("delimiter").filter(|d| !d.is_empty());
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encoding.apply(request.query.get("prefix").unwrap_or_default())),
            max_keys: i32::try_from(limit).ok(),
            key_count: i32::try_from(key_count).ok(),
            continuation_token: given.map(str::to_owned),
            is_truncated: Some(listed.truncated),
            next_continuation_token: next.as_deref().map(token),
            contents: some(listed.contents),
            common_prefixes: some(listed.prefixes),
            delimiter: delimiter.map(|d| encoding.apply(d)),
            encoding_type: encoding.dto(),
            start_after: start_after.map(|after| encoding.apply(after)),
            request_charged: None,
        }))
    }

    async fn listed(
        &self,
        on: &OnBucket<action::ListBucket>,
        request: &Request,
        after: Option<String>,
        limit: usize,
        encoding: Encoding,
        owner: bool,
    ) -> Result<Listed, Error> {
        let query = ListQuery {
            prefix: request.query.get("prefix").unwrap_or_default().to_owned(),
            delimiter: request.query.get("delimiter").map(str::to_owned),
            after,
            limit,
        };
        let page = self.vault.list(on, &query).await?;
        let mut listed = Listed {
            contents: Vec::new(),
            prefixes: Vec::new(),
            truncated: page.truncated,
            last: page.entries.last().map(|entry| entry.name().to_owned()),
        };
        for entry in page.entries {
            match entry {
                ListEntry::CommonPrefix(prefix) => listed.prefixes.push(CommonPrefix {
                    prefix: Some(encoding.apply(&prefix)),
                }),
                ListEntry::Object(record) => {
                    let mut object = self.entry(on.resource().id()?, &record, encoding)?;
                    object.owner = owner.then(|| self.owner());
                    listed.contents.push(object);
                }
            }
        }
        Ok(listed)
    }

    /// One object of a list. A record that does not open must not hide the
    /// others: it is listed by what the index says, without an entity tag, and
    /// reading it fails.
    fn entry(
        &self,
        bucket: &BucketId,
        record: &ObjectRecord,
        encoding: Encoding,
    ) -> Result<Object, Error> {
        let mut entry = Object {
            key: Some(encoding.apply(&record.key)),
            last_modified: Some(record.modified.into()),
            // A damaged one may be more than there can be.
            size: answer::signed(record.size).ok(),
            storage_class: Some(ObjectStorageClass::from_static(
                ObjectStorageClass::STANDARD,
            )),
            ..Default::default()
        };
        match self
            .envelopes
            .open_object(bucket, &record.key, &record.envelope)
        {
            Ok(object) if object.size == record.size => {
                entry.e_tag = answer::etag(&object.etag);
                if let Some(checksum) = &object.checksum {
                    let name = checksum.value.algorithm.name();
                    entry.checksum_algorithm = Some(vec![ChecksumAlgorithm::from_static(name)]);
                    entry.checksum_type = Some(ChecksumType::from_static(checksum.coverage.name()));
                }
            }
            Ok(_) | Err(_) => {
                tracing::error!(
                    %bucket,
                    key = record.key,
                    "a listed object's record is damaged"
                );
            }
        }
        Ok(entry)
    }
}

/// Empty lists are left out of the XML.
pub(super) fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_any_key_and_nothing_else_is_one() {
        for name in ["a", "a/b c", "é\n"] {
            assert_eq!(parse_token(&token(name)).unwrap(), name);
        }
        for bad in ["", "!", "_w"] {
            assert!(parse_token(bad).is_err(), "{bad}");
        }
    }
}
