//! Permissions as values: no operation reaches the store without one.
//!
//! [`Access`] asks `iam` and returns a permission that names bucket and key; the
//! [`Vault`](crate::vault::Vault), which alone holds the store, takes these
//! permissions instead of names. So forgetting to ask, or asking for one object
//! and touching another, does not compile.

use std::sync::Arc;

use iam::{Action, Arn, Authorized, Authorizer, Caller, Resource};

use crate::bucket::{self, BucketId, Neighbours, Registry};
use crate::error::Error;
use crate::store::StoreError;

/// All buckets.
#[derive(Debug)]
pub(crate) struct Buckets {
    arn: Arn,
}

/// One bucket, there or not.
#[derive(Debug)]
pub(crate) struct Bucket {
    arn: Arn,
    name: String,
    found: Option<Arc<bucket::Bucket>>,
}

/// One object, there or not.
#[derive(Debug)]
pub(crate) struct Object {
    arn: Arn,
    bucket: String,
    found: Option<Arc<bucket::Bucket>>,
    key: String,
}

/// The permission to do `A` to one bucket.
pub(crate) type OnBucket<A> = Authorized<A, Bucket>;

/// The permission to do `A` to one object.
pub(crate) type OnObject<A> = Authorized<A, Object>;

impl Bucket {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The bucket, as it was when the permission was asked for.
    pub(crate) fn found(&self) -> Result<&bucket::Bucket, StoreError> {
        self.found.as_deref().ok_or(StoreError::NoSuchBucket)
    }

    /// Its id.
    pub(crate) fn id(&self) -> Result<&BucketId, StoreError> {
        Ok(&self.found()?.id)
    }
}

impl Object {
    /// The name of its bucket.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Its bucket, as it was when the permission was asked for: all that a request does is about that one, also if it
    /// is deleted and another one made by its name meanwhile.
    pub(crate) fn found(&self) -> Result<&bucket::Bucket, StoreError> {
        self.found.as_deref().ok_or(StoreError::NoSuchBucket)
    }

    /// The id of its bucket.
    pub(crate) fn bucket_id(&self) -> Result<&BucketId, StoreError> {
        Ok(&self.found()?.id)
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}

impl Resource for Buckets {
    fn arn(&self) -> &Arn {
        &self.arn
    }
}

impl Resource for Bucket {
    fn arn(&self) -> &Arn {
        &self.arn
    }
}

impl Resource for Object {
    fn arn(&self) -> &Arn {
        &self.arn
    }
}

/// Asks `iam`.
pub(crate) struct Access {
    authorizer: Arc<Authorizer>,
    buckets: Arc<Registry>,
    neighbours: Arc<Neighbours>,
}

impl Access {
    pub(crate) fn new(
        authorizer: Arc<Authorizer>,
        buckets: Arc<Registry>,
        neighbours: Arc<Neighbours>,
    ) -> Self {
        Self {
            authorizer,
            buckets,
            neighbours,
        }
    }

    /// The bucket of a name. One that another region of the account has is reached through that region, and one of
    /// another account not at all: no policy allows it yet.
    fn find(&self, name: &str) -> Result<Option<Arc<bucket::Bucket>>, Error> {
        let found = self.buckets.get(name);
        if found.is_none()
            && let Some(owner) = self.neighbours.owner(name)
            && owner != *self.buckets.scope()
        {
            return Err(if owner.account == self.buckets.scope().account {
                Error::Elsewhere {
                    region: owner.region,
                }
            } else {
                Error::Denied
            });
        }
        Ok(found)
    }

    /// For what is about all buckets.
    pub(crate) fn service<A: Action>(
        &self,
        caller: Caller<'_>,
    ) -> Result<Authorized<A, Buckets>, Error> {
        let arn = Arn::s3_every();
        self.ask(caller, Buckets { arn })
    }

    /// For a bucket that is to be made, whoever has the name.
    pub(crate) fn new_bucket<A: Action>(
        &self,
        caller: Caller<'_>,
        bucket: &str,
    ) -> Result<OnBucket<A>, Error> {
        let resource = Bucket {
            arn: Arn::s3_bucket(bucket),
            name: bucket.to_owned(),
            found: None,
        };
        self.ask(caller, resource)
    }

    pub(crate) fn bucket<A: Action>(
        &self,
        caller: Caller<'_>,
        bucket: &str,
    ) -> Result<OnBucket<A>, Error> {
        let resource = Bucket {
            arn: Arn::s3_bucket(bucket),
            name: bucket.to_owned(),
            found: self.find(bucket)?,
        };
        self.ask(caller, resource)
    }

    pub(crate) fn object<A: Action>(
        &self,
        caller: Caller<'_>,
        bucket: &str,
        key: &str,
    ) -> Result<OnObject<A>, Error> {
        let resource = Object {
            arn: Arn::s3_object(bucket, key),
            bucket: bucket.to_owned(),
            found: self.find(bucket)?,
            key: key.to_owned(),
        };
        self.ask(caller, resource)
    }

    fn ask<A: Action, R: Resource>(
        &self,
        caller: Caller<'_>,
        resource: R,
    ) -> Result<Authorized<A, R>, Error> {
        self.authorizer
            .authorize(caller, resource)
            .map_err(|denied| {
                tracing::info!(%denied, request_id = caller.request_id(), "S3 request denied");
                Error::Denied
            })
    }
}
