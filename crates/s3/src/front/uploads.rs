//! ListParts and ListMultipartUploads.

use iam::action::s3 as action;
use s3s::S3Response;
use s3s::dto::*;

use super::Front;
use super::answer::{self, checksum_fields};
use super::listing::{Encoding, count, some};
use crate::envelope::Protection;
use crate::error::Error;
use crate::object_key::Place;
use crate::request::Request;
use crate::store::{UploadEntry, UploadId, UploadQuery, UploadRecord};

impl Front {
    pub(super) async fn list_parts(
        &self,
        request: &Request,
        input: ListPartsInput,
    ) -> Result<S3Response<ListPartsOutput>, Error> {
        let on = self.access.object::<action::ListMultipartUploadParts>(
            request.caller(),
            &input.bucket,
            &input.key,
        )?;
        let max = count(request, "max-parts")?;
        let marker = request
            .query
            .get("part-number-marker")
            .filter(|text| !text.is_empty());
        let marker: u32 = match marker.map(str::parse) {
            None => 0,
            Some(Ok(marker)) => marker,
            Some(Err(_)) => {
                return Err(Error::invalid_argument(
                    "Argument part-number-marker must be an integer between 0 and 2147483647",
                ));
            }
        };
        let open = self.open_upload(&on, request).await?;
        // A checksum of a part confirms a guess of it, so it takes the key, as on S3. An SSE-C key does not come with this
        // request; such parts are listed without.
        let shows_checksums = match &open.upload.protection {
            Protection::Customer { .. } => false,
            Protection::Owned { .. } => true,
            protection @ (Protection::Kms { .. } | Protection::KmsBucketKey { .. }) => {
                let at = Place {
                    bucket: on.resource().bucket(),
                    key: on.resource().key(),
                    id: &open.upload.id,
                };
                self.keys.open(on.caller(), at, protection, None).await?;
                true
            }
        };
        let page = self.vault.parts(&on, &open.id, marker, max).await?;
        let mut parts = Vec::with_capacity(page.entries.len());
        for record in &page.entries {
            let part = self.open_part(&open.upload, record)?;
            let mut dto = Part {
                e_tag: answer::etag(&hex::encode(part.etag)),
                last_modified: Some(record.modified.into()),
                part_number: i32::try_from(record.number).ok(),
                size: Some(answer::signed(part.size)?),
                ..Default::default()
            };
            if let Some(value) = part.checksum.as_ref().filter(|_| shows_checksums) {
                checksum_fields!(dto, value.algorithm, value.to_base64());
            }
            parts.push(dto);
        }
        let plan = open.upload.plan;
        let next = page.entries.last().filter(|_| page.truncated);
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(open.id.to_string()),
            checksum_algorithm: plan
                .asked
                .then(|| ChecksumAlgorithm::from_static(plan.algorithm.name())),
            checksum_type: plan
                .asked
                .then(|| ChecksumType::from_static(plan.coverage.name())),
            initiator: Some(Initiator {
                display_name: None,
                id: Some(self.account.to_string()),
            }),
            is_truncated: Some(page.truncated),
            max_parts: i32::try_from(max).ok(),
            next_part_number_marker: next.and_then(|part| i32::try_from(part.number).ok()),
            owner: Some(self.owner()),
            part_number_marker: i32::try_from(marker).ok(),
            parts: some(parts),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            ..Default::default()
        }))
    }

    pub(super) async fn list_multipart_uploads(
        &self,
        request: &Request,
        input: ListMultipartUploadsInput,
    ) -> Result<S3Response<ListMultipartUploadsOutput>, Error> {
        let on = self
            .access
            .bucket::<action::ListBucketMultipartUploads>(request.caller(), &input.bucket)?;
        let encoding = Encoding::of(request)?;
        let max = count(request, "max-uploads")?;
        let given = |name: &str| request.query.get(name).filter(|text| !text.is_empty());
        let (after_key, after_upload) = (given("key-marker"), given("upload-id-marker"));
        let query = UploadQuery {
            prefix: given("prefix").unwrap_or_default().to_owned(),
            delimiter: given("delimiter").map(str::to_owned),
            after_key: after_key.map(str::to_owned),
            // Without a key marker it is ignored.
            after_upload: after_upload
                .filter(|_| after_key.is_some())
                .and_then(UploadId::parse),
            limit: max,
        };
        let page = self.vault.uploads(&on, &query).await?;
        let mut uploads = Vec::new();
        let mut prefixes = Vec::new();
        for entry in &page.entries {
            match entry {
                UploadEntry::CommonPrefix(prefix) => {
                    prefixes.push(CommonPrefix {
                        prefix: Some(encoding.apply(prefix)),
                    });
                }
                UploadEntry::Upload(record) => uploads.push(MultipartUpload {
                    initiated: Some(record.initiated.into()),
                    initiator: Some(Initiator {
                        display_name: None,
                        id: Some(self.account.to_string()),
                    }),
                    key: Some(encoding.apply(&record.key)),
                    owner: Some(self.owner()),
                    storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                    upload_id: Some(record.id.to_string()),
                    ..Default::default()
                }),
            }
        }
        let (next_key, next_upload) = match page.entries.last().filter(|_| page.truncated) {
            None => (None, None),
            Some(UploadEntry::CommonPrefix(prefix)) => (Some(encoding.apply(prefix)), None),
            Some(UploadEntry::Upload(UploadRecord { key, id, .. })) => {
                (Some(encoding.apply(key)), Some(id.to_string()))
            }
        };
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            common_prefixes: some(prefixes),
            delimiter: given("delimiter").map(|d| encoding.apply(d)),
            encoding_type: encoding.dto(),
            is_truncated: Some(page.truncated),
            key_marker: Some(after_key.map(|key| encoding.apply(key)).unwrap_or_default()),
            max_uploads: i32::try_from(max).ok(),
            next_key_marker: next_key,
            next_upload_id_marker: next_upload,
            prefix: given("prefix").map(|prefix| encoding.apply(prefix)),
            request_charged: None,
            upload_id_marker: Some(after_upload.unwrap_or_default().to_owned()),
            uploads: some(uploads),
        }))
    }
}
