//! `sealgate doctor --rebuild`: records made again from what keeps a sealed copy of them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use crypto::random::{Random, SystemRandom};
use host::OsDisk;
use root::RootKeyProvider;
use serde_json::json;
use volume::{FolderReport, Rebuild, Rebuilt, VolumeError};

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::known::Known;
use crate::management_trail::{by_doctor, recorded_here};
use crate::output::{self, Format};
use crate::{assembly, harden, root_key};

/// The operation in the audit log.
const OPERATION: &str = "DoctorRebuild";

/// Makes the volumes' records again and says what became of each folder; fails if one of them has no record after it that
/// should have one. The server must be stopped. Blocks.
pub(crate) fn run(config: &Config, format: Format) -> anyhow::Result<()> {
    config.check()?;
    harden::forbid_core_dumps()?;
    // Before anything is made: a start would make what is missing.
    let catalogue = crate::data_dir::Paths(&config.data_dir).catalogue();
    ensure!(
        catalogue.try_exists()?,
        "{} is missing, and the keys are nowhere else: restore it from a backup, however old, and try again",
        catalogue.display()
    );
    let passphrase = root_key::passphrase(config)?;
    let data_dir = DataDir::open(&config.data_dir).context("the server must be stopped")?;
    let provider = root_key::provider(&config.root_key, data_dir.paths(), passphrase)?;
    let reports = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(rebuild(&data_dir, provider))?;
    print(&reports, data_dir.path(), format)?;
    let without = reports.iter().filter(|report| !is_settled(report)).count();
    if without > 0 {
        bail!("{without} folders were left as they are, see above");
    }
    Ok(())
}

async fn rebuild(
    data_dir: &DataDir,
    provider: Arc<dyn RootKeyProvider>,
) -> anyhow::Result<Vec<FolderReport>> {
    let paths = data_dir.paths();
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let store_key = root_key::open(data_dir, provider).await?;
    let catalogue = assembly::open_catalogue(data_dir, &store_key).await?;
    let known = Known::load(&paths, &catalogue, &store_key, &random).await?;
    let log = known.open_log().await?;
    let rebuilt = volume::rebuild(Rebuild {
        disk: Arc::new(OsDisk),
        dir: paths.volumes(),
        catalogue,
        store_key,
        random,
    });
    let rebuilt = recorded_here(log, by_doctor(OPERATION), rebuilt, outcome).await;
    Ok(rebuilt.context("audit log")??)
}

fn outcome(rebuilt: &Result<Vec<FolderReport>, VolumeError>) -> &'static str {
    let failed = match rebuilt {
        Ok(reports) => reports
            .iter()
            .any(|report| matches!(report.outcome, Rebuilt::Failed(_))),
        Err(_) => true,
    };
    // Whatever failed, rows before it may have been made.
    if failed { "Unknown" } else { "Success" }
}

/// Whether nothing is left to be done for a folder.
fn is_settled(report: &FolderReport) -> bool {
    matches!(
        report.outcome,
        Rebuilt::Rebuilt | Rebuilt::Renewed | Rebuilt::AlreadyThere | Rebuilt::Deleted
    )
}

/// The outcome in a word, and the reason if there is one.
fn words(outcome: &Rebuilt) -> (&'static str, String) {
    match outcome {
        Rebuilt::Rebuilt => ("rebuilt", String::new()),
        Rebuilt::Renewed => ("renewed", "the record was older than the folder".to_owned()),
        Rebuilt::AlreadyThere => ("already there", String::new()),
        Rebuilt::Deleted => ("deleted", "the volume was deleted".to_owned()),
        Rebuilt::Damaged(why) => ("damaged", format!("its copy of the record: {why}")),
        Rebuilt::WithoutCopy => ("damaged", "it has no copy of the record".to_owned()),
        Rebuilt::OtherStore(store) => ("other store", store.to_string()),
        Rebuilt::Duplicate => (
            "duplicate",
            "the volume has its folder in its place".to_owned(),
        ),
        Rebuilt::Ambiguous => (
            "ambiguous",
            "several folders of the volume are in quarantine and none is the newest: take all but one away".to_owned(),
        ),
        Rebuilt::OlderThanRow => (
            "older",
            "the record does not open, and was written after the folder's copy of it".to_owned(),
        ),
        Rebuilt::OtherGeneration => (
            "other generation",
            "the record is sealed under a store key that the root header does not have: restore the newest root header"
                .to_owned(),
        ),
        Rebuilt::Failed(error) => ("failed", error.to_string()),
    }
}

fn print(reports: &[FolderReport], data_dir: &Path, format: Format) -> anyhow::Result<()> {
    let below = |folder: &Path| {
        let below = folder.strip_prefix(data_dir).unwrap_or(folder);
        below.display().to_string()
    };
    let rows: Vec<Vec<String>> = reports
        .iter()
        .map(|report| {
            let (outcome, why) = words(&report.outcome);
            vec![below(&report.folder), outcome.to_owned(), why]
        })
        .collect();
    let document: Vec<_> = reports
        .iter()
        .map(|report| {
            let (outcome, why) = words(&report.outcome);
            json!({
                "Folder": below(&report.folder),
                "VolumeId": report.volume.to_string(),
                "Outcome": outcome,
                "Reason": why,
            })
        })
        .collect();
    output::print(format, &["FOLDER", "OUTCOME", "WHY"], &rows, &document)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use audit::{AuditLog, AuditOptions};
    use catalogue::{Batch, Table};
    use host::{Clock, SystemClock};
    use iam::{Authorizer, Caller, Principal, RequestContext, Via};
    use keyring::Keyring;
    use root::FileProvider;
    use volume::{CreateVolume, Encryption, VolumeId, VolumeSize, VolumeType, Volumes};

    use super::*;

    const ACCOUNT: &str = "123456789012";
    const VOLUMES: Table = Table::new("volume");

    fn provider(data_dir: &DataDir) -> Arc<dyn RootKeyProvider> {
        let path = data_dir.paths().root_key();
        Arc::new(FileProvider::new(
            path,
            Arc::new(OsDisk),
            Arc::new(SystemRandom),
        ))
    }

    /// A data directory with one unencrypted volume.
    async fn with_a_volume(data_dir: &DataDir) -> VolumeId {
        let store_key = root_key::open(data_dir, provider(data_dir)).await.unwrap();
        let catalogue = assembly::open_catalogue(data_dir, &store_key)
            .await
            .unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let audit = AuditOptions::new(data_dir.paths().audit(), Arc::clone(&clock));
        let authorizer = Arc::new(Authorizer::new(ACCOUNT.parse().unwrap()));
        let audit = AuditLog::open(audit).unwrap();
        let keyring = Keyring::open(keyring::Options {
            catalogue: Arc::clone(&catalogue),
            store_key: store_key.clone(),
            audit: audit.clone(),
            clock: Arc::clone(&clock),
            random: Arc::new(SystemRandom),
            authorizer: Arc::clone(&authorizer),
            region: "us-east-1".parse().unwrap(),
            observer: Arc::new(keyring::NoObserver),
        });
        let volumes = Volumes::open(volume::Options {
            disk: Arc::new(OsDisk),
            dir: data_dir.paths().volumes(),
            keyring: keyring.await.unwrap(),
            audit,
            encryption: volume::EncryptionPolicy {
                by_default: false,
                required: false,
            },
            catalogue,
            store_key,
            authorizer: Arc::clone(&authorizer),
            clock,
            random: Arc::new(SystemRandom),
            region: "us-east-1".parse().unwrap(),
            boot: None,
            volumes_max: 10,
        })
        .await
        .unwrap();
        let principal = Principal::root(ACCOUNT.parse().unwrap());
        let context = Arc::new(RequestContext::new(principal, "request"));
        let caller = Caller::new(&context, Via::Api);
        let request = CreateVolume {
            size: VolumeSize::from_gib(1).unwrap(),
            encryption: Encryption::Unencrypted,
            volume_type: VolumeType::Gp3,
            availability_zone: "us-east-1a".to_owned(),
            tags: Vec::new(),
            client_token: None,
        };
        let may = authorizer.authorize(caller, volumes.new_one()).unwrap();
        volumes.create(may, request).await.unwrap().id
    }

    /// The records of rebuilds in the audit log, as they are written.
    fn audited(data_dir: &DataDir) -> Vec<String> {
        let segments = std::fs::read_dir(data_dir.paths().audit()).unwrap();
        let segments: Vec<PathBuf> = segments.map(|entry| entry.unwrap().path()).collect();
        let text = segments.iter().map(std::fs::read_to_string);
        let lines =
            text.flat_map(|text| text.unwrap().lines().map(str::to_owned).collect::<Vec<_>>());
        lines.filter(|line| line.contains(OPERATION)).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lost_record_is_made_again_and_the_audit_log_says_so() {
        let parent = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(&parent.path().join("data")).unwrap();
        let id = with_a_volume(&data_dir).await;
        let store_key = root_key::open(&data_dir, provider(&data_dir))
            .await
            .unwrap();
        let catalogue = assembly::open_catalogue(&data_dir, &store_key)
            .await
            .unwrap();
        let rows = catalogue.page(VOLUMES, None, None, 10).await.unwrap();
        let [row] = rows.records.as_slice() else {
            panic!("{rows:?}");
        };
        let lose = Batch::new().erase(VOLUMES, row.key.clone(), row.version);
        catalogue.commit(lose).await.unwrap();

        let reports = rebuild(&data_dir, provider(&data_dir)).await.unwrap();
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].volume, id);
        assert!(matches!(reports[0].outcome, Rebuilt::Rebuilt));
        assert!(is_settled(&reports[0]));
        let again = catalogue.get(VOLUMES, &row.key).await.unwrap();
        assert!(again.is_some());

        let [intended, done] = &audited(&data_dir)[..] else {
            panic!("{:?}", audited(&data_dir));
        };
        assert!(intended.contains("Intended"), "{intended}");
        assert!(done.contains("Success"), "{done}");
    }

    #[test]
    fn without_a_catalogue_nothing_is_made() {
        let parent = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: parent.path().join("data"),
            ..Config::default()
        };
        let refused = run(&config, Format::Table).unwrap_err().to_string();
        assert!(refused.contains("catalogue.db is missing"), "{refused}");
        assert!(!config.data_dir.exists());
    }
}
