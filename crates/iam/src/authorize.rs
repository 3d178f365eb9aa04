//! The decision.
//!
//! One [`Authorizer`] in the process makes every [`Authorized`], from who calls, the action, and the
//! resource as its owner looked it up.
//!
//! The decision today: the root user of our account may do everything to what belongs to our
//! account; everybody else, everything else, and every action asked about a resource of another
//! service is refused.
use crate::{
    action::Action,
    arn::Arn,
    caller::Caller,
    identity::{AccountId, Principal},
    permission::{Authorized, Resource, Revision, Revisions, Standing},
};

/// A refusal, with what AWS's own message names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("User: {principal} is not authorized to perform: {action} on resource: {resource}")]
pub struct Denied {
    /// Who asked.
    pub principal: Arn,
    /// What for, such as `kms:Decrypt`.
    pub action: &'static str,
    /// On what.
    pub resource: Arn,
}

impl Denied {
    /// The refusal of `A` on `resource`.
    pub fn new<A: Action>(caller: Caller<'_>, resource: &Arn) -> Self {
        Self {
            principal: caller.context().principal_arn().clone(),
            action: A::NAME,
            resource: resource.clone(),
        }
    }
}

/// Makes decisions for one account. Shared by everything that asks for one.
#[derive(Debug)]
pub struct Authorizer {
    account: AccountId,
    revisions: Revisions,
}

impl Authorizer {
    /// Decides about what belongs to `account`.
    pub fn new(account: AccountId) -> Self {
        Self {
            account,
            revisions: Revisions::default(),
        }
    }

    /// The account decided about.
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The permission to do `A` to `resource`, if `caller` may.
    ///
    /// S3's ARNs carry no account: every bucket served here is our account's own. Of any other
    /// service, a resource without an account is refused.
    pub fn authorize<A: Action, R: Resource>(
        &self,
        caller: Caller<'_>,
        resource: R,
    ) -> Result<Authorized<A, R>, Denied> {
        let revision = self.decide::<A, R>(caller, &resource)?;
        Ok(Authorized::new(
            caller,
            resource,
            revision,
            self.revisions.clone(),
        ))
    }

    /// Decides again about what stands, on the resource as it is `now`, in the name of who asked
    /// first. If it is refused, `standing` stays as it was: not current.
    ///
    /// # Panics
    /// If `now` has another name than the resource that was decided on.
    pub fn renew<A: Action, R: Resource>(
        &self,
        standing: &mut Standing<A, R>,
        now: R,
    ) -> Result<(), Denied> {
        assert_eq!(
            now.arn(),
            standing.resource().arn(),
            "what is decided again is what was decided on"
        );
        let revision = self.decide::<A, R>(standing.caller(), &now)?;
        standing.decided_again(now, revision);
        Ok(())
    }

    /// The revision now. Read it before looking up a resource whose state decides.
    pub fn revision(&self) -> Revision {
        self.revisions.current()
    }

    /// Something that decides has changed: a key, a policy, a grant, an identity. No decision made
    /// before is current any more. To be called after the change can be seen, and before it is
    /// answered.
    pub fn changed(&self) {
        self.revisions.advance();
    }

    fn decide<A: Action, R: Resource>(
        &self,
        caller: Caller<'_>,
        resource: &R,
    ) -> Result<Revision, Denied> {
        let revision = resource.revision().unwrap_or_else(|| self.revision());
        let arn = resource.arn();
        let ours = match arn.account() {
            Some(account) => *account == self.account,
            None => arn.service() == "s3",
        };
        let allowed = match caller.principal() {
            Principal::Root { account } => {
                *account == self.account && ours && arn.service() == A::SERVICE
            }
        };
        if allowed {
            Ok(revision)
        } else {
            Err(Denied::new::<A>(caller, arn))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        action::{ec2, kms, s3},
        caller::{RequestContext, Via},
        identity::Region,
    };

    /// A name and nothing else.
    struct Named(Arn, Option<Revision>);

    impl Resource for Named {
        fn arn(&self) -> &Arn {
            &self.0
        }

        fn revision(&self) -> Option<Revision> {
            self.1
        }
    }

    fn context(account: &str) -> Arc<RequestContext> {
        let principal = Principal::root(account.parse().unwrap());
        Arc::new(RequestContext::new(principal, "r-1"))
    }

    fn key(account: &str) -> Named {
        let region: Region = "us-east-1".parse().unwrap();
        Named(Arn::kms_key(&region, &account.parse().unwrap(), "k"), None)
    }

    fn ask<A: Action>(
        authorizer: &Authorizer,
        context: &Arc<RequestContext>,
        resource: Named,
    ) -> Result<Authorized<A, Named>, Denied> {
        authorizer.authorize(Caller::new(context, Via::Api), resource)
    }

    fn ours() -> Authorizer {
        Authorizer::new("111111111111".parse().unwrap())
    }

    #[test]
    fn the_root_user_may_use_its_own_accounts_resources() {
        let (authorizer, context) = (ours(), context("111111111111"));
        let granted = ask::<kms::Decrypt>(&authorizer, &context, key("111111111111")).unwrap();
        assert_eq!(granted.action(), "kms:Decrypt");
        assert_eq!(granted.arn(), &key("111111111111").0);
        let object = Named(Arn::s3_object("b", "k:1"), None);
        let _: Authorized<s3::GetObject, _> = ask(&authorizer, &context, object).unwrap();
    }

    #[test]
    fn another_account_is_refused_on_either_side() {
        let authorizer = ours();
        let ask = |caller, owner| ask::<kms::Decrypt>(&authorizer, &context(caller), key(owner));
        let foreign = ask("222222222222", "111111111111").unwrap_err();
        assert_eq!(
            foreign.to_string(),
            "User: arn:aws:iam::222222222222:root is not authorized to perform: kms:Decrypt \
             on resource: arn:aws:kms:us-east-1:111111111111:key/k"
        );
        assert!(ask("111111111111", "222222222222").is_err());
        assert!(ask("222222222222", "222222222222").is_err());
    }

    #[test]
    fn an_action_on_another_services_resource_is_refused() {
        let (authorizer, context) = (ours(), context("111111111111"));
        let volume = ask::<ec2::CreateVolume>(&authorizer, &context, key("111111111111"));
        assert!(volume.is_err());
        let nobodys: Arn = "arn:aws:kms:us-east-1::key/k".parse().unwrap();
        assert!(ask::<kms::Decrypt>(&authorizer, &context, Named(nobodys, None)).is_err());
    }

    #[test]
    fn a_permission_shares_the_request_and_keeps_the_side_and_the_tokens() {
        let (authorizer, context) = (ours(), context("111111111111"));
        let tokens: Arc<[String]> = Arc::new(["token".to_owned()]);
        let caller = Caller::new(&context, Via::S3).with_grant_tokens(Some(&tokens));
        let granted: Authorized<kms::Decrypt, _> =
            authorizer.authorize(caller, key("111111111111")).unwrap();
        assert!(Arc::ptr_eq(granted.caller().context(), &context));
        assert_eq!(granted.caller().via(), Via::S3);
        assert!(Arc::ptr_eq(
            granted.caller().grant_tokens().unwrap(),
            &tokens
        ));
        let (of, _) = granted.into_parts();
        assert!(Arc::ptr_eq(&of, &context));
    }

    #[test]
    fn what_stands_is_current_until_something_changes_and_again_once_it_is_renewed() {
        let (authorizer, context) = (ours(), context("111111111111"));
        let granted = ask::<kms::Decrypt>(&authorizer, &context, key("111111111111")).unwrap();
        let kept = granted.standing(key("111111111111"));
        let mut standing = granted.into_standing();
        assert!(standing.is_current() && kept.is_current());
        authorizer.changed();
        assert!(!standing.is_current() && !kept.is_current());
        authorizer
            .renew(&mut standing, key("111111111111"))
            .unwrap();
        assert!(standing.is_current());
        assert!(!kept.is_current());
        authorizer.changed();
        assert!(!standing.is_current());
    }

    #[test]
    fn what_is_refused_when_decided_again_stays_stale() {
        let (authorizer, other) = (ours(), Authorizer::new("222222222222".parse().unwrap()));
        let context = context("111111111111");
        let granted = ask::<kms::Decrypt>(&authorizer, &context, key("111111111111")).unwrap();
        let mut standing = granted.into_standing();
        authorizer.changed();
        let refused = other.renew(&mut standing, key("111111111111"));
        assert_eq!(refused.unwrap_err().action, "kms:Decrypt");
        assert!(!standing.is_current());
    }

    #[test]
    fn a_change_between_the_look_up_and_the_decision_makes_the_decision_stale() {
        let (authorizer, context) = (ours(), context("111111111111"));
        let mut looked_up = key("111111111111");
        looked_up.1 = Some(authorizer.revision());
        authorizer.changed();
        let granted = ask::<kms::Decrypt>(&authorizer, &context, looked_up).unwrap();
        assert!(!granted.into_standing().is_current());
    }

    #[test]
    #[should_panic(expected = "what stands is what was decided on")]
    fn what_stands_cannot_be_another_resource() {
        let (authorizer, context) = (ours(), context("111111111111"));
        let granted = ask::<kms::Decrypt>(&authorizer, &context, key("111111111111")).unwrap();
        let _ = granted.standing(Named(Arn::s3_object("b", "k"), None));
    }
}
