//! What the operations do.

use std::sync::{Arc, Mutex};

use host::Clock as _;
use iam::Via;
use keyring::{
    Account, AliasName, BlobUse, CreateKey, DataKeyLen, KeyArgument, KeyChange, KeyState, Page,
    PendingWindow, RotationKind, Tag,
};

use crate::fixture::{ACCOUNT, DAY, Fixture, MATERIALS, REGION, code, context, root, secret};

#[tokio::test]
async fn what_is_sealed_opens_again_also_after_a_restart() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[]).await;
    assert!(fixture.opens(&blob).await);
    let fixture = fixture.restart().await;
    assert!(fixture.opens(&blob).await);
    let described = fixture.keyring.describe_key(fixture.may(&key).await).await;
    let described = described.unwrap();
    assert_eq!(described.arn, key);
    assert_eq!(described.state, KeyState::Enabled);
    assert_eq!(described.manager(), "CUSTOMER");
}

#[tokio::test]
async fn a_data_key_comes_in_the_clear_and_sealed() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let pairs = [("purpose", "test")];
    let made = fixture
        .keyring
        .generate_data_key(
            fixture.may_under(&key, &pairs).await.unwrap(),
            DataKeyLen::XTS_256,
        )
        .await
        .unwrap();
    assert_eq!(made.plaintext.len(), 64);
    let opened = fixture.open(&made.ciphertext, None, &pairs).await.unwrap();
    assert_eq!(opened.expose(), made.plaintext.expose());
    let wrapped = fixture
        .keyring
        .generate_data_key_without_plaintext(fixture.may(&key).await, DataKeyLen::AES_256)
        .await
        .unwrap();
    let opened = fixture.open(&wrapped.ciphertext, Some(&key), &[]).await;
    assert_eq!(opened.unwrap().len(), 32);
    let random = fixture
        .keyring
        .authorize(root(Via::Api), Account)
        .await
        .unwrap();
    let random = fixture
        .keyring
        .generate_random(random, DataKeyLen::new(1024).unwrap())
        .await
        .unwrap();
    assert_eq!(random.len(), 1024);
    assert_eq!(code(DataKeyLen::new(0)), "ValidationException");
    assert_eq!(code(DataKeyLen::new(1025)), "ValidationException");
}

#[tokio::test]
async fn a_plaintext_has_1_to_4096_bytes() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    for (len, expected) in [
        (0, "ValidationException"),
        (1, "Success"),
        (4096, "Success"),
        (4097, "ValidationException"),
    ] {
        let authorized = fixture.may(&key).await;
        let result = fixture
            .keyring
            .encrypt(authorized, secret(&vec![7; len]))
            .await;
        assert_eq!(code(result), expected, "{len}");
    }
}

#[tokio::test]
async fn re_encryption_moves_a_blob_to_another_key_and_context() {
    let fixture = Fixture::new().await;
    let (old, new) = (fixture.create().await, fixture.create().await);
    let blob = fixture.seal(&old, &[("a", "1")]).await;
    let source = fixture
        .keyring
        .authorize(
            root(Via::Api),
            BlobUse {
                blob: &blob,
                key: None,
                context: context(&[("a", "1")]),
            },
        )
        .await
        .unwrap();
    let moved = fixture
        .keyring
        .re_encrypt(
            source,
            fixture.may_under(&new, &[("b", "2")]).await.unwrap(),
        )
        .await
        .unwrap();
    assert_eq!((&moved.source, &moved.destination), (&old, &new));
    let opened = fixture
        .open(&moved.ciphertext, Some(&new), &[("b", "2")])
        .await;
    assert_eq!(opened.unwrap().expose(), b"a secret");
    let last = fixture.audit_lines().pop().unwrap();
    assert_eq!(last["operation"], "Decrypt");
    let lines = fixture.audit_lines();
    let line = lines
        .iter()
        .find(|l| l["operation"] == "ReEncrypt")
        .unwrap();
    assert_eq!(line["key"], old.as_str());
    assert_eq!(line["destination_key"], new.as_str());
    assert_eq!(line["encryption_context"]["a"], "1");
    assert_eq!(line["destination_encryption_context"]["b"], "2");
}

#[tokio::test]
async fn every_blob_opens_across_25_rotations_and_there_is_no_26th() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let mut blobs = vec![fixture.seal(&key, &[]).await];
    for _ in 0..25 {
        let authorized = fixture.may(&key).await;
        fixture
            .keyring
            .rotate_key_on_demand(authorized)
            .await
            .unwrap();
        blobs.push(fixture.seal(&key, &[]).await);
    }
    let authorized = fixture.may(&key).await;
    let one_more = fixture.keyring.rotate_key_on_demand(authorized).await;
    assert_eq!(code(one_more), "LimitExceededException");
    let fixture = fixture.restart().await;
    for blob in &blobs {
        assert!(fixture.opens(blob).await);
    }
    let page = Page {
        limit: Some(20),
        marker: None,
    };
    let first = fixture
        .keyring
        .list_key_rotations(fixture.may(&key).await, page)
        .await
        .unwrap();
    let page = Page {
        limit: None,
        marker: first.next_marker,
    };
    let second = fixture
        .keyring
        .list_key_rotations(fixture.may(&key).await, page)
        .await
        .unwrap();
    assert_eq!((first.entries.len(), second.entries.len()), (20, 5));
    assert!(second.next_marker.is_none());
    assert_eq!(second.entries[4].kind, RotationKind::OnDemand);
    let described = fixture.keyring.describe_key(fixture.may(&key).await).await;
    assert_eq!(
        described.unwrap().current_material,
        second.entries[4].material
    );
}

#[tokio::test]
async fn a_key_rotates_by_the_calendar_if_it_is_told_to() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    for bad in [89, 2561, -1] {
        let authorized = fixture.may(&key).await;
        let result = fixture
            .keyring
            .enable_key_rotation(authorized, Some(bad))
            .await;
        assert_eq!(code(result), "ValidationException");
    }
    fixture
        .keyring
        .enable_key_rotation(fixture.may(&key).await, Some(90))
        .await
        .unwrap();
    let blob = fixture.seal(&key, &[]).await;
    fixture.clock.advance(89 * DAY);
    assert_eq!(fixture.keyring.sweep().await.rotated, 0);
    fixture.clock.advance(DAY);
    assert_eq!(fixture.keyring.sweep().await.rotated, 1);
    assert_eq!(fixture.keyring.sweep().await.rotated, 0);
    assert!(fixture.opens(&blob).await);
    let status = fixture
        .keyring
        .get_key_rotation_status(fixture.may(&key).await)
        .await
        .unwrap();
    assert_eq!(status.period_days, Some(90));
    let line = fixture
        .audit_lines()
        .into_iter()
        .find(|line| line["operation"] == "RotateKey")
        .unwrap();
    assert_eq!(line["principal"], "kms.amazonaws.com");
    assert_eq!(line["material"], 2);
}

#[tokio::test]
async fn aliases_are_made_moved_listed_and_deleted() {
    let fixture = Fixture::new().await;
    let (a, b) = (fixture.create().await, fixture.create().await);
    let name: AliasName = "alias/app/main".parse().unwrap();
    let keyring = &fixture.keyring;
    keyring
        .create_alias(fixture.may(&a).await, name.clone())
        .await
        .unwrap();
    let again = keyring
        .create_alias(fixture.may(&b).await, name.clone())
        .await;
    assert_eq!(code(again), "AlreadyExistsException");
    let reserved = keyring
        .create_alias(fixture.may(&b).await, "alias/aws/x".parse().unwrap())
        .await;
    assert_eq!(code(reserved), "InvalidAliasNameException");

    let arn = format!("arn:aws:kms:{REGION}:{ACCOUNT}:alias/app/main");
    for argument in ["alias/app/main", arn.as_str()] {
        let argument: KeyArgument = argument.parse().unwrap();
        let authorized = keyring
            .authorize::<iam::DescribeKey, _>(root(Via::Api), &argument)
            .await
            .unwrap();
        assert_eq!(authorized.arn(), a.as_arn());
    }
    keyring
        .update_alias(fixture.may(&b).await, name.clone())
        .await
        .unwrap();
    let fixture = fixture.restart().await;
    let keyring = &fixture.keyring;
    let list = |key| {
        let page = Page::default();
        async move {
            let authorized = keyring.authorize(root(Via::Api), Account).await.unwrap();
            keyring.list_aliases(authorized, key, page).await.unwrap()
        }
    };
    let all = list(None).await.entries;
    assert_eq!(all.len(), 1);
    assert_eq!((&all[0].name, &all[0].target), (&name, &b));
    assert!(list(Some(KeyArgument::from(&a))).await.entries.is_empty());

    let authorized = keyring.authorize(root(Via::Api), &name).await.unwrap();
    keyring.delete_alias(authorized).await.unwrap();
    let gone = keyring
        .authorize::<iam::DeleteAlias, _>(root(Via::Api), &name)
        .await;
    assert_eq!(code(gone), "NotFoundException");
    let missing = keyring.update_alias(fixture.may(&b).await, name).await;
    assert_eq!(code(missing), "NotFoundException");
}

#[tokio::test]
async fn keys_are_listed_in_pages() {
    let fixture = Fixture::new().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(fixture.create().await);
    }
    let mut seen = Vec::new();
    let mut marker = None;
    loop {
        let authorized = fixture.keyring.authorize(root(Via::Api), Account).await;
        let page = Page {
            limit: Some(2),
            marker,
        };
        let listed = fixture
            .keyring
            .list_keys(authorized.unwrap(), page)
            .await
            .unwrap();
        seen.extend(listed.entries);
        marker = listed.next_marker;
        if marker.is_none() {
            break;
        }
    }
    made.sort();
    seen.sort();
    assert_eq!(seen, made);
}

#[tokio::test]
async fn a_disabled_key_opens_nothing_and_listeners_were_told_first() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[]).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    fixture.keyring.on_change(Box::new(move |event| {
        listener
            .lock()
            .unwrap()
            .push((event.key.clone(), event.change));
    }));
    let disable = fixture.may(&key).await;
    let decrypt = fixture.may_open(&blob, Via::Api).await.unwrap();
    let mut standing = decrypt.standing(decrypt.resource().to_key());
    assert!(standing.is_current());
    fixture.keyring.disable_key(disable).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [(key.clone(), KeyChange::Disabled)]);
    // A permission from before does not outlive the state.
    let result = fixture.keyring.decrypt(decrypt).await;
    assert_eq!(code(result), "DisabledException");
    // What stood on it is stale, and is not renewed while the key is disabled.
    assert!(!standing.is_current());
    let renewed = fixture.keyring.renew(&mut standing);
    assert_eq!(code(renewed), "DisabledException");
    assert!(!standing.is_current());
    assert_eq!(code(fixture.try_seal(&key, &[]).await), "DisabledException");
    let fixture = fixture.restart().await;
    assert_eq!(
        code(fixture.open(&blob, None, &[]).await),
        "DisabledException"
    );
    fixture
        .keyring
        .enable_key(fixture.may(&key).await)
        .await
        .unwrap();
    assert!(fixture.opens(&blob).await);
}

#[tokio::test]
async fn a_deletion_can_be_cancelled_until_its_date() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[]).await;
    assert_eq!(code(PendingWindow::from_days(6)), "ValidationException");
    assert_eq!(code(PendingWindow::from_days(31)), "ValidationException");
    let window = PendingWindow::from_days(7).unwrap();
    let pending = fixture
        .keyring
        .schedule_key_deletion(fixture.may(&key).await, window)
        .await
        .unwrap();
    assert_eq!(pending.state, KeyState::PendingDeletion);
    assert!(pending.deletion_date.is_some());
    assert_eq!(
        code(fixture.open(&blob, None, &[]).await),
        "KMSInvalidStateException"
    );
    fixture.clock.advance(6 * DAY);
    fixture.keyring.sweep().await;
    fixture
        .keyring
        .cancel_key_deletion(fixture.may(&key).await)
        .await
        .unwrap();
    assert_eq!(
        code(fixture.open(&blob, None, &[]).await),
        "DisabledException"
    );
    fixture
        .keyring
        .enable_key(fixture.may(&key).await)
        .await
        .unwrap();
    assert!(fixture.opens(&blob).await);
}

#[tokio::test]
async fn a_key_past_its_date_is_gone_and_its_material_erased() {
    for at_open in [false, true] {
        let fixture = Fixture::on_disk().await;
        let key = fixture.create().await;
        let other = fixture.create().await;
        let blob = fixture.seal(&key, &[]).await;
        let name: AliasName = "alias/doomed".parse().unwrap();
        fixture
            .keyring
            .create_alias(fixture.may(&key).await, name.clone())
            .await
            .unwrap();
        let needle = material_record(&fixture, &key).await;
        fixture
            .keyring
            .schedule_key_deletion(fixture.may(&key).await, PendingWindow::default())
            .await
            .unwrap();
        fixture.clock.advance(30 * DAY);
        // Gone at its date, swept or not.
        assert_eq!(
            code(fixture.open(&blob, None, &[]).await),
            "InvalidCiphertextException"
        );
        assert_eq!(
            code(
                fixture
                    .may_via::<iam::CancelKeyDeletion>(&key, Via::Api)
                    .await
            ),
            "NotFoundException"
        );
        let fixture = if at_open {
            let fixture = fixture.restart().await;
            // Nobody can tell yet whether the clock is right.
            assert_eq!(fixture.keyring.sweep().await.destroyed, 0);
            fixture.clock.advance(DAY / 24);
            assert_eq!(fixture.keyring.sweep().await.destroyed, 1);
            fixture
        } else {
            assert_eq!(fixture.keyring.sweep().await.destroyed, 1);
            fixture
        };
        assert_eq!(fixture.keyring.sweep().await.destroyed, 0);
        for entry in std::fs::read_dir(fixture.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap_or_default();
            assert!(
                !bytes.windows(needle.len()).any(|w| w == needle),
                "{}",
                path.display()
            );
        }
        let line = fixture
            .audit_lines()
            .into_iter()
            .find(|line| line["operation"] == "DeleteKey")
            .unwrap();
        assert_eq!(line["key"], key.as_str());
        fixture
            .keyring
            .create_alias(fixture.may(&other).await, name)
            .await
            .unwrap();
        fixture.seal(&other, &[]).await;
        drop(fixture.restart().await);
    }
}

async fn material_record(fixture: &Fixture, key: &keyring::KeyArn) -> Vec<u8> {
    let mut id = key.key_id().as_bytes().to_vec();
    id.extend_from_slice(&1_u32.to_be_bytes());
    let at = fixture.store.at(&id);
    let stored = fixture.store.catalogue.get(MATERIALS, &at).await;
    stored.unwrap().unwrap().sealed
}

#[tokio::test]
async fn tags_are_kept_replaced_and_removed() {
    let fixture = Fixture::new().await;
    let tag = |key: &str, value: &str| Tag {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let authorized = fixture.keyring.authorize(root(Via::Api), Account).await;
    let request = CreateKey {
        description: "d".to_owned(),
        tags: vec![tag("a", "1"), tag("b", "2")],
    };
    let key = fixture
        .keyring
        .create_key(authorized.unwrap(), request)
        .await
        .unwrap()
        .arn;
    fixture
        .keyring
        .tag_resource(fixture.may(&key).await, vec![tag("a", "3")])
        .await
        .unwrap();
    fixture
        .keyring
        .untag_resource(fixture.may(&key).await, vec!["b".to_owned()])
        .await
        .unwrap();
    let fixture = fixture.restart().await;
    let listed = fixture
        .keyring
        .list_resource_tags(fixture.may(&key).await, Page::default())
        .await
        .unwrap();
    assert_eq!(listed.entries, [tag("a", "3")]);
}

#[tokio::test]
async fn a_dry_run_says_whether_it_would_have_worked() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let may = fixture.may::<iam::Encrypt>(&key).await;
    assert_eq!(
        fixture.keyring.dry_run(may).await.code(),
        "DryRunOperationException"
    );
    fixture
        .keyring
        .disable_key(fixture.may(&key).await)
        .await
        .unwrap();
    let may = fixture.may::<iam::Encrypt>(&key).await;
    assert_eq!(
        fixture.keyring.dry_run(may).await.code(),
        "DisabledException"
    );
}

#[tokio::test]
async fn a_change_is_made_whole_even_if_the_caller_goes_away() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let disable = fixture.may(&key).await;
    {
        // The log does not finish a record while this is held: the change is announced, not made.
        let _gate = fixture.gate.lock().await;
        let keyring = Arc::clone(&fixture.keyring);
        let change = tokio::spawn(async move { keyring.disable_key(disable).await });
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(!change.is_finished());
        change.abort();
        assert!(change.await.unwrap_err().is_cancelled());
    }
    // It is the log's turn now, and nobody waits for it.
    let recorded = || {
        fixture
            .audit_lines()
            .iter()
            .any(|line| line["operation"] == "DisableKey" && line["outcome"] == "Success")
    };
    while !recorded() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(code(fixture.try_seal(&key, &[]).await), "DisabledException");
}

#[tokio::test]
async fn a_clock_that_jumped_forward_destroys_no_key_before_it_has_stood_for_a_while() {
    let fixture = Fixture::new().await;
    let key = fixture.create().await;
    let blob = fixture.seal(&key, &[]).await;
    let schedule = fixture
        .keyring
        .schedule_key_deletion(fixture.may(&key).await, PendingWindow::default());
    schedule.await.unwrap();
    fixture.clock.advance(DAY);
    assert_eq!(fixture.keyring.sweep().await.destroyed, 0);
    let right = fixture.clock.now();
    // A year ahead, found out within the hour, by a running keyring and by one that was opened then.
    fixture.clock.set(right + 365 * DAY);
    assert_eq!(fixture.keyring.sweep().await.destroyed, 0);
    let missing = code(fixture.open(&blob, None, &[]).await);
    assert_eq!(missing, "InvalidCiphertextException");
    let fixture = fixture.restart().await;
    fixture.clock.advance(DAY / 48);
    assert_eq!(fixture.keyring.sweep().await.destroyed, 0);
    fixture.clock.set(right);
    assert_eq!(fixture.keyring.sweep().await.destroyed, 0);
    let cancel = fixture.keyring.cancel_key_deletion(fixture.may(&key).await);
    cancel.await.unwrap();
    let enable = fixture.keyring.enable_key(fixture.may(&key).await);
    enable.await.unwrap();
    assert!(fixture.opens(&blob).await);
}
