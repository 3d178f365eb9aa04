//! Ranges, against a slice of what was put.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn each_form_of_a_range_is_answered() {
    let world = world().await;
    let content = data(200_000);
    world
        .put("/buc/k", content.clone())
        .send()
        .await
        .expect(200);
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=65535-65536", 65_535, 65_537),
        ("bytes=131072-", 131_072, 200_000),
        ("bytes=-1", 199_999, 200_000),
        ("bytes=-500000", 0, 200_000),
        ("bytes=100-999999", 100, 200_000),
    ] {
        let answer = world
            .get("/buc/k")
            .header("range", range)
            .send()
            .await
            .expect(206);
        assert_eq!(answer.body, Some(content.slice(from..to)), "{range}");
        let expected = format!("bytes {from}-{}/200000", to - 1);
        assert_eq!(answer.header("content-range"), expected);
        assert_eq!(answer.header("content-length"), (to - from).to_string());
        let head = world
            .head("/buc/k")
            .header("range", range)
            .send()
            .await
            .expect(206);
        assert_eq!(head.header("content-range"), expected);
    }
    let past = world
        .get("/buc/k")
        .header("range", "bytes=200000-")
        .send()
        .await;
    let past = past.fails(416, "InvalidRange");
    assert_eq!(past.header("content-range"), "bytes */200000");
    for ignored in ["bytes=5-1", "bytes=0-1,3-4", "lines=1-2"] {
        let answer = world
            .get("/buc/k")
            .header("range", ignored)
            .send()
            .await
            .expect(200);
        assert_eq!(answer.body.map(|body| body.len()), Some(200_000));
    }
}

#[test]
fn any_range_is_the_slice_of_the_object() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let world = runtime.block_on(world());
    let content = data(700_001);
    runtime.block_on(async {
        world
            .put("/buc/k", content.clone())
            .send()
            .await
            .expect(200);
    });
    let near = prop_oneof![
        0usize..700_000,
        (0usize..11, 0usize..3).prop_map(|(chunk, off)| (chunk * 65_536 + off).saturating_sub(1)),
    ];
    let config = ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..Default::default()
    };
    proptest!(config, |(first in near, len in prop_oneof![1usize..200_000, 1usize..4])| {
        let last = first + len - 1;
        let range = format!("bytes={first}-{last}");
        let answer = runtime.block_on(world.get("/buc/k").header("range", range).send());
        if first < content.len() {
            prop_assert_eq!(answer.status, 206);
            let end = (last + 1).min(content.len());
            prop_assert_eq!(answer.body, Some(content.slice(first..end)));
        } else {
            prop_assert_eq!(answer.status, 416);
        }
    });
}

#[tokio::test]
async fn part_one_of_a_plain_object_is_all_of_it() {
    let world = world().await;
    world.put("/buc/k", "abc").send().await.expect(200);
    assert_eq!(
        world
            .get("/buc/k?partNumber=1")
            .send()
            .await
            .expect(206)
            .text(),
        "abc"
    );
    world
        .get("/buc/k?partNumber=2")
        .send()
        .await
        .fails(416, "InvalidPartNumber");
    world
        .get("/buc/k?partNumber=0")
        .send()
        .await
        .fails(400, "InvalidArgument");
}

#[tokio::test]
async fn a_range_of_other_content_than_the_client_has_is_not_answered() {
    let world = world().await;
    let etag = world
        .put("/buc/k", "abcdef")
        .send()
        .await
        .expect(200)
        .etag();
    let dated = world
        .head("/buc/k")
        .send()
        .await
        .header("last-modified")
        .to_owned();
    let part = || world.get("/buc/k").header("range", "bytes=3-");
    for holds in [etag.as_str(), &dated] {
        assert_eq!(
            part()
                .header("if-range", holds)
                .send()
                .await
                .expect(206)
                .text(),
            "def"
        );
    }
    for other in [
        "\"other\"",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        &format!("W/{etag}"),
    ] {
        let whole = part().header("if-range", other).send().await.expect(200);
        assert_eq!(whole.text(), "abcdef", "{other}");
    }
}
