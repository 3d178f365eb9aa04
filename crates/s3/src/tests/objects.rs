//! Plain objects: put, get, head, delete, conditions, headers, tags.

use super::*;

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let world = world().await;
    for len in [
        0,
        1,
        65_535,
        65_536,
        65_537,
        1 << 20,
        (1 << 20) + 1,
        3_000_000,
    ] {
        let content = data(len);
        let uri = format!("/buc/k{len}");
        let put = world.put(&uri, content.clone()).send().await.expect(200);
        let md5 = hex::encode(crypto::hash::Md5::digest(&content));
        assert_eq!(put.etag(), format!("\"{md5}\""));
        assert_eq!(put.header(MODE), "AES256");
        let got = world.get(&uri).send().await.expect(200);
        assert_eq!(got.body.as_ref(), Some(&content), "{len} bytes");
        assert_eq!(got.header("content-length"), len.to_string());
        assert_eq!(got.etag(), put.etag());
        assert_eq!(got.header("x-amz-request-id"), "REQUEST-1");
        let head = world.head(&uri).send().await.expect(200);
        assert_eq!(head.header("content-length"), len.to_string());
        assert_eq!(head.body, Some(Bytes::new()));
    }
}

#[tokio::test]
async fn metadata_headers_and_overrides_come_back() {
    let world = world().await;
    let headers = [
        ("content-type", "text/plain"),
        ("cache-control", "no-cache"),
        ("content-encoding", "gzip"),
        ("content-disposition", "attachment"),
        ("content-language", "de"),
        ("expires", "tomorrow"),
        ("x-amz-meta-one", "1"),
        ("x-amz-meta-two", "zwei"),
    ];
    world
        .put("/buc/k", "x")
        .headers(&headers)
        .send()
        .await
        .expect(200);
    for call in [world.get("/buc/k"), world.head("/buc/k")] {
        let answer = call.send().await.expect(200);
        for (name, value) in headers {
            assert_eq!(answer.header(name), value);
        }
    }
    let uri = "/buc/k?response-content-type=a%2Fb&response-cache-control=max-age%3D1";
    let answer = world.get(uri).send().await.expect(200);
    assert_eq!(answer.header("content-type"), "a/b");
    assert_eq!(answer.header("cache-control"), "max-age=1");
    let plain = world.put("/buc/plain", "x").send().await.expect(200);
    assert_eq!(plain.header("content-type"), "");
    let answer = world.get("/buc/plain").send().await.expect(200);
    assert_eq!(answer.header("content-type"), "binary/octet-stream");
}

#[tokio::test]
async fn metadata_outside_ascii_comes_back_encoded() {
    let world = world().await;
    world
        .put("/buc/k", "x")
        .header("x-amz-meta-name", "Käse")
        .send()
        .await
        .expect(200);
    let answer = world.get("/buc/k").send().await.expect(200);
    assert!(answer.header("x-amz-meta-name").starts_with("=?UTF-8?"));
}

#[tokio::test]
async fn keys_are_bytes_and_do_not_collide() {
    let world = world().await;
    let keys = [
        "a", "a/", "a/b", "A", "..", "a%20b", "%C3%A9", "a%2Bb", "%2F", "a//b", "a%3Fb",
    ];
    for key in keys {
        world
            .put(&format!("/buc/{key}"), key.to_owned())
            .send()
            .await
            .expect(200);
    }
    for key in keys {
        let answer = world.get(&format!("/buc/{key}")).send().await.expect(200);
        assert_eq!(answer.text(), key);
    }
    let long = "k".repeat(1025);
    world
        .put(&format!("/buc/{long}"), "x")
        .send()
        .await
        .fails(400, "KeyTooLongError");
}

#[tokio::test]
async fn what_is_missing_is_said_and_deleting_it_is_no_error() {
    let world = world().await;
    world.get("/buc/none").send().await.fails(404, "NoSuchKey");
    world.get("/none/k").send().await.fails(404, "NoSuchBucket");
    let head = world.head("/buc/none").send().await.expect(404);
    assert_eq!(head.body, Some(Bytes::new()));
    world
        .put("/none/k", "x")
        .send()
        .await
        .fails(404, "NoSuchBucket");
    world.delete("/buc/none").send().await.expect(204);
    world.put("/buc/k", "x").send().await.expect(200);
    world.delete("/buc/k").send().await.expect(204);
    world.get("/buc/k").send().await.fails(404, "NoSuchKey");
}

#[tokio::test]
async fn conditional_reads_answer_304_and_412() {
    let world = world().await;
    let etag = world.put("/buc/k", "x").send().await.expect(200).etag();
    world
        .get("/buc/k")
        .header("if-match", &etag)
        .send()
        .await
        .expect(200);
    world
        .get("/buc/k")
        .header("if-match", "\"no\"")
        .send()
        .await
        .fails(412, "PreconditionFailed");
    let same = world
        .get("/buc/k")
        .header("if-none-match", &etag)
        .send()
        .await
        .expect(304);
    assert_eq!((same.etag(), same.body), (etag.clone(), Some(Bytes::new())));
    let head = world
        .head("/buc/k")
        .header("if-none-match", &etag)
        .send()
        .await
        .expect(304);
    assert_eq!(head.etag(), etag);
    let dated = world
        .get("/buc/k")
        .send()
        .await
        .header("last-modified")
        .to_owned();
    world
        .get("/buc/k")
        .header("if-modified-since", &dated)
        .send()
        .await
        .expect(304);
    world
        .get("/buc/k")
        .header("if-unmodified-since", &dated)
        .send()
        .await
        .expect(200);
}

#[tokio::test]
async fn conditional_writes_are_checked_with_the_commit() {
    let world = world().await;
    let first = world
        .put("/buc/k", "1")
        .header("if-none-match", "*")
        .send()
        .await
        .expect(200);
    world
        .put("/buc/k", "2")
        .header("if-none-match", "*")
        .send()
        .await
        .fails(412, "PreconditionFailed");
    world
        .put("/buc/k", "2")
        .header("if-match", "\"no\"")
        .send()
        .await
        .fails(412, "PreconditionFailed");
    world
        .put("/buc/none", "2")
        .header("if-match", first.etag())
        .send()
        .await
        .fails(404, "NoSuchKey");
    world
        .put("/buc/k", "2")
        .header("if-match", first.etag())
        .send()
        .await
        .expect(200);
    assert_eq!(world.get("/buc/k").send().await.text(), "2");
    world
        .delete("/buc/k")
        .header("if-match", first.etag())
        .send()
        .await
        .fails(412, "PreconditionFailed");
    let etag = world.head("/buc/k").send().await.etag();
    world
        .delete("/buc/k")
        .header("if-match", etag)
        .send()
        .await
        .expect(204);
}

#[tokio::test]
async fn several_objects_are_deleted_at_once() {
    let world = world().await;
    for key in ["a", "b%20c", "d"] {
        world
            .put(&format!("/buc/{key}"), "x")
            .send()
            .await
            .expect(200);
    }
    let xml = "<Delete><Object><Key>a</Key></Object><Object><Key>b c</Key></Object><Object><Key>none</Key></Object><Object><Key>d</Key><VersionId>1</VersionId></Object></Delete>";
    let answer = world.post("/buc?delete", xml).send().await.expect(200);
    let deleted = elements(&answer.text(), "Deleted");
    assert_eq!(deleted.len(), 3, "{}", answer.text());
    assert_eq!(answer.code(), "NoSuchVersion");
    world.get("/buc/a").send().await.fails(404, "NoSuchKey");
    world.get("/buc/d").send().await.expect(200);
    let quiet = "<Delete><Quiet>true</Quiet><Object><Key>d</Key></Object></Delete>";
    let answer = world.post("/buc?delete", quiet).send().await.expect(200);
    assert!(elements(&answer.text(), "Deleted").is_empty());
    world
        .post("/buc?delete", "<Delete></Delete>")
        .send()
        .await
        .fails(400, "MalformedXML");
    let cut = world
        .post("/buc?delete", "<Del")
        .send()
        .await
        .fails(400, "MalformedXML");
    assert_eq!(cut.xml("RequestId"), "REQUEST-1");
}

#[tokio::test]
async fn tags_are_kept_and_changed_without_touching_the_object() {
    let world = world().await;
    let put = world
        .put("/buc/k", "x")
        .header("x-amz-tagging", "a=1&b=2")
        .send()
        .await
        .expect(200);
    let got = world.get("/buc/k").send().await.expect(200);
    assert_eq!(got.header("x-amz-tagging-count"), "2");
    let tags = world.get("/buc/k?tagging").send().await.expect(200);
    assert_eq!(elements(&tags.text(), "Key"), ["a", "b"]);
    world.later(Duration::from_secs(60));
    let xml = "<Tagging><TagSet><Tag><Key>c</Key><Value>3</Value></Tag></TagSet></Tagging>";
    world.put("/buc/k?tagging", xml).send().await.expect(200);
    let tags = world.get("/buc/k?tagging").send().await.expect(200);
    assert_eq!(elements(&tags.text(), "Key"), ["c"]);
    let after = world.get("/buc/k").send().await.expect(200);
    assert_eq!(after.etag(), put.etag());
    assert_eq!(after.header("last-modified"), got.header("last-modified"));
    world.delete("/buc/k?tagging").send().await.expect(204);
    assert_eq!(
        world
            .get("/buc/k")
            .send()
            .await
            .header("x-amz-tagging-count"),
        ""
    );
    world
        .put("/buc/k", "x")
        .header("x-amz-tagging", "a=1&a=2")
        .send()
        .await
        .fails(400, "InvalidTag");
}

#[tokio::test]
async fn attributes_are_answered_as_asked() {
    let world = world().await;
    let etag = world.put("/buc/k", "abc").send().await.expect(200).etag();
    let answer = world
        .get("/buc/k?attributes")
        .header(
            "x-amz-object-attributes",
            "ETag,ObjectSize,Checksum,StorageClass",
        )
        .send()
        .await
        .expect(200);
    assert_eq!(answer.xml("ETag"), etag.trim_matches('"'));
    assert_eq!(answer.xml("ObjectSize"), "3");
    assert_eq!(answer.xml("StorageClass"), "STANDARD");
    assert_eq!(answer.xml("ChecksumType"), "FULL_OBJECT");
    assert!(!answer.xml("ChecksumCRC64NVME").is_empty());
}

#[tokio::test]
async fn every_request_is_reported_once_with_its_bytes() {
    let world = world().await;
    world.counts.requests.lock().clear();
    world.put("/buc/k", data(100)).send().await.expect(200);
    world.get("/buc/k").send().await.expect(200);
    world.get("/buc/none").send().await.expect(404);
    world.get("/buc/k?acl").send().await.expect(501);
    let ends = world.counts.requests.lock().clone();
    let seen: Vec<_> = ends
        .iter()
        .map(|end| (end.operation, end.status, end.bytes_in))
        .collect();
    assert_eq!(
        seen,
        [
            ("PutObject", 200, 100),
            ("GetObject", 200, 0),
            ("GetObject", 404, 0),
            ("Unknown", 501, 0)
        ]
    );
    assert_eq!(ends[1].bytes_out, 100);
}
