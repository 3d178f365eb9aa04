//! Every part, missing, older, damaged at each page or of another store, before a start: it is refused, named with its way
//! out, and nothing is changed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use parts::{WayOut, Wrong};
use root::FileProvider;
use s3::store::ObjectStore as _;

use super::*;
use crate::assembly::Assembly;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::doctor;
use crate::metrics::Metrics;
use crate::root_key;

const PAGE: usize = 4096;

/// Every file below a folder, but for sockets and the like.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What is set back, and how.
type SetBack<'a> = (&'a str, &'a dyn Fn(&mut Files));

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
        self.run_with_key(async |parts, _| work(parts).await)
    }

    fn run_with_key(&self, work: impl AsyncFnOnce(&Assembly, &StoreKey)) -> anyhow::Result<()> {
        block_on(async {
            let config = Config {
                data_dir: self.dir.clone(),
                ..Config::default()
            };
            let data_dir = DataDir::open(&self.dir)?;
            let metrics = Arc::new(Metrics::new()?);
            let store_key = root_key::open(&data_dir, provider(&self.dir)).await?;
            let parts =
                Assembly::open(&config, &data_dir, &store_key, &metrics, Arc::new(OsDisk)).await?;
            work(&parts, &store_key).await;
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
        let bytes = stamp::inspect(&objects, false).unwrap().unwrap();
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

    /// How a start is refused by the check of the parts.
    fn refusal(&self) -> Refusal {
        let before = lasting(&self.dir);
        let error = self.run(async |_| ()).unwrap_err();
        assert!(
            before == lasting(&self.dir),
            "it changed something: {error:#}"
        );
        let refusal = error.downcast::<Refusal>();
        refusal.unwrap_or_else(|error| panic!("no refusal of a part: {error:#}"))
    }

    /// Does what a refusal says is the way out.
    fn follow(&self, error: anyhow::Error, backup: &Files) -> Result<(), String> {
        let (part, way_out) = match error.downcast_ref::<Refusal>() {
            Some(refusal) => (refusal.part, refusal.way_out()),
            // Of the root header before anything can be compared.
            None => (Part::RootHeader, WayOut::Restore),
        };
        let text = format!("{error:#}");
        let accepts = text.contains(&format!("sealgate doctor --accept-older {part}"));
        let named = match way_out {
            WayOut::Restore => text.contains("estore"),
            WayOut::RestoreThenAccept => text.contains("Restore") && accepts,
            WayOut::RestoreOrAccept => accepts,
            WayOut::TakeAway => text.contains("Move it out"),
            WayOut::Mend | WayOut::NewerProgram => false,
        };
        if !named {
            return Err(format!("{way_out:?} is not what it says: {text}"));
        }
        let restore = || restore(&self.dir, part, backup);
        let accept = || self.accept(part).map_err(|error| format!("{error:#}"));
        match way_out {
            WayOut::Restore => restore(),
            WayOut::RestoreThenAccept => {
                restore();
                accept()?;
            }
            WayOut::RestoreOrAccept => accept()?,
            WayOut::TakeAway => {
                let (from, to) = (self.path(part), self.dir.with_file_name("away"));
                let _ = fs::remove_dir_all(&to);
                fs::rename(from, to).unwrap();
            }
            WayOut::Mend | WayOut::NewerProgram => unreachable!("refused above"),
        }
        Ok(())
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
                let bytes = match path.is_symlink() {
                    true => b"a symbolic link".to_vec(),
                    false => fs::read(&path).unwrap(),
                };
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), bytes);
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
        host::private::create_dirs(&host::OsDisk, path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    use std::os::unix::fs::PermissionsExt as _;
    for (name, _) in files(dir) {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// Puts what a backup has of a part in its place.
fn restore(dir: &Path, part: Part, backup: &Files) {
    for (name, _) in files(dir) {
        if of_part(part, &name) {
            fs::remove_file(dir.join(name)).unwrap();
        }
    }
    for (name, bytes) in backup.iter().filter(|(name, _)| of_part(part, name)) {
        let path = dir.join(name);
        host::private::create_dirs(&OsDisk, path.parent().unwrap()).unwrap();
        host::private::replace(&OsDisk, &path, bytes).unwrap();
    }
}

/// What the message says of the part: its name or its path, and a way out.
fn names(message: &str, store: &Store, part: Part) -> bool {
    let path = store.path(part).display().to_string();
    // A header that another root key goes with cannot be told from a wrong root key.
    if part == Part::RootHeader && message.contains("does not open this store") {
        return true;
    }
    let out = ["doctor --accept-older", "restore", "Restore"];
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

/// A store, what it was at an earlier stop, what it is, and what another store is.
fn told_apart() -> (Store, Files, Files, Files) {
    let (store, other) = (Store::new(), Store::new());
    other.work("others");
    let others = files(&other.dir);
    store.work("first");
    let older = files(&store.dir);
    // Both have been made anew since.
    fs::remove_file(store.path(Part::Credentials)).unwrap();
    store.accept(Part::Credentials).unwrap();
    let work = async |parts: &Assembly, key: &StoreKey| {
        key.rotate_root(provider(&store.dir)).await.unwrap();
        parts.objects.create_bucket("second").await.unwrap();
    };
    store.run_with_key(work).unwrap();
    store.settle_index();
    let whole = lasting(&store.dir);
    (store, older, whole, others)
}

/// What may have happened to a part, and what there is of it then: missing, of another store, older, and each of its files
/// damaged in one of the pages that begin `at`.
fn cases(
    part: Part,
    (older, whole, others): (&Files, &Files, &Files),
    at: impl Fn(usize) -> Vec<usize>,
) -> Vec<(String, Option<Files>)> {
    let mut cases = vec![
        ("missing".to_owned(), None),
        ("of another store".to_owned(), Some(others.clone())),
        ("older".to_owned(), Some(older.clone())),
    ];
    for (name, bytes) in whole.iter().filter(|(name, _)| of_part(part, name)) {
        // Damage in one of two copies is repaired.
        if name.starts_with(root::COPY_NAME) || name.ends_with("LOCK") {
            continue;
        }
        for at in at(bytes.len()) {
            let mut damaged = whole.clone();
            let end = bytes.len().min(at + PAGE);
            damaged.get_mut(name).unwrap()[at..end].fill(0xa5);
            if part == Part::RootHeader {
                let copy = damaged.get_mut(Path::new(root::COPY_NAME));
                copy.unwrap().fill(0xa5);
            }
            cases.push((format!("{} damaged at {at}", name.display()), Some(damaged)));
        }
    }
    cases
}

#[test]
fn a_part_that_is_missing_older_damaged_or_of_another_store_is_refused_and_named() {
    let (store, older, whole, others) = told_apart();
    let mut wrong = Vec::new();
    for part in Part::ALL {
        let every_page = |len| (0..len).step_by(PAGE).collect();
        let cases = cases(part, (&older, &whole, &others), every_page);
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
fn every_way_out_that_a_refusal_names_is_one() {
    let (store, older, whole, others) = told_apart();
    let mut wrong = Vec::new();
    for part in Part::ALL {
        // What is between is refused in the same ways.
        let first_and_last = |len: usize| match len {
            0 => Vec::new(),
            len => vec![0, (len - 1) / PAGE * PAGE],
        };
        let cases = cases(part, (&older, &whole, &others), first_and_last);
        for (case, with) in cases {
            put(&store.dir, &whole, part, with.as_ref());
            let mut said = Vec::new();
            loop {
                let Err(error) = store.run(async |_| ()) else {
                    break;
                };
                said.push(format!("{error:#}"));
                // A header of another root key cannot be told from a wrong root key: both are put back.
                if said.last().unwrap().contains("does not open this store") {
                    restore(&store.dir, Part::RootHeader, &older);
                    continue;
                }
                let followed = store.follow(error, &older);
                if said.len() > 5 || followed.is_err() {
                    wrong.push(format!("{part} {case}: {followed:?} after {said:#?}"));
                    break;
                }
            }
            if said.is_empty() {
                wrong.push(format!("{part} {case}: it started"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_root_header_from_before_a_rotation_of_the_store_key_is_named_and_not_the_catalogue() {
    let store = Store::new();
    store.work("first");
    let older = files(&store.dir);
    let rotate = async |_: &Assembly, key: &StoreKey| drop(key.rotate().await.unwrap());
    store.run_with_key(rotate).unwrap();
    let whole = lasting(&store.dir);
    put(&store.dir, &whole, Part::RootHeader, Some(&older));
    let refusal = store.refusal();
    assert_eq!(refusal.part, Part::RootHeader);
    assert!(matches!(
        refusal.wrong,
        Wrong::OtherGeneration {
            records: 2,
            header: 1
        }
    ));
    assert_eq!(refusal.way_out(), WayOut::Restore);
    // The same words for both: nothing is accepted that no key opens.
    let refused = store.accept(Part::RootHeader).unwrap_err();
    assert!(refused.to_string().contains("generation"), "{refused:#}");
    restore(&store.dir, Part::RootHeader, &whole);
    store.work("second");
}

#[test]
fn an_audit_log_that_was_set_back_under_a_stamp_that_was_not_is_refused() {
    let store = Store::new();
    let record = |parts: &Assembly| {
        let log = parts.audit.clone();
        async move {
            for _ in 0..20 {
                let change = crate::management_trail::by_doctor("Test");
                let done = crate::management_trail::recorded_here(
                    log.clone(),
                    change,
                    async { Ok::<_, ()>(()) },
                    |_| "Success",
                );
                done.await.unwrap().unwrap();
            }
        }
    };
    let live = std::cell::RefCell::new(Files::new());
    store.run(async |parts| record(parts).await).unwrap();
    let yesterday = files(&store.dir);
    store
        .run(async |parts| {
            record(parts).await;
            parts.known.keep(&parts.audit, true).await.unwrap();
            // As a killed process leaves it: what is in the journal need not be in the segments.
            *live.borrow_mut() = files(&store.dir);
            record(parts).await;
        })
        .unwrap();
    let today = files(&store.dir);
    let is_segment = |name: &Path| name.extension().is_some_and(|end| end == "jsonl");
    let is_journal = |name: &Path| name == Path::new("audit.journal");
    let last = today.keys().rfind(|name| is_segment(name)).unwrap().clone();
    assert!(yesterday.contains_key(&last), "one segment of both days");
    let cases: [SetBack<'_>; 6] = [
        ("last segment replaced by its older copy", &|files| {
            files.insert(last.clone(), yesterday[&last].clone());
        }),
        ("yesterday's segments, journal and all", &|files| {
            files.retain(|name, _| !is_segment(name) && !is_journal(name));
            let back = yesterday
                .iter()
                .filter(|(name, _)| is_segment(name) || is_journal(name));
            files.extend(back.map(|(name, bytes)| (name.clone(), bytes.clone())));
        }),
        ("last segment cut off", &|files| {
            let segment = files.get_mut(&last).unwrap();
            segment.truncate(segment.len() / 2);
        }),
        ("last segment cut off at a record", &|files| {
            let segment = files.get_mut(&last).unwrap();
            let end = segment[..segment.len() - 1]
                .iter()
                .rposition(|&byte| byte == b'\n');
            segment.truncate(end.unwrap() + 1);
        }),
        ("last segment missing", &|files| {
            files.remove(&last);
        }),
        ("segments and journal missing", &|files| {
            files.retain(|name, _| !is_segment(name) && !is_journal(name));
        }),
    ];
    for (case, change) in cases {
        let mut with = today.clone();
        change(&mut with);
        put(&store.dir, &today, Part::Audit, Some(&with));
        let refusal = store.refusal();
        assert_eq!(refusal.part, Part::Audit, "{case}: {refusal}");
        // No other doctor adds records to it.
        let other = store.accept(Part::Volumes).unwrap_err();
        assert!(other.to_string().contains("audit"), "{case}: {other:#}");
        // And the way out uses no number again.
        store.accept(Part::Audit).unwrap();
        store.run(async |_| ()).unwrap();
        let numbers = |text: &str| -> Vec<u64> {
            let numbers = text.lines().map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["seq"].as_u64().unwrap()
            });
            numbers.collect()
        };
        let given: Vec<u64> = numbers(&String::from_utf8(today[&last].clone()).unwrap());
        let log = store.audit_log();
        let lines: Vec<_> = log.lines().collect();
        let from = lines
            .iter()
            .position(|line| line.contains("AuditAcceptLoss"));
        let new = numbers(&lines[from.unwrap()..].join("\n"));
        assert!(new[0] > *given.last().unwrap(), "{case}: {new:?}");
    }
    // What is only in the journal of a killed process is no loss.
    let live = live.into_inner();
    put(&store.dir, &live, Part::Audit, Some(&live));
    store.run(async |_| ()).unwrap();
}

#[test]
fn a_part_that_cannot_be_read_is_not_called_damaged_and_nothing_is_to_be_accepted() {
    let store = Store::new();
    store.work("first");
    let whole = lasting(&store.dir);
    let stamp = |part| store.path(part).join(parts::STAMP_FILE);
    for (part, path) in [
        (Part::Credentials, store.path(Part::Credentials)),
        (Part::Catalogue, store.path(Part::Catalogue)),
        (Part::Audit, stamp(Part::Audit)),
        (Part::Volumes, stamp(Part::Volumes)),
        (Part::Objects, stamp(Part::Objects)),
        (Part::Index, store.path(Part::Index)),
    ] {
        put(&store.dir, &whole, part, Some(&whole));
        fs::remove_file(&path).unwrap();
        // Whoever runs this, it does not open: it leads to itself.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let refusal = store.refusal();
        assert_eq!((refusal.part, refusal.way_out()), (part, WayOut::Mend));
        assert!(!refusal.to_string().contains("doctor"), "{refusal}");
        let accepted = store.accept(part).unwrap_err();
        assert!(
            format!("{accepted:#}").contains("mend the cause"),
            "{accepted:#}"
        );
        fs::remove_file(&path).unwrap();
    }
    put(&store.dir, &whole, Part::Index, Some(&whole));
    store.run(async |_| ()).unwrap();
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
            host::private::create_dirs(&host::OsDisk, &fresh.path(part)).unwrap();
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
