//! Everything below the listeners: opened in order of who needs whom, closed in the reverse.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::Backends;
use catalogue::sqlite::SqliteCatalogue;
use catalogue::{Catalogue, Scope, StoreId};
use crypto::random::{Random, SystemRandom};
use host::{Clock, SystemClock};
use iam::identity::SingleCredential;
use iam::sigv4::{Options as SigV4Options, Verifier};
use iam::{AccountId, Authorizer, Credential, Principal, Region, SecretAccessKey};
use jobs::{Jobs, Work};
use keyring::{AuditLog, AuditOptions, Keyring};
use root::StoreKey;
use s3::store::ObjectStore;
use s3::store::local::LocalStore;
use volume::Volumes;

use crate::administration::Administered;
use crate::aws::Aws;
use crate::background;
use crate::config::Config;
use crate::credentials::RootCredentials;
use crate::data_dir::DataDir;
use crate::known::Known;
use crate::metrics::Metrics;
use crate::nbd_front::VolumeExports;
use crate::observers::{BlockRequests, KeyUses, ObjectRequests};
use crate::reseal::{self, Part, RotateStoreKey};

/// Volumes that may exist; each attached one holds two files open.
const VOLUMES_MAX: usize = 10_000;

/// The parts of a running server.
pub(crate) struct Assembly {
    /// Every key.
    pub(crate) keyring: Arc<Keyring>,
    /// The AWS endpoint over keyring, volumes and objects.
    pub(crate) aws: Arc<Aws>,
    /// The NBD server over the volumes.
    pub(crate) nbd: nbd::Server,
    /// Where objects are; to be closed last.
    pub(crate) objects: Arc<LocalStore>,
    /// What exists.
    pub(crate) catalogue: Arc<dyn Catalogue>,
    /// Long work.
    pub(crate) jobs: Arc<Jobs>,
    /// What the parts know of each other, to be kept while they are open.
    pub(crate) known: Arc<Known>,
    /// The audit log, for its mark.
    pub(crate) audit: AuditLog,
}

impl Assembly {
    /// Opens what the data directory holds, or makes it on the first start. Blocks the thread that polls it.
    pub(crate) async fn open(
        config: &Config,
        data_dir: &DataDir,
        store_key: &StoreKey,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let account: AccountId = config.account_id.parse().context("account_id")?;
        let region: Region = config.region.parse().context("region")?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let authorizer = Arc::new(Authorizer::new(account));
        let paths = data_dir.paths();

        // First of all that a store key seals: what is made after it says whether one that is missing was lost.
        let catalogue = open_catalogue(data_dir, store_key).await?;
        let known = Known::load(&paths, &catalogue, store_key, &random).await;
        let known = known.with_context(|| {
            let path = paths.catalogue();
            format!("{} is damaged: restore it from a backup", path.display())
        })?;
        // Before any other part is opened: what is refused is not changed.
        known.check().await?;
        let mut options = AuditOptions::new(paths.audit(), Arc::clone(&clock));
        options.data_events = config.audit.data_events;
        let audit = AuditLog::open(options).context("audit log")?;
        let keyring = Keyring::open(keyring::Options {
            catalogue: Arc::clone(&catalogue),
            store_key: store_key.clone(),
            audit: audit.clone(),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            authorizer: Arc::clone(&authorizer),
            region: region.clone(),
            observer: Arc::new(KeyUses(Arc::clone(metrics))),
        })
        .await
        .context("keyring")?;
        // After the keyring has accepted the store key: a refused start leaves nothing behind.
        let credentials = RootCredentials::load_or_create(&paths.credentials(), &*random)?;
        let volumes = Volumes::open(volume::Options {
            disk: Arc::new(host::OsDisk),
            dir: paths.volumes(),
            keyring: Arc::clone(&keyring),
            authorizer: Arc::clone(&authorizer),
            catalogue: Arc::clone(&catalogue),
            store_key: store_key.clone(),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            region: region.clone(),
            volumes_max: VOLUMES_MAX,
        })
        .await
        .context("volumes")?;
        let quarantined = volumes.quarantined().context("volumes")?;
        metrics
            .quarantined_volumes
            .set(i64::try_from(quarantined).unwrap_or(i64::MAX));
        let options = s3::store::local::Options::new(paths.objects(), Arc::clone(&random));
        let objects = Arc::new(LocalStore::open(options).context("objects")?);
        let quarantined = i64::try_from(objects.quarantined()).unwrap_or(i64::MAX);
        metrics.objects_quarantined.set(quarantined);
        let s3 = s3::Gateway::open(s3::Options {
            store: Arc::clone(&objects) as Arc<dyn ObjectStore>,
            keyring: Arc::clone(&keyring),
            authorizer: Arc::clone(&authorizer),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            observer: Arc::new(ObjectRequests(Arc::clone(metrics))),
            audit: audit.clone(),
            account,
            region: region.clone(),
            catalogue: Arc::clone(&catalogue),
            store_key: store_key.clone(),
            bucket_keys: s3::BucketKeyPolicy {
                lifetime: Duration::from_secs(config.s3.bucket_key_seconds),
                ..s3::BucketKeyPolicy::default()
            },
            virtual_host_domains: Vec::new(),
        })
        .await
        .context("buckets")?;
        let scope = Scope {
            account: account.to_string(),
            region: region.to_string(),
        };
        known.objects_are_open(&objects);
        if let Err(error) = known.complete(&credentials, &audit).await {
            // Without any marks, the next start could not tell a first start from a loss. With older ones it can.
            if known.is_new().await {
                return Err(error.into());
            }
            tracing::error!(%error, "the marks between the parts are not up to date");
        }
        let known = Arc::new(known);
        let parts = sealed_parts(
            &catalogue, store_key, &random, &keyring, &volumes, &s3, &known,
        );
        let rotate = Arc::new(RotateStoreKey::new(store_key.clone(), &parts));
        let jobs = background::jobs(
            Arc::clone(&catalogue),
            store_key.clone(),
            scope,
            Arc::clone(&clock),
            metrics,
            vec![Arc::clone(&rotate) as Arc<dyn Work>],
        );
        if let Err(error) = rotate.resume(&jobs).await {
            tracing::error!(%error, "the rotation of the store key cannot go on");
        }
        let administration = Administered {
            jobs: Arc::clone(&jobs),
            store_key: store_key.clone(),
            rotate,
            region: region.clone(),
            audit: audit.clone(),
        };
        let nbd = nbd_server(
            config,
            metrics,
            &clock,
            VolumeExports {
                volumes: Arc::clone(&volumes),
                authorizer: Arc::clone(&authorizer),
                random: Arc::clone(&random),
                uid: rustix::process::geteuid().as_raw(),
            },
        );
        let aws = Arc::new(Aws {
            verifier: verifier(account, region, &credentials)?,
            s3,
            backends: Backends {
                keyring: Arc::clone(&keyring),
                volumes,
                authorizer: Arc::clone(&authorizer),
                administration: Arc::new(administration),
            },
            metrics: Arc::clone(metrics),
            clock,
            random,
        });
        Ok(Self {
            keyring,
            aws,
            nbd,
            objects,
            catalogue,
            jobs,
            known,
            audit,
        })
    }
}

/// The catalogue of this store; made on the first start, and never beside what belongs to one that was lost.
pub(crate) async fn open_catalogue(
    data_dir: &DataDir,
    store_key: &StoreKey,
) -> anyhow::Result<Arc<dyn Catalogue>> {
    let path = data_dir.paths().catalogue();
    let store = StoreId(*store_key.store().as_bytes());
    let mut options = catalogue::sqlite::Options::new(&path);
    if !data_dir.paths().hold_more_than_the_catalogue() {
        options.create = Some(store);
    } else if !path.try_exists()? {
        anyhow::bail!(
            "{} is missing, and this data directory needs it: restore it from a backup of the same directory",
            path.display()
        );
    }
    let catalogue = SqliteCatalogue::open(options).with_context(|| {
        format!(
            "catalogue {}: restore it from a backup of the same directory if it is damaged",
            path.display()
        )
    })?;
    let found = catalogue.store_id().await?;
    anyhow::ensure!(
        found == store,
        "{} is the catalogue of another store: restore the one that belongs to this data directory",
        path.display()
    );
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

/// The one verifier, which knows the account's root user.
fn verifier(
    account: AccountId,
    region: Region,
    credentials: &RootCredentials,
) -> anyhow::Result<Verifier> {
    let secret =
        std::str::from_utf8(credentials.secret_access_key.expose()).context("credentials")?;
    let credential = Credential {
        principal: Principal::root(account),
        secret: SecretAccessKey::new(secret).context("credentials")?,
    };
    let access_key = credentials.access_key_id.parse().context("credentials")?;
    let known = Arc::new(SingleCredential::new(access_key, credential));
    Ok(Verifier::new(SigV4Options::new(region), known))
}

fn nbd_server(
    config: &Config,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
    exports: VolumeExports,
) -> nbd::Server {
    let mut options = nbd::Options::default();
    options.connections_max = config.nbd.connections_max;
    options.handshakes_max = config.nbd.handshakes_max;
    options.handshake_timeout = Duration::from_secs(config.nbd.handshake_timeout_seconds);
    let observer = Arc::new(BlockRequests::new(Arc::clone(metrics), clock));
    nbd::Server::new(options, Arc::new(exports), observer)
}
