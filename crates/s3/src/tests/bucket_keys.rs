//! Bucket keys: how seldom the keyring is asked, and how soon it is asked again.

use super::*;

async fn put(world: &World, n: usize, key: &str) -> Answer {
    world
        .put(&format!("/buc/k{n}"), "x")
        .header(MODE, "aws:kms")
        .header(KMS_KEY, key)
        .header(BUCKET_KEY, "true")
        .send()
        .await
}

#[tokio::test]
async fn a_thousand_objects_take_one_call_to_seal_and_one_to_open() {
    let world = world().await;
    let key = world.kms_key().await;
    for n in 0..1000 {
        let answer = put(&world, n, &key).await.expect(200);
        assert_eq!(answer.header(BUCKET_KEY), "true");
    }
    for n in 0..1000 {
        let answer = world.get(&format!("/buc/k{n}")).send().await.expect(200);
        assert_eq!(answer.header(BUCKET_KEY), "true");
    }
    let calls = world.counts.kms("GenerateDataKey") + world.counts.kms("Decrypt");
    assert_eq!(calls, 2, "of 2000 without bucket keys");
    assert_eq!(world.counts.bucket_key_hits.load(Ordering::SeqCst), 1998);
    assert_eq!(world.counts.bucket_key_misses.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn without_a_bucket_key_each_object_asks() {
    let world = world().await;
    let key = world.kms_key().await;
    for n in 0..10 {
        let call = world
            .put(&format!("/buc/k{n}"), "x")
            .header(MODE, "aws:kms");
        call.header(KMS_KEY, &key).send().await.expect(200);
        world.get(&format!("/buc/k{n}")).send().await.expect(200);
    }
    assert_eq!(world.counts.kms("GenerateDataKey"), 10);
    assert_eq!(world.counts.kms("Decrypt"), 10);
}

#[tokio::test]
async fn sse_s3_uses_bucket_keys_of_the_gateways_own_key() {
    let world = world().await;
    for n in 0..100 {
        world
            .put(&format!("/buc/k{n}"), "x")
            .send()
            .await
            .expect(200);
        world.get(&format!("/buc/k{n}")).send().await.expect(200);
    }
    assert_eq!(world.counts.kms("GenerateDataKey"), 1);
    assert_eq!(world.counts.kms("Decrypt"), 1);
}

#[tokio::test]
async fn a_cached_key_ends_with_its_lifetime_and_its_uses() {
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
    let policy = BucketKeyPolicy {
        lifetime: Duration::from_secs(60),
        uses_max: 5,
        entries_max: 100,
    };
    let world = world_over(Arc::new(MemoryStore::new(random)), policy).await;
    let key = world.kms_key().await;
    put(&world, 0, &key).await.expect(200);
    world.later(Duration::from_secs(59));
    put(&world, 1, &key).await.expect(200);
    assert_eq!(world.counts.kms("GenerateDataKey"), 1);
    world.later(Duration::from_secs(1));
    put(&world, 2, &key).await.expect(200);
    assert_eq!(world.counts.kms("GenerateDataKey"), 2);
    for n in 0..10 {
        put(&world, n, &key).await.expect(200);
    }
    assert_eq!(world.counts.kms("GenerateDataKey"), 4);
}

#[tokio::test]
async fn a_disabled_key_is_dropped_from_the_cache_at_once() {
    let world = world().await;
    let key = world.kms_key().await;
    put(&world, 0, &key).await.expect(200);
    world.get("/buc/k0").send().await.expect(200);
    world.disable(&key).await;
    put(&world, 1, &key)
        .await
        .fails(400, "KMS.DisabledException");
    world
        .get("/buc/k0")
        .send()
        .await
        .fails(400, "KMS.DisabledException");
}

#[tokio::test]
async fn a_rotated_key_seals_with_new_material_and_opens_the_old() {
    let world = world().await;
    let key = world.kms_key().await;
    put(&world, 0, &key).await.expect(200);
    let argument: KeyArgument = key.parse().unwrap();
    let may = world
        .keyring
        .authorize::<iam::RotateKeyOnDemand, _>(world.caller(), &argument)
        .await;
    world
        .keyring
        .rotate_key_on_demand(may.unwrap())
        .await
        .unwrap();
    put(&world, 1, &key).await.expect(200);
    assert_eq!(world.counts.kms("GenerateDataKey"), 2);
    world.get("/buc/k0").send().await.expect(200);
    world.get("/buc/k1").send().await.expect(200);
}

#[tokio::test]
async fn concurrent_misses_make_one_call() {
    let world = world().await;
    let key = world.kms_key().await;
    let puts = (0..50).map(|n| put(&world, n, &key));
    for answer in futures::future::join_all(puts).await {
        answer.expect(200);
    }
    assert_eq!(world.counts.kms("GenerateDataKey"), 1);
}

#[tokio::test]
async fn a_disabled_keys_bucket_keys_leave_memory_without_further_requests() {
    let world = world().await;
    let keys = crate::bucket_key::BucketKeys::new(
        Arc::clone(&world.keyring),
        world.clock.clone(),
        world.counts.clone(),
        BucketKeyPolicy::default(),
    );
    let key = world.kms_key().await;
    let argument: KeyArgument = key.parse().unwrap();
    let may = world
        .keyring
        .authorize::<iam::GenerateDataKey, _>(world.caller(), &argument)
        .await
        .unwrap();
    keys.for_sealing("buc", may).await.unwrap();
    keys.settle().await;
    assert_eq!(keys.held(), 1);
    world.disable(&key).await;
    for _ in 0..200 {
        if keys.held() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the bucket key is still held");
}
