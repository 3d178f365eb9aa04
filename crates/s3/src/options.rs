//! What the S3 front is made of.

use std::sync::Arc;

use catalogue::Catalogue;
#[cfg(doc)]
use host::memory::Account;
use host::memory::Memory;
use root::StoreKey;

use crate::bucket::Neighbours;
use crate::bucket_key::BucketKeyPolicy;
use crate::observer::Observer;
use crate::store::ObjectStore;
/// What the front is made of.
pub struct Options {
    /// Where sealed objects are kept.
    pub store: Arc<dyn ObjectStore>,
    /// Whose keys they are sealed with.
    pub keyring: Arc<keyring::Keyring>,
    /// Who may do what.
    pub authorizer: Arc<iam::Authorizer>,
    /// The time that goes into records and ends cached keys, and durations of requests.
    pub clock: Arc<dyn host::Clock>,
    /// Salts, object keys, opaque entity tags.
    pub random: Arc<dyn crypto::random::Random>,
    /// Who counts.
    pub observer: Arc<dyn Observer>,
    /// Where changes of buckets are recorded, and accesses to objects if it records data events.
    pub audit: audit::AuditLog,
    /// The account whose buckets these are.
    pub account: iam::AccountId,
    /// The region they are in.
    pub region: iam::Region,
    /// The buckets of the other accounts and regions of this process, which these join: the same for all of them.
    pub neighbours: Arc<Neighbours>,
    /// What buckets there are.
    pub catalogue: Arc<dyn Catalogue>,
    /// Seals buckets, and the envelopes of objects, uploads and parts.
    pub store_key: StoreKey,
    /// What all bodies are buffered in. The body of a request is accounted to the `Arc<`[`Account`]`>` in the extensions of
    /// the request, if there is one.
    pub memory: Arc<Memory>,
    /// How long bucket keys are cached.
    pub bucket_keys: BucketKeyPolicy,
    /// Domains under which `bucket.domain` names a bucket; empty for path style only.
    pub virtual_host_domains: Vec<String>,
}
