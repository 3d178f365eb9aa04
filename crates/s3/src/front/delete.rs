//! DeleteObject and DeleteObjects.

use http::StatusCode;
use iam::action::s3 as action;
use s3s::S3Response;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject,
    Error as DeleteError,
};

use super::Front;
use super::write::commit_error;
use crate::access::OnObject;
use crate::answered::Status;
use crate::condition::WriteCondition;
use crate::error::Error;
use crate::request::Request;
use crate::store::{Condition, StoreError};

/// Keys of one DeleteObjects, as in S3.
const KEYS_MAX: usize = 1000;

impl Front {
    pub(super) async fn delete_object(
        &self,
        request: &Request,
        input: DeleteObjectInput,
    ) -> Result<S3Response<DeleteObjectOutput>, Error> {
        let on = self.access.object::<action::DeleteObject>(
            request.caller(),
            &input.bucket,
            &input.key,
        )?;
        let wanted = WriteCondition::of_delete(&request.headers)?;
        let condition = self.delete_condition(&on, &wanted).await?;
        self.vault
            .delete(&on, condition)
            .await
            .map_err(|e| commit_error(e, condition))?;
        let mut response = S3Response::new(DeleteObjectOutput::default());
        response.extensions.insert(Status(StatusCode::NO_CONTENT));
        Ok(response)
    }

    pub(super) async fn delete_objects(
        &self,
        request: &Request,
        input: DeleteObjectsInput,
    ) -> Result<S3Response<DeleteObjectsOutput>, Error> {
        let objects = input.delete.objects;
        if objects.is_empty() || objects.len() > KEYS_MAX {
            return Err(Error::malformed_xml());
        }
        let quiet = input.delete.quiet.unwrap_or(false);
        let mut deleted = Vec::new();
        let mut errors = Vec::new();
        let mut allowed: Vec<(OnObject<action::DeleteObject>, Condition)> = Vec::new();
        for object in objects {
            if object.version_id.is_some_and(|version| version != "null") {
                errors.push(delete_error(object.key, &super::no_such_version()));
                continue;
            }
            let found = self.access.object::<action::DeleteObject>(
                request.caller(),
                &input.bucket,
                &object.key,
            );
            let condition = match &found {
                Ok(on) => {
                    let etag = object.e_tag.as_ref().map(s3s::dto::ETag::value);
                    self.delete_condition(on, &WriteCondition::of_etag(etag))
                        .await
                }
                Err(_) => Ok(Condition::Always),
            };
            match (found, condition) {
                (Ok(on), Ok(condition)) => allowed.push((on, condition)),
                (Err(error), _) | (_, Err(error)) => errors.push(delete_error(object.key, &error)),
            }
        }
        let results = self.vault.delete_many(&input.bucket, &allowed).await?;
        for ((on, condition), result) in allowed.iter().zip(results) {
            match result {
                Ok(_) => deleted.push(DeletedObject {
                    key: Some(on.resource().key().to_owned()),
                    ..Default::default()
                }),
                Err(error) => {
                    let error = commit_error(error, *condition);
                    errors.push(delete_error(on.resource().key().to_owned(), &error));
                }
            }
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            errors: (!errors.is_empty()).then_some(errors),
            ..Default::default()
        }))
    }

    async fn delete_condition(
        &self,
        on: &OnObject<action::DeleteObject>,
        wanted: &WriteCondition,
    ) -> Result<Condition, Error> {
        if wanted.is_always() {
            return Ok(Condition::Always);
        }
        match self.vault.head(on).await {
            Ok(record) => {
                let object = self.object_of(on, &record)?;
                wanted.check(Some(&object.etag))?;
                Ok(Condition::Sequence(record.sequence))
            }
            Err(Error::Store(StoreError::NoSuchKey)) => {
                wanted.check(None)?;
                Ok(Condition::Absent)
            }
            Err(error) => Err(error),
        }
    }
}

fn delete_error(key: String, error: &Error) -> DeleteError {
    if error.is_ours() {
        tracing::error!(?error, "deleting one of several objects failed");
    }
    DeleteError {
        code: Some(error.code().into_owned()),
        key: Some(key),
        message: Some(error.message().into_owned()),
        version_id: None,
    }
}
