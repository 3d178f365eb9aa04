//! The end of every request: its audit record, durable, then its metrics, then its answer.

use std::{sync::Arc, time::Instant};

use audit::Event;
use crypto::context::EncryptionContext;
use iam::{Action, Authorized, Caller, RequestContext, Via};

use crate::{
    error::KeyringError,
    key::{AliasName, KeyArn},
    keyring::Inner,
    resource::{AllKeys, KeyResource},
};

/// What is known of a request while it runs.
pub(crate) struct Trail {
    started: Instant,
    operation: &'static str,
    actor: Actor,
    pub(crate) key: Option<KeyArn>,
    pub(crate) destination_key: Option<KeyArn>,
    pub(crate) alias: Option<AliasName>,
    pub(crate) material: Option<u32>,
    pub(crate) context: Option<EncryptionContext>,
    pub(crate) destination_context: Option<EncryptionContext>,
}

enum Actor {
    /// The sender of a request, and the side it came through.
    Caller(Arc<RequestContext>, Via),
    /// A service for itself: its principal, and the side it stands on.
    Service(&'static str, Via),
}

impl Trail {
    pub(crate) fn new(operation: &'static str, caller: Caller<'_>) -> Self {
        let context = Arc::clone(caller.context());
        Self::of_actor(operation, Actor::Caller(context, caller.via()))
    }

    /// Something no caller asked for.
    pub(crate) fn of_service(operation: &'static str, principal: &'static str, via: Via) -> Self {
        Self::of_actor(operation, Actor::Service(principal, via))
    }

    /// Of an operation on a key: the action's name without its service.
    pub(crate) fn of<A: Action, R: KeyResource>(authorized: &Authorized<A, R>) -> Self {
        let mut trail = Self::new(operation::<A>(), authorized.caller());
        trail.key = Some(authorized.resource().key().clone());
        trail
    }

    /// Of an operation on the account.
    pub(crate) fn of_account<A: Action>(authorized: &Authorized<A, AllKeys>) -> Self {
        Self::new(operation::<A>(), authorized.caller())
    }

    fn of_actor(operation: &'static str, actor: Actor) -> Self {
        Self {
            started: Instant::now(),
            operation,
            actor,
            key: None,
            destination_key: None,
            alias: None,
            material: None,
            context: None,
            destination_context: None,
        }
    }

    pub(crate) fn named(mut self, operation: &'static str) -> Self {
        self.operation = operation;
        self
    }

    pub(crate) fn with_alias(mut self, alias: AliasName) -> Self {
        self.alias = Some(alias);
        self
    }

    fn via(&self) -> Via {
        match &self.actor {
            Actor::Caller(_, via) | Actor::Service(_, via) => *via,
        }
    }
}

/// The API's name of an action.
pub(crate) fn operation<A: Action>() -> &'static str {
    A::NAME.strip_prefix("kms:").unwrap_or(A::NAME)
}

impl Inner {
    /// Records how `trail` ended. The answer is `result`, unless the record could not be made
    /// durable: then the answer is that, and what `result` held is dropped.
    pub(crate) async fn finish<T>(
        &self,
        trail: Trail,
        result: Result<T, KeyringError>,
    ) -> Result<T, KeyringError> {
        let outcome = result.as_ref().err().map_or("Success", KeyringError::code);
        let recorded = self.record(&trail, outcome).await;
        let answer = match recorded {
            Ok(()) => result,
            Err(error) => Err(error),
        };
        let outcome = answer.as_ref().err().map_or("Success", KeyringError::code);
        if let Err(error) = &answer
            && error.is_internal()
        {
            tracing::error!(operation = trail.operation, %error, "key request failed");
        }
        self.observer.request(
            trail.operation,
            trail.via(),
            outcome,
            trail.started.elapsed(),
        );
        answer
    }

    async fn record(&self, trail: &Trail, outcome: &str) -> Result<(), KeyringError> {
        let (principal, access_key, via, request_id, source) = match &trail.actor {
            Actor::Caller(context, via) => (
                context.principal_arn().as_str(),
                context.access_key.as_ref().map(|key| key.as_str()),
                via.as_str(),
                context.request_id(),
                context.source,
            ),
            Actor::Service(principal, _) => (*principal, None, "internal", "", None),
        };
        self.audit
            .append(&Event {
                time: self.clock.now(),
                operation: trail.operation,
                outcome,
                principal,
                access_key,
                via,
                key: trail.key.as_ref().map(KeyArn::as_str),
                destination_key: trail.destination_key.as_ref().map(KeyArn::as_str),
                alias: trail.alias.as_ref().map(AliasName::as_str),
                material: trail.material,
                encryption_context: trail.context.as_ref(),
                destination_encryption_context: trail.destination_context.as_ref(),
                request_id,
                source,
            })
            .await?;
        Ok(())
    }
}
