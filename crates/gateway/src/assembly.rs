//! Everything below the listeners: opened in order of who needs whom, closed in the reverse.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::Backends;
use api::sealgate::Administration;
use catalogue::sqlite::SqliteCatalogue;
use catalogue::{Catalogue, Scope, StoreId};
use crypto::random::{Random, SystemRandom};
use host::memory::Memory;
use host::{Clock, Disk, SystemClock};
use iam::identity::FixedCredentials;
use iam::sigv4::{Options as SigV4Options, Verifier};
use iam::{AccountId, Authorizer, Credential, Principal, Region, SecretAccessKey};
use jobs::{Jobs, Work};
use keyring::{AuditLog, AuditOptions, Keyring};
use parts::Wrong;
use root::StoreKey;
use s3::store::ObjectStore;
use s3::store::local::LocalStore;
use volume::Volumes;

use crate::administration::Administered;
use crate::aws::{Aws, Served};
use crate::background;
use crate::config::Config;
use crate::credentials::RootUsers;
use crate::data_dir::{DataDir, Paths};
use crate::known::{self, Known, wrong};
use crate::metrics::Metrics;
use crate::nbd_front::VolumeExports;
use crate::observers::{BlockRequests, KeyUses, ObjectRequests};
use crate::refusals::{self, Refusals};
use crate::request_ids::RequestIds;
use crate::reseal::{self, Part, RotateStoreKey};
use crate::reserve;
use crate::scopes::Scopes;

/// Volumes that may exist; each attached one holds two files open.
const VOLUMES_MAX: usize = 10_000;

/// How long a request waits for memory before it is refused: shorter than clients wait for an answer.
const MEMORY_PATIENCE: Duration = Duration::from_secs(20);

/// The parts of a running server.
pub(crate) struct Assembly {
    /// Every key, an account and region each.
    pub(crate) keyrings: Vec<Arc<Keyring>>,
    /// Every volume, likewise.
    pub(crate) volumes: Vec<Arc<Volumes>>,
    /// The AWS endpoint over keyrings, volumes and objects.
    pub(crate) aws: Arc<Aws>,
    /// The NBD server over the volumes.
    pub(crate) nbd: nbd::Server,
    /// Where objects are; to be closed last.
    pub(crate) objects: Arc<LocalStore>,
    /// What all bodies of requests and answers are in.
    pub(crate) memory: Arc<Memory>,
    /// What exists.
    pub(crate) catalogue: Arc<dyn Catalogue>,
    /// Long work.
    pub(crate) jobs: Arc<Jobs>,
    /// What the parts know of each other, to be kept while they are open.
    pub(crate) known: Arc<Known>,
    /// The audit log, for its mark.
    pub(crate) audit: AuditLog,
    /// What tells of refusals, and the records that have to be taken to the audit log.
    pub(crate) refusals: (Arc<Refusals>, refusals::Waiting),
}

/// What every account and region is served from.
struct Ground<'a> {
    paths: Paths<'a>,
    catalogue: Arc<dyn Catalogue>,
    store_key: StoreKey,
    audit: AuditLog,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
    memory: Arc<Memory>,
    bucket_keys: s3::BucketKeyPolicy,
    encryption: volume::EncryptionPolicy,
    neighbours: Arc<s3::Neighbours>,
}

/// One account in one region, to be served.
struct Place {
    authorizer: Arc<Authorizer>,
    region: Region,
    keyring: Arc<Keyring>,
    volumes: Arc<Volumes>,
}

impl Place {
    fn account(&self) -> AccountId {
        *self.authorizer.account()
    }
}

impl Assembly {
    /// Opens what the data directory holds, or makes it on the first start; `disk` is the machine's, for the audit log.
    /// Blocks the thread that polls it.
    pub(crate) async fn open(
        config: &Config,
        data_dir: &DataDir,
        store_key: &StoreKey,
        metrics: &Arc<Metrics>,
        disk: Arc<dyn Disk>,
    ) -> anyhow::Result<Self> {
        let scopes = config.scopes()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let paths = data_dir.paths();

        // First of all that a store key seals: what is made after it says whether one that is missing was lost.
        let catalogue = open_catalogue(data_dir, store_key).await?;
        let known = Known::load(&paths, &catalogue, store_key, &random).await?;
        // Before any other part is opened: what is refused is not changed.
        known.check().await?;
        scopes.check(&*catalogue).await?;
        let mut options = AuditOptions::new(paths.audit(), Arc::clone(&clock));
        options.data_events = config.audit.data_events;
        options.disk = disk;
        let audit = AuditLog::open(options).context("audit log")?;
        let ground = Ground {
            paths,
            catalogue,
            store_key: store_key.clone(),
            audit,
            clock,
            random,
            metrics: Arc::clone(metrics),
            memory: Memory::new(config.aws.body_memory_mib << 20, MEMORY_PATIENCE),
            bucket_keys: s3::BucketKeyPolicy {
                lifetime: Duration::from_secs(config.s3.bucket_key_seconds),
                ..s3::BucketKeyPolicy::default()
            },
            encryption: volume::EncryptionPolicy {
                required: config.volumes.require_encryption,
                ..volume::EncryptionPolicy::default()
            },
            neighbours: Arc::default(),
        };
        let mut keyrings = Vec::new();
        for account in scopes.accounts() {
            let authorizer = Arc::new(Authorizer::new(account));
            for region in scopes.regions() {
                keyrings.push(ground.keyring(&authorizer, region).await?);
            }
        }
        // After the keyrings have accepted the store key: a refused start leaves nothing behind.
        let path = ground.paths.credentials();
        let credentials = RootUsers::load_or_create(&path, scopes.accounts(), &*ground.random)?;
        let mut places = Vec::new();
        for (authorizer, keyring) in keyrings {
            places.push(ground.volumes(authorizer, keyring).await?);
        }
        let operator = Arc::clone(&places.first().context("accounts")?.authorizer);
        let quarantined = places[0].volumes.quarantined().context("volumes")?;
        metrics
            .quarantined_volumes
            .set(i64::try_from(quarantined).unwrap_or(i64::MAX));
        let mut options =
            s3::store::local::Options::new(ground.paths.objects(), Arc::clone(&ground.random));
        // By the check of the parts, above.
        options.looked_at = true;
        let objects = Arc::new(LocalStore::open(options).context("objects")?);
        let quarantined = i64::try_from(objects.quarantined()).unwrap_or(i64::MAX);
        metrics.objects_quarantined.set(quarantined);
        let mut gateways = Vec::new();
        for place in &places {
            gateways.push(ground.gateway(place, &objects).await?);
        }
        known.objects_are_open(&objects);
        if let Err(error) = known.complete(&credentials, &ground.audit).await {
            // Without any marks, the next start could not tell a first start from a loss. With older ones it can.
            if known.is_new().await {
                return Err(error.into());
            }
            tracing::error!(%error, "the marks between the parts are not up to date");
        }
        let known = Arc::new(known);
        let (administration, jobs) = ground
            .administration(&scopes, &places[0], &gateways[0], &known)
            .await;
        let (refusals, waiting) = Refusals::new(Arc::clone(metrics), Arc::clone(&ground.clock));
        let exports = VolumeExports {
            accounts: places
                .iter()
                .map(|place| (Arc::clone(&place.volumes), Arc::clone(&place.authorizer)))
                .collect(),
            refusals: Arc::clone(&refusals),
            random: Arc::clone(&ground.random),
            uid: rustix::process::geteuid().as_raw(),
        };
        let nbd = nbd_server(config, metrics, &ground.clock, &refusals, exports);
        let keyrings = places.iter().map(|place| Arc::clone(&place.keyring));
        let volumes = places.iter().map(|place| Arc::clone(&place.volumes));
        let (keyrings, volumes) = (keyrings.collect(), volumes.collect());
        let regions: Arc<[Region]> = scopes.regions().cloned().collect();
        let served = places.into_iter().zip(gateways).map(|(place, s3)| {
            let at = (place.account(), place.region);
            let backends = Backends {
                keyring: place.keyring,
                volumes: place.volumes,
                authorizer: place.authorizer,
                regions: Arc::clone(&regions),
                administration: Arc::clone(&administration),
                operator: Arc::clone(&operator),
            };
            (at, Served { s3, backends })
        });
        let aws = Arc::new(Aws {
            verifier: verifier(&scopes, &credentials)?,
            served: served.collect(),
            metrics: Arc::clone(metrics),
            refusals: Arc::clone(&refusals),
            memory: Arc::clone(&ground.memory),
            clock: ground.clock,
            request_ids: RequestIds::new(ground.random),
        });
        Ok(Self {
            keyrings,
            volumes,
            aws,
            nbd,
            objects,
            memory: ground.memory,
            catalogue: ground.catalogue,
            jobs,
            known,
            audit: ground.audit,
            refusals: (refusals, waiting),
        })
    }
}

impl Ground<'_> {
    async fn keyring(
        &self,
        authorizer: &Arc<Authorizer>,
        region: &Region,
    ) -> anyhow::Result<(Arc<Authorizer>, Arc<Keyring>)> {
        let keyring = Keyring::open(keyring::Options {
            catalogue: Arc::clone(&self.catalogue),
            store_key: self.store_key.clone(),
            audit: self.audit.clone(),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            authorizer: Arc::clone(authorizer),
            region: region.clone(),
            observer: Arc::new(KeyUses(Arc::clone(&self.metrics))),
        });
        let keyring = keyring.await.context("keyring")?;
        Ok((Arc::clone(authorizer), keyring))
    }

    async fn volumes(
        &self,
        authorizer: Arc<Authorizer>,
        keyring: Arc<Keyring>,
    ) -> anyhow::Result<Place> {
        let region = keyring.region().clone();
        let volumes = Volumes::open(volume::Options {
            disk: Arc::new(host::ReservingDisk::new(
                Arc::new(host::OsDisk),
                reserve::BULK_LEAVES,
            )),
            dir: self.paths.volumes(),
            keyring: Arc::clone(&keyring),
            encryption: self.encryption,
            authorizer: Arc::clone(&authorizer),
            catalogue: Arc::clone(&self.catalogue),
            store_key: self.store_key.clone(),
            audit: self.audit.clone(),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            region: region.clone(),
            boot: host::BootId::current()
                .inspect_err(|error| tracing::warn!(%error, "the machine does not say its boot: clients of volumes will not reconnect after a crash"))
                .ok(),
            volumes_max: VOLUMES_MAX,
        });
        Ok(Place {
            volumes: volumes.await.context("volumes")?,
            authorizer,
            region,
            keyring,
        })
    }

    async fn gateway(
        &self,
        place: &Place,
        objects: &Arc<LocalStore>,
    ) -> anyhow::Result<s3::Gateway> {
        let gateway = s3::Gateway::open(s3::Options {
            store: Arc::clone(objects) as Arc<dyn ObjectStore>,
            keyring: Arc::clone(&place.keyring),
            authorizer: Arc::clone(&place.authorizer),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            observer: Arc::new(ObjectRequests(Arc::clone(&self.metrics))),
            audit: self.audit.clone(),
            account: place.account(),
            region: place.region.clone(),
            neighbours: Arc::clone(&self.neighbours),
            catalogue: Arc::clone(&self.catalogue),
            store_key: self.store_key.clone(),
            memory: Arc::clone(&self.memory),
            bucket_keys: self.bucket_keys,
            virtual_host_domains: Vec::new(),
        });
        gateway.await.context("buckets")
    }

    /// Jobs and the root key, which are the whole store's. The owners of what is sealed are those of every account and
    /// region, whichever place they come from.
    async fn administration(
        &self,
        scopes: &Scopes,
        place: &Place,
        s3: &s3::Gateway,
        known: &Known,
    ) -> (Arc<dyn Administration>, Arc<Jobs>) {
        let parts = sealed_parts(
            &self.catalogue,
            &self.store_key,
            &self.random,
            &place.keyring,
            &place.volumes,
            s3,
            known,
        );
        let rotate = Arc::new(RotateStoreKey::new(self.store_key.clone(), &parts));
        let jobs = background::jobs(
            Arc::clone(&self.catalogue),
            self.store_key.clone(),
            // No account's: another order of accounts would hide them.
            Scope::default(),
            Arc::clone(&self.clock),
            &self.metrics,
            vec![Arc::clone(&rotate) as Arc<dyn Work>],
        );
        if let Err(error) = rotate.resume(&jobs).await {
            tracing::error!(%error, "the rotation of the store key cannot go on");
        }
        let administration = Administered {
            jobs: Arc::clone(&jobs),
            store_key: self.store_key.clone(),
            rotate,
            region: scopes.home().clone(),
            audit: self.audit.clone(),
        };
        (Arc::new(administration), jobs)
    }
}

/// The catalogue of this store; made on the first start, and never beside what belongs to one that was lost.
pub(crate) async fn open_catalogue(
    data_dir: &DataDir,
    store_key: &StoreKey,
) -> anyhow::Result<Arc<dyn Catalogue>> {
    let paths = data_dir.paths();
    let refuse = |wrong| known::refusal(&paths, parts::Part::Catalogue, wrong);
    let path = paths.catalogue();
    let store = StoreId(*store_key.store().as_bytes());
    let mut options = catalogue::sqlite::Options::new(&path);
    if !paths.hold_more_than_the_catalogue() {
        options.create = Some(store);
    } else if !path
        .try_exists()
        .map_err(|error| refuse(wrong::of_io(&error)))?
    {
        return Err(refuse(Wrong::Missing).into());
    }
    let catalogue = SqliteCatalogue::open(options);
    let catalogue = catalogue.map_err(|error| refuse(wrong::of_catalogue(error)))?;
    let found = catalogue.store_id().await?;
    if found != store {
        let store = root::StoreId::from_bytes(found.0);
        return Err(refuse(Wrong::OtherStore { store }).into());
    }
    Ok(Arc::new(catalogue))
}

/// Every part that holds records sealed under the store key, and who re-seals them.
fn sealed_parts(
    catalogue: &Arc<dyn Catalogue>,
    store_key: &StoreKey,
    random: &Arc<dyn Random>,
    keyring: &Keyring,
    volumes: &Volumes,
    s3: &s3::Gateway,
    known: &Known,
) -> reseal::Parts {
    let part = |name, owners| Part { name, owners };
    reseal::Parts(vec![
        part("jobs", Some(jobs::owners(catalogue, store_key, random))),
        part("keyring", Some(keyring.owners())),
        part("volumes", Some(volumes.owners())),
        part("buckets and objects", Some(s3.owners())),
        part("marks", Some(vec![known.owner()])),
    ])
}

/// The one verifier, which knows each account's root user.
fn verifier(scopes: &Scopes, users: &RootUsers) -> anyhow::Result<Verifier> {
    let mut known = Vec::new();
    for account in scopes.accounts() {
        let user = users.of(account).context("credentials")?;
        let secret = std::str::from_utf8(user.secret_access_key.expose()).context("credentials")?;
        let credential = Credential {
            principal: Principal::root(account),
            secret: SecretAccessKey::new(secret).context("credentials")?,
        };
        let access_key = user.access_key_id.parse().context("credentials")?;
        known.push((access_key, credential));
    }
    let mut options = SigV4Options::new(scopes.home().clone());
    options.more_regions = scopes.more_regions().to_vec();
    let known: FixedCredentials = known.into_iter().collect();
    Ok(Verifier::new(options, Arc::new(known)))
}

fn nbd_server(
    config: &Config,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
    refusals: &Arc<Refusals>,
    exports: VolumeExports,
) -> nbd::Server {
    let mut options = nbd::Options::default();
    options.connections_max = config.nbd.connections_max;
    options.handshakes_max = config.nbd.handshakes_max;
    options.handshake_timeout = Duration::from_secs(config.nbd.handshake_timeout_seconds);
    let observer = Arc::new(BlockRequests::new(
        Arc::clone(metrics),
        clock,
        Arc::clone(refusals),
    ));
    nbd::Server::new(options, Arc::new(exports), observer)
}
