//! Bodies that are not what was promised never become an object.

use iam::sigv4::Payload;

use super::*;
use crate::checksum::{Algorithm, Hasher};

/// An aws-chunked body with unsigned chunks.
fn chunked(chunks: &[&[u8]], trailers: &[(&str, &str)], end: bool) -> Bytes {
    let mut body = Vec::new();
    for chunk in chunks {
        body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    if end {
        body.extend_from_slice(b"0\r\n");
        for (name, value) in trailers {
            body.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
    }
    body.into()
}

fn checksum(algorithm: Algorithm, content: &[u8]) -> String {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(content);
    hasher.finish().to_base64()
}

impl Call<'_> {
    fn streaming(self, decoded: usize, trailer: &str) -> Self {
        let call = self
            .payload(Payload::StreamingUnsignedTrailer)
            .header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            .header("content-encoding", "aws-chunked")
            .header("x-amz-decoded-content-length", decoded.to_string());
        if trailer.is_empty() {
            call
        } else {
            call.header("x-amz-trailer", trailer)
        }
    }
}

/// What was there before must still be there.
async fn untouched(world: &World) {
    assert_eq!(
        world.get("/buc/k").send().await.expect(200).text(),
        "before"
    );
}

#[tokio::test]
async fn a_body_shorter_or_longer_than_announced_is_refused() {
    let world = world().await;
    world.put("/buc/k", "before").send().await.expect(200);
    for content in [data(10), data(100_000), data(2 << 20)] {
        let len = content.len() as u64;
        let short = world
            .put("/buc/k", content.clone())
            .announcing(Some(len + 1))
            .send()
            .await;
        short.fails(400, "IncompleteBody");
        untouched(&world).await;
        let long = world
            .put("/buc/k", content)
            .announcing(Some(len - 1))
            .send()
            .await;
        long.fails(400, "InvalidRequest");
        untouched(&world).await;
    }
    let none = world.put("/buc/k", "x").announcing(None).send().await;
    none.fails(411, "MissingContentLength");
    let huge = world
        .put("/buc/k", "x")
        .announcing(Some((5 << 30) + 1))
        .send()
        .await;
    huge.fails(400, "EntityTooLarge");
    untouched(&world).await;
}

#[tokio::test]
async fn digests_and_checksums_are_checked_before_the_commit() {
    let world = world().await;
    world.put("/buc/k", "before").send().await.expect(200);
    let content = data(100_000);
    let good = crypto::hash::Sha256::digest(&content);
    let call = world
        .put("/buc/k", content.clone())
        .payload(Payload::Sha256([1; 32]))
        .send()
        .await;
    call.fails(400, "XAmzContentSHA256Mismatch");
    untouched(&world).await;
    let md5 = STANDARD.encode([0; 16]);
    world
        .put("/buc/k", content.clone())
        .header("content-md5", md5)
        .send()
        .await
        .fails(400, "BadDigest");
    world
        .put("/buc/k", content.clone())
        .header("content-md5", "x")
        .send()
        .await
        .fails(400, "InvalidDigest");
    untouched(&world).await;
    for algorithm in Algorithm::ALL {
        let wrong = checksum(algorithm, b"other");
        let call = world
            .put("/buc/k", content.clone())
            .header(algorithm.header(), wrong);
        call.send().await.fails(400, "BadDigest");
        untouched(&world).await;
    }
    let two = world
        .put("/buc/k", content.clone())
        .header("x-amz-checksum-crc32", checksum(Algorithm::Crc32, &content))
        .header("x-amz-checksum-sha1", checksum(Algorithm::Sha1, &content));
    two.send().await.fails(400, "InvalidRequest");
    untouched(&world).await;
    let call = world
        .put("/buc/k", content.clone())
        .payload(Payload::Sha256(good))
        .header(
            "content-md5",
            STANDARD.encode(crypto::hash::Md5::digest(&content)),
        );
    call.send().await.expect(200);
}

#[tokio::test]
async fn a_checksum_is_kept_and_answered_when_asked_for() {
    let world = world().await;
    let content = data(70_000);
    for algorithm in Algorithm::ALL {
        let value = checksum(algorithm, &content);
        let put = world
            .put("/buc/k", content.clone())
            .header(algorithm.header(), &value);
        let put = put.send().await.expect(200);
        assert_eq!(put.header(algorithm.header()), value);
        assert_eq!(put.header("x-amz-checksum-type"), "FULL_OBJECT");
        for call in [world.get("/buc/k"), world.head("/buc/k")] {
            let asked = call
                .header("x-amz-checksum-mode", "ENABLED")
                .send()
                .await
                .expect(200);
            assert_eq!(asked.header(algorithm.header()), value);
        }
        let unasked = world.get("/buc/k").send().await.expect(200);
        assert_eq!(unasked.header(algorithm.header()), "");
        let part = world
            .get("/buc/k")
            .header("range", "bytes=0-9")
            .header("x-amz-checksum-mode", "ENABLED");
        assert_eq!(part.send().await.expect(206).header(algorithm.header()), "");
    }
}

#[tokio::test]
async fn an_aws_chunked_body_is_decoded_and_its_coding_forgotten() {
    let world = world().await;
    let content = data(150_000);
    let (one, two) = content.split_at(65_536);
    for algorithm in Algorithm::ALL {
        let value = checksum(algorithm, &content);
        let body = chunked(&[one, two], &[(algorithm.header(), &value)], true);
        let put = world
            .put("/buc/k", body)
            .streaming(content.len(), algorithm.header());
        let put = put.send().await.expect(200);
        assert_eq!(put.header(algorithm.header()), value);
        let got = world.get("/buc/k").send().await.expect(200);
        assert_eq!(got.body.as_ref(), Some(&content));
        assert_eq!(got.header("content-encoding"), "");
        assert_eq!(got.header("content-length"), content.len().to_string());
    }
}

#[tokio::test]
async fn an_aws_chunked_body_without_its_end_is_refused() {
    let world = world().await;
    world.put("/buc/k", "before").send().await.expect(200);
    let content = data(100_000);
    let (one, two) = content.split_at(65_536);
    let name = "x-amz-checksum-crc32";
    let good = checksum(Algorithm::Crc32, &content);
    let bad = checksum(Algorithm::Crc32, b"other");
    let whole = chunked(&[one, two], &[(name, &good)], true);
    for (what, body, decoded, trailer) in [
        (
            "no final chunk",
            chunked(&[one, two], &[], false),
            100_000,
            "",
        ),
        (
            "shorter than decoded",
            chunked(&[one], &[], true),
            100_000,
            "",
        ),
        (
            "longer than decoded",
            chunked(&[one, two], &[], true),
            65_536,
            "",
        ),
        (
            "promised trailer missing",
            chunked(&[one, two], &[], true),
            100_000,
            name,
        ),
        (
            "wrong checksum",
            chunked(&[one, two], &[(name, &bad)], true),
            100_000,
            name,
        ),
        ("cut in a chunk", whole.slice(..90_000), 100_000, name),
        (
            "cut before the trailer",
            whole.slice(..whole.len() - 20),
            100_000,
            name,
        ),
    ] {
        let answer = world
            .put("/buc/k", body)
            .streaming(decoded, trailer)
            .send()
            .await;
        assert_eq!(answer.status, 400, "{what}: {:?}", answer.body);
        untouched(&world).await;
    }
    world
        .put("/buc/k", whole)
        .streaming(100_000, name)
        .send()
        .await
        .expect(200);
}

#[tokio::test]
async fn a_document_is_checked_before_it_is_obeyed() {
    let world = world().await;
    world.put("/buc/k", "before").send().await.expect(200);
    let xml = "<Delete><Object><Key>k</Key></Object></Delete>";
    let call = world
        .post("/buc?delete", xml)
        .payload(Payload::Sha256([1; 32]))
        .send()
        .await;
    call.fails(400, "XAmzContentSHA256Mismatch");
    let call = world
        .post("/buc?delete", xml)
        .announcing(Some(4))
        .send()
        .await;
    call.fails(400, "InvalidRequest");
    let call = world
        .post("/buc?delete", xml)
        .announcing(Some(9 << 20))
        .send()
        .await;
    call.fails(400, "EntityTooLarge");
    untouched(&world).await;
}

#[tokio::test]
async fn a_client_that_expected_100_continue_and_got_an_answer_is_let_go() {
    let world = world().await;
    let put = |content: &'static str| {
        world
            .put("/buc/k", content)
            .header("expect", "100-continue")
    };
    assert_eq!(
        put("").send().await.expect(200).header("connection"),
        "close"
    );
    assert_eq!(put("x").send().await.expect(200).header("connection"), "");
    let refused = put("x")
        .header("if-none-match", "*")
        .send()
        .await
        .expect(412);
    assert_eq!(refused.header("connection"), "close");
}
