//! The repository as its own tests see it: packages with their dependencies, and source files.
//!
//! The tests of behaviour are elsewhere: unit tests in the crates, stock clients against the running
//! binary in `e2e/` (pytest), a kernel's client in `vm/`, decoders under libFuzzer in `fuzz/`.
//! `tests/run` runs all of them.

#![forbid(unsafe_code)]

pub mod modules;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// A package as `cargo metadata` shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its SPDX licence expression.
    pub license: Option<String>,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
    /// Where its manifest is.
    pub manifest_path: PathBuf,
    /// Where it comes from; `None` for one of ours.
    pub source: Option<String>,
}

/// One dependency of a package.
#[derive(Debug, Clone, Deserialize)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// `None` for a normal one, else `dev` or `build`.
    pub kind: Option<String>,
    /// Set for one of ours.
    pub path: Option<PathBuf>,
}

/// Every package of the build for this platform, those from registries included.
pub fn packages() -> anyhow::Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let version = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("rustc does not run")?;
    let version = String::from_utf8(version.stdout)?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc names no host")?;
    // Offline: the packages of other platforms need not be here.
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            "--filter-platform",
            host,
        ])
        .current_dir(root())
        .output()
        .context("cargo does not run")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice::<Metadata>(&output.stdout)?.packages)
}

/// Every Rust source file below a directory.
pub fn sources(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in
            std::fs::read_dir(&directory).with_context(|| directory.display().to_string())?
        {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
