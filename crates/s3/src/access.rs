//! Permissions as values: no operation reaches the store without one.
//!
//! [`Access`] asks `iam` and returns a proof that names bucket and key; the
//! [`Vault`](crate::vault::Vault), which alone holds the store, takes these
//! proofs instead of names. So forgetting to ask, or asking for one object and
//! touching another, does not compile.

use std::fmt;

use iam::{Action, Arn, Authorized, Authorizer, Caller};

use crate::error::Error;

/// The permission to do `A` to one bucket.
pub(crate) struct OnBucket<A: Action> {
    proof: Authorized<A>,
    bucket: String,
}

/// The permission to do `A` to one object.
pub(crate) struct OnObject<A: Action> {
    proof: Authorized<A>,
    bucket: String,
    key: String,
}

impl<A: Action> OnBucket<A> {
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }
}

impl<A: Action> OnObject<A> {
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Who may.
    pub(crate) fn caller(&self) -> &Caller {
        self.proof.caller()
    }
}

impl<A: Action> fmt::Debug for OnBucket<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.proof.fmt(f)
    }
}

impl<A: Action> fmt::Debug for OnObject<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.proof.fmt(f)
    }
}

/// Asks `iam`.
pub(crate) struct Access {
    authorizer: std::sync::Arc<Authorizer>,
}

impl Access {
    pub(crate) fn new(authorizer: std::sync::Arc<Authorizer>) -> Self {
        Self { authorizer }
    }

    /// For what is about all buckets.
    pub(crate) fn service<A: Action>(&self, caller: &Caller) -> Result<Authorized<A>, Error> {
        self.ask(caller, &Arn::s3_every())
    }

    pub(crate) fn bucket<A: Action>(
        &self,
        caller: &Caller,
        bucket: &str,
    ) -> Result<OnBucket<A>, Error> {
        let proof = self.ask(caller, &Arn::s3_bucket(bucket))?;
        Ok(OnBucket {
            proof,
            bucket: bucket.to_owned(),
        })
    }

    pub(crate) fn object<A: Action>(
        &self,
        caller: &Caller,
        bucket: &str,
        key: &str,
    ) -> Result<OnObject<A>, Error> {
        let proof = self.ask(caller, &Arn::s3_object(bucket, key))?;
        Ok(OnObject {
            proof,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }

    fn ask<A: Action>(&self, caller: &Caller, resource: &Arn) -> Result<Authorized<A>, Error> {
        self.authorizer
            .authorize(caller, resource)
            .map_err(|denied| {
                tracing::info!(%denied, request_id = caller.request_id, "S3 request denied");
                Error::Denied
            })
    }
}
