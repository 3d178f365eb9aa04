//! Sealed records, gone through and put anew.

use bytes::Bytes;
use s3::store::{Condition, ObjectStore, PartSeen, Resealed, SealedAt, SealedRow, StoreError};

use super::with_bucket;
use crate::sealing::{commit, date, get, put, put_part, put_with};

/// Two buckets, one of them closed, with everything that has a sealed record; ids of the uploads.
async fn fill(store: &dyn ObjectStore) {
    // The later bucket first: the order is by id.
    store.create_bucket("z").await.unwrap();
    with_bucket(store).await;
    for (bucket, key) in [("z", "1"), ("b", "a"), ("b", "a/b"), ("b", "\u{fc}")] {
        put_with(store, bucket, key, b"x", commit(&format!("{bucket} {key}")))
            .await
            .unwrap();
    }
    for (bucket, key) in [("z", "up"), ("b", "up"), ("b", "up"), ("b", "whole")] {
        let envelope = Bytes::from(format!("upload {bucket} {key}"));
        let upload = store
            .create_upload(bucket, key, envelope, date(1))
            .await
            .unwrap();
        let mut seen = Vec::new();
        for number in [1, 7] {
            let part = put_part(store, bucket, key, &upload.id, number, b"part").await;
            seen.push(PartSeen {
                number,
                sequence: part.unwrap().sequence,
            });
        }
        if key == "whole" {
            let commit = commit("b whole");
            let done = store.complete_upload(bucket, key, &upload.id, &seen, commit);
            done.await.unwrap();
        }
    }
    store.delete("z", "1", Condition::Always).await.unwrap();
    store.close_bucket("z").await.unwrap();
}

async fn all(store: &dyn ObjectStore, limit: usize) -> Vec<SealedRow> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.sealed(after.as_ref(), limit).await.unwrap();
        assert!(page.entries.len() <= limit);
        assert_eq!(
            page.truncated,
            page.entries.len() == limit && page.truncated
        );
        all.extend(page.entries);
        after = all.last().map(|row: &SealedRow| row.at.clone());
        if !page.truncated {
            return all;
        }
    }
}

pub(crate) async fn sealed_records_are_walked_page_by_page(store: &dyn ObjectStore) {
    assert!(all(store, 5).await.is_empty());
    fill(store).await;
    let whole = all(store, 1000).await;
    let seen: Vec<String> = whole
        .iter()
        .map(|row| {
            let envelope = std::str::from_utf8(&row.envelope).unwrap();
            match &row.at {
                SealedAt::Object { bucket, key } => {
                    assert_eq!(envelope, format!("{bucket} {key}"));
                    format!("object {envelope}")
                }
                SealedAt::Upload { .. } => envelope.to_owned(),
                SealedAt::Part { number, .. } => {
                    assert_eq!(envelope, format!("part {number}"));
                    envelope.to_owned()
                }
            }
        })
        .collect();
    let mut wanted = vec![
        "object b a",
        "object b a/b",
        "object b whole",
        "object b \u{fc}",
        "upload b up",
        "upload b up",
        "upload z up",
    ];
    wanted.extend(["part 1", "part 7"].repeat(4));
    assert_eq!(seen, wanted);
    assert!(whole.is_sorted_by(|a, b| a.at < b.at));
    for limit in [1, 2, 3, 7] {
        assert_eq!(all(store, limit).await, whole, "{limit}");
    }
    assert!(store.sealed(None, 0).await.unwrap().entries.is_empty());
    // A place need not exist to go on from.
    let between = SealedAt::Object {
        bucket: "b".to_owned(),
        key: "a/".to_owned(),
    };
    assert_eq!(
        store.sealed(Some(&between), 1000).await.unwrap().entries,
        whole[1..]
    );
}

pub(crate) async fn a_record_is_put_anew_only_where_it_still_stands(store: &dyn ObjectStore) {
    fill(store).await;
    let before = all(store, 1000).await;
    let object = store.head("b", "whole").await.unwrap();
    let anew = |row: &SealedRow| Resealed {
        row: row.clone(),
        envelope: Bytes::from([b"new ", &row.envelope[..]].concat()),
    };
    let new: Vec<Resealed> = before.iter().map(anew).collect();
    // One is replaced and one is gone before they are put.
    put(store, "b", "a", b"another").await;
    store.delete("b", "a/b", Condition::Always).await.unwrap();
    let expected = before.len() as u64 - 2;
    assert_eq!(store.reseal(new.clone()).await.unwrap(), expected);
    assert_eq!(store.reseal(new).await.unwrap(), 0, "none stands any more");
    for row in all(store, 1000).await {
        let kept = matches!(&row.at, SealedAt::Object { key, .. } if key == "a");
        assert_eq!(row.envelope.starts_with(b"new "), !kept, "{:?}", row.at);
    }
    // Nothing but the record is another one.
    let after = store.head("b", "whole").await.unwrap();
    assert_eq!(after.envelope, "new b whole");
    let envelope = object.envelope.clone();
    assert_eq!(
        s3::store::ObjectRecord {
            envelope,
            ..after.clone()
        },
        object
    );
    assert_eq!(get(store, "b", "whole").await.unwrap(), b"partpart");
    let (_, reader) = store.open("b", "whole").await.unwrap();
    assert_eq!(reader.parts()[1].envelope, "new part 7");
    let condition = Condition::Sequence(object.sequence);
    assert!(store.delete("b", "whole", condition).await.unwrap());
    assert!(matches!(
        store.head("b", "whole").await,
        Err(StoreError::NoSuchKey)
    ));
}
