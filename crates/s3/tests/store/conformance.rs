//! What every object store must do. Each test gets a fresh store as `&dyn ObjectStore`.

use bytes::Bytes;
use crypto::chunk::CHUNK_LEN;
use s3::store::{
    Condition, ENVELOPE_LEN_MAX, ListEntry, ListQuery, ObjectStore, Page, PartSeen, StoreError,
    UploadEntry, UploadId, UploadQuery,
};

use crate::sealing::{
    bytes, commit, commit_if, date, get, put, put_part, put_with, read_all, read_chunks, seal,
};

/// Runs every test of the suite on every subject.
macro_rules! suite {
    ($($subject:ident),* $(,)?) => {
        $(mod $subject { crate::conformance::tests! { $subject
            buckets_are_created_listed_and_deleted
            a_bucket_with_objects_is_not_deleted
            a_bucket_deleted_with_uploads_comes_back_empty
            bucket_settings_are_kept_and_removed
            objects_of_every_size_come_back
            any_range_of_chunks_can_be_read
            a_read_outside_an_object_is_refused
            records_come_back_as_they_were_committed
            keys_are_bytes_and_never_paths
            keys_outside_the_limits_are_refused_or_not_there
            a_put_replaces_the_object_at_commit_and_not_before
            an_abandoned_or_unfinished_put_leaves_nothing
            chunks_out_of_form_are_refused
            conditions_are_checked_at_commit
            of_many_that_want_to_be_first_one_is
            sequences_rise_and_are_never_used_again
            a_new_envelope_moves_no_data
            envelopes_that_are_too_long_are_refused
            a_reader_keeps_what_it_opened
            deleting_says_what_was_there
            many_are_deleted_each_by_itself
            lists_are_in_byte_order_and_in_pages
            lists_roll_up_common_prefixes
            a_list_starts_after_any_name
            odd_list_queries_are_answered
            parts_become_an_object
            a_part_sent_again_replaces_the_first
            a_completion_is_checked_whole
            an_upload_that_is_over_is_gone
            an_upload_needs_its_own_bucket_and_key
            an_empty_part_is_a_part
            uploads_are_listed_by_key_and_age
            uploads_are_rolled_up
            many_write_and_read_at_once
        }})*
    };
}
pub(crate) use suite;

macro_rules! tests {
    ($subject:ident $($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let subject = crate::$subject();
            crate::conformance::$name(&*subject.store).await;
        })*
    };
}
pub(crate) use tests;

async fn with_bucket(store: &dyn ObjectStore) {
    store.create_bucket("b", date(0)).await.unwrap();
}

fn query(prefix: &str, delimiter: Option<&str>, after: Option<&str>, limit: usize) -> ListQuery {
    ListQuery {
        prefix: prefix.into(),
        delimiter: delimiter.map(str::to_owned),
        after: after.map(str::to_owned),
        limit,
    }
}

async fn names(store: &dyn ObjectStore, query: ListQuery) -> (Vec<String>, bool) {
    let page = store.list("b", &query).await.unwrap();
    (
        page.entries
            .iter()
            .map(|entry| entry.name().to_owned())
            .collect(),
        page.truncated,
    )
}

/// All pages of a list, one after another.
async fn all_names(store: &dyn ObjectStore, mut query: ListQuery) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let (names, truncated) = names(store, query.clone()).await;
        assert!(names.len() <= query.limit);
        query.after = names.last().cloned();
        all.extend(names);
        if !truncated {
            return all;
        }
    }
}

pub(crate) async fn buckets_are_created_listed_and_deleted(store: &dyn ObjectStore) {
    for name in ["beta", "alpha", "alpine", "gamma"] {
        let record = store.create_bucket(name, date(5)).await.unwrap();
        assert_eq!((record.name.as_str(), record.created), (name, date(5)));
        assert_eq!(store.bucket(name).await.unwrap(), record);
    }
    assert!(matches!(
        store.create_bucket("beta", date(6)).await,
        Err(StoreError::BucketExists)
    ));
    assert_eq!(store.bucket("beta").await.unwrap().created, date(5));
    let list = |page: Page<s3::store::BucketRecord>| {
        (
            page.entries
                .into_iter()
                .map(|bucket| bucket.name)
                .collect::<Vec<_>>(),
            page.truncated,
        )
    };
    assert_eq!(
        list(store.buckets("", None, 10).await.unwrap()).0,
        ["alpha", "alpine", "beta", "gamma"]
    );
    assert_eq!(
        list(store.buckets("al", None, 1).await.unwrap()),
        (vec!["alpha".to_owned()], true)
    );
    assert_eq!(
        list(store.buckets("al", Some("alpha"), 1).await.unwrap()),
        (vec!["alpine".to_owned()], false)
    );
    assert_eq!(
        list(store.buckets("", Some("beta"), 10).await.unwrap()).0,
        ["gamma"]
    );
    assert_eq!(
        list(store.buckets("", None, 0).await.unwrap()),
        (vec![], false)
    );
    store.delete_bucket("beta").await.unwrap();
    assert!(matches!(
        store.delete_bucket("beta").await,
        Err(StoreError::NoSuchBucket)
    ));
    assert!(matches!(
        store.bucket("beta").await,
        Err(StoreError::NoSuchBucket)
    ));
    assert!(matches!(
        store.head("beta", "k").await,
        Err(StoreError::NoSuchBucket)
    ));
    assert!(matches!(
        store.open("beta", "k").await.map(drop),
        Err(StoreError::NoSuchBucket)
    ));
    assert!(matches!(
        store.list("beta", &ListQuery::default()).await,
        Err(StoreError::NoSuchBucket)
    ));
    assert!(matches!(
        store.begin_put("beta", "k", None).await.map(drop),
        Err(StoreError::NoSuchBucket)
    ));
    assert!(matches!(
        store.delete("beta", "k", Condition::Always).await,
        Err(StoreError::NoSuchBucket)
    ));
    assert!(matches!(
        store.delete_many("beta", &[]).await,
        Err(StoreError::NoSuchBucket)
    ));
}

pub(crate) async fn a_bucket_with_objects_is_not_deleted(store: &dyn ObjectStore) {
    with_bucket(store).await;
    put(store, "b", "k", b"x").await;
    assert!(matches!(
        store.delete_bucket("b").await,
        Err(StoreError::BucketNotEmpty)
    ));
    assert_eq!(get(store, "b", "k").await.unwrap(), b"x");
    let mut sink = store.begin_put("b", "late", None).await.unwrap();
    sink.write(seal(b"y", 1).remove(0)).await.unwrap();
    store.delete("b", "k", Condition::Always).await.unwrap();
    store.delete_bucket("b").await.unwrap();
    assert!(matches!(
        sink.commit(commit("e")).await,
        Err(StoreError::NoSuchBucket)
    ));
}

pub(crate) async fn a_bucket_deleted_with_uploads_comes_back_empty(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let id = store
        .create_upload("b", "k", Bytes::new(), date(1))
        .await
        .unwrap()
        .id;
    put_part(store, "b", "k", &id, 1, b"part").await.unwrap();
    store
        .set_bucket_setting("b", "rule", Some(Bytes::from_static(b"r")))
        .await
        .unwrap();
    store.delete_bucket("b").await.unwrap();
    with_bucket(store).await;
    assert!(matches!(
        store.upload("b", "k", &id).await,
        Err(StoreError::NoSuchUpload)
    ));
    assert!(
        store
            .uploads(
                "b",
                &UploadQuery {
                    limit: 9,
                    ..UploadQuery::default()
                }
            )
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    assert!(store.bucket_settings("b").await.unwrap().is_empty());
}

pub(crate) async fn bucket_settings_are_kept_and_removed(store: &dyn ObjectStore) {
    with_bucket(store).await;
    assert!(store.bucket_settings("b").await.unwrap().is_empty());
    store
        .set_bucket_setting("b", "encryption", Some(Bytes::from_static(b"one")))
        .await
        .unwrap();
    store
        .set_bucket_setting("b", "encryption", Some(Bytes::from_static(b"two")))
        .await
        .unwrap();
    store
        .set_bucket_setting("b", "other", Some(Bytes::new()))
        .await
        .unwrap();
    let settings = store.bucket_settings("b").await.unwrap();
    assert_eq!(settings.len(), 2);
    assert_eq!(settings["encryption"], "two");
    store
        .set_bucket_setting("b", "encryption", None)
        .await
        .unwrap();
    store
        .set_bucket_setting("b", "encryption", None)
        .await
        .unwrap();
    assert_eq!(store.bucket_settings("b").await.unwrap().len(), 1);
    assert!(matches!(
        store.bucket_settings("no").await,
        Err(StoreError::NoSuchBucket)
    ));
    assert!(matches!(
        store.set_bucket_setting("no", "n", None).await,
        Err(StoreError::NoSuchBucket)
    ));
}

pub(crate) async fn objects_of_every_size_come_back(store: &dyn ObjectStore) {
    with_bucket(store).await;
    for (i, len) in [
        0,
        1,
        4096,
        CHUNK_LEN - 1,
        CHUNK_LEN,
        CHUNK_LEN + 1,
        3 * CHUNK_LEN,
        (5 << 20) + 17,
    ]
    .into_iter()
    .enumerate()
    {
        let plain = bytes(i as u64, len);
        let record = put(store, "b", "k", &plain).await;
        assert_eq!(record.size, len as u64);
        assert!(
            get(store, "b", "k").await.unwrap() == plain,
            "an object of {len} bytes"
        );
    }
}

pub(crate) async fn any_range_of_chunks_can_be_read(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let plain = bytes(1, 10 * CHUNK_LEN + 100);
    put(store, "b", "k", &plain).await;
    let (_, reader) = store.open("b", "k").await.unwrap();
    for (first, count) in [
        (0, 1),
        (10, 1),
        (3, 4),
        (9, 2),
        (8, 60),
        (0, u32::MAX),
        (0, 2),
        (10, u32::MAX),
    ] {
        let got = read_chunks(&*reader, 0, first, count).await;
        let from = first as usize * CHUNK_LEN;
        assert!(
            !got.is_empty() && plain[from..].starts_with(&got),
            "chunks {first}, {count}"
        );
    }
}

pub(crate) async fn a_read_outside_an_object_is_refused(store: &dyn ObjectStore) {
    with_bucket(store).await;
    for len in [0, 10, 2 * CHUNK_LEN, 2 * CHUNK_LEN + 1] {
        put(store, "b", "k", &bytes(1, len)).await;
        let (_, reader) = store.open("b", "k").await.unwrap();
        let chunks = len.div_ceil(CHUNK_LEN).max(1) as u64;
        for (part, first, count) in [
            (0, chunks, 1),
            (1, 0, 1),
            (0, 0, 0),
            (0, u64::MAX, 1),
            (0, u64::MAX, u32::MAX),
        ] {
            let result = reader.read(part, first, count).await;
            assert!(
                matches!(result, Err(StoreError::Misuse(_))),
                "part {part}, chunk {first}, {count} of them"
            );
        }
    }
}

pub(crate) async fn records_come_back_as_they_were_committed(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let record = put_with(store, "b", "k", b"four", commit("the envelope"))
        .await
        .unwrap();
    assert_eq!(
        (record.key.as_str(), record.size, record.part_count),
        ("k", 4, 0)
    );
    assert_eq!(
        (record.modified, &record.envelope[..]),
        (date(1), &b"the envelope"[..])
    );
    assert_eq!(store.head("b", "k").await.unwrap(), record);
    let (opened, reader) = store.open("b", "k").await.unwrap();
    assert_eq!(opened, record);
    let parts = reader.parts();
    assert_eq!(
        (parts.len(), parts[0].number, parts[0].plain_len),
        (1, 1, 4)
    );
    assert_eq!(
        (parts[0].modified, parts[0].sequence),
        (record.modified, record.sequence)
    );
    assert!(parts[0].envelope.is_empty());
    let page = store.list("b", &query("", None, None, 10)).await.unwrap();
    assert_eq!(page.entries, [ListEntry::Object(record)]);
    assert!(matches!(
        store.head("b", "other").await,
        Err(StoreError::NoSuchKey)
    ));
    assert!(matches!(
        store.open("b", "other").await.map(drop),
        Err(StoreError::NoSuchKey)
    ));
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

pub(crate) async fn keys_outside_the_limits_are_refused_or_not_there(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let long = "k".repeat(1025);
    assert!(matches!(
        store.begin_put("b", &long, None).await.map(drop),
        Err(StoreError::KeyTooLong)
    ));
    assert!(matches!(
        store.begin_put("b", "", None).await.map(drop),
        Err(StoreError::Misuse(_))
    ));
    assert!(matches!(
        store.create_upload("b", &long, Bytes::new(), date(0)).await,
        Err(StoreError::KeyTooLong)
    ));
    assert!(matches!(
        store.create_upload("b", "", Bytes::new(), date(0)).await,
        Err(StoreError::Misuse(_))
    ));
    for key in ["", &long] {
        assert!(matches!(
            store.head("b", key).await,
            Err(StoreError::NoSuchKey)
        ));
        assert!(!store.delete("b", key, Condition::Always).await.unwrap());
    }
}

pub(crate) async fn a_put_replaces_the_object_at_commit_and_not_before(store: &dyn ObjectStore) {
    with_bucket(store).await;
    for len in [10, 3 << 20] {
        let (old, new) = (bytes(1, len), bytes(2, len + 1));
        put(store, "b", "k", &old).await;
        let mut sink = store.begin_put("b", "k", None).await.unwrap();
        for sealed in seal(&new, 4) {
            sink.write(sealed).await.unwrap();
            assert!(get(store, "b", "k").await.unwrap() == old);
        }
        sink.commit(commit("e")).await.unwrap();
        assert!(get(store, "b", "k").await.unwrap() == new);
    }
}

pub(crate) async fn an_abandoned_or_unfinished_put_leaves_nothing(store: &dyn ObjectStore) {
    with_bucket(store).await;
    for len in [10, 3 << 20] {
        put(store, "b", "k", b"old").await;
        let mut sink = store.begin_put("b", "k", None).await.unwrap();
        for sealed in seal(&bytes(1, len), 1) {
            sink.write(sealed).await.unwrap();
        }
        drop(sink);
        let mut sink = store.begin_put("b", "k", None).await.unwrap();
        let mut chunks = seal(&bytes(1, len + 2 * CHUNK_LEN), 1);
        chunks.pop();
        for sealed in chunks {
            sink.write(sealed).await.unwrap();
        }
        assert!(matches!(
            sink.commit(commit("e")).await,
            Err(StoreError::Misuse(_))
        ));
        let sink = store.begin_put("b", "k", None).await.unwrap();
        assert!(
            matches!(sink.commit(commit("e")).await, Err(StoreError::Misuse(_))),
            "nothing was written"
        );
        assert_eq!(get(store, "b", "k").await.unwrap(), b"old");
    }
    assert_eq!(names(store, query("", None, None, 10)).await.0, ["k"]);
}

pub(crate) async fn chunks_out_of_form_are_refused(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let mut sink = store.begin_put("b", "k", None).await.unwrap();
    sink.write(seal(b"the end", 1).remove(0)).await.unwrap();
    let again = sink.write(seal(b"more", 1).remove(0)).await;
    assert!(matches!(again, Err(StoreError::Misuse(_))));
    assert!(matches!(
        sink.commit(commit("e")).await,
        Err(StoreError::Misuse(_))
    ));
    assert!(matches!(
        store.head("b", "k").await,
        Err(StoreError::NoSuchKey)
    ));
}

pub(crate) async fn conditions_are_checked_at_commit(store: &dyn ObjectStore) {
    with_bucket(store).await;
    for len in [5, 200_000] {
        let plain = bytes(1, len);
        let first = put_with(store, "b", "k", &plain, commit_if("e", Condition::Absent))
            .await
            .unwrap();
        let refused = put_with(store, "b", "k", b"no", commit_if("e", Condition::Absent)).await;
        assert!(
            matches!(refused, Err(StoreError::PreconditionFailed { found: Some(s) }) if s == first.sequence)
        );
        let second = put_with(
            store,
            "b",
            "k",
            &plain,
            commit_if("e", Condition::Sequence(first.sequence)),
        )
        .await
        .unwrap();
        let refused = put_with(
            store,
            "b",
            "k",
            b"no",
            commit_if("e", Condition::Sequence(first.sequence)),
        )
        .await;
        assert!(
            matches!(refused, Err(StoreError::PreconditionFailed { found: Some(s) }) if s == second.sequence)
        );
        assert!(get(store, "b", "k").await.unwrap() == plain);
        let refused = store
            .delete("b", "k", Condition::Sequence(first.sequence))
            .await;
        assert!(matches!(
            refused,
            Err(StoreError::PreconditionFailed { .. })
        ));
        assert!(
            store
                .delete("b", "k", Condition::Sequence(second.sequence))
                .await
                .unwrap()
        );
        let refused = put_with(
            store,
            "b",
            "k",
            b"no",
            commit_if("e", Condition::Sequence(second.sequence)),
        )
        .await;
        assert!(matches!(
            refused,
            Err(StoreError::PreconditionFailed { found: None })
        ));
        assert!(matches!(
            store.head("b", "k").await,
            Err(StoreError::NoSuchKey)
        ));
    }
}

pub(crate) async fn of_many_that_want_to_be_first_one_is(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let plains: Vec<_> = (0..16u8)
        .map(|i| vec![i; if i % 2 == 0 { 10 } else { 100_000 }])
        .collect();
    let tries = plains
        .iter()
        .map(|plain| put_with(store, "b", "k", plain, commit_if("e", Condition::Absent)));
    let results = futures::future::join_all(tries).await;
    let winners: Vec<_> = (0..plains.len()).filter(|i| results[*i].is_ok()).collect();
    assert_eq!(winners.len(), 1);
    assert!(get(store, "b", "k").await.unwrap() == plains[winners[0]]);
}

pub(crate) async fn sequences_rise_and_are_never_used_again(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let mut last = 0;
    for i in 0..10 {
        let record = put(store, "b", &format!("k{}", i % 3), b"x").await;
        assert!(record.sequence > last);
        last = record.sequence;
        if i % 4 == 0 {
            store
                .delete("b", &record.key, Condition::Always)
                .await
                .unwrap();
        }
    }
}

pub(crate) async fn a_new_envelope_moves_no_data(store: &dyn ObjectStore) {
    with_bucket(store).await;
    for len in [5, 200_000] {
        let plain = bytes(1, len);
        let before = put(store, "b", "k", &plain).await;
        let (_, reader) = store.open("b", "k").await.unwrap();
        let replaced = store
            .replace_envelope("b", "k", before.sequence, Bytes::from_static(b"new"))
            .await
            .unwrap();
        assert!(replaced.sequence > before.sequence);
        assert_eq!(
            (replaced.modified, replaced.size),
            (before.modified, before.size)
        );
        assert_eq!(&replaced.envelope[..], b"new");
        assert_eq!(store.head("b", "k").await.unwrap(), replaced);
        let stale = store
            .replace_envelope("b", "k", before.sequence, Bytes::new())
            .await;
        assert!(
            matches!(stale, Err(StoreError::PreconditionFailed { found: Some(s) }) if s == replaced.sequence)
        );
        assert!(matches!(
            store.replace_envelope("b", "no", 1, Bytes::new()).await,
            Err(StoreError::NoSuchKey)
        ));
        assert!(read_all(&*reader).await.unwrap() == plain);
        assert!(get(store, "b", "k").await.unwrap() == plain);
        put(store, "b", "k", b"over it").await;
        assert_eq!(get(store, "b", "k").await.unwrap(), b"over it");
    }
}

pub(crate) async fn envelopes_that_are_too_long_are_refused(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let (fits, too_long) = (
        Bytes::from(vec![1; ENVELOPE_LEN_MAX]),
        Bytes::from(vec![1; ENVELOPE_LEN_MAX + 1]),
    );
    let with = |envelope: &Bytes| s3::store::Commit {
        envelope: envelope.clone(),
        ..commit("")
    };
    let refused = put_with(store, "b", "k", b"x", with(&too_long)).await;
    assert!(matches!(refused, Err(StoreError::Misuse(_))));
    let record = put_with(store, "b", "k", b"x", with(&fits)).await.unwrap();
    assert_eq!(store.head("b", "k").await.unwrap().envelope, fits);
    let refused = store
        .replace_envelope("b", "k", record.sequence, too_long.clone())
        .await;
    assert!(matches!(refused, Err(StoreError::Misuse(_))));
    assert!(matches!(
        store
            .create_upload("b", "k", too_long.clone(), date(0))
            .await,
        Err(StoreError::Misuse(_))
    ));
    assert!(matches!(
        store.set_bucket_setting("b", "s", Some(too_long)).await,
        Err(StoreError::Misuse(_))
    ));
}

pub(crate) async fn a_reader_keeps_what_it_opened(store: &dyn ObjectStore) {
    with_bucket(store).await;
    for len in [5, 3 << 20] {
        let plain = bytes(1, len);
        put(store, "b", "k", &plain).await;
        let (_, begun) = store.open("b", "k").await.unwrap();
        let first = read_chunks(&*begun, 0, 0, 1).await;
        let (_, fresh) = store.open("b", "k").await.unwrap();
        put(store, "b", "k", b"another").await;
        store.delete("b", "k", Condition::Always).await.unwrap();
        store.delete_bucket("b").await.unwrap();
        assert!(plain.starts_with(&first));
        assert!(read_all(&*begun).await.unwrap() == plain);
        drop(begun);
        assert!(read_all(&*fresh).await.unwrap() == plain);
        with_bucket(store).await;
    }
}

pub(crate) async fn deleting_says_what_was_there(store: &dyn ObjectStore) {
    with_bucket(store).await;
    put(store, "b", "k", b"x").await;
    put(store, "b", "k/2", &bytes(1, 100_000)).await;
    assert!(store.delete("b", "k", Condition::Always).await.unwrap());
    assert!(!store.delete("b", "k", Condition::Always).await.unwrap());
    assert!(!store.delete("b", "k", Condition::Absent).await.unwrap());
    let refused = store.delete("b", "k", Condition::Sequence(1)).await;
    assert!(matches!(
        refused,
        Err(StoreError::PreconditionFailed { found: None })
    ));
    assert!(store.delete("b", "k/2", Condition::Always).await.unwrap());
    assert!(names(store, query("", None, None, 10)).await.0.is_empty());
}

pub(crate) async fn many_are_deleted_each_by_itself(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let one = put(store, "b", "one", b"x").await;
    put(store, "b", "two", &bytes(2, 100_000)).await;
    put(store, "b", "three", b"z").await;
    let keys = [
        ("one".to_owned(), Condition::Sequence(one.sequence)),
        ("two".to_owned(), Condition::Sequence(0)),
        ("none".to_owned(), Condition::Always),
        ("three".to_owned(), Condition::Always),
        ("three".to_owned(), Condition::Always),
    ];
    let results = store.delete_many("b", &keys).await.unwrap();
    assert!(matches!(
        results[..],
        [
            Ok(true),
            Err(StoreError::PreconditionFailed { .. }),
            Ok(false),
            Ok(true),
            Ok(false)
        ]
    ));
    assert_eq!(names(store, query("", None, None, 10)).await.0, ["two"]);
}

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

async fn upload(store: &dyn ObjectStore, key: &str) -> UploadId {
    store
        .create_upload("b", key, Bytes::from_static(b"upload"), date(3))
        .await
        .unwrap()
        .id
}

fn seen(parts: &[&s3::store::PartRecord]) -> Vec<PartSeen> {
    parts
        .iter()
        .map(|part| PartSeen {
            number: part.number,
            sequence: part.sequence,
        })
        .collect()
}

pub(crate) async fn parts_become_an_object(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let old = put(store, "b", "k", b"old").await;
    let created = store
        .create_upload("b", "k", Bytes::from_static(b"upload"), date(3))
        .await
        .unwrap();
    assert_eq!(
        (
            created.key.as_str(),
            created.initiated,
            &created.envelope[..]
        ),
        ("k", date(3), &b"upload"[..])
    );
    assert_eq!(store.upload("b", "k", &created.id).await.unwrap(), created);
    assert_eq!(UploadId::parse(created.id.as_str()).unwrap(), created.id);
    let id = created.id;
    let plains = [
        bytes(1, 300_000),
        bytes(2, CHUNK_LEN),
        bytes(3, 7),
        bytes(4, 10),
    ];
    let mut parts = Vec::new();
    // Out of order, with gaps.
    for (number, plain) in [(7, 1), (2, 0), (10_000, 2), (8, 3)] {
        let part = put_part(store, "b", "k", &id, number, &plains[plain])
            .await
            .unwrap();
        assert_eq!(
            (part.number, part.plain_len),
            (number, plains[plain].len() as u64)
        );
        assert_eq!(
            (part.modified, &part.envelope[..]),
            (date(u64::from(number)), format!("part {number}").as_bytes())
        );
        parts.push(part);
    }
    assert_eq!(get(store, "b", "k").await.unwrap(), b"old");
    let page = store.parts("b", "k", &id, 0, 10).await.unwrap();
    assert_eq!(
        page.entries,
        [
            parts[1].clone(),
            parts[0].clone(),
            parts[3].clone(),
            parts[2].clone()
        ]
    );
    let page = store.parts("b", "k", &id, 2, 2).await.unwrap();
    assert_eq!(
        (page.entries.len(), page.truncated, page.entries[0].number),
        (2, true, 7)
    );
    let page = store.parts("b", "k", &id, 8, 1).await.unwrap();
    assert_eq!((page.entries.len(), page.truncated), (1, false));
    assert_eq!(
        store.parts("b", "k", &id, 0, 0).await.unwrap(),
        Page::default()
    );

    let chosen = seen(&[&parts[1], &parts[0], &parts[2]]);
    let record = store
        .complete_upload("b", "k", &id, &chosen, commit("whole"))
        .await
        .unwrap();
    assert!(record.sequence > old.sequence);
    assert_eq!(
        (record.size, record.part_count),
        (300_000 + CHUNK_LEN as u64 + 7, 3)
    );
    assert_eq!(
        (record.modified, &record.envelope[..]),
        (date(1), &b"whole"[..])
    );
    let (opened, reader) = store.open("b", "k").await.unwrap();
    assert_eq!(opened, record);
    assert_eq!(
        reader.parts(),
        [parts[1].clone(), parts[0].clone(), parts[2].clone()]
    );
    assert!(read_all(&*reader).await.unwrap() == plains[..3].concat());
    assert!(plains[1].starts_with(&read_chunks(&*reader, 1, 0, 1).await));
    assert_eq!(store.head("b", "k").await.unwrap(), record);

    put(store, "b", "k", b"over it").await;
    assert!(read_all(&*reader).await.unwrap() == plains[..3].concat());
    drop(reader);
    assert_eq!(get(store, "b", "k").await.unwrap(), b"over it");
}

pub(crate) async fn a_part_sent_again_replaces_the_first(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let id = upload(store, "k").await;
    let first = put_part(store, "b", "k", &id, 1, b"first").await.unwrap();
    let second = put_part(store, "b", "k", &id, 1, &bytes(1, 100_000))
        .await
        .unwrap();
    assert!(second.sequence > first.sequence);
    assert_eq!(
        store.parts("b", "k", &id, 0, 10).await.unwrap().entries,
        std::slice::from_ref(&second)
    );
    let refused = store
        .complete_upload("b", "k", &id, &seen(&[&first]), commit("e"))
        .await;
    assert!(matches!(
        refused,
        Err(StoreError::InvalidPart { number: 1 })
    ));
    store
        .complete_upload("b", "k", &id, &seen(&[&second]), commit("e"))
        .await
        .unwrap();
    assert!(get(store, "b", "k").await.unwrap() == bytes(1, 100_000));
}

pub(crate) async fn a_completion_is_checked_whole(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let old = put(store, "b", "k", b"old").await;
    let id = upload(store, "k").await;
    let (one, two) = (
        put_part(store, "b", "k", &id, 1, b"1").await.unwrap(),
        put_part(store, "b", "k", &id, 2, b"2").await.unwrap(),
    );
    let missing = s3::store::PartRecord {
        number: 3,
        ..one.clone()
    };
    let complete = |parts: Vec<PartSeen>, condition| {
        let id = id.clone();
        async move {
            store
                .complete_upload("b", "k", &id, &parts, commit_if("e", condition))
                .await
        }
    };
    assert!(matches!(
        complete(vec![], Condition::Always).await,
        Err(StoreError::InvalidPartOrder)
    ));
    assert!(matches!(
        complete(seen(&[&two, &one]), Condition::Always).await,
        Err(StoreError::InvalidPartOrder)
    ));
    assert!(matches!(
        complete(seen(&[&one, &one]), Condition::Always).await,
        Err(StoreError::InvalidPartOrder)
    ));
    let refused = complete(seen(&[&one, &missing]), Condition::Always).await;
    assert!(matches!(
        refused,
        Err(StoreError::InvalidPart { number: 3 })
    ));
    let refused = complete(seen(&[&one]), Condition::Absent).await;
    assert!(
        matches!(refused, Err(StoreError::PreconditionFailed { found: Some(s) }) if s == old.sequence)
    );
    assert_eq!(get(store, "b", "k").await.unwrap(), b"old");
    assert_eq!(
        store
            .parts("b", "k", &id, 0, 10)
            .await
            .unwrap()
            .entries
            .len(),
        2,
        "a refusal keeps every part"
    );
    complete(seen(&[&one, &two]), Condition::Sequence(old.sequence))
        .await
        .unwrap();
    assert_eq!(get(store, "b", "k").await.unwrap(), b"12");
}

pub(crate) async fn an_upload_that_is_over_is_gone(store: &dyn ObjectStore) {
    with_bucket(store).await;
    for abort in [true, false] {
        let id = upload(store, "k").await;
        let part = put_part(store, "b", "k", &id, 1, &bytes(1, 100_000))
            .await
            .unwrap();
        let mut late = store.begin_part("b", "k", &id, 2, None).await.unwrap();
        late.write(seal(b"late", 1).remove(0)).await.unwrap();
        if abort {
            store.abort_upload("b", "k", &id).await.unwrap();
        } else {
            store
                .complete_upload("b", "k", &id, &seen(&[&part]), commit("e"))
                .await
                .unwrap();
        }
        assert!(matches!(
            late.commit(Bytes::new(), date(1)).await,
            Err(StoreError::NoSuchUpload)
        ));
        assert!(matches!(
            store.upload("b", "k", &id).await,
            Err(StoreError::NoSuchUpload)
        ));
        assert!(matches!(
            store.parts("b", "k", &id, 0, 9).await,
            Err(StoreError::NoSuchUpload)
        ));
        assert!(matches!(
            store.begin_part("b", "k", &id, 1, None).await.map(drop),
            Err(StoreError::NoSuchUpload)
        ));
        assert!(matches!(
            store.abort_upload("b", "k", &id).await,
            Err(StoreError::NoSuchUpload)
        ));
        let again = store
            .complete_upload("b", "k", &id, &seen(&[&part]), commit("e"))
            .await;
        assert!(matches!(again, Err(StoreError::NoSuchUpload)));
        assert_eq!(get(store, "b", "k").await.is_ok(), !abort);
    }
}

pub(crate) async fn an_upload_needs_its_own_bucket_and_key(store: &dyn ObjectStore) {
    with_bucket(store).await;
    store.create_bucket("c", date(0)).await.unwrap();
    let id = upload(store, "k").await;
    for (bucket, key) in [("b", "k2"), ("c", "k")] {
        assert!(matches!(
            store.upload(bucket, key, &id).await,
            Err(StoreError::NoSuchUpload)
        ));
        assert!(matches!(
            store.begin_part(bucket, key, &id, 1, None).await.map(drop),
            Err(StoreError::NoSuchUpload)
        ));
        assert!(matches!(
            store.abort_upload(bucket, key, &id).await,
            Err(StoreError::NoSuchUpload)
        ));
    }
    let mut guess = id.as_str().to_owned();
    let flipped = if guess.ends_with('0') { "1" } else { "0" };
    guess.replace_range(47.., flipped);
    let guess = UploadId::parse(&guess).unwrap();
    assert!(matches!(
        store.upload("b", "k", &guess).await,
        Err(StoreError::NoSuchUpload)
    ));
    for bad in ["", "x", &"g".repeat(48), &"A".repeat(48), &"é".repeat(24)] {
        assert!(UploadId::parse(bad).is_none());
    }
    let far = UploadId::parse(&"f".repeat(48)).unwrap();
    assert!(matches!(
        store.upload("b", "k", &far).await,
        Err(StoreError::NoSuchUpload)
    ));
    for number in [0, 10_001, u32::MAX] {
        assert!(matches!(
            store
                .begin_part("b", "k", &id, number, None)
                .await
                .map(drop),
            Err(StoreError::Misuse(_))
        ));
    }
}

pub(crate) async fn an_empty_part_is_a_part(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let id = upload(store, "k").await;
    let part = put_part(store, "b", "k", &id, 1, b"").await.unwrap();
    let record = store
        .complete_upload("b", "k", &id, &seen(&[&part]), commit("e"))
        .await
        .unwrap();
    assert_eq!((record.size, record.part_count), (0, 1));
    assert_eq!(get(store, "b", "k").await.unwrap(), b"");
    assert!(store.delete("b", "k", Condition::Always).await.unwrap());
}

async fn upload_names(store: &dyn ObjectStore, query: UploadQuery) -> (Vec<String>, bool) {
    let page = store.uploads("b", &query).await.unwrap();
    let name = |entry: &UploadEntry| match entry {
        UploadEntry::Upload(upload) => format!("{}:{}", upload.key, upload.id),
        UploadEntry::CommonPrefix(prefix) => prefix.clone(),
    };
    (page.entries.iter().map(name).collect(), page.truncated)
}

pub(crate) async fn uploads_are_listed_by_key_and_age(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let mut all = Vec::new();
    for key in ["k", "a", "k", "z", "k"] {
        let id = upload(store, key).await;
        all.push((key, id));
    }
    all.sort();
    let expected: Vec<_> = all.iter().map(|(key, id)| format!("{key}:{id}")).collect();
    let base = UploadQuery {
        limit: 100,
        ..UploadQuery::default()
    };
    assert_eq!(
        upload_names(store, base.clone()).await,
        (expected.clone(), false)
    );
    for (i, (key, id)) in all.iter().enumerate() {
        let after = UploadQuery {
            after_key: Some((*key).into()),
            after_upload: Some(id.clone()),
            ..base.clone()
        };
        assert_eq!(upload_names(store, after).await.0, expected[i + 1..]);
        let limited = UploadQuery {
            limit: i + 1,
            ..base.clone()
        };
        assert_eq!(
            upload_names(store, limited).await,
            (expected[..=i].to_vec(), i + 1 < all.len())
        );
    }
    let after_key = UploadQuery {
        after_key: Some("k".into()),
        ..base.clone()
    };
    assert_eq!(upload_names(store, after_key).await.0, expected[4..]);
    let prefix = UploadQuery {
        prefix: "k".into(),
        ..base.clone()
    };
    assert_eq!(upload_names(store, prefix).await.0, expected[1..4]);
    assert_eq!(
        upload_names(store, UploadQuery { limit: 0, ..base }).await,
        (vec![], false)
    );
}

pub(crate) async fn uploads_are_rolled_up(store: &dyn ObjectStore) {
    with_bucket(store).await;
    for key in ["a/1", "a/2", "b"] {
        upload(store, key).await;
    }
    let id = upload(store, "a/1").await;
    let base = UploadQuery {
        delimiter: Some("/".into()),
        limit: 100,
        ..UploadQuery::default()
    };
    let (names, truncated) = upload_names(store, base.clone()).await;
    assert_eq!(
        (names.len(), names[0].as_str(), truncated),
        (2, "a/", false)
    );
    assert_eq!(
        upload_names(
            store,
            UploadQuery {
                limit: 1,
                ..base.clone()
            }
        )
        .await,
        (vec!["a/".to_owned()], true)
    );
    for after in ["a/", "a/1"] {
        let query = UploadQuery {
            after_key: Some(after.into()),
            after_upload: Some(id.clone()),
            ..base.clone()
        };
        assert_eq!(upload_names(store, query).await.0, names[1..]);
    }
    let inside = UploadQuery {
        prefix: "a/".into(),
        ..base
    };
    assert_eq!(upload_names(store, inside).await.0.len(), 3);
}

pub(crate) async fn many_write_and_read_at_once(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let work = (0..24u64).map(|i| async move {
        let key = format!("k{}", i % 6);
        let plain = bytes(
            i,
            if i % 3 == 0 {
                150_000
            } else {
                100 + i as usize
            },
        );
        put(store, "b", &key, &plain).await;
        // Another may have replaced it, with all of theirs, or deleted it.
        match get(store, "b", &key).await {
            Ok(read) => assert!((0..24).any(|j| j % 6 == i % 6 && read == bytes(j, read.len()))),
            Err(error) => assert!(matches!(error, StoreError::NoSuchKey), "{error}"),
        }
        if i % 5 == 0 {
            store.delete("b", &key, Condition::Always).await.unwrap();
            put(store, "b", &key, &plain).await;
        }
    });
    futures::future::join_all(work).await;
    assert_eq!(names(store, query("", None, None, 100)).await.0.len(), 6);
}
