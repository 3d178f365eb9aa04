//! Uploads, their parts and what becomes of them.

use bytes::Bytes;
use crypto::chunk::CHUNK_LEN;
use s3::store::{
    Condition, ObjectStore, Page, PartSeen, StoreError, UploadEntry, UploadId, UploadQuery,
};

use super::with_bucket;
use crate::sealing::{
    bytes, commit, commit_if, date, get, put, put_part, read_all, read_chunks, seal,
};

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
    store.create_bucket("c").await.unwrap();
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
