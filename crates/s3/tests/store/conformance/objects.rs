//! Putting, reading, replacing and deleting objects.

use bytes::Bytes;
use crypto::chunk::CHUNK_LEN;
use s3::store::{
    Condition, ENVELOPE_LEN_MAX, ListEntry, ObjectStore, Resealed, SealedAt, SealedRow, StoreError,
};

use super::{names, query, with_bucket};
use crate::sealing::{
    bytes, commit, commit_if, date, get, put, put_with, read_all, read_chunks, seal,
};

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
    let put = put(store, "b", "k", b"x").await;
    let row = SealedRow {
        at: SealedAt::Object {
            bucket: "b".to_owned(),
            key: "k".to_owned(),
        },
        envelope: put.envelope,
    };
    let resealed = Resealed {
        row,
        envelope: too_long,
    };
    assert!(matches!(
        store.reseal(vec![resealed]).await,
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
