//! A rotation of the store key: everything is as it was, and nothing is left under the old generation.

use std::sync::atomic::AtomicBool;

use catalogue::Table;
use root::{Advanced, Pass};

use super::*;
use crate::store::faulty::{Faults, FaultyStore};
use crate::store::local::{LocalStore, Options as LocalOptions};
use crate::store::{SealedAt, SealedRow};

const PART: usize = 5 << 20;

/// Every sealed record in the store of objects.
async fn rows(store: &dyn ObjectStore) -> Vec<SealedRow> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.sealed(after.as_ref(), 1000).await.unwrap();
        after = page.entries.last().map(|row| row.at.clone());
        all.extend(page.entries);
        if !page.truncated {
            return all;
        }
    }
}

/// How many records are under an older generation than the newest, and all there are: looked at as they stand, without
/// the code that re-seals them.
async fn stale(world: &World) -> (usize, usize) {
    let status = world.store_key.status().await;
    let newest = status.generation.to_be_bytes();
    let mut generations = Vec::new();
    for row in rows(&*world.store).await {
        let head = match row.at {
            SealedAt::Part { .. } => 48,
            _ => 0,
        };
        generations.push(row.envelope[head + 1..head + 5].to_vec());
    }
    for table in [crate::bucket::TABLE, crate::bucket::NAMES] {
        let page = world.catalogue.page(table, None, None, 1000).await.unwrap();
        assert!(!page.records.is_empty());
        generations.extend(page.records.iter().map(|r| r.sealed[1..5].to_vec()));
    }
    let old = generations.iter().filter(|found| **found != newest);
    (old.count(), generations.len())
}

/// Objects of every mode, in one piece and in parts, tags, an upload with parts, and a default of the bucket.
async fn fill(world: &World) -> String {
    let rule = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";
    world.put("/other", "").send().await.expect(200);
    world
        .put("/other?encryption", rule)
        .send()
        .await
        .expect(200);
    for (n, mode) in ["AES256", "aws:kms"].into_iter().enumerate() {
        for size in [0, 10, 200_000] {
            let put = world.put(&format!("/buc/{n}/{size}"), data(size));
            let put = put.header(MODE, mode).header("x-amz-meta-n", "m\u{e4}");
            put.header("x-amz-tagging", "t=1").send().await.expect(200);
        }
    }
    let put = world.put("/buc/customer", data(70_000)).customer(7);
    put.send().await.expect(200);
    for n in 0..300 {
        let put = world.put(&format!("/buc/many/{n:03}"), format!("{n}"));
        put.send().await.expect(200);
    }
    let whole = upload(world, "/buc/whole").await;
    complete(world, "/buc/whole", &whole.0, &whole.1).await;
    upload(world, "/buc/later").await.0
}

/// An upload of two parts, and their entity tags.
async fn upload(world: &World, uri: &str) -> (String, [String; 2]) {
    let create = world.post(&format!("{uri}?uploads"), "");
    let create = create.header("x-amz-meta-a", "1").send().await.expect(200);
    let id = create.xml("UploadId");
    let mut etags = [String::new(), String::new()];
    for (n, len) in [PART, 100].into_iter().enumerate() {
        let part = format!("{uri}?partNumber={}&uploadId={id}", n + 1);
        etags[n] = world.put(&part, data(len)).send().await.expect(200).etag();
    }
    (id, etags)
}

async fn complete(world: &World, uri: &str, id: &str, etags: &[String]) {
    let parts: String = (1..)
        .zip(etags)
        .map(|(n, etag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let done = world.post(&format!("{uri}?uploadId={id}"), body);
    done.send().await.expect(200);
}

/// Everything that a client sees of what [`fill`] made.
async fn seen(world: &World, upload: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for uri in ["/", "/buc?list-type=2", "/buc?uploads", "/buc?encryption"] {
        seen.push(world.get(uri).send().await.expect(200).text());
    }
    seen.push(
        world
            .get("/other?encryption")
            .send()
            .await
            .expect(200)
            .text(),
    );
    let parts = format!("/buc/later?uploadId={upload}");
    seen.push(world.get(&parts).send().await.expect(200).text());
    let keys = [
        "0/0", "0/10", "0/200000", "1/0", "1/10", "1/200000", "many/299", "whole",
    ];
    for key in keys {
        let uri = format!("/buc/{key}");
        let get = world.get(&uri).send().await.expect(200);
        let body = crypto::hash::Md5::digest(get.body.as_ref().unwrap());
        let mut headers: Vec<String> = get
            .headers
            .iter()
            .filter(|(name, _)| *name != "x-amz-request-id")
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        headers.sort();
        seen.push(format!("{uri} {headers:?} {}", hex::encode(body)));
        let tags = world.get(&format!("{uri}?tagging")).send().await;
        seen.push(tags.expect(200).text());
    }
    let customer = world.get("/buc/customer").customer(7).send().await;
    seen.push(hex::encode(crypto::hash::Md5::digest(
        &customer.expect(200).body.unwrap(),
    )));
    seen
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::new(Arc::new(SeededRandom::new(1))))
}

fn local(dir: &std::path::Path) -> Arc<LocalStore> {
    let random = Arc::new(crypto::random::SystemRandom);
    Arc::new(LocalStore::open(LocalOptions::new(dir.join("objects"), random)).unwrap())
}

/// Rotates the store key with everything that re-seals in this world: the keyring has its part in it.
async fn rotate(world: &World) {
    let rotation = world.store_key.rotate().await.unwrap();
    let mut owners = world.gateway.owners();
    owners.extend(world.keyring.owners());
    rotation.run(&owners, &|_| {}).await.unwrap();
    assert_eq!(world.store_key.status().await.previous, None);
}

async fn a_rotation_changes_nothing_that_is_seen(store: Arc<dyn ObjectStore>) {
    let world = world_over(store, BucketKeyPolicy::default()).await;
    let upload = fill(&world).await;
    let (before, records) = (seen(&world, &upload).await, stale(&world).await.1);
    assert!(records > 300);
    let whole = async |world: &World| {
        let mut found = Vec::new();
        for bucket in world.store.buckets(None, 9).await.unwrap().entries {
            found.extend(world.store.head(&bucket.id, "whole").await.ok());
        }
        found[0].sequence
    };
    let was = whole(&world).await;
    rotate(&world).await;
    assert_eq!(stale(&world).await, (0, records));
    assert_eq!(seen(&world, &upload).await, before);
    assert_eq!(
        whole(&world).await,
        was,
        "no condition of a client fails of it"
    );
    // And once more, after a restart, with changes to what was sealed again.
    let World { ground, store, .. } = world;
    let policy = BucketKeyPolicy::default();
    let world = world_on(ground, store, policy).await.unwrap();
    assert_eq!(seen(&world, &upload).await, before);
    rotate(&world).await;
    assert_eq!(stale(&world).await, (0, records));
    assert_eq!(seen(&world, &upload).await, before);
    world.delete("/other?encryption").send().await.expect(204);
    world.delete("/other").send().await.expect(204);
    let aborted = world.delete(&format!("/buc/later?uploadId={upload}"));
    aborted.send().await.expect(204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_rotation_everything_is_as_it_was_and_nothing_is_stale() {
    a_rotation_changes_nothing_that_is_seen(memory()).await;
    let dir = tempfile::tempdir().unwrap();
    a_rotation_changes_nothing_that_is_seen(local(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_every_kind_go_on_while_the_store_key_is_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(world_over(local(dir.path()), BucketKeyPolicy::default()).await);
    let kept = fill(&world).await;
    let ended = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for client in 0..4 {
        let (world, ended) = (Arc::clone(&world), Arc::clone(&ended));
        clients.push(tokio::spawn(async move {
            let mut round = 0;
            while !ended.load(Ordering::SeqCst) || round == 0 {
                let uri = format!("/buc/client/{client}");
                let text = format!("{client} {round}");
                world.put(&uri, text.clone()).send().await.expect(200);
                assert_eq!(world.get(&uri).send().await.expect(200).text(), text);
                let tags =
                    "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
                let tagged = world.put(&format!("{uri}?tagging"), tags);
                tagged.send().await.expect(200);
                let copy = world.put(&format!("{uri}/copy"), "");
                let copy = copy.header("x-amz-copy-source", "buc/many/007");
                copy.send().await.expect(200);
                let mine = format!("{uri}/m");
                let (id, etags) = upload(&world, &mine).await;
                complete(&world, &mine, &id, &etags).await;
                let range = world.get(&mine).header("range", "bytes=5242870-5242889");
                assert_eq!(range.send().await.expect(206).body.unwrap().len(), 20);
                let bucket = format!("/bucket-{client}-{round}");
                world.put(&bucket, "").send().await.expect(200);
                world.delete(&bucket).send().await.expect(204);
                round += 1;
            }
        }));
    }
    for _ in 0..3 {
        rotate(&world).await;
    }
    ended.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    rotate(&world).await;
    assert_eq!(stale(&world).await.0, 0);
    seen(&world, &kept).await;
}

/// The store fails or loses its answer again and again, and every time the process starts anew on what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_killed_at_any_change_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    let world = world_over(store.clone(), BucketKeyPolicy::default()).await;
    let upload = fill(&world).await;
    let before = seen(&world, &upload).await;
    let World { ground, .. } = world;
    store.close().await;
    drop(store);
    let (mut kills, mut pass) = (0, Pass::default());
    for life in 1u64.. {
        assert!(life < 200, "it never ends");
        let faults = Faults {
            fail_per_mille: 200,
            lose_answer_per_mille: 300,
            ..Faults::default()
        };
        let entropy = Arc::new(host::entropy::SeededEntropy::new(life));
        let random = Arc::new(crypto::random::SystemRandom);
        let options = LocalOptions::new(dir.path().join("objects"), random.clone());
        let store = FaultyStore::new(LocalStore::open(options).unwrap(), faults, entropy);
        let store = Arc::new(store);
        let (objects, random): (Arc<dyn ObjectStore>, Arc<dyn Random>) = (store.clone(), random);
        let (catalogue, key) = ground.open().await;
        let mut owners = crate::reseal::owners(&catalogue, &key, &random, &objects);
        // The keyring's, without the keyring.
        for table in [
            Table::new("key"),
            Table::new("material"),
            Table::new("alias"),
        ] {
            owners.push(jobs::table_owner(table, &catalogue, &key, &random));
        }
        let rotation = key.rotate().await.unwrap();
        let finished = loop {
            match rotation.advance(&owners, pass.clone()).await {
                Ok(Advanced::Page { next, .. }) => pass = next,
                Ok(Advanced::Finished) => break true,
                Err(_) => break false,
            }
        };
        drop((owners, objects));
        store.inner().close().await;
        if finished {
            break;
        }
        kills += 1;
        if life % 2 == 1 {
            // What was kept is lost too.
            pass = Pass::default();
        }
    }
    assert!(kills > 0);
    let policy = BucketKeyPolicy::default();
    let world = world_on(ground, local(dir.path()), policy).await.unwrap();
    assert_eq!(stale(&world).await.0, 0);
    assert_eq!(seen(&world, &upload).await, before);
}

#[tokio::test]
async fn who_reads_slowly_reads_on_after_the_generation_is_gone() {
    let world = world_over(memory(), BucketKeyPolicy::default()).await;
    let (id, etags) = upload(&world, "/buc/m").await;
    complete(&world, "/buc/m", &id, &etags).await;
    let request = Request::builder().uri("/buc/m").header("host", "h");
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let mut context = RequestContext::new(Principal::root(ACCOUNT.parse().unwrap()), "R");
    context.source = Some("127.0.0.1".parse().unwrap());
    let answer = world
        .gateway
        .serve(request, &Payload::Unsigned, Arc::new(context))
        .await;
    rotate(&world).await;
    rotate(&world).await;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, [data(PART), data(100)].concat());
}

#[tokio::test]
async fn a_damaged_record_does_not_keep_the_others_under_the_old_generation() {
    let world = world_over(memory(), BucketKeyPolicy::default()).await;
    for key in ["a", "b"] {
        let put = world.put(&format!("/buc/{key}"), "x");
        put.send().await.expect(200);
    }
    let id = world.bucket_id().await;
    let record = world.store.head(&id, "a").await.unwrap();
    let mut damaged = record.envelope.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let replaced = world
        .store
        .replace_envelope(&id, "a", record.sequence, damaged.into());
    replaced.await.unwrap();
    rotate(&world).await;
    assert_eq!(stale(&world).await.0, 1, "it is left as it is");
    world.get("/buc/a").send().await.fails(500, "InternalError");
    assert_eq!(world.get("/buc/b").send().await.expect(200).text(), "x");
}
