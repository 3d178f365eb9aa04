//! `sealgate doctor --accept-older` and `--adopt`: the ways out of a start that was refused. Both leave their intent and
//! their outcome in the audit log.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use audit::{AuditLog, AuditOptions};
use crypto::random::{Random, SystemRandom};
use host::{OsDisk, SystemClock, private};
use parts::Part;
use root::{HEADER_NAME, RootKeyProvider};

use crate::config::Config;
use crate::data_dir::{DataDir, Paths};
use crate::known::{self, Known};
use crate::management_trail::{by_doctor, recorded_here};
use crate::{assembly, cli, harden, output, root_key};

/// Goes on with a part as it is; the server must be stopped. Blocks.
pub(crate) fn accept_older(config: &Config, part: cli::Part) -> anyhow::Result<()> {
    let part = Part::from(part);
    ready(config)?;
    let passphrase = root_key::passphrase(config)?;
    let data_dir =
        DataDir::open(&config.data_dir).context("the server must be stopped to accept a loss")?;
    let provider = root_key::provider(&config.root_key, data_dir.paths(), passphrase)?;
    block_on(accept(&data_dir, provider, part))?;
    drop(data_dir);
    output::text(match part {
        Part::Audit => {
            "The audit log goes on in a new segment, whose first record names what is lost.\n"
        }
        _ => {
            "Accepted as it is now. The next start goes on with it; the audit log has a record of it.\n"
        }
    })
}

/// Begins with nothing but the root header and the catalogue; the server must be stopped. Blocks.
pub(crate) fn adopt(config: &Config) -> anyhow::Result<()> {
    ready(config)?;
    let paths = Paths(&config.data_dir);
    for part in [Part::Credentials, Part::Volumes, Part::Objects] {
        let path = known::path_of(&paths, part);
        if path.try_exists()? {
            bail!(
                "{} is there: --adopt begins a directory that has nothing but {HEADER_NAME} and the catalogue; of parts \
                 that are there, accept each that is refused",
                path.display()
            );
        }
    }
    let passphrase = root_key::passphrase(config)?;
    let lock = config.data_dir.join("LOCK");
    if !lock.try_exists()? {
        // By it a directory is known as a data directory; what was restored need not have it.
        private::create(&OsDisk, &lock, b"")
            .with_context(|| format!("cannot make {}", lock.display()))?;
    }
    let data_dir = DataDir::open(&config.data_dir).context("the server must be stopped")?;
    let provider = root_key::provider(&config.root_key, data_dir.paths(), passphrase)?;
    block_on(adopt_in(&data_dir, provider))?;
    drop(data_dir);
    output::text("Adopted. The next start makes every other part anew, with a new access key.\n")
}

/// Looks for what a start would refuse, and for damage in all of the object index however long it is; fails if there is
/// any. The server must be stopped. Changes no part. Blocks.
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    ready(config)?;
    let passphrase = root_key::passphrase(config)?;
    let data_dir = DataDir::open(&config.data_dir).context("the server must be stopped")?;
    let provider = root_key::provider(&config.root_key, data_dir.paths(), passphrase)?;
    let refusals = block_on(async {
        let known = open(&data_dir, provider).await?;
        Ok(known.check_whole().await)
    })?;
    let mut lines = String::new();
    for part in Part::ALL {
        let found: Vec<_> = refusals.iter().filter(|found| found.part == part).collect();
        match found.as_slice() {
            [] => lines.push_str(&format!("{part}: whole\n")),
            // The catalogue may be behind several stamps.
            [first, ..] => lines.push_str(&format!("{first}\n")),
        }
    }
    output::text(&lines)?;
    ensure!(refusals.is_empty(), "a start would be refused, see above");
    Ok(())
}

/// What neither of them makes must be there.
fn ready(config: &Config) -> anyhow::Result<()> {
    config.check()?;
    harden::forbid_core_dumps()?;
    let paths = Paths(&config.data_dir);
    ensure!(
        config.data_dir.is_dir(),
        "there is no data directory {}",
        config.data_dir.display()
    );
    let catalogue = paths.catalogue();
    ensure!(
        catalogue.try_exists()?,
        "{} is missing, and the keys are nowhere else: restore it from a backup, however old, and try again",
        catalogue.display()
    );
    Ok(())
}

pub(crate) async fn accept(
    data_dir: &DataDir,
    provider: Arc<dyn RootKeyProvider>,
    part: Part,
) -> anyhow::Result<()> {
    let known = open(data_dir, provider).await?;
    known.may_accept(part).await?;
    let log = if part == Part::Audit {
        let given_out = known.records_given_out().await;
        audit::accept_loss(log_options(data_dir), given_out)
            .context("cannot go on with the audit log")?
    } else {
        known.open_log().await?
    };
    let operation = match part {
        Part::RootHeader => "DoctorAcceptOlderRootHeader",
        Part::Catalogue => "DoctorAcceptOlderCatalogue",
        Part::Credentials => "DoctorAcceptOlderCredentials",
        Part::Audit => "DoctorAcceptOlderAudit",
        Part::Volumes => "DoctorAcceptOlderVolumes",
        Part::Objects => "DoctorAcceptOlderObjects",
        Part::Index => "DoctorAcceptOlderIndex",
    };
    let accept = known.accept(part, &log);
    recorded(log.clone(), operation, accept).await
}

pub(crate) async fn adopt_in(
    data_dir: &DataDir,
    provider: Arc<dyn RootKeyProvider>,
) -> anyhow::Result<()> {
    let known = open(data_dir, provider).await?;
    let log = AuditLog::open(log_options(data_dir)).context("audit log")?;
    let adopt = async { Ok(known.adopt().await?) };
    recorded(log, "DoctorAdopt", adopt).await
}

fn log_options(data_dir: &DataDir) -> AuditOptions {
    AuditOptions::new(data_dir.paths().audit(), Arc::new(SystemClock::new()))
}

async fn open(data_dir: &DataDir, provider: Arc<dyn RootKeyProvider>) -> anyhow::Result<Known> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let store_key = root_key::open(data_dir, provider).await?;
    let catalogue = assembly::open_catalogue(data_dir, &store_key).await?;
    let known = Known::load(&data_dir.paths(), &catalogue, &store_key, &random).await?;
    Ok(known)
}

/// Makes a change between the records of its intent and its outcome.
async fn recorded(
    log: AuditLog,
    operation: &'static str,
    change: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    // Whatever failed, part of it may have been done.
    let outcome = |changed: &anyhow::Result<()>| {
        if changed.is_ok() {
            "Success"
        } else {
            "Unknown"
        }
    };
    recorded_here(log, by_doctor(operation), change, outcome)
        .await
        .context("audit log")?
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(work)
}
