//! With a dead audit log no key is newly used, cached or not: each operation that needs one, by each kind of encryption.

use host::disk::sim::{Call as DiskCall, Failure, Fault};

use super::*;

/// How objects are encrypted here; `KEY` stands for a key's ARN.
const KINDS: [&[(&str, &str)]; 4] = [
    &[],
    &[(MODE, "aws:kms"), (KMS_KEY, "KEY")],
    &[(MODE, "aws:kms"), (KMS_KEY, "KEY"), (BUCKET_KEY, "true")],
    &[(MODE, "aws:kms"), (BUCKET_KEY, "true"), (CONTEXT, "e30=")],
];

const OPERATIONS: [&str; 10] = [
    "GetObject",
    "GetObject of a range",
    "HeadObject with checksums",
    "GetObjectAttributes",
    "PutObject",
    "CopyObject",
    "CopyObject onto itself",
    "UploadPart",
    "UploadPartCopy",
    "CreateMultipartUpload",
];

/// A gateway without data events, whose refusals would hide what keys are used for.
async fn world() -> World {
    let ground = Ground {
        data_events: false,
        ..Ground::new()
    };
    let store = Arc::new(MemoryStore::new(Arc::new(SeededRandom::new(7))));
    let world = world_on(ground, store, BucketKeyPolicy::default()).await;
    let world = world.unwrap();
    world.put("/buc", "").send().await.expect(200);
    world
}

async fn ask(world: &World, operation: &str, headers: &[(&str, &str)], upload: &str) -> Answer {
    let part = format!("/buc/m?partNumber=2&uploadId={upload}");
    match operation {
        "GetObject" => world.get("/buc/k"),
        "GetObject of a range" => world.get("/buc/k").header("range", "bytes=0-1"),
        "HeadObject with checksums" => world
            .head("/buc/k")
            .header("x-amz-checksum-mode", "ENABLED"),
        "GetObjectAttributes" => world
            .get("/buc/k?attributes")
            .header("x-amz-object-attributes", "Checksum,ObjectSize"),
        "PutObject" => world.put("/buc/new", "data").headers(headers),
        "CopyObject" => world
            .put("/buc/copy", "")
            .headers(headers)
            .header("x-amz-copy-source", "/buc/k"),
        "CopyObject onto itself" => world
            .put("/buc/k", "")
            .headers(headers)
            .header("x-amz-metadata-directive", "REPLACE")
            .header("x-amz-copy-source", "/buc/k"),
        "UploadPart" => world.put(&part, "part"),
        "UploadPartCopy" => world.put(&part, "").header("x-amz-copy-source", "/buc/k"),
        "CreateMultipartUpload" => world.post("/buc/other?uploads", "").headers(headers),
        other => panic!("{other}"),
    }
    .send()
    .await
}

#[tokio::test]
async fn nothing_that_needs_a_key_is_done_while_the_audit_log_is_dead() {
    let mut wrong = Vec::new();
    for kind in KINDS {
        let world = world().await;
        let key = world.kms_key().await;
        let headers: Vec<(&str, &str)> = kind
            .iter()
            .map(|(name, value)| (*name, if *value == "KEY" { &key } else { *value }))
            .collect();
        let put = world.put("/buc/k", "data").headers(&headers);
        put.header("x-amz-checksum-algorithm", "SHA256")
            .send()
            .await
            .expect(200);
        let begun = world.post("/buc/m?uploads", "").headers(&headers);
        let upload = begun.send().await.expect(200).xml("UploadId");
        // Every key that is cached is, and every operation works.
        for operation in OPERATIONS {
            let answer = ask(&world, operation, &headers, &upload).await;
            assert!(answer.status.is_success(), "{operation}, {kind:?}");
        }
        let fault = Fault::new(Failure::Io).on(&[DiskCall::SyncData]);
        world.audit_disk.fail(fault.at(".journal"));
        let may = world
            .keyring
            .authorize::<iam::GenerateRandom, _>(world.caller(), keyring::Account);
        let died = world
            .keyring
            .generate_random(may.await.unwrap(), keyring::DataKeyLen::AES_256)
            .await;
        assert!(died.is_err() && world.keyring.healthy().is_err());
        for operation in OPERATIONS {
            let answer = ask(&world, operation, &headers, &upload).await;
            if !answer.status.is_server_error() {
                wrong.push(format!("{operation}, {kind:?}: {}", answer.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
