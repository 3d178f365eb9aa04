//! Damage inside one object stops that one alone: its file or its row is changed, cut off or gone, and the store starts, all
//! others are read, and the object can be replaced. Never is a wrong byte answered.

use std::path::{Path, PathBuf};

use super::*;
use crate::store::local::{LocalStore, Options as StoreOptions};

const PAGE: usize = 4096;
const LEN: usize = 100_000;

/// A world whose objects are in a folder.
struct Machine {
    dir: tempfile::TempDir,
    world: World,
    store: Arc<LocalStore>,
}

fn open(dir: &Path) -> Arc<LocalStore> {
    let random = Arc::new(crypto::random::SystemRandom);
    Arc::new(LocalStore::open(StoreOptions::new(dir, random)).unwrap())
}

impl Machine {
    /// Objects `victim`, `other` and `small`: two in files of their own, one in the index.
    async fn new() -> (Self, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let world = world_over(store.clone(), BucketKeyPolicy::default()).await;
        let machine = Self { dir, world, store };
        machine.put("victim", LEN).await;
        let file = machine.files().pop().unwrap();
        machine.put("other", LEN + 1).await;
        machine.put("small", 1000).await;
        machine.put("small-victim", 1001).await;
        (machine, file)
    }

    async fn put(&self, key: &str, len: usize) {
        let call = self.world.put(&format!("/buc/{key}"), data(len));
        call.send().await.expect(200);
    }

    fn files(&self) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(self.dir.path().join("data")).unwrap();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        files.map(|file| file.unwrap().path()).collect()
    }

    /// Stops, lets `change` have the folder, and starts.
    async fn restart(self, change: impl FnOnce(&Path)) -> Self {
        let Self { dir, world, store } = self;
        let ground = world.ground;
        drop((
            world.gateway,
            world.keyring,
            world.catalogue,
            world.store_key,
        ));
        store.close().await;
        drop((store, world.store));
        change(dir.path());
        let store = open(dir.path());
        let world = world_on(ground, store.clone(), BucketKeyPolicy::default()).await;
        let world = world.unwrap_or_else(|error| panic!("it did not start: {error}"));
        Self { dir, world, store }
    }

    /// Whether an object is answered whole; fails if it is answered wrong.
    async fn reads(&self, key: &str, len: usize, case: &str) -> bool {
        let answer = self.world.get(&format!("/buc/{key}")).send().await;
        match (answer.status.as_u16(), &answer.body) {
            (200, Some(body)) => {
                assert!(body == &data(len), "{case}: wrong bytes of {key}");
                true
            }
            (200, None) => false,
            (500, Some(_)) => {
                assert_eq!(answer.code(), "InternalError", "{case}");
                false
            }
            (404, Some(_)) => {
                assert_eq!(answer.code(), "NoSuchKey", "{case}");
                false
            }
            (status, _) => panic!("{case}: {key} is answered with {status}"),
        }
    }

    /// All but the victims are there, and the store is well.
    async fn serves_the_rest(&self, case: &str) {
        assert!(self.reads("other", LEN + 1, case).await, "{case}");
        assert!(self.reads("small", 1000, case).await, "{case}");
        for query in ["", "?list-type=2&max-keys=1000"] {
            let listed = self.world.get(&format!("/buc{query}")).send().await;
            assert_eq!(listed.status, 200, "{case}: {:?}", listed.body);
            let keys = elements(&listed.text(), "Key");
            for key in ["other", "small"] {
                assert!(keys.iter().any(|k| k == key), "{case}: {keys:?}");
            }
        }
        self.store.healthy().unwrap();
    }

    /// A victim is replaced and removed as any object is.
    async fn heals(&self, key: &str, case: &str) {
        self.put(key, LEN + 7).await;
        assert!(self.reads(key, LEN + 7, case).await, "{case}");
        let uri = format!("/buc/{key}");
        self.world.delete(&uri).send().await.expect(204);
        self.world.get(&uri).send().await.fails(404, "NoSuchKey");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_data_file_stops_its_object_alone() {
    let (mut machine, file) = Machine::new().await;
    let whole = std::fs::read(&file).unwrap();
    // Behind the ciphertext, before the tags and before the footer stands nothing that is read.
    let read = |at: usize| {
        at < LEN
            || whole[at..(at + PAGE).min(whole.len())]
                .iter()
                .any(|b| *b != 0)
    };
    for at in (0..whole.len()).step_by(PAGE).filter(|at| read(*at)) {
        let case = format!("damaged at {at}");
        let mut bytes = whole.clone();
        let end = (at + PAGE).min(bytes.len());
        bytes[at..end].iter_mut().for_each(|byte| *byte ^= 0xa5);
        std::fs::write(&file, &bytes).unwrap();
        assert!(!machine.reads("victim", LEN, &case).await, "{case}");
        machine.serves_the_rest(&case).await;
    }
    for len in [
        0,
        1,
        PAGE,
        whole.len() / 2,
        whole.len() - PAGE,
        whole.len() - 1,
    ] {
        let case = format!("cut off at {len}");
        std::fs::write(&file, &whole[..len]).unwrap();
        assert!(!machine.reads("victim", LEN, &case).await, "{case}");
        machine.serves_the_rest(&case).await;
    }
    let cases: [(&str, &dyn Fn()); 3] = [
        ("first page", &|| {
            let mut bytes = whole.clone();
            bytes[..PAGE].fill(0);
            std::fs::write(&file, &bytes).unwrap();
        }),
        ("empty", &|| std::fs::write(&file, b"").unwrap()),
        ("missing", &|| std::fs::remove_file(&file).unwrap()),
    ];
    for (case, change) in cases {
        for clean in [1, 0] {
            let case = format!("{case} at a start, clean {clean}");
            std::fs::write(&file, &whole).unwrap();
            machine = machine
                .restart(|dir| {
                    change();
                    let index = rusqlite::Connection::open(dir.join("index.db")).unwrap();
                    let sql = "UPDATE meta SET value = ?1 WHERE name = 'clean'";
                    index.execute(sql, [clean]).unwrap();
                })
                .await;
            assert!(!machine.reads("victim", LEN, &case).await, "{case}");
            machine.serves_the_rest(&case).await;
        }
    }
    machine.heals("victim", "at the end").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_row_of_the_index_stops_its_object_alone() {
    let (mut machine, _) = Machine::new().await;
    let changes = [
        ("victim", "UPDATE object SET envelope = x''"),
        (
            "victim",
            "UPDATE object SET envelope = CAST(substr(envelope, 1, 40) || x'a5' || substr(envelope, 42) AS BLOB)",
        ),
        ("victim", "UPDATE object SET file = x'a5'"),
        (
            "victim",
            "UPDATE object SET file = x'a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5'",
        ),
        ("victim", "UPDATE object SET file = NULL"),
        ("victim", "UPDATE object SET file = NULL, part_count = 3"),
        ("victim", "UPDATE object SET size = size + 1"),
        ("victim", "UPDATE object SET size = -9223372036854775807"),
        ("victim", "UPDATE object SET part_count = 3"),
        ("victim", "UPDATE object SET part_count = -1"),
        (
            "victim",
            "UPDATE object SET key = CAST(key || x'ff' || hex(randomblob(8)) AS BLOB)",
        ),
        ("small-victim", "UPDATE object SET envelope = x'00'"),
        (
            "small-victim",
            "UPDATE object SET content = content + 1000000",
        ),
        ("small-victim", "UPDATE object SET size = 1"),
        (
            "small-victim",
            "UPDATE object SET file = x'a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5'",
        ),
        ("small-victim", "UPDATE inline SET sealed = x''"),
        (
            "small-victim",
            "UPDATE inline SET sealed = CAST(substr(sealed, 1, 40) || x'a5' || substr(sealed, 42) AS BLOB)",
        ),
    ];
    for (key, sql) in changes {
        for clean in [1, 0] {
            let case = format!("{key}: {sql}, clean {clean}");
            let of = match sql.starts_with("UPDATE inline") {
                false => "WHERE key = CAST(?1 AS BLOB)",
                true => "WHERE content = (SELECT content FROM object WHERE key = CAST(?1 AS BLOB))",
            };
            machine = machine
                .restart(|dir| {
                    let index = rusqlite::Connection::open(dir.join("index.db")).unwrap();
                    let changed = index.execute(&format!("{sql} {of}"), [key]).unwrap();
                    assert_eq!(changed, 1, "{case}");
                    let sql = "UPDATE meta SET value = ?1 WHERE name = 'clean'";
                    index.execute(sql, [clean]).unwrap();
                })
                .await;
            let len = if key == "victim" { LEN } else { 1001 };
            let lost = !machine.reads(key, len, &case).await;
            // A count of parts means nothing for an object in one piece.
            let counts_parts = sql.contains("part_count =") && !sql.contains("NULL");
            assert!(lost || counts_parts, "{case}");
            machine.serves_the_rest(&case).await;
            machine.heals(key, &case).await;
            machine.put(key, len).await;
        }
    }
}
