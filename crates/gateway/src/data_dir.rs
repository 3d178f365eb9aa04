//! The data directory: created private, held by one process, and where everything in it is.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use host::{Lock, OsDisk, private};
use serde::{Deserialize, Serialize};

/// The data directory, held until this value is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Whoever has the lock on the file `LOCK` has the directory.
    _lock: Lock,
}

/// Names of files and folders below the data directory.
pub(crate) struct Paths<'a>(pub(crate) &'a Path);

impl Paths<'_> {
    pub(crate) fn credentials(&self) -> PathBuf {
        self.0.join("credentials")
    }
    pub(crate) fn root_key(&self) -> PathBuf {
        self.0.join("root.key")
    }
    /// Whether anything was stored here that is sealed under a store key, or may be.
    pub(crate) fn hold_data(&self) -> bool {
        self.catalogue().try_exists().unwrap_or(true) || self.hold_more_than_the_catalogue()
    }
    /// Whether anything is here that is made after the catalogue: then a catalogue that is not here was lost.
    pub(crate) fn hold_more_than_the_catalogue(&self) -> bool {
        let parts = [
            self.credentials(),
            self.audit(),
            self.audit().with_extension("journal"),
            self.volumes(),
            self.objects(),
        ];
        // What cannot be looked at counts as there: nothing is made beside it.
        parts.iter().any(|part| part.try_exists().unwrap_or(true))
    }
    pub(crate) fn catalogue(&self) -> PathBuf {
        self.0.join("catalogue.db")
    }
    pub(crate) fn audit(&self) -> PathBuf {
        self.0.join("audit")
    }
    pub(crate) fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }
    pub(crate) fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }
    pub(crate) fn nbd_socket(&self) -> PathBuf {
        self.0.join("nbd.sock")
    }
    pub(crate) fn runtime(&self) -> PathBuf {
        self.0.join("runtime.json")
    }
}

impl DataDir {
    /// Creates the directory if it is not there and takes it for this process.
    ///
    /// Fails, changing nothing, if another process holds it, if it belongs to another user, or if it is
    /// a directory that holds something else.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        match path.symlink_metadata() {
            Ok(found) => {
                let found = if found.is_symlink() {
                    path.metadata()?
                } else {
                    found
                };
                if !found.is_dir() {
                    bail!("data directory {shown} is not a directory");
                }
                if found.uid() != rustix::process::geteuid().as_raw() {
                    bail!(
                        "data directory {shown} belongs to another user (uid {})",
                        found.uid()
                    );
                }
                let foreign = !path.join("LOCK").exists() && path.read_dir()?.next().is_some();
                if foreign {
                    bail!("{shown} is not empty and is not a Sealgate data directory");
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                private::create_dirs(&OsDisk, path)
                    .with_context(|| format!("cannot create data directory {shown}"))?;
            }
            Err(e) => return Err(e).with_context(|| format!("cannot use data directory {shown}")),
        }
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot use data directory {shown}"))?;
        // Also if it was there: see `private::create_dirs`.
        private::sync_name(&OsDisk, &path)
            .with_context(|| format!("cannot use data directory {shown}"))?;
        let lock = match Lock::take(&OsDisk, &path.join("LOCK")) {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                bail!("data directory {shown} is in use by another sealgate process")
            }
            Err(e) => return Err(e).with_context(|| format!("cannot lock {shown}/LOCK")),
        };
        check_private(&Paths(&path))?;
        if path.metadata()?.mode() & 0o077 != 0 {
            std::fs::set_permissions(&path, Permissions::from_mode(0o700))
                .with_context(|| format!("cannot make {shown} private"))?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// The directory, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where things are in it.
    pub(crate) fn paths(&self) -> Paths<'_> {
        Paths(&self.path)
    }
}

/// Refuses a data directory with a file or folder in it that others than its owner may read or write: it may have been
/// read, and it was not Sealgate that made it so. Whoever reads the root key looks at its file, wherever that is.
fn check_private(paths: &Paths<'_>) -> anyhow::Result<()> {
    let audit = paths.audit();
    let mut parts = vec![
        paths.credentials(),
        paths.runtime(),
        audit.with_extension("journal"),
        paths.volumes(),
        paths.objects(),
    ];
    // What is at hand of a database, whatever SQLite calls it, and both copies of the root header.
    let belongs = |name: &str| {
        ["catalogue.db", "root.header", "index.db"]
            .iter()
            .any(|of| name.starts_with(of))
    };
    for folder in [paths.0, &paths.objects()] {
        parts.extend(names(folder).into_iter().filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            belongs(&name)
        }));
    }
    parts.extend(names(&audit));
    parts.push(audit);
    let refused = parts
        .iter()
        .filter_map(|part| refuse_open_to_others(part).err());
    let mut refused = refused.collect::<Vec<_>>().into_iter();
    match (refused.next(), refused.len()) {
        (None, _) => Ok(()),
        (Some(first), 0) => Err(first),
        (Some(first), more) => {
            let shown = paths.0.display();
            Err(first.context(format!(
                "{} files and folders of {shown} can be used by others: if nobody was meant to have them, `chmod -R go= {shown}`",
                more + 1
            )))
        }
    }
}

/// What is in a folder; nothing if it cannot be read: whoever opens it says what is wrong with it.
fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Refuses a file or folder that others than its owner may read or write. One that is not there, or cannot be
/// looked at, is not judged: whoever opens it says what is wrong.
pub(crate) fn refuse_open_to_others(path: &Path) -> anyhow::Result<()> {
    let Ok(found) = path.metadata() else {
        return Ok(());
    };
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!(
            "{shown} can be used by others (mode {mode:03o}): if nobody was meant to have it, `chmod go= {shown}`",
            shown = path.display(),
        );
    }
    Ok(())
}

/// What a running server says of itself in `runtime.json`, for the commands that talk to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Runtime {
    /// Base URL of the AWS endpoint.
    pub(crate) aws: String,
    /// Base URL of the admin endpoint.
    pub(crate) admin: String,
    /// The NBD unix socket.
    pub(crate) nbd_unix: PathBuf,
    /// NBD over TCP, if on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) nbd_tcp: Option<std::net::SocketAddr>,
    /// The region requests are signed for.
    pub(crate) region: String,
    /// The server's process.
    pub(crate) pid: u32,
}

impl Runtime {
    /// Reads what the server that has (or last had) `dir` wrote.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        let file = Paths(dir).runtime();
        let text = std::fs::read(&file).with_context(|| {
            format!(
                "no server has run in {} yet ({} is missing)",
                dir.display(),
                file.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_private_and_held_by_one() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        let second = DataDir::open(&path).unwrap_err().to_string();
        assert!(second.contains("in use"), "{second}");

        // Who does not get it changes nothing; who gets it makes it private again.
        let mode = || path.metadata().unwrap().mode() & 0o777;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        DataDir::open(&path).unwrap_err();
        assert_eq!(mode(), 0o755);
        drop(first);
        DataDir::open(&path).unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn a_private_file_that_others_may_use_is_refused_by_name_and_left_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        drop(DataDir::open(&path).unwrap());
        let folders = ["audit", "volumes", "objects"];
        let files = [
            "credentials",
            "runtime.json",
            "catalogue.db",
            "catalogue.db-wal",
            "root.header",
            "root.header.copy",
            "audit.journal",
            "audit/audit-00000000000000000001.jsonl",
            "objects/index.db",
            "objects/index.db-wal",
        ];
        for folder in folders {
            private::create_dirs(&OsDisk, &path.join(folder)).unwrap();
        }
        for file in files {
            private::replace(&OsDisk, &path.join(file), b"x").unwrap();
        }
        drop(DataDir::open(&path).unwrap());
        for part in folders.iter().chain(&files) {
            let part = path.join(part);
            let private = part.metadata().unwrap().mode() & 0o777;
            for mode in [0o640, 0o604, 0o602, 0o644] {
                std::fs::set_permissions(&part, Permissions::from_mode(private | mode)).unwrap();
                let error = DataDir::open(&path).unwrap_err().to_string();
                assert!(error.contains(&part.display().to_string()), "{error}");
                assert!(error.contains("chmod go="), "{error}");
            }
            std::fs::set_permissions(&part, Permissions::from_mode(private)).unwrap();
        }
        drop(DataDir::open(&path).unwrap());
    }

    #[test]
    fn a_directory_that_holds_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
        assert!(!dir.path().join("LOCK").exists());
    }
}
