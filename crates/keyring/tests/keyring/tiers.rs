//! Keys that belong to services: who sees them, who uses them, who changes them.

use iam::{Authorized, Via};
use keyring::{Account, AliasName, KeyArgument, Page, PendingWindow, Service, Tier};

use crate::fixture::{DAY, Fixture, code, root, secret};

#[tokio::test]
async fn a_managed_key_is_made_once_seen_by_all_and_used_through_its_service() {
    let fixture = Fixture::new().await;
    let keyring = &fixture.keyring;
    let (first, second) = tokio::join!(
        keyring.managed_key(Service::S3),
        keyring.managed_key(Service::S3)
    );
    let key = first.unwrap();
    assert_eq!(key, second.unwrap());
    let alias: KeyArgument = "alias/aws/s3".parse().unwrap();
    let described = keyring
        .authorize::<iam::DescribeKey, _>(root(Via::Api), &alias)
        .await
        .unwrap();
    let described = keyring.describe_key(described).await.unwrap();
    assert_eq!(
        (described.manager(), described.tier),
        ("AWS", Tier::Managed(Service::S3))
    );

    let permission = fixture.may_via(&key, Via::S3).await.unwrap();
    let sealed = keyring.encrypt(permission, secret(b"x")).await.unwrap();
    for via in [Via::Api, Via::Volume] {
        assert_eq!(
            code(fixture.may_via::<iam::Encrypt>(&key, via).await),
            "AccessDeniedException"
        );
        let blob = fixture.may_open(&sealed.ciphertext, via).await;
        assert_eq!(code(blob), "AccessDeniedException");
    }
    // Nobody changes it, its service neither.
    for via in [Via::Api, Via::S3] {
        let denied = [
            code(fixture.may_via::<iam::DisableKey>(&key, via).await),
            code(fixture.may_via::<iam::ScheduleKeyDeletion>(&key, via).await),
            code(fixture.may_via::<iam::RotateKeyOnDemand>(&key, via).await),
            code(fixture.may_via::<iam::DisableKeyRotation>(&key, via).await),
            code(fixture.may_via::<iam::CreateAlias>(&key, via).await),
            code(fixture.may_via::<iam::TagResource>(&key, via).await),
        ];
        assert_eq!(denied, ["AccessDeniedException"; 6]);
    }
    fixture.clock.advance(365 * DAY);
    assert_eq!(keyring.sweep().await.rotated, 1);
    let fixture = fixture.restart().await;
    assert_eq!(fixture.keyring.managed_key(Service::S3).await.unwrap(), key);
}

#[tokio::test]
async fn a_managed_keys_alias_makes_the_key_when_its_service_asks() {
    let fixture = Fixture::new().await;
    let alias: KeyArgument = "alias/aws/ebs".parse().unwrap();
    let ask = |via| {
        let (keyring, alias) = (&fixture.keyring, &alias);
        async move {
            keyring
                .authorize::<iam::GenerateDataKeyWithoutPlaintext, _>(root(via), alias)
                .await
        }
    };
    assert_eq!(code(ask(Via::Api).await), "NotFoundException");
    assert_eq!(code(ask(Via::S3).await), "NotFoundException");
    assert_eq!(code(ask(Via::Volume).await), "Success");
    assert_eq!(code(ask(Via::Api).await), "AccessDeniedException");
}

#[tokio::test]
async fn an_owned_key_is_in_no_list_and_cannot_be_named() {
    let fixture = Fixture::new().await;
    let keyring = &fixture.keyring;
    let key = keyring.owned_key(Service::S3).await.unwrap();
    assert_eq!(keyring.owned_key(Service::S3).await.unwrap(), key);
    let may = fixture.may_via(&key, Via::S3).await.unwrap();
    let sealed = keyring.encrypt(may, secret(b"x")).await.unwrap();
    for via in [Via::Api, Via::Volume] {
        assert_eq!(
            code(fixture.may_via::<iam::DescribeKey>(&key, via).await),
            "NotFoundException"
        );
        let blob = fixture.may_open(&sealed.ciphertext, via).await;
        assert_eq!(code(blob), "InvalidCiphertextException");
    }
    assert_eq!(
        code(
            fixture
                .may_via::<iam::ScheduleKeyDeletion>(&key, Via::S3)
                .await
        ),
        "AccessDeniedException"
    );
    let list = keyring.authorize(root(Via::Api), Account).await.unwrap();
    let keys = keyring.list_keys(list, Page::default()).await.unwrap();
    assert!(keys.entries.is_empty());
    let list = keyring.authorize(root(Via::Api), Account).await.unwrap();
    let aliases = keyring
        .list_aliases(list, None, Page::default())
        .await
        .unwrap();
    assert!(aliases.entries.is_empty());

    let fixture = fixture.restart().await;
    assert_eq!(fixture.keyring.owned_key(Service::S3).await.unwrap(), key);
    let may = fixture.may_open(&sealed.ciphertext, Via::S3).await.unwrap();
    let opened = fixture.keyring.decrypt(may).await;
    assert_eq!(opened.unwrap().plaintext.expose(), b"x");
}

#[tokio::test]
async fn a_permission_that_passed_by_the_keyring_does_not_pass_the_tiers() {
    // Made by iam itself: the account's root may do anything to the account's ARNs.
    let fixture = Fixture::new().await;
    let keyring = &fixture.keyring;
    let authorizer = iam::Authorizer::new(*keyring.account());
    let caller = root(Via::Api);
    let owned = keyring.owned_key(Service::S3).await.unwrap();
    let seen: Authorized<iam::Encrypt, _> = fixture.may_via(&owned, Via::S3).await.unwrap();
    let forged = authorizer.authorize(caller, seen.into_resource()).unwrap();
    let result = keyring.encrypt(forged, secret(b"x")).await;
    assert_eq!(code(result), "NotFoundException");
    let managed = keyring.managed_key(Service::Ebs).await.unwrap();
    let seen = async || {
        fixture
            .may::<iam::DescribeKey>(&managed)
            .await
            .into_resource()
    };
    let forged = authorizer.authorize(caller, seen().await).unwrap();
    let result = keyring
        .schedule_key_deletion(forged, PendingWindow::default())
        .await;
    assert_eq!(code(result), "AccessDeniedException");
    let name: AliasName = "alias/mine".parse().unwrap();
    let forged = authorizer.authorize(caller, seen().await).unwrap();
    assert_eq!(
        code(keyring.create_alias(forged, name).await),
        "AccessDeniedException"
    );
}
