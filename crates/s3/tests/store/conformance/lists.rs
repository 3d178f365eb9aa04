//! Keys and lists of objects.

use s3::store::{ListEntry, ObjectStore};

use super::{all_names, names, query, with_bucket};
use crate::sealing::{get, put};

pub(crate) async fn lists_are_in_byte_order_and_in_pages(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let mut keys: Vec<String> = (0..25)
        .map(|i| format!("k{i}"))
        .chain(["a".into(), "k".into(), "l".into()])
        .collect();
    for key in &keys {
        put(store, "b", key, b"x").await;
    }
    keys.sort();
    for limit in [1, 7, 28, 100] {
        assert_eq!(all_names(store, query("", None, None, limit)).await, keys);
    }
    assert_eq!(
        names(store, query("", None, None, 28)).await,
        (keys.clone(), false)
    );
    assert_eq!(
        names(store, query("", None, None, 27)).await,
        (keys[..27].to_vec(), true)
    );
    let with_k1: Vec<_> = keys
        .iter()
        .filter(|key| key.starts_with("k1"))
        .cloned()
        .collect();
    assert_eq!(
        names(store, query("k1", None, None, 100)).await,
        (with_k1.clone(), false)
    );
    assert_eq!(
        names(store, query("k1", None, None, with_k1.len())).await,
        (with_k1, false)
    );
    assert_eq!(
        names(store, query("none", None, None, 100)).await,
        (vec![], false)
    );
}

pub(crate) async fn lists_roll_up_common_prefixes(store: &dyn ObjectStore) {
    with_bucket(store).await;
    for key in [
        "a", "a/", "a/b", "a/b/c", "a/b/d", "a0", "b/x", "b/y/z", "c", "c//d", "é/ü",
    ] {
        put(store, "b", key, b"x").await;
    }
    let rolled = |prefix, delimiter: &'static str| query(prefix, Some(delimiter), None, 100);
    assert_eq!(
        names(store, rolled("", "/")).await.0,
        ["a", "a/", "a0", "b/", "c", "c/", "é/"]
    );
    assert_eq!(
        names(store, rolled("a/", "/")).await.0,
        ["a/", "a/b", "a/b/"]
    );
    assert_eq!(names(store, rolled("a", "/")).await.0, ["a", "a/", "a0"]);
    assert_eq!(names(store, rolled("c/", "/")).await.0, ["c//"]);
    assert_eq!(
        names(store, rolled("", "b/")).await.0,
        ["a", "a/", "a/b", "a/b/", "a0", "b/", "c", "c//d", "é/ü"]
    );
    assert_eq!(names(store, rolled("", "é/")).await.0.last().unwrap(), "é/");
    assert_eq!(names(store, rolled("", "")).await.0.len(), 11);
    for limit in 1..4 {
        let pages = all_names(store, query("", Some("/"), None, limit)).await;
        assert_eq!(
            pages,
            ["a", "a/", "a0", "b/", "c", "c/", "é/"],
            "pages of {limit}"
        );
    }
    let page = store.list("b", &rolled("", "/")).await.unwrap();
    assert!(matches!(&page.entries[0], ListEntry::Object(record) if record.key == "a"));
    assert!(matches!(&page.entries[1], ListEntry::CommonPrefix(prefix) if prefix == "a/"));
}

pub(crate) async fn a_list_starts_after_any_name(store: &dyn ObjectStore) {
    with_bucket(store).await;
    for key in ["a", "b/1", "b/2", "c", "d"] {
        put(store, "b", key, b"x").await;
    }
    let after = |delimiter, after| query("", delimiter, Some(after), 100);
    assert_eq!(
        names(store, after(None, "a")).await.0,
        ["b/1", "b/2", "c", "d"]
    );
    assert_eq!(
        names(store, after(None, "aa")).await.0,
        ["b/1", "b/2", "c", "d"]
    );
    assert_eq!(
        names(store, after(None, "b/1\0")).await.0,
        ["b/2", "c", "d"]
    );
    assert_eq!(names(store, after(None, "")).await.0.len(), 5);
    assert_eq!(
        names(store, after(Some("/"), "a")).await.0,
        ["b/", "c", "d"]
    );
    assert_eq!(
        names(store, after(Some("/"), "b")).await.0,
        ["b/", "c", "d"]
    );
    assert_eq!(names(store, after(Some("/"), "b/")).await.0, ["c", "d"]);
    assert_eq!(names(store, after(Some("/"), "b/1")).await.0, ["c", "d"]);
    assert_eq!(names(store, after(None, "d")).await, (vec![], false));
    assert_eq!(
        names(store, query("b/", None, Some("a"), 9)).await.0,
        ["b/1", "b/2"]
    );
    assert_eq!(
        names(store, query("b/", None, Some("b/1"), 9)).await.0,
        ["b/2"]
    );
    assert_eq!(
        names(store, query("b/", None, Some("c"), 9)).await.0,
        Vec::<String>::new()
    );
}

pub(crate) async fn odd_list_queries_are_answered(store: &dyn ObjectStore) {
    with_bucket(store).await;
    put(store, "b", "\u{10ffff}", b"x").await;
    put(store, "b", "\u{10ffff}/\u{10ffff}", b"x").await;
    assert_eq!(
        names(store, query("", None, None, 0)).await,
        (vec![], false)
    );
    assert_eq!(
        names(store, query("\u{10ffff}", Some("\u{10ffff}"), None, 9))
            .await
            .0
            .len(),
        2
    );
    assert_eq!(
        names(store, query("", Some("\u{10ffff}"), None, 9)).await.0,
        ["\u{10ffff}"]
    );
    assert_eq!(
        names(
            store,
            query(&"p".repeat(2000), Some("/"), Some(&"q".repeat(2000)), 9)
        )
        .await
        .0
        .len(),
        0
    );
    assert_eq!(names(store, query("%", None, None, 9)).await.0.len(), 0);
}

pub(crate) async fn keys_are_bytes_and_never_paths(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let long = "l".repeat(1024);
    let mut keys = vec![
        "a",
        "a/",
        "a/b",
        "a//b",
        "A",
        "/",
        "//",
        ".",
        "..",
        "../x",
        "a\0b",
        "a\0",
        "\0",
        "\n",
        "%2F",
        "a b",
        "é",
        "e\u{301}",
        "\u{1f512}",
        "\u{10ffff}",
        "\u{ffff}",
        "'; DROP TABLE object; --",
        &long,
    ];
    for key in &keys {
        put(store, "b", key, key.as_bytes()).await;
    }
    for key in &keys {
        assert_eq!(get(store, "b", key).await.unwrap(), key.as_bytes());
    }
    keys.sort_by_key(|key| key.as_bytes().to_vec());
    assert_eq!(names(store, query("", None, None, 100)).await.0, keys);
    assert_eq!(all_names(store, query("", None, None, 3)).await, keys);
}
