//! `sealgate audit verify`, and `sealgate doctor`: looking at the audit log, and going on without what it lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use audit::{AuditOptions, verify};
use host::{OsDisk, SystemClock};
use serde_json::json;

use crate::cli::Part;
use crate::data_dir::{DataDir, Paths};
use crate::output::{self, Format};

/// Reads the log in `folder`, or that of the data directory, and says what is wrong with it; fails if anything is.
/// Needs no key, and no server. Blocks.
pub(crate) fn verify(
    data_dir: &Path,
    folder: Option<PathBuf>,
    format: Format,
) -> anyhow::Result<()> {
    let folder = folder.unwrap_or_else(|| Paths(data_dir).audit());
    ensure!(
        folder.is_dir(),
        "there is no audit log {}",
        folder.display()
    );
    let report = verify::verify(&OsDisk, &folder)
        .with_context(|| format!("cannot read the audit log {}", folder.display()))?;
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let mut rows: Vec<Vec<String>> = [
        ("segments", report.segments.to_string()),
        ("records", report.records.to_string()),
        ("last record", report.last().to_string()),
        ("its digest", report.digest()),
        ("only in the journal", report.in_journal.to_string()),
    ]
    .map(|(what, value)| vec![what.to_owned(), value])
    .into();
    rows.extend(report.named_lost.iter().map(|(first, last)| {
        let numbers = format!("{first} to {last}");
        vec!["named as lost".to_owned(), numbers]
    }));
    rows.extend(
        findings
            .iter()
            .map(|finding| vec!["wrong".to_owned(), finding.clone()]),
    );
    let document = json!({
        "Whole": report.is_whole(),
        "Segments": report.segments,
        "Records": report.records,
        "Last": report.last(),
        "Digest": report.digest(),
        "InJournal": report.in_journal,
        "NamedLost": report.named_lost,
        "Findings": findings,
    });
    output::print(format, &["WHAT", "VALUE"], &rows, &document)?;
    if !report.is_whole() {
        bail!(
            "the audit log {} is not whole: {} findings",
            folder.display(),
            report.wrong
        );
    }
    Ok(())
}

/// Goes on without what a part has lost; the server must be stopped. The log's next record says so. Blocks.
pub(crate) fn accept_older(data_dir: &Path, part: Part) -> anyhow::Result<()> {
    ensure!(
        data_dir.is_dir(),
        "there is no data directory {}",
        data_dir.display()
    );
    let held = DataDir::open(data_dir).context("the server must be stopped to accept a loss")?;
    match part {
        Part::Audit => {
            let options = AuditOptions::new(held.paths().audit(), Arc::new(SystemClock::new()));
            let log = audit::accept_loss(options).context("cannot go on with the audit log")?;
            // Closed before the directory is given up.
            drop(log);
        }
    }
    drop(held);
    output::text("The audit log goes on in a new segment, whose first record names what is lost.\n")
}
