//! The buckets of all accounts and regions that this process serves. Their names are one space, so that a name that is
//! not known here may be known next door.

use std::sync::{Arc, Weak};

use catalogue::Scope;
use parking_lot::RwLock;

use super::registry::{Bucket, Registry};
use crate::store::Page;

/// The registries of one process, an account and region each. Given to every [`Gateway`](crate::Gateway), which joins.
#[derive(Default)]
pub struct Neighbours(RwLock<Vec<Weak<Registry>>>);

impl std::fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Neighbours").finish_non_exhaustive()
    }
}

impl Neighbours {
    pub(crate) fn join(&self, registry: &Arc<Registry>) {
        self.0.write().push(Arc::downgrade(registry));
    }

    fn all(&self) -> Vec<Arc<Registry>> {
        self.0.read().iter().filter_map(Weak::upgrade).collect()
    }

    /// Whose bucket has the name, as it was last seen.
    pub(crate) fn owner(&self, name: &str) -> Option<Scope> {
        let owner = self
            .all()
            .into_iter()
            .find(|buckets| buckets.get(name).is_some());
        owner.map(|buckets| buckets.scope().clone())
    }

    /// The buckets of this account and region.
    pub(crate) fn of(&self, account: &str, region: &str) -> Option<Arc<Registry>> {
        self.all().into_iter().find(|buckets| {
            let scope = buckets.scope();
            scope.account == account && scope.region == region
        })
    }

    /// A page of an account's buckets, each with its region, in the order of their names: those of one region, or of all.
    pub(crate) fn page(
        &self,
        account: &str,
        region: Option<&str>,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Page<(Arc<Bucket>, String)> {
        let mut whole = Page::default();
        for buckets in self.all() {
            let scope = buckets.scope();
            if scope.account != account || region.is_some_and(|region| region != scope.region) {
                continue;
            }
            let page = buckets.page(prefix, after, limit);
            whole.truncated |= page.truncated;
            let entries = page.entries.into_iter();
            whole
                .entries
                .extend(entries.map(|bucket| (bucket, scope.region.clone())));
        }
        // Each page has the first of its region, so that these are the first of all.
        whole.entries.sort_by(|a, b| a.0.name().cmp(b.0.name()));
        whole.truncated |= whole.entries.len() > limit && limit > 0;
        whole.entries.truncate(limit);
        whole
    }
}
