//! What a disk shows, and what becomes of it when the disk lies.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::store::local::{LocalStore, Options as LocalOptions};
use crate::store::{Resealed, SealedAt, SealedRow};

const NEEDLE: &str = "needle-in-a-haystack-0123456789";

/// A world over a local store whose objects all have files of their own.
async fn on_disk() -> (World, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = LocalOptions::new(
        dir.path().join("objects"),
        Arc::new(crypto::random::SystemRandom),
    );
    options.inline_len_max = 0;
    options.reserve_bytes = 0;
    let store = Arc::new(LocalStore::open(options).unwrap());
    (world_over(store, BucketKeyPolicy::default()).await, dir)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[tokio::test]
async fn nothing_of_an_object_but_its_name_and_size_is_on_the_disk() {
    let (world, dir) = on_disk().await;
    let content = NEEDLE.repeat(10_000);
    let context = STANDARD.encode(format!("{{\"c\":\"{NEEDLE}\"}}"));
    let mut etags = Vec::new();
    for (n, mode) in ["AES256", "aws:kms", "customer"].into_iter().enumerate() {
        let put = world
            .put(&format!("/buc/k{n}"), content.clone())
            .header("x-amz-meta-secret", NEEDLE)
            .header("content-type", NEEDLE)
            .header("x-amz-tagging", format!("t={NEEDLE}"));
        let put = match mode {
            "customer" => put.customer(77),
            "aws:kms" => put.header(MODE, mode).header(CONTEXT, &context),
            _ => put.header(MODE, mode),
        };
        etags.push(
            put.send()
                .await
                .expect(200)
                .etag()
                .trim_matches('"')
                .to_owned(),
        );
    }
    let upload = world
        .post("/buc/m?uploads", "")
        .header("x-amz-meta-secret", NEEDLE)
        .send()
        .await;
    let upload = upload.expect(200).xml("UploadId");
    world
        .put(&format!("/buc/m?partNumber=1&uploadId={upload}"), content)
        .send()
        .await
        .expect(200);
    let mut needles: Vec<Vec<u8>> = vec![NEEDLE.into(), [77; 32].to_vec()];
    for etag in etags {
        needles.push(hex::decode(&etag).unwrap());
        needles.push(etag.into_bytes());
    }
    let mut seen = 0;
    for file in files(dir.path())
        .into_iter()
        .chain(files(world.ground.dir.path()))
    {
        let bytes = std::fs::read(&file).unwrap();
        seen += bytes.len();
        for needle in &needles {
            assert!(!contains(&bytes, needle), "{}", file.display());
        }
    }
    assert!(seen > 4 * NEEDLE.len() * 10_000);
}

/// Collects everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_at_any_level_has_a_customers_key() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = world().await;
    let upload = world
        .post("/buc/m?uploads", "")
        .customer(5)
        .send()
        .await
        .expect(200);
    let upload = upload.xml("UploadId");
    let part = format!("/buc/m?partNumber=1&uploadId={upload}");
    world.put(&part, "x").customer(5).send().await.expect(200);
    world
        .put("/buc/k", "x")
        .customer(5)
        .send()
        .await
        .expect(200);
    world.get("/buc/k").customer(5).send().await.expect(200);
    world.head("/buc/k").customer(5).send().await.expect(200);
    world.get("/buc/k").customer(6).send().await.expect(403);
    world
        .put("/buc/k", "x")
        .customer(5)
        .announcing(Some(2))
        .send()
        .await
        .expect(400);
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(text.contains("s3s"), "the log was listened to");
    for key in [5, 6] {
        let (key, _) = customer_key(key);
        assert!(!text.contains(&key));
        assert!(!text.contains(&hex::encode(STANDARD.decode(&key).unwrap())));
    }
    assert!(!text.contains("5, 5, 5, 5"), "nor as bytes");
}

/// Flips one bit of the ciphertext in the only data file there is.
fn flip(dir: &Path, offset: u64) {
    let data = files(&dir.join("objects/data"));
    let [file] = &data[..] else {
        panic!("one object, {} files", data.len())
    };
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[tokio::test]
async fn altered_data_is_500_before_the_first_byte_and_cut_off_after_it() {
    let (world, dir) = on_disk().await;
    let content = data(4 << 20);
    world
        .put("/buc/k", content.clone())
        .send()
        .await
        .expect(200);
    flip(dir.path(), 3 << 20);
    let cut = world.get("/buc/k").send().await;
    assert_eq!(
        (cut.status.as_u16(), cut.body),
        (200, None),
        "never a clean short end"
    );
    let before = world
        .get("/buc/k")
        .header("range", "bytes=0-1000000")
        .send()
        .await
        .expect(206);
    assert_eq!(before.body, Some(content.slice(..1_000_001)));
    let inside = world
        .get("/buc/k")
        .header("range", "bytes=3145728-3145729")
        .send()
        .await;
    inside.fails(500, "InternalError");
    flip(dir.path(), 0);
    let answer = world.get("/buc/k").send().await.fails(500, "InternalError");
    assert!(
        !answer.text().contains("authentic"),
        "the reason is not told"
    );
    let copy = world
        .put("/buc/c", "")
        .header("x-amz-copy-source", "buc/k")
        .send()
        .await;
    copy.fails(500, "InternalError");
    world.get("/buc/c").send().await.fails(404, "NoSuchKey");
}

#[tokio::test]
async fn a_record_opens_only_where_it_belongs() {
    let store = Arc::new(MemoryStore::new(Arc::new(SeededRandom::new(1))));
    let world = world_over(store.clone(), BucketKeyPolicy::default()).await;
    world.put("/buc/one", "1").send().await.expect(200);
    world.put("/buc/two", "2").send().await.expect(200);
    let buc = &*world.bucket_id().await;
    let one = store.head(buc, "one").await.unwrap();
    let two = store.head(buc, "two").await.unwrap();
    store
        .replace_envelope(buc, "two", two.sequence, one.envelope)
        .await
        .unwrap();
    world
        .get("/buc/two")
        .send()
        .await
        .fails(500, "InternalError");
    world.head("/buc/two").send().await.expect(500);
    world.get("/buc/one").send().await.expect(200);
    // The others are still listed, and the damaged one by what the index says.
    let list = world.get("/buc?list-type=2").send().await.expect(200);
    assert_eq!(elements(&list.text(), "Key"), ["one", "two"]);
    assert_eq!(elements(&list.text(), "ETag").len(), 1);
    // It can be replaced and deleted.
    world.put("/buc/two", "2").send().await.expect(200);
    world.get("/buc/two").send().await.expect(200);
}

#[tokio::test]
async fn an_older_record_does_not_open_newer_data() {
    let store = Arc::new(MemoryStore::new(Arc::new(SeededRandom::new(1))));
    let world = world_over(store.clone(), BucketKeyPolicy::default()).await;
    world.put("/buc/k", "old").send().await.expect(200);
    let buc = &*world.bucket_id().await;
    let old = store.head(buc, "k").await.unwrap();
    world.put("/buc/k", "new").send().await.expect(200);
    let new = store.head(buc, "k").await.unwrap();
    store
        .replace_envelope(buc, "k", new.sequence, old.envelope)
        .await
        .unwrap();
    world.get("/buc/k").send().await.fails(500, "InternalError");
}

#[tokio::test]
async fn parts_may_be_sealed_anew_but_neither_exchanged_nor_dropped() {
    let store = Arc::new(MemoryStore::new(Arc::new(SeededRandom::new(1))));
    let world = world_over(store.clone(), BucketKeyPolicy::default()).await;
    let five = data(5 << 20);
    let upload = world.post("/buc/m?uploads", "").send().await.expect(200);
    let upload = upload.xml("UploadId");
    let mut envelopes = Vec::new();
    let mut etags = Vec::new();
    let part_of = |rows: Vec<SealedRow>| {
        rows.into_iter()
            .find(|row| matches!(row.at, SealedAt::Part { .. }))
            .unwrap()
    };
    for _ in 0..2 {
        let put = world
            .put(
                &format!("/buc/m?partNumber=1&uploadId={upload}"),
                five.clone(),
            )
            .send()
            .await
            .expect(200);
        etags.push(put.etag());
        envelopes.push(part_of(store.sealed(None, 10).await.unwrap().entries));
    }
    let complete = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
        etags[1]
    );
    let done = world.post(&format!("/buc/m?uploadId={upload}"), complete);
    done.send().await.expect(200);
    world.get("/buc/m").send().await.expect(200);
    // The part that was replaced, in the place of the one that replaced it.
    let exchanged = Resealed {
        row: envelopes[1].clone(),
        envelope: envelopes[0].envelope.clone(),
    };
    assert_eq!(store.reseal(vec![exchanged]).await.unwrap(), 1);
    world.get("/buc/m").send().await.fails(500, "InternalError");
    let cut = Resealed {
        row: envelopes[0].clone(),
        envelope: envelopes[1].envelope.slice(..40),
    };
    assert_eq!(store.reseal(vec![cut.clone()]).await.unwrap(), 1);
    world.get("/buc/m").send().await.fails(500, "InternalError");
    let back = Resealed {
        row: SealedRow {
            envelope: cut.envelope,
            ..cut.row
        },
        envelope: envelopes[1].envelope.clone(),
    };
    assert_eq!(store.reseal(vec![back]).await.unwrap(), 1);
    assert_eq!(world.get("/buc/m").send().await.body, Some(five));
}

#[tokio::test]
async fn the_record_of_a_bucket_that_was_altered_is_refused_at_the_start() {
    let store = Arc::new(MemoryStore::new(Arc::new(SeededRandom::new(1))));
    let world = world_over(store.clone(), BucketKeyPolicy::default()).await;
    let World { ground, .. } = world;
    let path = ground.dir.path().join("catalogue.db");
    let index = rusqlite::Connection::open(path).unwrap();
    let read = "SELECT sealed FROM record WHERE tbl = 'bucket'";
    let mut sealed: Vec<u8> = index.query_row(read, [], |row| row.get(0)).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    let write = "UPDATE record SET sealed = ?1 WHERE tbl = 'bucket'";
    assert_eq!(index.execute(write, [sealed]).unwrap(), 1);
    drop(index);
    let refused = world_on(ground, store, BucketKeyPolicy::default()).await;
    assert!(matches!(refused.map(drop), Err(crate::Error::Integrity)));
}
