//! What must be true under attack: blobs, contexts, names, and whoever has the disk.

use std::{collections::BTreeSet, sync::Arc};

use catalogue::{Record, Sequence, Table};
use iam::{Caller, Principal, RequestContext, Via};
use keyring::{KeyArgument, KeyringError};

use crate::fixture::{
    ACCOUNT, ALIASES, Closed, Fixture, KEYS, MATERIALS, Store, code, root, secret,
};

#[tokio::test]
async fn a_blob_changed_in_any_byte_cut_or_extended_is_invalid_with_one_message() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[]).await;
    let mut messages = BTreeSet::new();
    let mut try_one = async |bad: &[u8]| {
        for named in [None, Some(&key)] {
            let error = fixture.open(bad, named, &[]).await.unwrap_err();
            assert_eq!(error.code(), "InvalidCiphertextException");
            messages.insert(error.message());
        }
    };
    for at in 0..blob.len() {
        let mut bad = blob.clone();
        bad[at] ^= 1 << (at % 8);
        try_one(&bad).await;
    }
    for len in 1..blob.len() {
        try_one(&blob[..len]).await;
    }
    let mut longer = blob.clone();
    longer.push(0);
    try_one(&longer).await;
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(fixture.opens(&blob).await);
    for bad in [vec![], vec![0; 6145]] {
        assert_eq!(
            code(fixture.open(&bad, None, &[]).await),
            "ValidationException"
        );
    }
}

#[tokio::test]
async fn headers_swapped_between_keys_and_materials_open_nothing() {
    let fixture = Fixture::new().await;
    let (a, b) = (fixture.create().await, fixture.create().await);
    let blob = fixture.seal(&a, &[]).await;
    fixture
        .keyring
        .rotate_key_on_demand(fixture.may(&a).await)
        .await
        .unwrap();
    let newer = fixture.seal(&a, &[]).await;
    let foreign = fixture.seal(&b, &[]).await;
    for other in [&newer, &foreign] {
        let mut swapped = blob.clone();
        swapped[..24].copy_from_slice(&other[..24]);
        assert_eq!(
            code(fixture.open(&swapped, None, &[]).await),
            "InvalidCiphertextException"
        );
    }
    let elsewhere = Fixture::new().await;
    let foreign = elsewhere.seal(&elsewhere.create().await, &[]).await;
    assert_eq!(
        code(fixture.open(&foreign, None, &[]).await),
        "InvalidCiphertextException"
    );
}

#[tokio::test]
async fn contexts_that_look_alike_are_not_alike() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let sealed_with: &[(&str, &str)] = &[("a", "bc"), ("d", "\u{e9}")];
    let blob = fixture.seal(&key, sealed_with).await;
    let others: [&[(&str, &str)]; 9] = [
        &[],
        &[("a", "bc")],
        &[("ab", "c"), ("d", "\u{e9}")],
        &[("A", "bc"), ("d", "\u{e9}")],
        &[("a", "BC"), ("d", "\u{e9}")],
        &[("a", "bc"), ("d", "e\u{301}")],
        &[("a", "bc"), ("d", "\u{e9}"), ("", "")],
        &[("d", "bc"), ("a", "\u{e9}")],
        &[("a", "bcd"), ("", "\u{e9}")],
    ];
    for other in others {
        assert_eq!(
            code(fixture.open(&blob, None, other).await),
            "InvalidCiphertextException",
            "{other:?}"
        );
    }
    let reordered = [("d", "\u{e9}"), ("a", "bc")];
    assert!(fixture.open(&blob, None, &reordered).await.is_ok());
    assert!(crypto::context::EncryptionContext::from_pairs([("a", "1"), ("a", "1")]).is_err());
}

#[tokio::test]
async fn the_wrong_key_named_is_an_incorrect_key() {
    let fixture = Fixture::new().await;
    let (a, b) = (fixture.create().await, fixture.create().await);
    let blob = fixture.seal(&a, &[]).await;
    assert_eq!(
        code(fixture.open(&blob, Some(&b), &[]).await),
        "IncorrectKeyException"
    );
    assert!(fixture.open(&blob, Some(&a), &[]).await.is_ok());
    // A permission is for the blob that it was asked for, and its key.
    let may = fixture.may_open(&blob, Via::Api).await.unwrap();
    assert_eq!(may.arn(), a.as_arn());
    assert_eq!(fixture.keyring.decrypt(may).await.unwrap().key, a);
}

#[tokio::test]
async fn names_of_other_accounts_and_regions_lead_nowhere() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let ask = async |argument: &str| {
        let argument: KeyArgument = argument.parse().unwrap();
        code(
            fixture
                .keyring
                .authorize::<iam::Decrypt, _>(root(Via::Api), &argument)
                .await,
        )
    };
    let id = key.key_id();
    for (argument, expected) in [
        (
            format!("arn:aws:kms:us-east-1:210987654321:key/{id}"),
            "AccessDeniedException",
        ),
        (
            "arn:aws:kms:us-east-1:210987654321:alias/x".to_owned(),
            "AccessDeniedException",
        ),
        (
            format!("arn:aws:kms:eu-west-1:123456789012:key/{id}"),
            "NotFoundException",
        ),
        (
            "arn:aws:kms:us-east-1:123456789012:alias/x".to_owned(),
            "NotFoundException",
        ),
        (
            format!("mrk-{}", hex::encode(id.as_bytes())),
            "NotFoundException",
        ),
        (id.to_string(), "Success"),
        (id.to_string().to_uppercase(), "Success"),
    ] {
        assert_eq!(ask(&argument).await, expected, "{argument}");
    }
    let stranger = Arc::new(RequestContext::new(
        Principal::root("210987654321".parse().unwrap()),
        "request-2",
    ));
    let stranger = Caller::new(&stranger, Via::Api);
    let refused = fixture
        .keyring
        .authorize::<iam::Decrypt, _>(stranger, &KeyArgument::from(&key))
        .await;
    assert_eq!(code(refused), "AccessDeniedException");
    let line = fixture.audit_lines().pop().unwrap();
    assert_eq!(line["outcome"], "AccessDeniedException");
    assert_eq!(line["principal"], "arn:aws:iam::210987654321:root");
    assert_eq!(line["key"], key.as_str());
}

#[tokio::test]
async fn records_swapped_in_the_store_are_named_and_not_used() {
    for table in [KEYS, MATERIALS, ALIASES] {
        let fixture = Fixture::new().await;
        let (a, b) = (fixture.create().await, fixture.create().await);
        for (key, name) in [(&a, "alias/a"), (&b, "alias/b")] {
            fixture
                .keyring
                .create_alias(fixture.may(key).await, name.parse().unwrap())
                .await
                .unwrap();
        }
        let blob = fixture.seal(&a, &[]).await;
        let closed = fixture.close();
        swap(&closed, table).await;
        let error = match closed.try_open(ACCOUNT, None).await {
            Err((_, error)) => error,
            Ok(fixture) => {
                // Materials are opened when used.
                assert_eq!(table, MATERIALS);
                fixture.open(&blob, None, &[]).await.unwrap_err()
            }
        };
        assert_eq!(error.code(), "KMSInternalException");
        assert!(!error.message().contains(table.name()));
        assert!(
            matches!(&error, KeyringError::Damaged { table: at, .. } if *at == table.name()),
            "{error}"
        );
        assert!(
            error.to_string().contains("does not belong there"),
            "{error}"
        );
    }
}

async fn records(closed: &Closed, table: Table) -> Vec<Record> {
    let page = closed.store.catalogue.page(table, None, None, 100).await;
    page.unwrap().records
}

async fn swap(closed: &Closed, table: Table) {
    let rows = records(closed, table).await;
    assert_eq!(rows.len(), 2);
    for (to, from) in [(0, 1), (1, 0)] {
        let moved = (rows[to].version, rows[from].sealed.clone());
        closed
            .store
            .memory
            .tamper(table, &rows[to].key, Some(moved));
    }
}

#[tokio::test]
async fn a_record_changed_in_any_byte_is_named() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let mut closed = fixture.close();
    let record = records(&closed, KEYS).await.remove(0);
    for at in (0..record.sealed.len()).step_by(7) {
        let mut bad = record.sealed.clone();
        bad[at] ^= 0x80;
        let changed = Some((record.version, bad));
        closed.store.memory.tamper(KEYS, &record.key, changed);
        let Err((still_closed, error)) = closed.try_open(ACCOUNT, None).await else {
            panic!("byte {at} was not noticed");
        };
        let id = hex::encode(key.key_id().as_bytes());
        assert!(error.to_string().contains(&id), "{error}");
        closed = still_closed;
    }
}

#[tokio::test]
async fn a_lost_record_is_named() {
    for table in [KEYS, MATERIALS] {
        let fixture = Fixture::new().await;
        let key = fixture.create().await;
        let alias = "alias/a".parse().unwrap();
        fixture
            .keyring
            .create_alias(fixture.may(&key).await, alias)
            .await
            .unwrap();
        let closed = fixture.close();
        for record in records(&closed, table).await {
            closed.store.memory.tamper(table, &record.key, None);
        }
        let Err((_, error)) = closed.try_open(ACCOUNT, None).await else {
            panic!("a lost {table} was not noticed");
        };
        assert!(
            matches!(&error, KeyringError::Damaged { table: at, .. } if *at == table.name()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_key_that_is_lost_without_an_alias_is_noticed_by_its_material() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    fixture.create().await;
    let closed = fixture.close();
    let at = closed.store.at(key.key_id().as_bytes());
    closed.store.memory.tamper(KEYS, &at, None);
    let Err((_, error)) = closed.try_open(ACCOUNT, None).await else {
        panic!("a lost key was not noticed");
    };
    let orphan = format!("{}00000001", hex::encode(key.key_id().as_bytes()));
    assert!(
        matches!(&error, KeyringError::Damaged { table: "material", id, .. } if *id == orphan),
        "{error}"
    );
}

#[tokio::test]
async fn a_key_record_from_before_a_rotation_is_noticed() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let closed = fixture.close();
    let old = records(&closed, KEYS).await.remove(0);
    let fixture = closed.open().await;
    fixture
        .keyring
        .rotate_key_on_demand(fixture.may(&key).await)
        .await
        .unwrap();
    let closed = fixture.close();
    let put_back = Some((old.version, old.sealed));
    closed.store.memory.tamper(KEYS, &old.key, put_back);
    let Err((_, error)) = closed.try_open(ACCOUNT, None).await else {
        panic!("an old record was not noticed");
    };
    assert!(
        matches!(
            &error,
            KeyringError::Damaged {
                table: "material",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn an_older_record_under_the_version_it_does_not_have_is_noticed() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let closed = fixture.close();
    let enabled = records(&closed, KEYS).await.remove(0);
    let fixture = closed.open().await;
    let may = fixture.may(&key).await;
    fixture.keyring.disable_key(may).await.unwrap();
    let closed = fixture.close();
    let put_back = Some((enabled.version + 1, enabled.sealed));
    closed.store.memory.tamper(KEYS, &enabled.key, put_back);
    let Err((_, error)) = closed.try_open(ACCOUNT, None).await else {
        panic!("an old record was not noticed");
    };
    assert!(
        matches!(&error, KeyringError::Damaged { table: "key", .. }),
        "{error}"
    );
}

#[tokio::test]
async fn the_store_key_of_another_store_is_refused_and_nothing_is_changed() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[]).await;
    let closed = fixture.close();
    let before = state(&closed).await;
    let other = Store::new().await.key;
    let Err((closed, error)) = closed.try_open(ACCOUNT, Some(other)).await else {
        panic!("another store's key was taken");
    };
    assert!(matches!(error, KeyringError::WrongStore { .. }), "{error}");
    assert_eq!(state(&closed).await, before);

    assert!(closed.open().await.opens(&blob).await);
}

#[tokio::test]
async fn keys_of_another_account_are_neither_seen_nor_used_and_the_catalogue_says_whose_there_are()
{
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[]).await;
    let closed = fixture.close();
    let before = state(&closed).await;
    let other = closed.try_open("123456789021", None).await;
    let other = other.map_err(|(_, error)| error).unwrap();
    assert!(!other.keyring.is_enabled(&key));
    assert!(!other.opens(&blob).await);
    let closed = other.close();
    assert_eq!(state(&closed).await.0, before.0);
    let scopes = keyring::scopes(&*closed.store.catalogue).await.unwrap();
    let scopes: Vec<_> = scopes.iter().map(|scope| scope.account.as_str()).collect();
    assert_eq!(scopes, [ACCOUNT]);
    assert!(closed.open().await.opens(&blob).await);
}

/// How far the catalogue and the log have got.
async fn state(closed: &Closed) -> (Sequence, usize) {
    let lines = crate::fixture::audit_lines(&closed.dir.path().join("audit"));
    let sequence = closed.store.catalogue.sequence().await.unwrap();
    (sequence, lines.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_begins_after_a_disabling_or_destruction_was_answered_opens() {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    let fixture = Arc::new(Fixture::new().await);
    for destroy in [false, true] {
        let key = fixture.create().await;
        let blob = fixture.seal(&key, &[]).await;
        let answered = Arc::new(AtomicBool::new(false));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (fixture, blob) = (Arc::clone(&fixture), blob.clone());
            let answered = Arc::clone(&answered);
            tasks.spawn(async move {
                let mut opened = 0;
                loop {
                    let began_after = answered.load(Ordering::SeqCst);
                    let result = fixture.open(&blob, None, &[]).await;
                    assert!(!(began_after && result.is_ok()));
                    opened += usize::from(result.is_ok());
                    if began_after {
                        return opened;
                    }
                }
            });
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        if destroy {
            let may = fixture.may(&key).await;
            let window = keyring::PendingWindow::default();
            let keyring = &fixture.keyring;
            keyring.schedule_key_deletion(may, window).await.unwrap();
            fixture.clock.advance(30 * crate::fixture::DAY);
            assert_eq!(keyring.sweep().await.destroyed, 1);
        } else {
            let may = fixture.may(&key).await;
            fixture.keyring.disable_key(may).await.unwrap();
        }
        assert!(!fixture.keyring.is_enabled(&key));
        answered.store(true, Ordering::SeqCst);
        let opened: usize = tasks.join_all().await.into_iter().sum();
        assert!(opened > 0, "the race was one");
    }
}

#[tokio::test]
async fn no_secret_is_in_a_file_a_message_or_a_debug_text() {
    let fixture = Fixture::on_disk().await;
    let key = fixture.create().await;
    let needle = b"needle-of-the-plaintext";
    let may = fixture.may(&key).await;
    let sealed = fixture.keyring.encrypt(may, secret(needle)).await.unwrap();
    let may = fixture
        .may_open(&sealed.ciphertext, Via::Api)
        .await
        .unwrap();
    let opened = fixture.keyring.decrypt(may).await.unwrap();
    assert!(!format!("{opened:?}").contains("needle"));
    let dir = fixture.close().dir;
    let mut dirs = vec![dir.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                assert!(
                    !bytes.windows(needle.len()).any(|w| w == needle),
                    "{}",
                    path.display()
                );
            }
        }
    }
}
