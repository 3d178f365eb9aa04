//! Uploads at the same time: each gets its own entity tag, and no other's fate.

use std::sync::atomic::AtomicBool;

use futures::future::join_all;
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;

use super::*;

/// PUTs `content` in pieces of `piece_len`, letting other tasks run in between.
async fn upload(
    world: &World,
    uri: &str,
    content: Bytes,
    piece_len: usize,
    headers: &[(&str, String)],
) -> http::Response<crate::ResponseBody> {
    let len = content.len();
    let pieces = stream::unfold(content, move |mut rest| async move {
        tokio::task::yield_now().await;
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(rest.len().min(piece_len));
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), rest))
    });
    put(world, uri, len, StreamBody::new(Box::pin(pieces)), headers).await
}

async fn put<B>(
    world: &World,
    uri: &str,
    len: usize,
    body: B,
    headers: &[(&str, String)],
) -> http::Response<crate::ResponseBody>
where
    B: http_body::Body<Data = Bytes, Error = std::io::Error> + Send + 'static,
{
    let mut request = Request::put(uri)
        .header("host", "localhost:9000")
        .header("content-length", len);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(body).unwrap();
    world
        .gateway
        .serve(request, &Payload::Unsigned, Arc::clone(&world.context))
        .await
}

fn md5(content: &[u8]) -> [u8; 16] {
    crypto::hash::Md5::digest(content)
}

fn etag_of(content: &[u8]) -> String {
    format!("\"{}\"", hex::encode(md5(content)))
}

const LENS: [usize; 10] = [
    0,
    10,
    65_535,
    65_536,
    100_000,
    262_144,
    1 << 20,
    1_500_001,
    3_000_000,
    5_000_003,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_at_the_same_time_get_their_own_entity_tags() {
    let world = Arc::new(world().await);
    let uploads = (0..30).map(|i| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let content = data(LENS[i % LENS.len()] + i);
            let uri = format!("/buc/k{i}");
            let answer = upload(&world, &uri, content.clone(), 20_000 + 7001 * i, &[]).await;
            assert_eq!(answer.status(), StatusCode::OK);
            let got = world.get(&uri).send().await.expect(200);
            assert_eq!(got.body.as_ref(), Some(&content));
            assert_eq!(got.etag(), etag_of(&content), "{} bytes", content.len());
            assert_eq!(answer.headers()["etag"], got.etag());
        })
    });
    for upload in join_all(uploads).await {
        upload.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_content_md5_among_others_is_refused_and_nothing_of_it_stored() {
    let world = world().await;
    let uploads = (0..12).map(|i| {
        let content = data(LENS[i % LENS.len()] + 1_000 + i);
        let world = &world;
        async move {
            let wrong = i % 3 == 0;
            let promised = if wrong {
                [u8::try_from(i).unwrap(); 16]
            } else {
                md5(&content)
            };
            let mut headers = vec![("content-md5", STANDARD.encode(promised))];
            if i % 2 == 0 {
                // Has no MD5 for an entity tag, but one to check.
                headers.push(("x-amz-server-side-encryption", "aws:kms".to_owned()));
            }
            let uri = format!("/buc/k{i}");
            let answer = upload(world, &uri, content.clone(), 30_000, &headers).await;
            let got = world.get(&uri).send().await;
            if wrong {
                assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                let text = String::from_utf8(body.to_vec()).unwrap();
                assert_eq!(elements(&text, "Code"), ["BadDigest"]);
                got.fails(404, "NoSuchKey");
            } else {
                assert_eq!(answer.status(), StatusCode::OK);
                assert_eq!(got.expect(200).body, Some(content));
            }
        }
    });
    join_all(uploads).await;
}

#[tokio::test]
async fn an_upload_dropped_half_way_does_not_disturb_the_others() {
    let world = world().await;
    // Too little to be hashed before more comes.
    let half = data(200_000);
    let read = Arc::new(AtomicBool::new(false));
    let body = stream::unfold(
        (Some(half.clone()), Arc::clone(&read)),
        |(half, read)| async move {
            match half {
                Some(half) => Some((Ok::<_, std::io::Error>(Frame::data(half)), (None, read))),
                None => {
                    read.store(true, Ordering::Relaxed);
                    std::future::pending().await
                }
            }
        },
    );
    let body = StreamBody::new(Box::pin(body));
    let mut dropped = Box::pin(put(&world, "/buc/dropped", 1_400_000, body, &[]));
    let others = (0..6).map(|i| {
        let content = data(2_000_000 + i);
        let world = &world;
        async move {
            let uri = format!("/buc/k{i}");
            let answer = upload(world, &uri, content.clone(), 50_000, &[]).await;
            assert_eq!(answer.headers()["etag"], etag_of(&content).as_str());
        }
    });
    let mut others = Box::pin(join_all(others));
    for _ in 0..3 {
        assert!(futures::poll!(others.as_mut()).is_pending());
    }
    while !read.load(Ordering::Relaxed) {
        assert!(futures::poll!(dropped.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    assert!(!half.is_unique(), "they wait to be hashed");
    drop(dropped);
    assert!(half.is_unique(), "nobody keeps a dropped body's bytes");
    others.await;
    world
        .get("/buc/dropped")
        .send()
        .await
        .fails(404, "NoSuchKey");
}

#[tokio::test]
async fn copies_at_the_same_time_get_their_entity_tags() {
    let world = world().await;
    let content = data(5_000_000);
    world
        .put("/buc/k", content.clone())
        .send()
        .await
        .expect(200);
    let copies = (0..6).map(|i| {
        let world = &world;
        async move {
            let uri = format!("/buc/copy{i}");
            let copy = world
                .put(&uri, "")
                .header("x-amz-copy-source", "/buc/k")
                .send()
                .await;
            copy.expect(200).xml("ETag")
        }
    });
    for etag in join_all(copies).await {
        assert_eq!(etag.replace("&quot;", "\""), etag_of(&content));
    }
}

#[tokio::test]
async fn parts_at_the_same_time_get_their_own_entity_tags() {
    let world = world().await;
    let create = world.post("/buc/m?uploads", "").send().await;
    let upload_id = create.expect(200).xml("UploadId");
    let parts = (1..=8).map(|number| {
        let content = data(LENS[number + 1] + number);
        let (world, upload_id) = (&world, &upload_id);
        async move {
            let uri = format!("/buc/m?partNumber={number}&uploadId={upload_id}");
            let answer = upload(world, &uri, content.clone(), 40_000, &[]).await;
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()["etag"], etag_of(&content).as_str());
        }
    });
    join_all(parts).await;
}
