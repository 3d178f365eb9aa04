//! Permissions as values.
//!
//! [`Authorized<A, R>`] says that `A` may be done to `R`, once: it is made by
//! [`Authorizer::authorize`](crate::Authorizer::authorize) alone, carries what it was decided for, and
//! is spent by the call it is given to. [`Standing<A, R>`] is what is kept of it by what outlives the
//! call: it knows the revision the decision was made at, and one atomic load says whether anything
//! that decides has changed since.
use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    action::Action,
    arn::Arn,
    caller::{Caller, RequestContext, Via},
};

/// What an action is done to, as its owner knows it.
///
/// The owner (keyring, volumes, objects) defines the type, looks the resource up first and hands it
/// to the decision by value, with what was parsed to find it and what the decision may depend on. The
/// permission carries it to the call.
pub trait Resource {
    /// The name a policy knows it by.
    fn arn(&self) -> &Arn;

    /// The encryption context given with the request (`kms:EncryptionContext:*`), if one was.
    fn encryption_context(&self) -> Option<&BTreeMap<String, String>> {
        None
    }

    /// The resource's tags (`aws:ResourceTag`), if it has any.
    fn tags(&self) -> Option<&BTreeMap<String, String>> {
        None
    }

    /// The tags the request gives (`aws:RequestTag`), if it gives any.
    fn request_tags(&self) -> Option<&BTreeMap<String, String>> {
        None
    }

    /// The revision that was current *before* the resource was looked up, if its state decides.
    /// A change that comes between the look-up and the decision then makes the decision stale; if
    /// the revision were read afterwards, it would pass for a decision on the new state.
    fn revision(&self) -> Option<Revision> {
        None
    }
}

/// How often anything that decides has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision(u64);

/// The current revision, shared by the authorizer and every permission it made.
///
/// There is one for all resources yet; a counter a resource needs nothing but another one here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Revisions(Arc<AtomicU64>);

impl Revisions {
    pub(crate) fn current(&self) -> Revision {
        // Pairs with the release in `advance`: who sees the new revision sees the change.
        Revision(self.0.load(Ordering::Acquire))
    }

    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// The permission to do `A` to one resource, once.
///
/// It cannot be spent twice:
/// ```compile_fail,E0382
/// fn spend<R: iam::Resource>(_: iam::Authorized<iam::Decrypt, R>) {}
/// fn twice<R: iam::Resource>(permission: iam::Authorized<iam::Decrypt, R>) {
///     spend(permission);
///     spend(permission);
/// }
/// ```
/// nor be copied:
/// ```compile_fail,E0599
/// fn copy<R: iam::Resource + Clone>(permission: iam::Authorized<iam::Decrypt, R>) {
///     let _ = permission.clone();
/// }
/// ```
/// nor stand in for another one:
/// ```compile_fail,E0308
/// fn encrypt<R: iam::Resource>(_: iam::Authorized<iam::Encrypt, R>) {}
/// fn confuse<R: iam::Resource>(permission: iam::Authorized<iam::Decrypt, R>) {
///     encrypt(permission);
/// }
/// ```
/// nor be made by hand:
/// ```compile_fail,E0451
/// fn forge<R: iam::Resource>(
///     permission: iam::Authorized<iam::Encrypt, R>,
///     other: R,
/// ) -> iam::Authorized<iam::Encrypt, R> {
///     iam::Authorized { resource: other, ..permission }
/// }
/// ```
#[must_use = "a permission that is not spent was asked for in vain"]
pub struct Authorized<A: Action, R: Resource> {
    context: Arc<RequestContext>,
    via: Via,
    grant_tokens: Option<Arc<[String]>>,
    resource: R,
    revision: Revision,
    revisions: Revisions,
    action: PhantomData<fn() -> A>,
}

impl<A: Action, R: Resource> Authorized<A, R> {
    pub(crate) fn new(
        caller: Caller<'_>,
        resource: R,
        revision: Revision,
        revisions: Revisions,
    ) -> Self {
        Self {
            context: Arc::clone(caller.context()),
            via: caller.via(),
            grant_tokens: caller.grant_tokens().cloned(),
            resource,
            revision,
            revisions,
            action: PhantomData,
        }
    }

    /// Who may. Asks for what the call needs of others in the same name.
    pub fn caller(&self) -> Caller<'_> {
        Caller::new(&self.context, self.via).with_grant_tokens(self.grant_tokens.as_ref())
    }

    /// To what.
    pub fn resource(&self) -> &R {
        &self.resource
    }

    /// To what, by name.
    pub fn arn(&self) -> &Arn {
        self.resource.arn()
    }

    /// What: `A`'s name, such as `kms:Decrypt`.
    pub fn action(&self) -> &'static str {
        A::NAME
    }

    /// The revision it was decided at.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The resource, the permission being spent.
    pub fn into_resource(self) -> R {
        self.resource
    }

    /// The request and the resource, the permission being spent.
    pub fn into_parts(self) -> (Arc<RequestContext>, R) {
        (self.context, self.resource)
    }

    /// Keeps the permission for what stands longer than the call.
    pub fn into_standing(self) -> Standing<A, R> {
        Standing { permission: self }
    }

    /// What is kept of this permission by the outcome of the call it is about to be spent on, such
    /// as a cached key. `kept` is the same resource in the form it is kept in.
    ///
    /// # Panics
    /// If `kept` has another name than the resource that was decided on.
    pub fn standing<S: Resource>(&self, kept: S) -> Standing<A, S> {
        assert_eq!(kept.arn(), self.arn(), "what stands is what was decided on");
        let permission =
            Authorized::new(self.caller(), kept, self.revision, self.revisions.clone());
        Standing { permission }
    }
}

impl<A: Action, R: Resource> fmt::Debug for Authorized<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorized")
            .field("action", &A::NAME)
            .field("resource", self.arn())
            .field("principal", self.context.principal_arn())
            .finish_non_exhaustive()
    }
}

/// A decision that something rests on for longer than a call: an attached volume, a cache entry, a
/// job.
///
/// It is no permission to call: what needs one asks the authorizer again.
/// ```compile_fail,E0308
/// fn decrypt<R: iam::Resource>(_: iam::Authorized<iam::Decrypt, R>) {}
/// fn again<R: iam::Resource>(standing: iam::Standing<iam::Decrypt, R>) {
///     decrypt(standing);
/// }
/// ```
pub struct Standing<A: Action, R: Resource> {
    permission: Authorized<A, R>,
}

impl<A: Action, R: Resource> Standing<A, R> {
    /// Whether nothing that decides has changed since the decision. One atomic load.
    ///
    /// Otherwise it is not refused but unknown: decide again
    /// ([`Authorizer::renew`](crate::Authorizer::renew)), or drop what rests on it.
    pub fn is_current(&self) -> bool {
        self.permission.revision == self.permission.revisions.current()
    }

    /// In whose name it was decided.
    pub fn caller(&self) -> Caller<'_> {
        self.permission.caller()
    }

    /// About what.
    pub fn resource(&self) -> &R {
        &self.permission.resource
    }

    /// Takes over a new decision on the same resource.
    pub(crate) fn decided_again(&mut self, resource: R, revision: Revision) {
        self.permission.resource = resource;
        self.permission.revision = revision;
    }
}

impl<A: Action, R: Resource> fmt::Debug for Standing<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing")
            .field("permission", &self.permission)
            .field("current", &self.is_current())
            .finish()
    }
}
