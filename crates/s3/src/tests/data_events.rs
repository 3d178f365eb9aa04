//! A record of each access to an object.

use host::disk::sim::{Call as DiskCall, Failure, Fault};

use super::*;

/// The data events so far: operation, outcome, bucket, object.
fn events(world: &World) -> Vec<[String; 4]> {
    let all = world
        .audit_disk
        .bytes("/audit/audit-00000000000000000001.jsonl");
    let records = all
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    records
        .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap())
        // Made by the world: a change of a bucket, which is always recorded.
        .filter(|record| record["bucket"].is_string() && record["operation"] != "CreateBucket")
        .map(|record| {
            assert_eq!(record["via"], "s3");
            assert_eq!(record["request_id"], "REQUEST-1");
            assert_eq!(record["source"], "127.0.0.1");
            assert_eq!(record["principal"], format!("arn:aws:iam::{ACCOUNT}:root"));
            ["operation", "outcome", "bucket", "object"]
                .map(|name| record[name].as_str().unwrap_or("-").to_owned())
        })
        .collect()
}

#[tokio::test]
async fn each_access_to_an_object_leaves_one_record_before_it_is_answered() {
    let world = world().await;
    // Neither the bucket nor a list of it is an object.
    world.get("/buc?list-type=2").send().await.expect(200);
    let mut due: Vec<[&str; 4]> = Vec::new();
    let object = "a b/\u{fc}";
    let uri = "/buc/a%20b/%C3%BC";

    world.put(uri, "data").send().await.expect(200);
    due.push(["PutObject", "Success", "buc", object]);
    assert_eq!(events(&world), due);
    world.get(uri).send().await.expect(200);
    due.push(["GetObject", "Success", "buc", object]);
    world.head(uri).send().await.expect(200);
    due.push(["HeadObject", "Success", "buc", object]);
    world.head("/buc/none").send().await.expect(404);
    due.push(["HeadObject", "NoSuchKey", "buc", "none"]);
    world.get("/none/k").send().await.expect(404);
    due.push(["GetObject", "NoSuchBucket", "none", "k"]);
    world
        .put("/buc/copy", "")
        .header("x-amz-copy-source", uri)
        .send()
        .await
        .expect(200);
    due.push(["CopyObject", "Success", "buc", "copy"]);
    // The host may name the bucket.
    let mut named = world.get("/copy");
    named.request = Request::builder()
        .uri("/copy")
        .header("host", "buc.s3.example.com:9000");
    named.send().await.expect(200);
    due.push(["GetObject", "Success", "buc", "copy"]);
    world.delete("/buc/copy").send().await.expect(204);
    due.push(["DeleteObject", "Success", "buc", "copy"]);
    let upload = world
        .post("/buc/parts?uploads", "")
        .send()
        .await
        .expect(200)
        .xml("UploadId");
    due.push(["CreateMultipartUpload", "Success", "buc", "parts"]);
    let part = format!("/buc/parts?partNumber=1&uploadId={upload}");
    world.put(&part, "part").send().await.expect(200);
    due.push(["UploadPart", "Success", "buc", "parts"]);
    let uploaded = format!("/buc/parts?uploadId={upload}");
    world.delete(&uploaded).send().await.expect(204);
    due.push(["AbortMultipartUpload", "Success", "buc", "parts"]);
    world.post(&uploaded, "no xml").send().await;
    let told = events(&world);
    assert_eq!(told[..due.len()], due);
    assert_eq!(told.len(), due.len() + 1);
    assert_eq!(told.last().unwrap()[0], "CompleteMultipartUpload");
    assert_ne!(told.last().unwrap()[1], "Success");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done_and_what_was_done_is_not_answered() {
    let world = world().await;
    world.put("/buc/k", "one").send().await.expect(200);
    let sync = || {
        Fault::new(Failure::Io)
            .on(&[DiskCall::SyncData])
            .at(".journal")
    };
    world.audit_disk.fail(sync());
    // The record of this one is where the log fails.
    world.head("/buc/k").send().await.expect(500);
    let puts = world.counts.kms("GenerateDataKey");
    world
        .put("/buc/k", "two")
        .send()
        .await
        .fails(500, "InternalError");
    world
        .delete("/buc/k")
        .send()
        .await
        .fails(500, "InternalError");
    assert_eq!(world.counts.kms("GenerateDataKey"), puts);
    // What is no access to an object is not recorded.
    world.get("/buc?list-type=2").send().await.expect(200);
}
