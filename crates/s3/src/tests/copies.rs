//! Copies.

use super::*;

#[tokio::test]
async fn a_copy_has_the_content_and_the_metadata() {
    let world = world().await;
    let content = data(200_000);
    let put = world
        .put("/buc/src%20key", content.clone())
        .header("x-amz-meta-a", "1")
        .header("content-type", "text/x")
        .header("x-amz-tagging", "t=1");
    let put = put.send().await.expect(200);
    let copy = world
        .put("/buc/dst", "")
        .header("x-amz-copy-source", "/buc/src%20key")
        .send()
        .await;
    let copy = copy.expect(200);
    assert_eq!(copy.xml("ETag").replace("&quot;", "\""), put.etag());
    let got = world.get("/buc/dst").send().await.expect(200);
    assert_eq!(got.body.as_ref(), Some(&content));
    assert_eq!(
        (got.header("x-amz-meta-a"), got.header("content-type")),
        ("1", "text/x")
    );
    assert_eq!(got.header("x-amz-tagging-count"), "1");
    let replaced = world
        .put("/buc/dst", "")
        .header("x-amz-copy-source", "buc/src%20key")
        .header("x-amz-metadata-directive", "REPLACE")
        .header("x-amz-meta-b", "2");
    replaced.send().await.expect(200);
    let got = world.get("/buc/dst").send().await.expect(200);
    assert_eq!(
        (got.header("x-amz-meta-a"), got.header("x-amz-meta-b")),
        ("", "2")
    );
}

#[tokio::test]
async fn a_copy_never_inherits_its_sources_encryption() {
    let world = world().await;
    let key = world.kms_key().await;
    let put = world
        .put("/buc/src", "secret")
        .header(MODE, "aws:kms")
        .header(KMS_KEY, &key);
    put.send().await.expect(200);
    let copy = world
        .put("/buc/dst", "")
        .header("x-amz-copy-source", "buc/src")
        .send()
        .await
        .expect(200);
    assert_eq!(copy.header(MODE), "AES256");
    let got = world.get("/buc/dst").send().await.expect(200);
    assert_eq!((got.header(MODE), got.header(KMS_KEY)), ("AES256", ""));
    assert_eq!(got.text(), "secret");
}

#[tokio::test]
async fn a_copy_goes_between_all_modes() {
    let world = world().await;
    for from in ["AES256", "aws:kms", "customer"] {
        for to in ["AES256", "aws:kms", "customer"] {
            let put = world.put("/buc/src", "content");
            let put = if from == "customer" {
                put.customer(1)
            } else {
                put.header(MODE, from)
            };
            put.send().await.expect(200);
            let mut copy = world
                .put("/buc/dst", "")
                .header("x-amz-copy-source", "buc/src");
            if from == "customer" {
                let (key, md5) = customer_key(1);
                copy = copy
                    .header(
                        "x-amz-copy-source-server-side-encryption-customer-algorithm",
                        "AES256",
                    )
                    .header("x-amz-copy-source-server-side-encryption-customer-key", key)
                    .header(
                        "x-amz-copy-source-server-side-encryption-customer-key-md5",
                        md5,
                    );
            }
            let copy = if to == "customer" {
                copy.customer(2)
            } else {
                copy.header(MODE, to)
            };
            copy.send().await.expect(200);
            let get = world.get("/buc/dst");
            let get = if to == "customer" {
                get.customer(2)
            } else {
                get
            };
            assert_eq!(
                get.send().await.expect(200).text(),
                "content",
                "{from} to {to}"
            );
        }
    }
    let put = world.put("/buc/src", "content").customer(1);
    put.send().await.expect(200);
    let copy = world
        .put("/buc/dst", "")
        .header("x-amz-copy-source", "buc/src");
    copy.send().await.fails(400, "InvalidRequest");
}

#[tokio::test]
async fn a_copy_onto_itself_must_change_something() {
    let world = world().await;
    world.put("/buc/k", "x").send().await.expect(200);
    let copy = || world.put("/buc/k", "").header("x-amz-copy-source", "buc/k");
    copy().send().await.fails(400, "InvalidRequest");
    copy().header(MODE, "aws:kms").send().await.expect(200);
    copy()
        .header("x-amz-metadata-directive", "REPLACE")
        .send()
        .await
        .expect(200);
    assert_eq!(world.get("/buc/k").send().await.expect(200).text(), "x");
}

#[tokio::test]
async fn conditions_on_the_source_fail_with_412() {
    let world = world().await;
    let etag = world.put("/buc/k", "x").send().await.expect(200).etag();
    let copy = || world.put("/buc/c", "").header("x-amz-copy-source", "buc/k");
    let failed = copy()
        .header("x-amz-copy-source-if-none-match", &etag)
        .send()
        .await;
    failed.fails(412, "PreconditionFailed");
    let failed = copy()
        .header("x-amz-copy-source-if-match", "\"no\"")
        .send()
        .await;
    failed.fails(412, "PreconditionFailed");
    copy()
        .header("x-amz-copy-source-if-match", etag)
        .send()
        .await
        .expect(200);
    copy()
        .header("if-none-match", "*")
        .send()
        .await
        .fails(412, "PreconditionFailed");
    let missing = world
        .put("/buc/c", "")
        .header("x-amz-copy-source", "buc/none")
        .send()
        .await;
    missing.fails(404, "NoSuchKey");
    let wrong = world
        .put("/buc/c", "")
        .header("x-amz-copy-source", "nokey")
        .send()
        .await;
    assert_eq!(wrong.status, 400);
}
