//! Multipart uploads.

use super::*;

const PART: usize = 5 << 20;

async fn create(world: &World, headers: &[(&str, &str)]) -> String {
    world
        .post("/buc/m?uploads", "")
        .headers(headers)
        .send()
        .await
        .expect(200)
        .xml("UploadId")
}

fn completion(parts: &[(u32, String)]) -> String {
    let parts: String = parts
        .iter()
        .map(|(n, etag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
}

async fn part(world: &World, upload: &str, number: u32, content: Bytes) -> Answer {
    world
        .put(
            &format!("/buc/m?partNumber={number}&uploadId={upload}"),
            content,
        )
        .send()
        .await
}

#[tokio::test]
async fn parts_become_one_object() {
    let world = world().await;
    let upload = create(&world, &[("x-amz-meta-a", "1"), ("content-type", "text/x")]).await;
    let contents = [data(PART), data(PART + 70_001), data(100)];
    let mut parts = Vec::new();
    // Out of order, with gaps, and one sent twice.
    for (number, content) in [(7, 2), (2, 0), (5, 0), (5, 1)] {
        let answer = part(&world, &upload, number, contents[content].clone())
            .await
            .expect(200);
        let md5 = hex::encode(crypto::hash::Md5::digest(&contents[content]));
        assert_eq!(answer.etag(), format!("\"{md5}\""));
        if (number, content) != (5, 0) {
            parts.push((number, answer.etag()));
        }
    }
    parts.sort();
    let uri = format!("/buc/m?uploadId={upload}");
    let listed = world.get(&uri).send().await.expect(200);
    assert_eq!(elements(&listed.text(), "PartNumber"), ["2", "5", "7"]);
    world.get("/buc/m").send().await.fails(404, "NoSuchKey");
    let done = world
        .post(&uri, completion(&parts))
        .send()
        .await
        .expect(200);
    let md5s: Vec<u8> = contents
        .iter()
        .flat_map(|c| crypto::hash::Md5::digest(c))
        .collect();
    let etag = format!("\"{}-3\"", hex::encode(crypto::hash::Md5::digest(&md5s)));
    assert_eq!(done.xml("ETag").replace("&quot;", "\""), etag);
    assert_eq!(done.xml("Location"), "http://localhost:9000/buc/m");

    let whole: Bytes = contents.concat().into();
    let got = world
        .get("/buc/m")
        .header("x-amz-checksum-mode", "ENABLED")
        .send()
        .await
        .expect(200);
    assert_eq!(got.body.as_ref(), Some(&whole));
    assert_eq!(got.etag(), etag);
    assert_eq!(
        (got.header("x-amz-meta-a"), got.header("content-type")),
        ("1", "text/x")
    );
    let mut crc = crypto::hash::Hasher::new(crypto::hash::HashAlgorithm::Crc64Nvme);
    crc.update(&whole);
    let crc = STANDARD.encode(crc.finish());
    assert_eq!(got.header("x-amz-checksum-crc64nvme"), crc);
    // Across the boundary of parts.
    let from = PART - 10;
    let range = format!("bytes={from}-{}", PART + 9);
    let answer = world
        .get("/buc/m")
        .header("range", range)
        .send()
        .await
        .expect(206);
    assert_eq!(answer.body, Some(whole.slice(from..PART + 10)));
    let second = world.get("/buc/m?partNumber=5").send().await.expect(206);
    assert_eq!(second.body, Some(contents[1].clone()));
    assert_eq!(second.header("x-amz-mp-parts-count"), "3");
    let head = world.head("/buc/m?partNumber=7").send().await.expect(206);
    assert_eq!(head.header("content-length"), "100");
    let attributes = world
        .get("/buc/m?attributes")
        .header("x-amz-object-attributes", "ObjectParts");
    let attributes = attributes.send().await.expect(200);
    assert_eq!(elements(&attributes.text(), "PartNumber"), ["2", "5", "7"]);
    // The upload is gone.
    world
        .post(&uri, completion(&parts))
        .send()
        .await
        .fails(404, "NoSuchUpload");
    part(&world, &upload, 1, data(1))
        .await
        .fails(404, "NoSuchUpload");
}

#[tokio::test]
async fn a_wrong_completion_leaves_the_upload_as_it_was() {
    let world = world().await;
    let upload = create(&world, &[]).await;
    let uri = format!("/buc/m?uploadId={upload}");
    let one = part(&world, &upload, 1, data(PART))
        .await
        .expect(200)
        .etag();
    let two = part(&world, &upload, 2, data(10)).await.expect(200).etag();
    let small = part(&world, &upload, 3, data(10)).await.expect(200).etag();
    let complete = |parts: &[(u32, &str)]| {
        let parts: Vec<_> = parts
            .iter()
            .map(|(n, etag)| (*n, (*etag).to_owned()))
            .collect();
        world.post(&uri, completion(&parts)).send()
    };
    complete(&[]).await.fails(400, "MalformedXML");
    complete(&[(1, &two)]).await.fails(400, "InvalidPart");
    complete(&[(1, &one), (4, &two)])
        .await
        .fails(400, "InvalidPart");
    complete(&[(2, &two), (1, &one)])
        .await
        .fails(400, "InvalidPartOrder");
    complete(&[(1, &one), (1, &one)])
        .await
        .fails(400, "InvalidPartOrder");
    complete(&[(1, &one), (2, &two), (3, &small)])
        .await
        .fails(400, "EntityTooSmall");
    let xml = completion(&[(1, one.clone()), (2, two.clone())]);
    let sized = world
        .post(&uri, xml.clone())
        .header("x-amz-mp-object-size", "5")
        .send()
        .await;
    sized.fails(400, "InvalidRequest");
    let summed = world
        .post(&uri, xml.clone())
        .header("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=");
    summed.send().await.fails(400, "BadDigest");
    world.put("/buc/m", "there").send().await.expect(200);
    let absent = world
        .post(&uri, xml)
        .header("if-none-match", "*")
        .send()
        .await;
    absent.fails(412, "PreconditionFailed");
    assert_eq!(world.get("/buc/m").send().await.text(), "there");
    complete(&[(1, &one), (2, &two)]).await.expect(200);
}

#[tokio::test]
async fn a_part_may_be_empty() {
    let world = world().await;
    for contents in [vec![data(0)], vec![data(PART), data(0)]] {
        let upload = create(&world, &[]).await;
        let mut parts = Vec::new();
        for (number, content) in (1..).zip(&contents) {
            let answer = part(&world, &upload, number, content.clone())
                .await
                .expect(200);
            parts.push((number, answer.etag()));
        }
        let uri = format!("/buc/m?uploadId={upload}");
        world
            .post(&uri, completion(&parts))
            .send()
            .await
            .expect(200);
        let got = world.get("/buc/m").send().await.expect(200);
        assert_eq!(got.body, Some(contents.concat().into()));
        let last = world
            .get(&format!("/buc/m?partNumber={}", contents.len()))
            .send()
            .await;
        assert_eq!(last.expect(200).body, Some(Bytes::new()));
    }
}

#[tokio::test]
async fn a_body_cut_short_makes_no_part() {
    let world = world().await;
    let upload = create(&world, &[]).await;
    let uri = format!("/buc/m?partNumber=1&uploadId={upload}");
    let cut = world
        .put(&uri, data(1000))
        .announcing(Some(1001))
        .send()
        .await;
    cut.fails(400, "IncompleteBody");
    let listed = world
        .get(&format!("/buc/m?uploadId={upload}"))
        .send()
        .await
        .expect(200);
    assert!(elements(&listed.text(), "PartNumber").is_empty());
    for bad in ["0", "10001", "x", "-1"] {
        let uri = format!("/buc/m?partNumber={bad}&uploadId={upload}");
        world
            .put(&uri, "x")
            .send()
            .await
            .fails(400, "InvalidArgument");
    }
    world
        .put("/buc/m?partNumber=1", "x")
        .send()
        .await
        .fails(400, "InvalidArgument");
}

#[tokio::test]
async fn parts_follow_the_uploads_encryption() {
    let world = world().await;
    let key = world.kms_key().await;
    let headers = [(MODE, "aws:kms"), (KMS_KEY, key.as_str())];
    let upload = create(&world, &headers).await;
    assert_eq!(world.counts.kms("GenerateDataKey"), 1);
    let uri = format!("/buc/m?uploadId={upload}");
    let answer = part(&world, &upload, 1, data(1000)).await.expect(200);
    assert_eq!(world.counts.kms("Decrypt"), 1);
    assert_eq!(
        (answer.header(MODE), answer.header(KMS_KEY)),
        ("aws:kms", key.as_str())
    );
    assert_ne!(
        answer.etag(),
        format!(
            "\"{}\"",
            hex::encode(crypto::hash::Md5::digest(&data(1000)))
        )
    );
    let part_uri = format!("/buc/m?partNumber=1&uploadId={upload}");
    let own_mode = world
        .put(&part_uri, "x")
        .header(MODE, "aws:kms")
        .send()
        .await;
    own_mode.fails(400, "InvalidArgument");
    let customer = world.put(&part_uri, "x").customer(1).send().await;
    customer.fails(400, "InvalidRequest");
    let done = world
        .post(&uri, completion(&[(1, answer.etag())]))
        .send()
        .await
        .expect(200);
    assert_eq!(
        (done.header(MODE), done.header(KMS_KEY)),
        ("aws:kms", key.as_str())
    );
    let got = world.get("/buc/m").send().await.expect(200);
    assert_eq!(got.body, Some(data(1000)));
    assert!(got.etag().ends_with("-1\""));
}

#[tokio::test]
async fn parts_of_a_customer_key_take_the_same_key_each_time() {
    let world = world().await;
    let created = world
        .post("/buc/m?uploads", "")
        .customer(1)
        .send()
        .await
        .expect(200);
    let upload = created.xml("UploadId");
    let uri = format!("/buc/m?partNumber=1&uploadId={upload}");
    let none = world
        .put(&uri, "x")
        .send()
        .await
        .fails(400, "InvalidRequest");
    assert!(
        none.text()
            .contains("multipart upload initiate requested encryption")
    );
    let other = world
        .put(&uri, "x")
        .customer(2)
        .send()
        .await
        .fails(400, "InvalidRequest");
    assert!(
        other
            .text()
            .contains("did not match the ones used originally")
    );
    let etag = world
        .put(&uri, "content")
        .customer(1)
        .send()
        .await
        .expect(200)
        .etag();
    let complete = format!("/buc/m?uploadId={upload}");
    world
        .post(&complete, completion(&[(1, etag)]))
        .customer(1)
        .send()
        .await
        .expect(200);
    assert_eq!(
        world
            .get("/buc/m")
            .customer(1)
            .send()
            .await
            .expect(200)
            .text(),
        "content"
    );
    world
        .get("/buc/m")
        .customer(2)
        .send()
        .await
        .fails(403, "AccessDenied");
}

#[tokio::test]
async fn parts_are_copied_with_ranges() {
    let world = world().await;
    let content = data(300_000);
    world
        .put("/buc/src", content.clone())
        .customer(3)
        .send()
        .await
        .expect(200);
    let upload = create(&world, &[]).await;
    let uri = format!("/buc/m?partNumber=1&uploadId={upload}");
    let copy = |range: &str| {
        let (key, md5) = customer_key(3);
        world
            .put(&uri, "")
            .header("x-amz-copy-source", "buc/src")
            .header("x-amz-copy-source-range", range)
            .header(
                "x-amz-copy-source-server-side-encryption-customer-algorithm",
                "AES256",
            )
            .header("x-amz-copy-source-server-side-encryption-customer-key", key)
            .header(
                "x-amz-copy-source-server-side-encryption-customer-key-md5",
                md5,
            )
            .send()
    };
    copy("bytes=0-300000").await.fails(400, "InvalidArgument");
    copy("bytes=5-").await.fails(400, "InvalidArgument");
    let etag = copy("bytes=65000-200000")
        .await
        .expect(200)
        .xml("ETag")
        .replace("&quot;", "\"");
    let complete = format!("/buc/m?uploadId={upload}");
    world
        .post(&complete, completion(&[(1, etag)]))
        .send()
        .await
        .expect(200);
    let got = world.get("/buc/m").send().await.expect(200);
    assert_eq!(got.body, Some(content.slice(65_000..200_001)));
}

#[tokio::test]
async fn checksums_of_parts_make_that_of_the_object() {
    let world = world().await;
    for (algorithm, kind) in [
        ("SHA256", "COMPOSITE"),
        ("CRC32", "COMPOSITE"),
        ("CRC32", "FULL_OBJECT"),
        ("CRC64NVME", "FULL_OBJECT"),
    ] {
        let headers = [
            ("x-amz-checksum-algorithm", algorithm),
            ("x-amz-checksum-type", kind),
        ];
        let created = world
            .post("/buc/m?uploads", "")
            .headers(&headers)
            .send()
            .await
            .expect(200);
        assert_eq!(created.header("x-amz-checksum-algorithm"), algorithm);
        let upload = created.xml("UploadId");
        let etags = [
            part(&world, &upload, 1, data(PART))
                .await
                .expect(200)
                .etag(),
            part(&world, &upload, 2, data(1000))
                .await
                .expect(200)
                .etag(),
        ];
        let name = format!("x-amz-checksum-{}", algorithm.to_ascii_lowercase());
        let uri = format!("/buc/m?uploadId={upload}");
        let parts = [(1, etags[0].clone()), (2, etags[1].clone())];
        let done = world
            .post(&uri, completion(&parts))
            .send()
            .await
            .expect(200);
        assert_eq!(done.xml("ChecksumType"), kind);
        let got = world
            .head("/buc/m")
            .header("x-amz-checksum-mode", "ENABLED")
            .send()
            .await;
        let got = got.expect(200);
        let value = got.header(&name);
        assert_eq!(value.ends_with("-2"), kind == "COMPOSITE", "{value}");
        assert_eq!(done.xml(&format!("Checksum{algorithm}")), value);
    }
    let headers = [
        ("x-amz-checksum-algorithm", "SHA256"),
        ("x-amz-checksum-type", "FULL_OBJECT"),
    ];
    world
        .post("/buc/m?uploads", "")
        .headers(&headers)
        .send()
        .await
        .fails(400, "InvalidRequest");
    let upload = create(&world, &[("x-amz-checksum-algorithm", "SHA256")]).await;
    let uri = format!("/buc/m?partNumber=1&uploadId={upload}");
    let other = world
        .put(&uri, "123456789")
        .header("x-amz-checksum-crc32", "y/Q5Jg==");
    other.send().await.fails(400, "InvalidRequest");
}

#[tokio::test]
async fn uploads_are_listed_and_aborted() {
    let world = world().await;
    let first = create(&world, &[]).await;
    let second = create(&world, &[]).await;
    let listed = world.get("/buc?uploads").send().await.expect(200);
    assert_eq!(
        elements(&listed.text(), "UploadId"),
        [first.clone(), second.clone()]
    );
    let page = world
        .get("/buc?uploads&max-uploads=1")
        .send()
        .await
        .expect(200);
    assert_eq!(
        (page.xml("IsTruncated"), page.xml("NextKeyMarker")),
        ("true".into(), "m".into())
    );
    let next = page.xml("NextUploadIdMarker");
    let uri = format!("/buc?uploads&key-marker=m&upload-id-marker={next}");
    let page = world.get(&uri).send().await.expect(200);
    assert_eq!(
        elements(&page.text(), "UploadId"),
        std::slice::from_ref(&second)
    );
    world
        .delete(&format!("/buc/m?uploadId={first}"))
        .send()
        .await
        .expect(204);
    world
        .delete(&format!("/buc/m?uploadId={first}"))
        .send()
        .await
        .fails(404, "NoSuchUpload");
    world
        .delete(&format!("/buc/other?uploadId={second}"))
        .send()
        .await
        .fails(404, "NoSuchUpload");
    world
        .get("/buc/m?uploadId=nonsense")
        .send()
        .await
        .fails(404, "NoSuchUpload");
    part(&world, &first, 1, data(1))
        .await
        .fails(404, "NoSuchUpload");
}
