//! Where the root key is, as the configuration says, and `sealgate root`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use crypto::random::SystemRandom;
use host::{Disk, OsDisk};
use keyring::SecretVec;
use root::{
    COPY_NAME, FileProvider, HEADER_NAME, Options, PassphraseProvider, RootKeyProvider, StoreKey,
    replace_root_key_file,
};
use serde_json::json;

use crate::cli::RootCommand;
use crate::config::{Config, PassphraseFrom, RootKey};
use crate::data_dir::{DataDir, Paths};
use crate::output::{self, Format};
use crate::passphrase;

/// Asks for the passphrase, if the root key comes from one. Blocks.
pub(crate) fn passphrase(config: &Config) -> anyhow::Result<Option<SecretVec>> {
    let Some(from) = config.root_key.passphrase else {
        return Ok(None);
    };
    let exists = |name| config.data_dir.join(name).exists();
    let new = !exists(HEADER_NAME) && !exists(COPY_NAME);
    passphrase::read(from, new).map(Some)
}

/// The provider that the configuration names; `passphrase` is there if it names one.
pub(crate) fn provider(
    config: &RootKey,
    paths: Paths<'_>,
    passphrase: Option<SecretVec>,
) -> anyhow::Result<Arc<dyn RootKeyProvider>> {
    match passphrase {
        Some(passphrase) => from_passphrase(passphrase),
        None => Ok(from_file(key_file(config, &paths))),
    }
}

fn key_file(config: &RootKey, paths: &Paths<'_>) -> PathBuf {
    config.file.clone().unwrap_or_else(|| paths.root_key())
}

fn from_file(path: PathBuf) -> Arc<dyn RootKeyProvider> {
    Arc::new(FileProvider::new(path, disk(), Arc::new(SystemRandom)))
}

fn from_passphrase(passphrase: SecretVec) -> anyhow::Result<Arc<dyn RootKeyProvider>> {
    let random = Arc::new(SystemRandom);
    Ok(Arc::new(PassphraseProvider::new(passphrase, random)?))
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(OsDisk)
}

/// Opens the store key of `data_dir`, or makes it on the first start.
pub(crate) async fn open(
    data_dir: &DataDir,
    provider: Arc<dyn RootKeyProvider>,
) -> anyhow::Result<StoreKey> {
    let may_make = !data_dir.paths().hold_data();
    Ok(StoreKey::open(options(data_dir, provider, may_make)).await?)
}

fn options(data_dir: &DataDir, provider: Arc<dyn RootKeyProvider>, may_make: bool) -> Options {
    Options {
        disk: disk(),
        dir: data_dir.path().to_owned(),
        provider,
        random: Arc::new(SystemRandom),
        may_make,
    }
}

/// Warns when the root key lies in the directory that it seals.
pub(crate) fn warn_if_beside_data(config: &RootKey, data_dir: &DataDir) {
    if config.passphrase.is_some() {
        return;
    }
    let file = key_file(config, &data_dir.paths());
    if file
        .canonicalize()
        .is_ok_and(|file| file.starts_with(data_dir.path()))
    {
        tracing::warn!(
            root_key = %file.display(),
            "the root key is in the data directory: whoever gets the directory or a backup of it can read everything; \
             set root_key.file to a path elsewhere, or root_key.passphrase"
        );
    }
}

/// `sealgate root`
pub(crate) async fn run(
    config: &Config,
    command: &RootCommand,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        RootCommand::Status => status(config, format).await,
        RootCommand::Rotate {
            to_file,
            to_passphrase,
        } => rotate(config, to_file.as_deref(), *to_passphrase).await,
    }
}

async fn status(config: &Config, format: Format) -> anyhow::Result<()> {
    let dir = &config.data_dir;
    let status = root::inspect(disk(), dir.clone()).await?;
    let status = status.with_context(|| format!("{} has no root header", dir.display()))?;
    let at = match config.root_key.passphrase {
        Some(_) => "passphrase".to_owned(),
        None => key_file(&config.root_key, &Paths(dir))
            .display()
            .to_string(),
    };
    let rotating = status.previous.is_some();
    let rows = [
        ("store", status.store.to_string()),
        ("root key", status.root_key.to_string()),
        ("provider", status.kind.to_string()),
        ("configured", at.clone()),
        ("store key generation", status.generation.to_string()),
        ("store key rotating", rotating.to_string()),
        ("header sequence", status.sequence.to_string()),
    ]
    .map(|(name, value)| vec![name.to_owned(), value]);
    let document = json!({
        "StoreId": status.store.to_string(),
        "RootKeyId": status.root_key.to_string(),
        "Provider": status.kind.name(),
        "Configured": at,
        "StoreKeyGeneration": status.generation,
        "StoreKeyRotating": rotating,
        "HeaderSequence": status.sequence,
    });
    output::print(format, &["WHAT", "VALUE"], &rows, &document)
}

async fn rotate(
    config: &Config,
    to_file: Option<&Path>,
    to_passphrase: Option<PassphraseFrom>,
) -> anyhow::Result<()> {
    let dir = &config.data_dir;
    ensure!(dir.is_dir(), "there is no data directory {}", dir.display());
    // Asked for before the directory is held, and both before anything is changed.
    let old = passphrase(config)?;
    let new = to_passphrase
        .map(|from| passphrase::read(from, true))
        .transpose()?;
    let data_dir =
        DataDir::open(dir).context("the server must be stopped to rotate the root key")?;
    let provider = provider(&config.root_key, data_dir.paths(), old)?;
    let key = StoreKey::open(options(&data_dir, Arc::clone(&provider), false)).await?;
    let before = key.status().await;
    let mut next = None;
    match (to_file, new) {
        (Some(path), _) => {
            let path = std::path::absolute(path)?;
            let new = from_file(path.clone());
            key.rotate_root(new).await?;
            next = Some(format!("[root_key] file = \"{}\"", path.display()));
        }
        (None, Some(new)) => {
            key.rotate_root(from_passphrase(new)?).await?;
            next = Some("[root_key] passphrase = \"prompt\" (or \"fd:N\")".to_owned());
        }
        (None, None) if config.root_key.passphrase.is_some() => {
            bail!("say where the new passphrase comes from: --to-passphrase prompt (or fd:N)")
        }
        (None, None) => {
            in_place(
                &key,
                provider,
                &key_file(&config.root_key, &data_dir.paths()),
            )
            .await?
        }
    }
    let after = key.status().await;
    println!(
        "root key {} is replaced by {} ({})",
        before.root_key, after.root_key, after.root_key_at
    );
    println!(
        "Backups of {HEADER_NAME} made before still open under the old root key: destroy it when they are gone."
    );
    if let Some(setting) = next {
        println!("Set in the configuration before the next start: {setting}");
    }
    Ok(())
}

/// Replaces the key in the file at `path`. Killed anywhere, that file opens the store: with the old key or with the
/// new one, the header has both until the file is in its place.
async fn in_place(
    key: &StoreKey,
    provider: Arc<dyn RootKeyProvider>,
    path: &Path,
) -> anyhow::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    key.open_to_both(&from_file(next.clone())).await?;
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || replace_root_key_file(&OsDisk, &next, &path)).await??;
    key.rotate_root(provider).await?;
    Ok(())
}
