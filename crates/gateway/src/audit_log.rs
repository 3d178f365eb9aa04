//! `sealgate audit verify`: looking at the audit log.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use audit::verify;
use host::OsDisk;
use serde_json::json;

use crate::data_dir::Paths;
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
    ensure!(
        report.segments > 0 || report.in_journal > 0,
        "there is no audit log in {}",
        folder.display()
    );
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
