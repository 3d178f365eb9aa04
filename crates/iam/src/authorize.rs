//! The decision, and the proof that it was made.
//!
//! [`Authorized<A>`] can be made by [`Authorizer::authorize`] alone, for one action on one
//! resource, and is neither `Clone` nor `Copy`: an operation takes it by value and spends it.
//!
//! The decision today: the root user of our account may do everything to what belongs to our
//! account; everybody else, everything else, and every action asked about a resource of another
//! service is refused.
use std::{fmt, marker::PhantomData};

use crate::{
    action::Action,
    arn::Arn,
    caller::Caller,
    identity::{AccountId, Principal},
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

/// The permission to do `A` to one resource, once.
///
/// It cannot be spent twice:
/// ```compile_fail,E0382
/// fn spend(_: iam::Authorized<iam::Decrypt>) {}
/// fn twice(permission: iam::Authorized<iam::Decrypt>) {
///     spend(permission);
///     spend(permission);
/// }
/// ```
/// nor stand in for another one:
/// ```compile_fail,E0308
/// fn encrypt(_: iam::Authorized<iam::Encrypt>) {}
/// fn confuse(permission: iam::Authorized<iam::Decrypt>) {
///     encrypt(permission);
/// }
/// ```
/// nor be made by hand:
/// ```compile_fail,E0451
/// fn forge(caller: iam::Caller, resource: iam::Arn) -> iam::Authorized<iam::Decrypt> {
///     iam::Authorized { caller, resource, action: std::marker::PhantomData }
/// }
/// ```
#[must_use = "a permission that is not spent was asked for in vain"]
pub struct Authorized<A: Action> {
    caller: Caller,
    resource: Arn,
    action: PhantomData<fn() -> A>,
}

impl<A: Action> Authorized<A> {
    /// Who may.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// To what.
    pub fn resource(&self) -> &Arn {
        &self.resource
    }

    /// Who may, the permission being spent.
    pub fn into_caller(self) -> Caller {
        self.caller
    }

    /// What: `A`'s name, such as `kms:Decrypt`.
    pub fn action(&self) -> &'static str {
        A::NAME
    }
}

impl<A: Action> fmt::Debug for Authorized<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorized")
            .field("action", &A::NAME)
            .field("resource", &self.resource)
            .field("principal", &self.caller.principal)
            .finish_non_exhaustive()
    }
}

/// Makes decisions for one account.
#[derive(Debug, Clone)]
pub struct Authorizer {
    account: AccountId,
}

impl Authorizer {
    /// Decides about what belongs to `account`.
    pub fn new(account: AccountId) -> Self {
        Self { account }
    }

    /// The account decided about.
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// Whether `caller` may do `A` to `resource`.
    ///
    /// S3's ARNs carry no account: every bucket served here is our account's own. Of any other
    /// service, a resource without an account is refused.
    pub fn authorize<A: Action>(
        &self,
        caller: &Caller,
        resource: &Arn,
    ) -> Result<Authorized<A>, Denied> {
        let ours = match resource.account() {
            Some(account) => *account == self.account,
            None => resource.service() == "s3",
        };
        let allowed = match &caller.principal {
            Principal::Root { account } => {
                *account == self.account && ours && resource.service() == A::SERVICE
            }
        };
        if allowed {
            return Ok(Authorized {
                caller: caller.clone(),
                resource: resource.clone(),
                action: PhantomData,
            });
        }
        Err(Denied {
            principal: caller.principal.arn(),
            action: A::NAME,
            resource: resource.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        action::{ec2, kms, s3},
        caller::Via,
        identity::Region,
    };

    fn caller(account: &str) -> Caller {
        Caller::new(Principal::root(account.parse().unwrap()), Via::Api, "r-1")
    }

    fn key(account: &str) -> Arn {
        let region: Region = "us-east-1".parse().unwrap();
        Arn::kms_key(&region, &account.parse().unwrap(), "k")
    }

    #[test]
    fn the_root_user_may_use_its_own_accounts_resources() {
        let authorizer = Authorizer::new("111111111111".parse().unwrap());
        let caller = caller("111111111111");
        let granted: Authorized<kms::Decrypt> =
            authorizer.authorize(&caller, &key("111111111111")).unwrap();
        assert_eq!(granted.action(), "kms:Decrypt");
        assert_eq!(granted.resource(), &key("111111111111"));
        let _: Authorized<s3::GetObject> = authorizer
            .authorize(&caller, &Arn::s3_object("b", "k:1"))
            .unwrap();
    }

    #[test]
    fn another_account_is_refused_on_either_side() {
        let authorizer = Authorizer::new("111111111111".parse().unwrap());
        let foreign = authorizer
            .authorize::<kms::Decrypt>(&caller("222222222222"), &key("111111111111"))
            .unwrap_err();
        assert_eq!(
            foreign.to_string(),
            "User: arn:aws:iam::222222222222:root is not authorized to perform: kms:Decrypt \
             on resource: arn:aws:kms:us-east-1:111111111111:key/k"
        );
        assert!(
            authorizer
                .authorize::<kms::Decrypt>(&caller("111111111111"), &key("222222222222"))
                .is_err()
        );
        let foreign_everything =
            authorizer.authorize::<kms::Decrypt>(&caller("222222222222"), &key("222222222222"));
        assert!(foreign_everything.is_err());
    }

    #[test]
    fn an_action_on_another_services_resource_is_refused() {
        let authorizer = Authorizer::new("111111111111".parse().unwrap());
        let caller = caller("111111111111");
        assert!(
            authorizer
                .authorize::<ec2::CreateVolume>(&caller, &key("111111111111"))
                .is_err()
        );
        let nobodys: Arn = "arn:aws:kms:us-east-1::key/k".parse().unwrap();
        assert!(
            authorizer
                .authorize::<kms::Decrypt>(&caller, &nobodys)
                .is_err()
        );
    }
}
