//! The end of every request: its audit record, durable, then its metrics, then its answer. And what comes before a
//! change: the record of its intent.

use std::{sync::Arc, time::Duration};

use audit::{Event, Intent};
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
    /// On the clock that never goes back.
    pub(crate) started: Duration,
    operation: &'static str,
    actor: Actor,
    pub(crate) key: Option<KeyArn>,
    pub(crate) destination_key: Option<KeyArn>,
    pub(crate) alias: Option<AliasName>,
    pub(crate) material: Option<u32>,
    pub(crate) context: Option<EncryptionContext>,
    pub(crate) destination_context: Option<EncryptionContext>,
    /// The record that a change is about to be made, if one is.
    intent: Option<Intent>,
    /// Whether nobody knows if the change was made.
    fate_unknown: bool,
}

enum Actor {
    /// The sender of a request, and the side it came through.
    Caller(Arc<RequestContext>, Via),
    /// A service for itself: its principal, and the side it stands on.
    Service(&'static str, Via),
}

impl Trail {
    fn new(started: Duration, operation: &'static str, actor: Actor) -> Self {
        Self {
            started,
            operation,
            actor,
            key: None,
            destination_key: None,
            alias: None,
            material: None,
            context: None,
            destination_context: None,
            intent: None,
            fate_unknown: false,
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

    /// Notes of a change that failed whether that means that nothing was changed.
    pub(crate) fn judge<T>(&mut self, result: &Result<T, KeyringError>) {
        self.fate_unknown = matches!(result, Err(KeyringError::Unknown(_)));
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
    /// Begins the trail of an operation on a key: the action's name without its service.
    pub(crate) fn trail<A: Action, R: KeyResource>(&self, authorized: &Authorized<A, R>) -> Trail {
        let mut trail = self.caller_trail(operation::<A>(), authorized.caller());
        trail.key = Some(authorized.resource().key().clone());
        trail
    }

    /// Begins the trail of an operation on the account.
    pub(crate) fn account_trail<A: Action>(&self, authorized: &Authorized<A, AllKeys>) -> Trail {
        self.caller_trail(operation::<A>(), authorized.caller())
    }

    /// Begins the trail of something a caller asked for.
    pub(crate) fn caller_trail(&self, operation: &'static str, caller: Caller<'_>) -> Trail {
        let context = Arc::clone(caller.context());
        let actor = Actor::Caller(context, caller.via());
        Trail::new(self.clock.elapsed(), operation, actor)
    }

    /// Begins the trail of something no caller asked for.
    pub(crate) fn service_trail(
        &self,
        operation: &'static str,
        principal: &'static str,
        via: Via,
    ) -> Trail {
        let actor = Actor::Service(principal, via);
        Trail::new(self.clock.elapsed(), operation, actor)
    }

    /// Records how `trail` ended. The answer is `result`, unless the record could not be made
    /// durable: then the answer is that, and what `result` held is dropped.
    pub(crate) async fn finish<T>(
        &self,
        mut trail: Trail,
        result: Result<T, KeyringError>,
    ) -> Result<T, KeyringError> {
        let intent = trail.intent.take();
        let outcome = match trail.fate_unknown && intent.is_some() {
            true => "Unknown",
            false => result.as_ref().err().map_or("Success", KeyringError::code),
        };
        let event = self.event(&trail, outcome);
        let recorded = match intent {
            Some(intent) => intent.outcome(&event).await,
            None => self.audit.record(&event).await,
        };
        let answer = match recorded {
            Ok(_) => result,
            Err(error) => Err(error.into()),
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
            self.clock.elapsed().saturating_sub(trail.started),
        );
        answer
    }

    /// Records that the change is about to be made; it is made when that is durable.
    pub(crate) async fn announce(&self, trail: &mut Trail) -> Result<(), KeyringError> {
        // Once, also if the change is planned anew because another process was first.
        if trail.intent.is_some() {
            return Ok(());
        }
        trail.intent = Some(self.audit.intent(&self.event(trail, "")).await?);
        Ok(())
    }

    fn event<'a>(&'a self, trail: &'a Trail, outcome: &'a str) -> Event<'a> {
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
        Event {
            access_key,
            account: Some(self.account.as_str()),
            region: Some(self.region.as_str()),
            key: trail.key.as_ref().map(KeyArn::as_str),
            destination_key: trail.destination_key.as_ref().map(KeyArn::as_str),
            alias: trail.alias.as_ref().map(AliasName::as_str),
            material: trail.material,
            encryption_context: trail.context.as_ref(),
            destination_encryption_context: trail.destination_context.as_ref(),
            request_id,
            source,
            ..Event::new(self.clock.now(), trail.operation, outcome, principal, via)
        }
    }
}
