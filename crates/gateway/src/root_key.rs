//! Where the root key is, as the configuration says, and `sealgate root`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use crypto::random::{Random, SystemRandom};
use host::{Disk, OsDisk};
use keyring::SecretVec;
use root::{
    COPY_NAME, FileProvider, HEADER_NAME, Options, PassphraseProvider, RootError, RootKeyProvider,
    StoreKey, replace_root_key_file,
};
use serde_json::{Value, json};

use crate::assembly;
use crate::cli::RootCommand;
use crate::client::Client;
use crate::commands;
use crate::config::{Config, PassphraseFrom, RootKey};
use crate::data_dir::{DataDir, Paths};
use crate::known::Known;
use crate::management_trail::{local, recorded_here};
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
            store_key: true,
            wait,
            ..
        } => commands::rotate_store_key(&config.data_dir, *wait, format).await,
        RootCommand::Rotate {
            to_file,
            to_passphrase,
            ..
        } => rotate(config, to_file.as_deref(), *to_passphrase).await,
    }
}

/// A server that takes longer for its status is not waited for: the header says nearly as much.
const ONLINE_TIMEOUT: Duration = Duration::from_secs(5);

async fn status(config: &Config, format: Format) -> anyhow::Result<()> {
    // Asked, not looked for: a try of the directory's lock could turn away a server that starts.
    let online = tokio::time::timeout(ONLINE_TIMEOUT, online(&config.data_dir));
    let document = match online.await {
        Ok(Ok(status)) => status,
        _ => offline(config).await?,
    };
    let shown = |name: &str| match &document[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let rows = [
        ("store", "StoreId"),
        ("root key", "RootKeyId"),
        ("provider", "Provider"),
        ("configured", "Configured"),
        ("store key generation", "StoreKeyGeneration"),
        ("store key rotating", "StoreKeyRotating"),
        ("header sequence", "HeaderSequence"),
        ("answered by", "AnsweredBy"),
    ]
    .map(|(name, member)| vec![name.to_owned(), shown(member)]);
    output::print(format, &["WHAT", "VALUE"], &rows, &document)
}

/// What the running server says: authenticated.
async fn online(data_dir: &Path) -> anyhow::Result<Value> {
    let client = Client::open(data_dir)?;
    let mut answer = client.sealgate("DescribeRootKey", &json!({})).await?;
    let mut status = answer["RootKey"].take();
    ensure!(status.is_object(), "the server's answer is not understood");
    status["AnsweredBy"] = "server".into();
    Ok(status)
}

/// What the header on the disk says, read without any key.
async fn offline(config: &Config) -> anyhow::Result<Value> {
    let dir = &config.data_dir;
    let status = root::inspect(disk(), dir.clone()).await?;
    let status = status.with_context(|| format!("{} has no root header", dir.display()))?;
    let at = match config.root_key.passphrase {
        Some(_) => "passphrase".to_owned(),
        None => key_file(&config.root_key, &Paths(dir))
            .display()
            .to_string(),
    };
    Ok(json!({
        "StoreId": status.store.to_string(),
        "RootKeyId": status.root_key.to_string(),
        "Provider": status.kind.name(),
        "Configured": at,
        "StoreKeyGeneration": status.generation,
        "StoreKeyRotating": status.previous.is_some(),
        "HeaderSequence": status.sequence,
        "AnsweredBy": "header",
    }))
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
    let next = match (to_file, new) {
        (Some(path), _) => To::File(std::path::absolute(path)?),
        (None, Some(new)) => To::Passphrase(from_passphrase(new)?),
        (None, None) if config.root_key.passphrase.is_some() => {
            bail!("say where the new passphrase comes from: --to-passphrase prompt (or fd:N)")
        }
        (None, None) => To::Same(provider, key_file(&config.root_key, &data_dir.paths())),
    };
    let catalogue = assembly::open_catalogue(&data_dir, &key).await?;
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let known = Known::load(&data_dir.paths(), &catalogue, &key, &random).await?;
    let log = known.open_log().await;
    let log = log.context("the audit log takes no record of the rotation")?;
    drop((known, catalogue));
    let change = local("RotateRootKey", "root-key");
    let next = recorded_here(log, change, rotate_to(&key, next), outcome).await??;
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

/// Where the next root key is.
enum To {
    File(PathBuf),
    Passphrase(Arc<dyn RootKeyProvider>),
    /// Where the one before it was: the provider of that, and its file.
    Same(Arc<dyn RootKeyProvider>, PathBuf),
}

/// Replaces the root key; and what is to be set in the configuration then, if anything is.
async fn rotate_to(key: &StoreKey, next: To) -> anyhow::Result<Option<String>> {
    Ok(match next {
        To::File(path) => {
            key.rotate_root(from_file(path.clone())).await?;
            Some(format!("[root_key] file = \"{}\"", path.display()))
        }
        To::Passphrase(new) => {
            key.rotate_root(new).await?;
            Some("[root_key] passphrase = \"prompt\" (or \"fd:N\")".to_owned())
        }
        To::Same(provider, path) => {
            in_place(key, provider, &path)
                .await
                .map_err(|error| error.context(PARTLY))?;
            None
        }
    })
}

/// What goes wrong after the header was opened to both keys has changed something.
const PARTLY: &str = "the root key may be replaced or not: ask `sealgate root status`";

/// What the audit log says of a rotation.
fn outcome<T>(result: &anyhow::Result<T>) -> &'static str {
    match result {
        Ok(_) => "Success",
        Err(error) if error.to_string() == PARTLY => "Unknown",
        Err(error) => match error.downcast_ref::<RootError>() {
            Some(RootError::Unknown | RootError::Io { .. }) | None => "Unknown",
            Some(_) => "Failed",
        },
    }
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
