//! `sealgate volume check` and `repair`: one volume, looked at and made whole while no server runs.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use audit::AuditLog;
use catalogue::{Catalogue, Scope};
use crypto::random::{Random, SystemRandom};
use host::{Clock, OsDisk, SystemClock};
use iam::{AccountId, Authorizer, Caller, Principal, Region, RequestContext, Via};
use keyring::Keyring;
use root::{RootKeyProvider, StoreKey};
use serde_json::{Value, json};
use volume::{
    Checked, Finding, Inspection, MapSource, Repaired, Report, VolumeError, VolumeId,
    check as look, repair as mend,
};

use crate::config::Config;
use crate::data_dir::{DataDir, Paths};
use crate::known::Known;
use crate::management_trail::{local, recorded_here};
use crate::output::{self, Format};
use crate::{assembly, harden, root_key};

/// The operation in the audit log.
const OPERATION: &str = "RepairVolume";
/// Ranges and findings that a table shows; JSON has all of them.
const ROWS_MAX: usize = 100;

/// Says what is damaged of a volume; fails if anything is. The server must be stopped. Blocks.
pub(crate) fn check(config: &Config, volume: &str, format: Format) -> anyhow::Result<()> {
    let id = volume.parse()?;
    let report = with_data_dir(config, async |data_dir, provider| {
        let ground = Ground::open(data_dir, provider).await?;
        for (account, region) in scopes(config)? {
            let (with, context) = ground.place(data_dir, account, region).await?;
            match look(with, Caller::new(&context, Via::Api), id).await {
                Err(VolumeError::NotFound(_)) => {}
                checked => return Ok(checked?),
            }
        }
        bail!("there is no volume {id}")
    })?;
    print_check(&report, format)?;
    if !report.is_clean() {
        bail!(
            "{id} is damaged, see above: `sealgate volume repair {id}` makes it whole as far as that can be"
        );
    }
    Ok(())
}

/// Makes a volume whole and says what was wrong and what is lost; fails if anything is. The server must be stopped.
/// Blocks.
pub(crate) fn repair(
    config: &Config,
    volume: &str,
    accept_loss: bool,
    format: Format,
) -> anyhow::Result<()> {
    let id = volume.parse()?;
    let report = with_data_dir(config, async |data_dir, provider| {
        repair_in(config, data_dir, provider, id, accept_loss).await
    })?;
    print_repair(&report, format)?;
    if !report.is_whole() {
        bail!("not all of {id} could be told to be its, see above");
    }
    Ok(())
}

async fn repair_in(
    config: &Config,
    data_dir: &DataDir,
    provider: Arc<dyn RootKeyProvider>,
    id: VolumeId,
    accept_loss: bool,
) -> anyhow::Result<Report<Repaired>> {
    let ground = Ground::open(data_dir, provider).await?;
    let repaired = async {
        for (account, region) in scopes(config)? {
            let (with, context) = ground.place(data_dir, account, region).await?;
            match mend(with, Caller::new(&context, Via::Api), id, accept_loss).await {
                Err(VolumeError::NotFound(_)) => {}
                repaired => return Ok(repaired?),
            }
        }
        bail!("there is no volume {id}")
    };
    let change = local(OPERATION, format!("volume/{id}"));
    let repaired = recorded_here(ground.log.clone(), change, repaired, outcome).await;
    repaired.context("audit log")?
}

/// Every account and region that is served: a volume is in one of them.
fn scopes(config: &Config) -> anyhow::Result<Vec<(AccountId, Region)>> {
    let scopes = config.scopes()?;
    let mut all = Vec::new();
    for account in scopes.accounts() {
        all.extend(scopes.regions().map(|region| (account, region.clone())));
    }
    Ok(all)
}

fn outcome(repaired: &anyhow::Result<Report<Repaired>>) -> &'static str {
    let Err(error) = repaired else {
        return "Success";
    };
    match error.downcast_ref() {
        Some(VolumeError::CannotRepair { .. } | VolumeError::InUse(_)) => "IncorrectState",
        // Whatever failed, part of it may have been done.
        _ => "Unknown",
    }
}

fn with_data_dir<T>(
    config: &Config,
    work: impl AsyncFnOnce(&DataDir, Arc<dyn RootKeyProvider>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    config.check()?;
    harden::forbid_core_dumps()?;
    // Before anything is made: a start would make what is missing.
    let catalogue = Paths(&config.data_dir).catalogue();
    ensure!(
        catalogue.try_exists()?,
        "{} is missing, and the keys are nowhere else: restore it from a backup, however old, and try again",
        catalogue.display()
    );
    let passphrase = root_key::passphrase(config)?;
    let data_dir = DataDir::open(&config.data_dir).context("the server must be stopped")?;
    let provider = root_key::provider(&config.root_key, data_dir.paths(), passphrase)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(work(&data_dir, provider))
}

/// What every account's volumes are looked at with.
struct Ground {
    catalogue: Arc<dyn Catalogue>,
    store_key: StoreKey,
    random: Arc<dyn Random>,
    clock: Arc<dyn Clock>,
    log: AuditLog,
}

impl Ground {
    async fn open(data_dir: &DataDir, provider: Arc<dyn RootKeyProvider>) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let store_key = root_key::open(data_dir, provider).await?;
        let catalogue = assembly::open_catalogue(data_dir, &store_key).await?;
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let known = Known::load(&data_dir.paths(), &catalogue, &store_key, &random).await?;
        Ok(Self {
            log: known.open_log().await?,
            catalogue,
            store_key,
            random,
            clock,
        })
    }

    /// What a volume of one account and region is looked at with, and in whose name.
    async fn place(
        &self,
        data_dir: &DataDir,
        account: AccountId,
        region: Region,
    ) -> anyhow::Result<(Inspection, Arc<RequestContext>)> {
        let keyring = Keyring::open(keyring::Options {
            catalogue: Arc::clone(&self.catalogue),
            store_key: self.store_key.clone(),
            audit: self.log.clone(),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            authorizer: Arc::new(Authorizer::new(account)),
            region: region.clone(),
            observer: Arc::new(keyring::NoObserver),
        });
        let with = Inspection {
            disk: Arc::new(OsDisk),
            dir: data_dir.paths().volumes(),
            catalogue: Arc::clone(&self.catalogue),
            store_key: self.store_key.clone(),
            keyring: keyring.await.context("keyring")?,
            random: Arc::clone(&self.random),
            scope: Scope {
                account: account.to_string(),
                region: region.to_string(),
            },
        };
        let mut id = [0; 8];
        self.random.fill(&mut id);
        let context = RequestContext::new(Principal::root(account), hex::encode(id));
        Ok((with, Arc::new(context)))
    }
}

fn findings(record: &[Finding], files: &[Finding]) -> Vec<Value> {
    let all = record.iter().chain(files);
    all.map(|found| json!({ "File": found.file, "At": found.at, "What": found.what }))
        .collect()
}

fn rows(record: &[Finding], files: &[Finding], marked: &[(u64, u64)]) -> Vec<Vec<String>> {
    let found = record.iter().chain(files).map(|found| {
        vec![
            found.file.to_owned(),
            found.at.to_string(),
            found.what.clone(),
        ]
    });
    let marked = marked.iter().map(|(offset, len)| {
        vec![
            "(volume)".to_owned(),
            offset.to_string(),
            format!("{len} bytes are marked: what they held is not known"),
        ]
    });
    let mut rows: Vec<_> = found.chain(marked).take(ROWS_MAX + 1).collect();
    if rows.len() > ROWS_MAX {
        rows[ROWS_MAX] = vec!["…".into(), "…".into(), "more: see --output json".into()];
    }
    rows
}

const HEADINGS: [&str; 3] = ["FILE", "BYTE", "WHAT"];

fn print_check(report: &Report<Checked>, format: Format) -> anyhow::Result<()> {
    let Checked {
        findings: files,
        chunks,
        marked,
    } = &report.files;
    let mut shown = rows(&report.record, files, marked);
    if shown.is_empty() {
        let what = format!("clean; {chunks} chunks of 512 KiB are in use");
        shown.push(vec!["-".into(), "-".into(), what]);
    }
    let document = json!({
        "VolumeId": report.volume.to_string(),
        "Clean": report.is_clean(),
        "Findings": findings(&report.record, files),
        "Chunks": chunks,
        "Marked": ranges(marked),
    });
    output::print(format, &HEADINGS, &shown, &document)
}

fn print_repair(report: &Report<Repaired>, format: Format) -> anyhow::Result<()> {
    let Repaired {
        found,
        map_from,
        chunks,
        marked,
        superseded,
        unreadable,
    } = &report.files;
    let mut shown = rows(&report.record, found, marked);
    let from = match map_from {
        MapSource::Log => "the map was whole",
        MapSource::Owners => "the map was made again from the owners of the slots",
    };
    let mut what = format!("repaired: {from}; {chunks} chunks of 512 KiB are in use");
    if *unreadable > 0 {
        what.push_str(&format!(
            "; what {unreadable} slots held is in no chunk any more"
        ));
    }
    shown.push(vec!["-".into(), "-".into(), what]);
    let document = json!({
        "VolumeId": report.volume.to_string(),
        "Whole": report.is_whole(),
        "Found": findings(&report.record, found),
        "MapFrom": match map_from {
            MapSource::Log => "log",
            MapSource::Owners => "owners",
        },
        "Chunks": chunks,
        "Marked": ranges(marked),
        "SupersededSlots": superseded,
        "UnreadableSlots": unreadable,
    });
    output::print(format, &HEADINGS, &shown, &document)
}

fn ranges(marked: &[(u64, u64)]) -> Vec<Value> {
    marked
        .iter()
        .map(|(offset, len)| json!({ "Offset": offset, "Length": len }))
        .collect()
}
