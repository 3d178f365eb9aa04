//! Lists of objects.

use super::*;

async fn filled() -> World {
    let world = world().await;
    for key in ["a/1", "a/2", "b", "c/d/1", "c/d/2", "z%20z", "%C3%A9"] {
        world
            .put(&format!("/buc/{key}"), "x")
            .send()
            .await
            .expect(200);
    }
    world
}

#[tokio::test]
async fn version_two_lists_in_pages_with_prefixes() {
    let world = filled().await;
    let mut seen = Vec::new();
    let mut token = String::new();
    for _ in 0..10 {
        let uri = format!("/buc?list-type=2&delimiter=%2F&max-keys=2{token}");
        let page = world.get(&uri).send().await.expect(200);
        let text = page.text();
        let count: usize = page.xml("KeyCount").parse().unwrap();
        let keys = elements(&text, "Key");
        let prefixes: Vec<String> = elements(&text, "CommonPrefixes")
            .iter()
            .map(|prefix| elements(prefix, "Prefix").remove(0))
            .collect();
        assert_eq!(count, keys.len() + prefixes.len());
        assert!(count <= 2);
        seen.extend(keys);
        seen.extend(prefixes);
        if page.xml("IsTruncated") == "false" {
            break;
        }
        token = format!("&continuation-token={}", page.xml("NextContinuationToken"));
    }
    seen.sort();
    assert_eq!(seen, ["a/", "b", "c/", "z z", "é"]);
}

#[tokio::test]
async fn a_list_has_plain_sizes_and_entity_tags() {
    let world = world().await;
    let etag = world
        .put("/buc/k", data(100_000))
        .send()
        .await
        .expect(200)
        .etag();
    let list = world.get("/buc?list-type=2").send().await.expect(200);
    assert_eq!(list.xml("Size"), "100000");
    assert_eq!(list.xml("ETag").replace("&quot;", "\""), etag);
    assert_eq!(list.xml("StorageClass"), "STANDARD");
}

#[tokio::test]
async fn version_one_continues_from_its_markers() {
    let world = filled().await;
    let page = world.get("/buc?max-keys=3").send().await.expect(200);
    assert_eq!(elements(&page.text(), "Key"), ["a/1", "a/2", "b"]);
    assert_eq!(page.xml("NextMarker"), "", "none without a delimiter");
    let page = world
        .get("/buc?max-keys=3&marker=b")
        .send()
        .await
        .expect(200);
    assert_eq!(elements(&page.text(), "Key"), ["c/d/1", "c/d/2", "z z"]);
    let page = world
        .get("/buc?delimiter=%2F&max-keys=1")
        .send()
        .await
        .expect(200);
    assert_eq!(page.xml("NextMarker"), "a/");
    let page = world
        .get("/buc?delimiter=%2F&max-keys=1&marker=a%2F")
        .send()
        .await
        .expect(200);
    assert_eq!(elements(&page.text(), "Key"), ["b"]);
    assert_eq!(page.xml("ID"), ACCOUNT);
}

#[tokio::test]
async fn names_are_url_encoded_when_asked() {
    let world = filled().await;
    let list = world
        .get("/buc?list-type=2&encoding-type=url&start-after=c%2Fd%2F2")
        .send()
        .await;
    let list = list.expect(200);
    assert_eq!(elements(&list.text(), "Key"), ["z%20z", "%C3%A9"]);
    assert_eq!(list.xml("StartAfter"), "c/d/2");
    world
        .get("/buc?encoding-type=hex")
        .send()
        .await
        .fails(400, "InvalidArgument");
}

#[tokio::test]
async fn a_prefix_narrows_and_zero_keys_are_none() {
    let world = filled().await;
    let list = world
        .get("/buc?list-type=2&prefix=c%2F&delimiter=%2F")
        .send()
        .await
        .expect(200);
    assert!(elements(&list.text(), "Key").is_empty());
    assert!(
        list.text()
            .contains("<CommonPrefixes><Prefix>c/d/</Prefix>"),
        "{}",
        list.text()
    );
    let none = world
        .get("/buc?list-type=2&max-keys=0")
        .send()
        .await
        .expect(200);
    assert_eq!(
        (none.xml("KeyCount"), none.xml("IsTruncated")),
        ("0".into(), "false".into())
    );
    world
        .get("/buc?list-type=2&max-keys=-1")
        .send()
        .await
        .fails(400, "InvalidArgument");
    world
        .get("/buc?list-type=2&continuation-token=!")
        .send()
        .await
        .fails(400, "InvalidArgument");
    world
        .get("/none?list-type=2")
        .send()
        .await
        .fails(404, "NoSuchBucket");
}
