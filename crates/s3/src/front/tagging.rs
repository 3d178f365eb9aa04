//! Object tags. They are in the object's envelope, so that a change replaces
//! the envelope and moves no data.

use http::StatusCode;
use iam::action::s3 as action;
use s3s::S3Response;
use s3s::dto::{
    DeleteObjectTaggingInput, DeleteObjectTaggingOutput, GetObjectTaggingInput,
    GetObjectTaggingOutput, PutObjectTaggingInput, PutObjectTaggingOutput, Tag,
};

use super::{Front, attributes};
use crate::access::OnObject;
use crate::answered::Status;
use crate::error::Error;
use crate::request::Request;
use crate::store::StoreError;
use crate::vault::{ReplacesEnvelope, SeesRecord};

/// How often a change is tried again when others change the object meanwhile.
const ATTEMPTS: usize = 16;

impl Front {
    pub(super) async fn get_object_tagging(
        &self,
        request: &Request,
        input: GetObjectTaggingInput,
    ) -> Result<S3Response<GetObjectTaggingOutput>, Error> {
        let on = self.access.object::<action::GetObjectTagging>(
            request.caller(),
            &input.bucket,
            &input.key,
        )?;
        let record = self.vault.head(&on).await?;
        let tags = self.object_of(&on, &record)?.attributes.tags;
        let tag_set = tags.into_iter().map(|(key, value)| Tag {
            key: Some(key),
            value: Some(value),
        });
        Ok(S3Response::new(GetObjectTaggingOutput {
            tag_set: tag_set.collect(),
            version_id: None,
        }))
    }

    pub(super) async fn put_object_tagging(
        &self,
        request: &Request,
        input: PutObjectTaggingInput,
    ) -> Result<S3Response<PutObjectTaggingOutput>, Error> {
        let on = self.access.object::<action::PutObjectTagging>(
            request.caller(),
            &input.bucket,
            &input.key,
        )?;
        let tags = input
            .tagging
            .tag_set
            .into_iter()
            .map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()));
        let tags = attributes::checked_tags(tags.collect())?;
        self.replace_tags(&on, tags).await?;
        Ok(S3Response::new(PutObjectTaggingOutput::default()))
    }

    pub(super) async fn delete_object_tagging(
        &self,
        request: &Request,
        input: DeleteObjectTaggingInput,
    ) -> Result<S3Response<DeleteObjectTaggingOutput>, Error> {
        let on = self.access.object::<action::DeleteObjectTagging>(
            request.caller(),
            &input.bucket,
            &input.key,
        )?;
        self.replace_tags(&on, Vec::new()).await?;
        let mut response = S3Response::new(DeleteObjectTaggingOutput::default());
        response.extensions.insert(Status(StatusCode::NO_CONTENT));
        Ok(response)
    }

    async fn replace_tags<A: SeesRecord + ReplacesEnvelope>(
        &self,
        on: &OnObject<A>,
        tags: Vec<(String, String)>,
    ) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let record = self.vault.head(on).await?;
            let mut object = self.object_of(on, &record)?;
            object.attributes.tags.clone_from(&tags);
            let sealed = self.seal_object(on, &object)?;
            match self
                .vault
                .replace_envelope(on, record.sequence, sealed)
                .await
            {
                Ok(_) => return Ok(()),
                Err(StoreError::PreconditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::operation_aborted())
    }
}
