//! The modes, their headers and their errors.

use super::*;

#[tokio::test]
async fn sse_kms_answers_the_full_arn_for_every_way_of_naming_a_key() {
    let world = world().await;
    let arn = world.kms_key().await;
    let id = arn.rsplit('/').next().unwrap().to_owned();
    let (caller, argument): (_, KeyArgument) = (world.caller(), arn.parse().unwrap());
    let may = world
        .keyring
        .authorize::<iam::CreateAlias, _>(caller, &argument)
        .await
        .unwrap();
    world
        .keyring
        .create_alias(may, "alias/mine".parse().unwrap())
        .await
        .unwrap();
    let alias_arn = arn.replace(&format!("key/{id}"), "alias/mine");
    for name in [arn.as_str(), &id, "alias/mine", &alias_arn] {
        let put = world
            .put("/buc/k", "x")
            .header(MODE, "aws:kms")
            .header(KMS_KEY, name);
        let put = put.send().await.expect(200);
        assert_eq!(
            (put.header(MODE), put.header(KMS_KEY)),
            ("aws:kms", arn.as_str()),
            "{name}"
        );
        assert_ne!(
            put.etag(),
            format!("\"{}\"", hex::encode(crypto::hash::Md5::digest(b"x")))
        );
        for call in [world.get("/buc/k"), world.head("/buc/k")] {
            let got = call.send().await.expect(200);
            assert_eq!(
                (got.header(MODE), got.header(KMS_KEY)),
                ("aws:kms", arn.as_str())
            );
            assert_eq!((got.header(BUCKET_KEY), got.header(CONTEXT)), ("", ""));
        }
        assert_eq!(world.get("/buc/k").send().await.text(), "x");
    }
    let managed = world
        .put("/buc/k", "x")
        .header(MODE, "aws:kms")
        .send()
        .await
        .expect(200);
    assert!(
        managed
            .header(KMS_KEY)
            .starts_with("arn:aws:kms:us-east-1:123456789012:key/")
    );
    assert_ne!(managed.header(KMS_KEY), arn);
}

#[tokio::test]
async fn the_encryption_context_is_repeated_by_writes_and_never_by_reads() {
    let world = world().await;
    let context = STANDARD.encode(r#"{"team":"blue"}"#);
    for bucket_key in ["false", "true"] {
        let put = world
            .put("/buc/k", "x")
            .header(MODE, "aws:kms")
            .header(CONTEXT, &context)
            .header(BUCKET_KEY, bucket_key);
        let put = put.send().await.expect(200);
        assert_eq!(put.header(CONTEXT), context);
        let got = world.get("/buc/k").send().await.expect(200);
        assert_eq!((got.text(), got.header(CONTEXT)), ("x".to_owned(), ""));
    }
    let foreign = STANDARD.encode(r#"{"aws:s3:arn":"arn:aws:s3:::other/k"}"#);
    let put = world
        .put("/buc/k", "x")
        .header(MODE, "aws:kms")
        .header(CONTEXT, foreign)
        .send()
        .await;
    put.fails(400, "InvalidArgument");
}

#[tokio::test]
async fn errors_of_the_key_service_have_s3s_names() {
    let world = world().await;
    let key = world.kms_key().await;
    let put = |key: &str| {
        world
            .put("/buc/k", "x")
            .header(MODE, "aws:kms")
            .header(KMS_KEY, key)
    };
    let unknown = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-4000-8000-000000000000";
    put(unknown)
        .send()
        .await
        .fails(400, "KMS.NotFoundException");
    put("alias/none")
        .send()
        .await
        .fails(400, "KMS.NotFoundException");
    put(&key).send().await.expect(200);
    world.disable(&key).await;
    put(&key).send().await.fails(400, "KMS.DisabledException");
    world
        .get("/buc/k")
        .send()
        .await
        .fails(400, "KMS.DisabledException");
    // The record needs no KMS key.
    world.head("/buc/k").send().await.expect(200);
    let (caller, argument): (_, KeyArgument) = (world.caller(), key.parse().unwrap());
    let may = world
        .keyring
        .authorize::<iam::ScheduleKeyDeletion, _>(caller, &argument)
        .await
        .unwrap();
    world
        .keyring
        .schedule_key_deletion(may, Default::default())
        .await
        .unwrap();
    put(&key)
        .send()
        .await
        .fails(400, "KMS.KMSInvalidStateException");
    let other = put(&key).account("222222222222").send().await;
    other.fails(403, "AccessDenied");
}

#[tokio::test]
async fn who_may_not_have_the_plaintext_sees_no_checksum_of_it() {
    let world = world().await;
    let key = world.kms_key().await;
    for (bucket_key, uri) in [("false", "/buc/one"), ("true", "/buc/two")] {
        let put = world.put(uri, "guess me").header(MODE, "aws:kms");
        let put = put.header(KMS_KEY, &key);
        let put = put.header(
            "x-amz-server-side-encryption-bucket-key-enabled",
            bucket_key,
        );
        let put = put.header(
            "x-amz-checksum-sha256",
            "u7wl7qkOjvvwgWwW4F40RSlf/fyg21JR2B+qE/6HCzo=",
        );
        put.send().await.expect(200);
        let head = || world.head(uri).header("x-amz-checksum-mode", "ENABLED");
        let attributes = |asked| {
            let call = world.get(&format!("{uri}?attributes"));
            call.header("x-amz-object-attributes", asked)
        };
        let shown = head().send().await.expect(200);
        assert!(!shown.header("x-amz-checksum-sha256").is_empty());
        attributes("Checksum").send().await.expect(200);
        world.disable(&key).await;
        let head = head().send().await.expect(400);
        assert!(!head.headers.contains_key("x-amz-checksum-sha256"));
        let refused = attributes("ETag,Checksum").send().await;
        refused.fails(400, "KMS.DisabledException");
        // What needs no key goes on.
        world.head(uri).send().await.expect(200);
        let size = attributes("ETag,ObjectSize").send().await.expect(200);
        assert!(!size.text().contains("Checksum"));
        world.enable(&key).await;
    }
}

#[tokio::test]
async fn parts_are_described_with_their_key_alone() {
    let world = world().await;
    let key = world.kms_key().await;
    let start = world.post("/buc/m?uploads", "").header(MODE, "aws:kms");
    let start = start
        .header(KMS_KEY, &key)
        .header("x-amz-checksum-algorithm", "CRC32C");
    let upload = start.send().await.expect(200).xml("UploadId");
    let part = world.put(&format!("/buc/m?uploadId={upload}&partNumber=1"), "part");
    let etag = part.send().await.expect(200).etag();
    let list = || world.get(&format!("/buc/m?uploadId={upload}"));
    assert!(
        !list()
            .send()
            .await
            .expect(200)
            .xml("ChecksumCRC32C")
            .is_empty()
    );
    world.disable(&key).await;
    list().send().await.fails(400, "KMS.DisabledException");
    world.enable(&key).await;
    let done = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    let complete = world.post(&format!("/buc/m?uploadId={upload}"), done);
    complete.send().await.expect(200);
    let attributes = || {
        let call = world.get("/buc/m?attributes");
        call.header("x-amz-object-attributes", "ObjectParts")
    };
    attributes().send().await.expect(200);
    world.disable(&key).await;
    let refused = attributes().send().await;
    refused.fails(400, "KMS.DisabledException");
}

#[tokio::test]
async fn a_customer_key_opens_its_object_and_no_other_does() {
    let world = world().await;
    let content = data(100_000);
    let put = world
        .put("/buc/k", content.clone())
        .customer(1)
        .send()
        .await
        .expect(200);
    let (_, md5) = customer_key(1);
    assert_eq!(put.header(MODE), "");
    assert_eq!(
        put.header("x-amz-server-side-encryption-customer-algorithm"),
        "AES256"
    );
    assert_eq!(
        put.header("x-amz-server-side-encryption-customer-key-md5"),
        md5
    );
    assert_eq!(put.header("x-amz-server-side-encryption-customer-key"), "");
    let got = world.get("/buc/k").customer(1).send().await.expect(200);
    assert_eq!(got.body, Some(content));
    assert_eq!(
        got.header("x-amz-server-side-encryption-customer-key-md5"),
        md5
    );
    world.head("/buc/k").customer(1).send().await.expect(200);

    world
        .get("/buc/k")
        .customer(2)
        .send()
        .await
        .fails(403, "AccessDenied");
    let head = world.head("/buc/k").customer(2).send().await.expect(403);
    assert_eq!(head.body, Some(Bytes::new()));
    let none = world
        .get("/buc/k")
        .send()
        .await
        .fails(400, "InvalidRequest");
    assert!(
        none.text()
            .contains("stored using a form of Server Side Encryption")
    );
    assert_eq!(
        world.head("/buc/k").send().await.expect(400).body,
        Some(Bytes::new())
    );
    world.put("/buc/plain", "x").send().await.expect(200);
    let unasked = world
        .get("/buc/plain")
        .customer(1)
        .send()
        .await
        .fails(400, "InvalidRequest");
    assert!(unasked.text().contains("not applicable"));
    let attributes = world
        .get("/buc/k?attributes")
        .header("x-amz-object-attributes", "ETag");
    attributes.send().await.fails(400, "InvalidRequest");
}

#[tokio::test]
async fn a_customer_key_over_an_open_wire_is_refused() {
    let world = world().await;
    for (source, secure, status) in [
        ("127.0.0.1", false, 200),
        ("::1", false, 200),
        ("192.0.2.1", true, 200),
        ("192.0.2.1", false, 400),
    ] {
        let answer = world
            .put("/buc/k", "x")
            .customer(1)
            .from(source, secure)
            .send()
            .await;
        assert_eq!(answer.status, status, "{source} {secure}");
    }
    let open = world
        .get("/buc/k")
        .customer(1)
        .from("192.0.2.1", false)
        .send()
        .await;
    open.fails(400, "InvalidRequest");
}

#[tokio::test]
async fn wrong_headers_leave_no_object() {
    let world = world().await;
    for (headers, status, code) in [
        (vec![(MODE, "aws:kms:dsse")], 501, "NotImplemented"),
        (vec![(MODE, "rot13")], 400, "InvalidArgument"),
        (vec![(KMS_KEY, "k")], 400, "InvalidArgument"),
        (
            vec![(MODE, "AES256"), (KMS_KEY, "k")],
            400,
            "InvalidArgument",
        ),
        (
            vec![(MODE, "aws:kms"), (CONTEXT, "?")],
            400,
            "InvalidArgument",
        ),
    ] {
        world
            .put("/buc/k", "x")
            .headers(&headers)
            .send()
            .await
            .fails(status, code);
        world
            .post("/buc/k?uploads", "")
            .headers(&headers)
            .send()
            .await
            .fails(status, code);
    }
    world
        .put("/buc/k", "x")
        .customer(1)
        .header(MODE, "AES256")
        .send()
        .await
        .fails(400, "InvalidArgument");
    world.get("/buc/k").send().await.fails(404, "NoSuchKey");
    world.put("/buc/k", "x").send().await.expect(200);
    world
        .get("/buc/k")
        .header(MODE, "AES256")
        .send()
        .await
        .fails(400, "InvalidArgument");
}
