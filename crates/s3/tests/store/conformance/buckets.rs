//! Buckets and their settings.

use bytes::Bytes;
use s3::store::{BucketRecord, Condition, ListQuery, ObjectStore, Page, StoreError, UploadQuery};

use super::with_bucket;
use crate::sealing::{commit, date, get, put, put_part, seal};

pub(crate) async fn buckets_are_created_listed_and_deleted(store: &dyn ObjectStore) {
    for id in ["beta", "alpha", "alpine", "gamma", "beta"] {
        store.create_bucket(id).await.unwrap();
    }
    let list = |page: Page<BucketRecord>| {
        assert!(page.entries.iter().all(|bucket| !bucket.closed));
        let ids = page.entries.into_iter().map(|bucket| bucket.id);
        (ids.collect::<Vec<_>>(), page.truncated)
    };
    assert_eq!(
        list(store.buckets(None, 10).await.unwrap()).0,
        ["alpha", "alpine", "beta", "gamma"]
    );
    assert_eq!(
        list(store.buckets(None, 1).await.unwrap()),
        (vec!["alpha".to_owned()], true)
    );
    assert_eq!(
        list(store.buckets(Some("alpine"), 2).await.unwrap()),
        (vec!["beta".to_owned(), "gamma".to_owned()], false)
    );
    assert_eq!(list(store.buckets(None, 0).await.unwrap()), (vec![], false));
    store.delete_bucket("beta").await.unwrap();
    assert!(matches!(
        store.delete_bucket("beta").await,
        Err(StoreError::NoSuchBucket)
    ));
    assert!(matches!(
        store.close_bucket("beta").await,
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
}

/// Closing is the fence between deleting a bucket and what is on its way into it.
pub(crate) async fn nothing_is_found_in_a_closed_bucket_or_put_into_it(store: &dyn ObjectStore) {
    with_bucket(store).await;
    let id = store
        .create_upload("b", "k", Bytes::new(), date(1))
        .await
        .unwrap()
        .id;
    put_part(store, "b", "k", &id, 1, b"part").await.unwrap();
    put(store, "b", "k", b"x").await;
    assert!(matches!(
        store.close_bucket("b").await,
        Err(StoreError::BucketNotEmpty)
    ));
    assert_eq!(get(store, "b", "k").await.unwrap(), b"x");
    store.delete("b", "k", Condition::Always).await.unwrap();

    let mut late = store.begin_put("b", "late", None).await.unwrap();
    late.write(seal(b"y", 1).remove(0)).await.unwrap();
    let mut part = store.begin_part("b", "k", &id, 2, None).await.unwrap();
    part.write(seal(b"z", 1).remove(0)).await.unwrap();
    store.close_bucket("b").await.unwrap();
    store.close_bucket("b").await.unwrap();
    let closed = BucketRecord {
        id: "b".to_owned(),
        closed: true,
    };
    assert_eq!(store.buckets(None, 9).await.unwrap().entries, [closed]);
    let refused = [
        late.commit(commit("e")).await.map(drop),
        part.commit(Bytes::new(), date(2)).await.map(drop),
        store.begin_put("b", "k", None).await.map(drop),
        store.begin_part("b", "k", &id, 3, None).await.map(drop),
        store.head("b", "k").await.map(drop),
        store.open("b", "k").await.map(drop),
        store.list("b", &ListQuery::default()).await.map(drop),
        store.uploads("b", &UploadQuery::default()).await.map(drop),
        store.upload("b", "k", &id).await.map(drop),
        store.parts("b", "k", &id, 0, 9).await.map(drop),
        store
            .create_upload("b", "k", Bytes::new(), date(1))
            .await
            .map(drop),
        store.abort_upload("b", "k", &id).await,
        store.delete("b", "k", Condition::Always).await.map(drop),
    ];
    for (at, refused) in refused.into_iter().enumerate() {
        assert!(matches!(refused, Err(StoreError::NoSuchBucket)), "{at}");
    }

    // Opened again, it is what it was: what was refused did not happen, the upload is still there.
    store.create_bucket("b").await.unwrap();
    assert!(matches!(
        store.head("b", "late").await,
        Err(StoreError::NoSuchKey)
    ));
    let parts = store.parts("b", "k", &id, 0, 9).await.unwrap().entries;
    assert_eq!(parts.len(), 1);
    store.close_bucket("b").await.unwrap();
    store.delete_bucket("b").await.unwrap();
    assert!(store.buckets(None, 9).await.unwrap().entries.is_empty());
}
