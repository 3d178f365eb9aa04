//! Every part, missing, older, damaged at each page or of another store, before a start: it is refused, named with its way
//! out, and nothing is changed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use root::FileProvider;
use s3::store::ObjectStore as _;

use super::*;
use crate::assembly::Assembly;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::doctor;
use crate::root_key;

const PAGE: usize = 4096;

/// Every file below a folder, but for sockets and the like.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A data directory between starts.
struct Store {
    _parent: tempfile::TempDir,
    dir: PathBuf,
}

impl Store {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        Self {
            _parent: parent,
            dir,
        }
    }

    /// Starts, lets `work` go on, and stops. On return nothing is open any more.
    fn run(&self, work: impl AsyncFnOnce(&Assembly)) -> anyhow::Result<()> {
        block_on(async {
            let config = Config {
                data_dir: self.dir.clone(),
                ..Config::default()
            };
            let data_dir = DataDir::open(&self.dir)?;
            let metrics = Arc::new(Metrics::new()?);
            let store_key = root_key::open(&data_dir, provider(&self.dir)).await?;
            let parts = Assembly::open(&config, &data_dir, &store_key, &metrics).await?;
            work(&parts).await;
            parts.known.keep(&parts.audit, true).await?;
            parts.objects.close().await;
            Ok(())
        })
    }

    /// One more bucket, so that each part but the credentials has moved on.
    fn work(&self, bucket: &'static str) {
        self.run(async |parts| parts.objects.create_bucket(bucket).await.unwrap())
            .unwrap();
    }

    /// Moves the index's log into it: damage to a page that the log has anew, or to the log's last words, loses nothing.
    fn settle_index(&self) {
        let objects = Paths(&self.dir).objects();
        let bytes = stamp::inspect(&objects).unwrap().unwrap();
        stamp::replace(&objects, &bytes).unwrap();
    }

    /// How a start is refused; nothing is changed by it.
    fn refused(&self, why: &str) -> String {
        self.try_refused()
            .unwrap_or_else(|wrong| panic!("{why}: {wrong}"))
    }

    /// The same, or what was wrong with it.
    fn try_refused(&self) -> Result<String, String> {
        let before = lasting(&self.dir);
        let Err(error) = self.run(async |_| ()) else {
            return Err("it started".to_owned());
        };
        let after = lasting(&self.dir);
        let names: Vec<_> = before
            .keys()
            .chain(after.keys())
            .filter(|name| before.get(*name) != after.get(*name))
            .collect();
        if names.is_empty() {
            Ok(format!("{error:#}"))
        } else {
            Err(format!("it changed {names:?} and said {error:#}"))
        }
    }

    fn path(&self, part: Part) -> PathBuf {
        path_of(&Paths(&self.dir), part)
    }

    fn accept(&self, part: Part) -> anyhow::Result<()> {
        let data_dir = DataDir::open(&self.dir)?;
        block_on(doctor::accept(&data_dir, provider(&self.dir), part))
    }

    fn audit_log(&self) -> String {
        let log = files(&Paths(&self.dir).audit());
        let segments = log
            .iter()
            .filter(|(name, _)| name.extension().is_some_and(|end| end == "jsonl"));
        segments
            .map(|(_, text)| String::from_utf8_lossy(text).into_owned())
            .collect()
    }
}

fn provider(dir: &Path) -> Arc<dyn root::RootKeyProvider> {
    let random = Arc::new(crypto::random::SystemRandom);
    Arc::new(FileProvider::new(
        Paths(dir).root_key(),
        Arc::new(OsDisk),
        random,
    ))
}

fn files(dir: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(
                    path.strip_prefix(dir).unwrap().to_owned(),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }
    found
}

/// The same without what SQLite makes anew at each opening and holds nothing of its own: its shared memory, an empty log.
fn lasting(dir: &Path) -> Files {
    let mut found = files(dir);
    found.retain(|name, bytes| {
        let name = name.to_string_lossy();
        !(name.ends_with("-shm") || name.ends_with("-wal") && bytes.is_empty())
    });
    found
}

/// The files that a part consists of, below the data directory.
fn of_part(part: Part, name: &Path) -> bool {
    match part {
        Part::RootHeader => {
            name.starts_with(root::HEADER_NAME) || name.starts_with(root::COPY_NAME)
        }
        Part::Catalogue => name.to_string_lossy().starts_with("catalogue.db"),
        Part::Credentials => name.starts_with("credentials"),
        Part::Audit => name.starts_with("audit") || name.starts_with("audit.journal"),
        Part::Volumes => name.starts_with("volumes"),
        // As such: the index is a part of its own.
        Part::Objects => name.starts_with("objects") && !of_part(Part::Index, name),
        Part::Index => name.to_string_lossy().starts_with("objects/index.db"),
    }
}

/// Puts back everything, and of `part` what `with` has.
fn put(dir: &Path, whole: &Files, part: Part, with: Option<&Files>) {
    let _ = fs::remove_dir_all(dir.join("volumes"));
    let _ = fs::remove_dir_all(dir.join("audit"));
    for (name, _) in files(dir) {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let ours = whole.iter().filter(|(name, _)| !of_part(part, name));
    let theirs = with
        .into_iter()
        .flatten()
        .filter(|(name, _)| of_part(part, name));
    for (name, bytes) in ours.chain(theirs) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    use std::os::unix::fs::PermissionsExt as _;
    for (name, _) in files(dir) {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// What the message says of the part: its name or its path, and a way out.
fn names(message: &str, store: &Store, part: Part) -> bool {
    let path = store.path(part).display().to_string();
    // A header that another root key goes with cannot be told from a wrong root key.
    if part == Part::RootHeader && message.contains("does not open this store") {
        return true;
    }
    let out = [
        "doctor --accept-older",
        "restore",
        "Restore",
        "Put it back",
        "Put back",
    ];
    message.contains(&path) && out.iter().any(|out| message.contains(out))
}

/// Runs `work` on a runtime that is gone on return, with every task in it.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}

#[test]
fn a_part_that_is_missing_older_damaged_or_of_another_store_is_refused_and_named() {
    let (store, other) = (Store::new(), Store::new());
    other.work("others");
    let others = files(&other.dir);
    store.work("first");
    let older = files(&store.dir);
    store.work("second");
    store.settle_index();
    let whole = lasting(&store.dir);
    let mut wrong = Vec::new();
    for part in Part::ALL {
        let mut cases: Vec<(String, Option<Files>)> = vec![
            ("missing".to_owned(), None),
            ("of another store".to_owned(), Some(others.clone())),
        ];
        // These were the same at the earlier stop.
        if !matches!(part, Part::Credentials | Part::RootHeader) {
            cases.push(("older".to_owned(), Some(older.clone())));
        }
        for (name, bytes) in whole.iter().filter(|(name, _)| of_part(part, name)) {
            // Damage in one of two copies is repaired.
            if name.starts_with(root::COPY_NAME) || name.ends_with("LOCK") {
                continue;
            }
            for at in (0..bytes.len()).step_by(PAGE) {
                let mut damaged = whole.clone();
                let end = bytes.len().min(at + PAGE);
                damaged.get_mut(name).unwrap()[at..end].fill(0xa5);
                if part == Part::RootHeader {
                    damaged
                        .get_mut(Path::new(root::COPY_NAME))
                        .unwrap()
                        .fill(0xa5);
                }
                cases.push((format!("{} damaged at {at}", name.display()), Some(damaged)));
            }
        }
        for (case, with) in cases {
            put(&store.dir, &whole, part, with.as_ref());
            match store.try_refused() {
                Ok(message) if names(&message, &store, part) => {}
                Ok(other) | Err(other) => wrong.push(format!("{part} {case}: {other}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    put(&store.dir, &whole, Part::Index, Some(&whole));
    store.work("third");
}

#[test]
fn what_is_older_is_accepted_by_name_and_the_audit_log_says_so() {
    let store = Store::new();
    store.work("first");
    let older = files(&store.dir);
    store.work("second");
    let whole = files(&store.dir);
    for (part, operation) in [
        (Part::Catalogue, "DoctorAcceptOlderCatalogue"),
        (Part::Audit, "DoctorAcceptOlderAudit"),
        (Part::Volumes, "DoctorAcceptOlderVolumes"),
        (Part::Objects, "DoctorAcceptOlderObjects"),
        (Part::Index, "DoctorAcceptOlderIndex"),
    ] {
        put(&store.dir, &whole, part, Some(&older));
        store.refused(part.name());
        store.accept(part).unwrap();
        store.run(async |_| ()).unwrap();
        let log = store.audit_log();
        let records = log.lines().filter(|line| line.contains(operation)).count();
        assert_eq!(records, 2, "{part}: intent and outcome in\n{log}");
    }
    // An access key that is lost is made anew.
    put(&store.dir, &whole, Part::Credentials, None);
    store.refused("credentials");
    store.accept(Part::Credentials).unwrap();
    store.run(async |_| ()).unwrap();
    assert!(store.path(Part::Credentials).exists());
}

#[test]
fn accepting_an_older_catalogue_accepts_no_other_part_that_is_older() {
    let store = Store::new();
    store.work("first");
    store.settle_index();
    let oldest = files(&store.dir);
    store.work("second");
    let older = files(&store.dir);
    store.work("third");
    let mut whole = files(&store.dir);
    whole.retain(|name, _| !of_part(Part::Index, name));
    whole.extend(
        oldest
            .into_iter()
            .filter(|(name, _)| of_part(Part::Index, name)),
    );
    put(&store.dir, &whole, Part::Catalogue, Some(&older));
    store.refused("both are older");
    store.accept(Part::Catalogue).unwrap();
    let message = store.refused("the index is older than the catalogue");
    assert!(message.contains("doctor --accept-older index"), "{message}");
}

#[test]
fn a_start_that_was_interrupted_goes_on() {
    let store = Store::new();
    store.run(async |_| ()).unwrap();
    // Up to the moment before the marks: each part that is made may be there or not.
    for part in [Part::Credentials, Part::Volumes, Part::Objects, Part::Audit] {
        let fresh = Store::new();
        let data_dir = DataDir::open(&fresh.dir).unwrap();
        block_on(async {
            let key = root_key::open(&data_dir, provider(&fresh.dir)).await;
            let made = crate::assembly::open_catalogue(&data_dir, &key.unwrap()).await;
            drop(made.unwrap());
        });
        if part != Part::Credentials {
            fs::create_dir(fresh.path(part)).unwrap();
        }
        drop(data_dir);
        fresh.run(async |_| ()).unwrap();
    }
}

#[test]
fn root_header_and_catalogue_alone_are_adopted() {
    let store = Store::new();
    store.work("first");
    let kept = [
        "root.key",
        root::HEADER_NAME,
        root::COPY_NAME,
        "catalogue.db",
        "catalogue.db.lock",
    ];
    for entry in fs::read_dir(&store.dir).unwrap() {
        let path = entry.unwrap().path();
        let keep = kept.iter().any(|name| path.ends_with(name));
        match (keep, path.is_dir()) {
            (true, _) => {}
            (false, true) => fs::remove_dir_all(path).unwrap(),
            (false, false) => fs::remove_file(path).unwrap(),
        }
    }
    fs::write(store.dir.join("LOCK"), "").unwrap();
    let message = store.refused("nothing but the catalogue");
    assert!(message.contains("is missing"), "{message}");
    let data_dir = DataDir::open(&store.dir).unwrap();
    block_on(doctor::adopt_in(&data_dir, provider(&store.dir))).unwrap();
    drop(data_dir);
    store.work("second");
    assert!(store.audit_log().contains("DoctorAdopt"));
}
