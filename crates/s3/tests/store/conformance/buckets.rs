//! Buckets and their settings.

use bytes::Bytes;
use s3::store::{Condition, ListQuery, ObjectStore, Page, StoreError, UploadQuery};

use super::with_bucket;
use crate::sealing::{commit, date, get, put, put_part, seal};

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
