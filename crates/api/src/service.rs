//! The one table of services behind the AWS endpoint.
use std::{fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::request::Parts;
use iam::{Authorizer, Region, RequestContext};
use keyring::Keyring;
use volume::Volumes;

use crate::{Answer, Protocol, sealgate::Administration};

/// What the fronts work on: the keys and volumes of one account and region, and what is the store's.
#[derive(Clone)]
pub struct Backends {
    /// Keys.
    pub keyring: Arc<Keyring>,
    /// Volumes.
    pub volumes: Arc<Volumes>,
    /// Decides what a caller may do to volumes.
    pub authorizer: Arc<Authorizer>,
    /// The regions that are served, those of the keys and volumes above among them.
    pub regions: Arc<[Region]>,
    /// Jobs and the root key.
    pub administration: Arc<dyn Administration>,
    /// Decides what a caller may do to jobs and the root key, which are the whole store's.
    pub operator: Arc<Authorizer>,
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backends").finish_non_exhaustive()
    }
}

/// An answer that is being made.
type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// A front that takes its body whole.
type Handle = for<'a> fn(&'a Backends, &'a Arc<RequestContext>, &'a Parts, Bytes) -> Answering<'a>;

#[derive(Clone, Copy)]
enum Handler {
    /// S3, which streams its bodies, so that its requests go to crate `s3` with the body unread.
    Streams,
    /// A front of this crate.
    Whole(Handle),
}

/// A service that is served here.
pub struct Service {
    scope: &'static str,
    protocol: Protocol,
    handler: Handler,
    front: &'static str,
}

static SERVICES: [Service; 6] = [
    Service {
        scope: "s3",
        protocol: Protocol::S3,
        handler: Handler::Streams,
        front: "s3",
    },
    Service {
        scope: "kms",
        protocol: Protocol::Json,
        handler: Handler::Whole(|backends, context, head, body| {
            Box::pin(crate::kms::handle(&backends.keyring, context, head, body))
        }),
        front: "kms",
    },
    Service {
        scope: "sts",
        protocol: Protocol::Query,
        handler: Handler::Whole(|_, context, head, body| {
            Box::pin(crate::sts::handle(context, head, body))
        }),
        front: "sts",
    },
    Service {
        scope: "iam",
        protocol: Protocol::Query,
        handler: Handler::Whole(|_, context, head, body| {
            Box::pin(crate::iam::handle(context, head, body))
        }),
        front: "iam",
    },
    Service {
        scope: "ec2",
        protocol: Protocol::Ec2,
        handler: Handler::Whole(|backends, context, head, body| {
            let (volumes, authorizer) = (&backends.volumes, &backends.authorizer);
            let regions = &backends.regions;
            Box::pin(crate::ec2::handle(
                volumes, authorizer, regions, context, head, body,
            ))
        }),
        front: "ec2",
    },
    Service {
        scope: "sealgate",
        protocol: Protocol::Json,
        handler: Handler::Whole(|backends, context, head, body| {
            let (administration, authorizer) = (&*backends.administration, &*backends.operator);
            Box::pin(crate::sealgate::handle(
                administration,
                authorizer,
                context,
                head,
                body,
            ))
        }),
        front: "sealgate",
    },
];

impl Service {
    /// The service that a credential scope names, if it is served here.
    pub fn of_scope(scope: &str) -> Option<&'static Self> {
        SERVICES.iter().find(|service| service.scope == scope)
    }

    /// All of them.
    pub fn all() -> &'static [Self] {
        &SERVICES
    }

    /// Its name in a credential scope.
    pub fn scope(&self) -> &'static str {
        self.scope
    }

    /// The protocol it is answered in.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What metrics call it.
    pub fn front(&self) -> &'static str {
        self.front
    }

    /// Whether its bodies stream, so that its requests go to crate `s3`. [`answer`](Self::answer)
    /// takes no such service.
    pub fn streams(&self) -> bool {
        matches!(self.handler, Handler::Streams)
    }

    /// Answers a request that was verified for this service. `None`, and nothing done, if the
    /// service [`streams`](Self::streams).
    ///
    /// Not cancel-safe: dropped, an operation may or may not have happened.
    pub async fn answer(
        &self,
        backends: &Backends,
        context: &Arc<RequestContext>,
        head: &Parts,
        body: Bytes,
    ) -> Option<Answer> {
        match self.handler {
            Handler::Streams => None,
            Handler::Whole(handle) => Some(handle(backends, context, head, body).await),
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Service").field(&self.scope).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_one_service_and_s3_alone_streams() {
        for service in Service::all() {
            let found = Service::of_scope(service.scope()).unwrap();
            assert!(std::ptr::eq(found, service), "{service:?} is there twice");
            assert_eq!(service.streams(), service.protocol() == Protocol::S3);
        }
        assert!(Service::of_scope("KMS").is_none());
        assert!(Service::of_scope("").is_none());
    }
}
