//! Buckets and their default encryption.

use super::*;

const KMS_RULE: &str = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>KEY</KMSMasterKeyID></ApplyServerSideEncryptionByDefault><BucketKeyEnabled>true</BucketKeyEnabled></Rule></ServerSideEncryptionConfiguration>";

#[tokio::test]
async fn a_bucket_lives_and_dies() {
    let world = world().await;
    world.put("/another", "").send().await.expect(200);
    // As in us-east-1: creating one's own bucket again is no error.
    world.put("/another", "").send().await.expect(200);
    let list = world.get("/").send().await.expect(200);
    assert_eq!(elements(&list.text(), "Name"), ["another", "buc"]);
    let page = world.get("/?max-buckets=1").send().await.expect(200);
    assert_eq!(elements(&page.text(), "Name"), ["another"]);
    let token = page.xml("ContinuationToken");
    let page = world
        .get(&format!("/?continuation-token={token}"))
        .send()
        .await
        .expect(200);
    assert_eq!(elements(&page.text(), "Name"), ["buc"]);
    let head = world.head("/another").send().await.expect(200);
    assert_eq!(head.header("x-amz-bucket-region"), "us-east-1");
    world.put("/another/k", "x").send().await.expect(200);
    world
        .delete("/another")
        .send()
        .await
        .fails(409, "BucketNotEmpty");
    world.delete("/another/k").send().await.expect(204);
    world.delete("/another").send().await.expect(204);
    world.head("/another").send().await.expect(404);
    let bad = world.put("/Bad_Name", "").send().await;
    let bad = bad.fails(400, "InvalidBucketName");
    assert_eq!(bad.xml("Message"), "The specified bucket is not valid.");
}

#[tokio::test]
async fn location_and_versioning_are_answered() {
    let world = world().await;
    let location = world.get("/buc?location").send().await.expect(200).text();
    assert!(location.contains("<LocationConstraint"), "{location}");
    let versioning = world.get("/buc?versioning").send().await.expect(200).text();
    assert!(versioning.contains("VersioningConfiguration") && !versioning.contains("<Status>"));
    world
        .get("/none?location")
        .send()
        .await
        .fails(404, "NoSuchBucket");
    let elsewhere = "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
    let refused = world.put("/other", elsewhere).send().await;
    refused.fails(400, "IllegalLocationConstraintException");
}

#[tokio::test]
async fn default_encryption_is_aes256_until_set_and_after_it_is_deleted() {
    let world = world().await;
    let never = world.get("/buc?encryption").send().await.expect(200);
    assert_eq!(never.xml("SSEAlgorithm"), "AES256");
    assert_eq!(never.xml("BucketKeyEnabled"), "false");
    let key = world.kms_key().await;
    let rule = KMS_RULE.replace("KEY", &key);
    world.put("/buc?encryption", rule).send().await.expect(200);
    let set = world.get("/buc?encryption").send().await.expect(200);
    assert_eq!(
        (set.xml("SSEAlgorithm"), set.xml("KMSMasterKeyID")),
        ("aws:kms".into(), key.clone())
    );
    assert_eq!(set.xml("BucketKeyEnabled"), "true");
    let put = world.put("/buc/k", "x").send().await.expect(200);
    assert_eq!(
        (put.header(MODE), put.header(KMS_KEY)),
        ("aws:kms", key.as_str())
    );
    assert_eq!(put.header(BUCKET_KEY), "true");
    let explicit = world
        .put("/buc/k", "x")
        .header(MODE, "AES256")
        .send()
        .await
        .expect(200);
    assert_eq!(explicit.header(MODE), "AES256");
    world.delete("/buc?encryption").send().await.expect(204);
    world.delete("/buc?encryption").send().await.expect(204);
    let put = world.put("/buc/k", "x").send().await.expect(200);
    assert_eq!(put.header(MODE), "AES256");
}

#[tokio::test]
async fn a_wrong_default_encryption_is_refused() {
    let world = world().await;
    let rule = "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>";
    let config = |rules: &str| {
        format!("<ServerSideEncryptionConfiguration>{rules}</ServerSideEncryptionConfiguration>")
    };
    world
        .put("/buc?encryption", config(""))
        .send()
        .await
        .fails(400, "MalformedXML");
    world
        .put("/buc?encryption", config(&rule.repeat(2)))
        .send()
        .await
        .fails(400, "MalformedXML");
    let keyed = KMS_RULE.replace("aws:kms", "AES256");
    world
        .put("/buc?encryption", keyed)
        .send()
        .await
        .fails(400, "InvalidArgument");
    let dsse = KMS_RULE.replace("aws:kms", "aws:kms:dsse");
    world
        .put("/buc?encryption", dsse)
        .send()
        .await
        .fails(501, "NotImplemented");
    world
        .put("/buc?encryption", config(rule))
        .send()
        .await
        .expect(200);
}

#[tokio::test]
async fn a_host_may_name_the_bucket() {
    let world = world().await;
    world.put("/buc/k", "x").send().await.expect(200);
    let mut call = world.get("/k");
    call.request = Request::builder()
        .uri("/k")
        .header("host", "buc.s3.example.com:9000");
    assert_eq!(call.send().await.expect(200).text(), "x");
}

#[tokio::test]
async fn a_name_that_another_account_has_is_not_available() {
    let world = world().await;
    let scope = catalogue::Scope {
        account: "210987654321".to_owned(),
        region: "us-east-1".to_owned(),
    };
    let theirs = crate::bucket::Registry::open(crate::bucket::RegistryOptions {
        catalogue: Arc::clone(&world.catalogue),
        store_key: &world.store_key,
        scope,
        random: Arc::new(crypto::random::SystemRandom),
        store: Arc::clone(&world.store),
        buckets_max: 1,
    });
    let theirs = theirs.await.unwrap();
    let now = host::Clock::now(&*world.clock);
    theirs.create("theirs", now).await.unwrap();
    let refused = world.put("/theirs", "").send().await;
    refused.fails(409, "BucketAlreadyExists");
    world.head("/theirs").send().await.expect(404);
    let list = world.get("/").send().await.expect(200);
    assert_eq!(elements(&list.text(), "Name"), ["buc"]);
}

/// Deleting a bucket against what lands in it: one of the two happens, never both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_object_lands_in_a_bucket_that_is_being_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let options = crate::store::local::Options::new(
        dir.path().join("objects"),
        Arc::new(crypto::random::SystemRandom),
    );
    let store = Arc::new(crate::store::local::LocalStore::open(options).unwrap());
    let world = world_over(store, BucketKeyPolicy::default()).await;
    let (mut landed, mut deleted) = (0, 0);
    for round in 0..40 {
        let bucket = format!("/bucket-{round}");
        world.put(&bucket, "").send().await.expect(200);
        let object = format!("{bucket}/k");
        let (put, delete) = if round % 2 == 0 {
            tokio::join!(world.put(&object, "x").send(), world.delete(&bucket).send())
        } else {
            let (delete, put) =
                tokio::join!(world.delete(&bucket).send(), world.put(&object, "x").send());
            (put, delete)
        };
        match (put.status.as_u16(), delete.status.as_u16()) {
            (200, 409) => {
                landed += 1;
                assert_eq!(world.get(&object).send().await.expect(200).text(), "x");
            }
            (404, 204) => {
                deleted += 1;
                put.fails(404, "NoSuchBucket");
                world.head(&bucket).send().await.expect(404);
            }
            other => panic!("{other:?} in round {round}"),
        }
    }
    println!("{landed} landed, {deleted} deleted");
    assert_eq!(
        world.store.buckets(None, 100).await.unwrap().entries.len(),
        1 + landed
    );
}

#[tokio::test]
async fn a_bucket_made_anew_by_the_same_name_is_another_one() {
    let world = world().await;
    let key = world.kms_key().await;
    let rule = KMS_RULE.replace("KEY", &key);
    world.put("/buc?encryption", rule).send().await.expect(200);
    let upload = world.post("/buc/k?uploads", "").send().await.expect(200);
    let upload = upload.xml("UploadId");
    let first = world.bucket_id().await;
    world.delete("/buc").send().await.expect(204);
    world.put("/buc", "").send().await.expect(200);
    assert_ne!(world.bucket_id().await, first);
    let parts = world.get(&format!("/buc/k?uploadId={upload}")).send().await;
    parts.fails(404, "NoSuchUpload");
    let default = world.get("/buc?encryption").send().await.expect(200);
    assert_eq!(default.xml("SSEAlgorithm"), "AES256");
}
