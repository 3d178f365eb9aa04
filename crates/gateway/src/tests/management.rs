//! Every management call over HTTP leaves its intent before the change and its outcome after; with a log that takes no
//! records nothing is changed.

use clap::Parser as _;
use http::Method;
use serde_json::json;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use super::{Answer, HERE, ONE, Server, Site, records};
use crate::cli::Cli;
use crate::data_dir::Paths;

const PLACE: (&str, &str) = (ONE, HERE);
const RULE: &str = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>\
    <SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";

/// What there is to change.
struct Things {
    key: String,
    volume: String,
}

/// A key with an alias and a tag, a bucket with an encryption rule, a volume with a tag.
async fn things(server: &Server) -> Things {
    let key = server.create_key(PLACE).await;
    let alias = json!({"AliasName": "alias/old", "TargetKeyId": key});
    server.kms(PLACE, "CreateAlias", alias).await.ok();
    server.s3(PLACE, Method::PUT, "/old", "").await.ok();
    server
        .s3(PLACE, Method::PUT, "/old?encryption", RULE)
        .await
        .ok();
    let create = "Action=CreateVolume&Size=1&Encrypted=true&AvailabilityZone=us-east-1a";
    let volume = server.ec2(PLACE, create).await.ok();
    let volume = volume.xml("volumeId").to_owned();
    let tag = format!("Action=CreateTags&ResourceId.1={volume}&Tag.1.Key=Name&Tag.1.Value=old");
    server.ec2(PLACE, &tag).await.ok();
    Things { key, volume }
}

/// Makes each change there is; its operation, and what was answered.
async fn changes(server: &Server, things: &Things) -> Vec<(&'static str, Answer)> {
    let Things { key, volume } = things;
    let mut made = Vec::new();
    for (operation, input) in [
        ("CreateKey", json!({})),
        (
            "CreateAlias",
            json!({"AliasName": "alias/new", "TargetKeyId": key}),
        ),
        ("DeleteAlias", json!({"AliasName": "alias/old"})),
        (
            "TagResource",
            json!({"KeyId": key, "Tags": [{"TagKey": "a", "TagValue": "b"}]}),
        ),
        ("DisableKey", json!({"KeyId": key})),
        (
            "ScheduleKeyDeletion",
            json!({"KeyId": key, "PendingWindowInDays": 7}),
        ),
    ] {
        made.push((operation, server.kms(PLACE, operation, input).await));
    }
    for (operation, method, target, body) in [
        ("CreateBucket", Method::PUT, "/new", ""),
        ("PutBucketEncryption", Method::PUT, "/old?encryption", RULE),
        (
            "DeleteBucketEncryption",
            Method::DELETE,
            "/old?encryption",
            "",
        ),
        ("DeleteBucket", Method::DELETE, "/old", ""),
    ] {
        made.push((operation, server.s3(PLACE, method, target, body).await));
    }
    for (operation, form) in [
        (
            "CreateVolume",
            "Size=1&Encrypted=true&AvailabilityZone=us-east-1a".to_owned(),
        ),
        (
            "CreateTags",
            format!("ResourceId.1={volume}&Tag.1.Key=Name&Tag.1.Value=new"),
        ),
        (
            "DeleteTags",
            format!("ResourceId.1={volume}&Tag.1.Key=Name"),
        ),
        ("DeleteVolume", format!("VolumeId={volume}")),
    ] {
        let form = format!("Action={operation}&{form}");
        made.push((operation, server.ec2(PLACE, &form).await));
    }
    made
}

/// Everything that these calls could have changed.
async fn state(server: &Server) -> Vec<Vec<(String, u64)>> {
    let mut state = Vec::new();
    for table in [
        "key",
        "material",
        "alias",
        "bucket",
        "bucket-name",
        "volume",
    ] {
        state.push(rows(&*server.assembly.catalogue, table).await);
    }
    state
}

/// The ids and versions of a table's records.
async fn rows(catalogue: &dyn catalogue::Catalogue, table: &'static str) -> Vec<(String, u64)> {
    let table = catalogue::Table::new(table);
    let page = catalogue.page(table, None, None, 1000).await.unwrap();
    let records = page.records.into_iter();
    records
        .map(|record| (hex::encode(record.key.id), record.version))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_over_http_leaves_its_intent_and_its_outcome() {
    let site = Site::new();
    let server = site.start(&[ONE], &[HERE]).await.unwrap();
    let things = things(&server).await;
    let before = server.records().len();
    for (operation, answer) in changes(&server, &things).await {
        assert!(answer.status.is_success(), "{operation}: {}", answer.text);
        let records = server.records();
        let of: Vec<_> = records[before..]
            .iter()
            .filter(|record| record["operation"] == operation)
            .collect();
        let [intent, outcome] = of[..] else {
            panic!("{operation}: {of:?}");
        };
        assert_eq!(intent["outcome"], "Intended", "{operation}");
        assert_eq!(outcome["outcome"], "Success", "{operation}");
        assert_eq!(outcome["intent"], intent["seq"], "{operation}");
        assert_eq!(outcome["account"], ONE, "{operation}");
        assert_eq!(outcome["region"], HERE, "{operation}");
        assert_eq!(outcome["principal"], format!("arn:aws:iam::{ONE}:root"));
        let named = ["key", "alias", "bucket", "resource"];
        assert!(
            operation == "CreateKey" || named.iter().any(|name| outcome[name].is_string()),
            "{operation}: {outcome}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_dead_audit_log_no_call_over_http_changes_anything() {
    let site = Site::new();
    let server = site.start(&[ONE], &[HERE]).await.unwrap();
    let things = things(&server).await;
    let before = state(&server).await;
    server.kill_audit_log();
    for (operation, answer) in changes(&server, &things).await {
        assert!(
            answer.status.is_server_error(),
            "{operation}: {} {}",
            answer.status,
            answer.text
        );
        assert_eq!(state(&server).await, before, "{operation}");
    }
    let plain = "Action=CreateVolume&Size=1&Encrypted=false&AvailabilityZone=us-east-1a";
    let refused = server.ec2(PLACE, plain).await;
    assert!(!refused.status.is_success(), "{}", refused.text);
    assert_eq!(state(&server).await, before);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_refused_says_so_in_its_outcome() {
    let site = Site::new();
    let server = site.start(&[ONE], &[HERE]).await.unwrap();
    server.s3(PLACE, Method::PUT, "/full", "").await.ok();
    server.s3(PLACE, Method::PUT, "/full/key", "x").await.ok();
    server
        .s3(PLACE, Method::DELETE, "/full", "")
        .await
        .fails(409, "BucketNotEmpty");
    let records = server.records();
    let said: Vec<_> = records
        .iter()
        .filter(|record| record["operation"] == "DeleteBucket")
        .map(|record| {
            (
                record["outcome"].as_str().unwrap(),
                record["bucket"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(said, [("Intended", "full"), ("BucketNotEmpty", "full")]);
    server.stop().await;
}

#[test]
fn a_rotation_of_the_root_key_by_the_command_is_recorded_or_not_made() {
    let site = Site::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = site.start(&[ONE], &[HERE]).await.unwrap();
        server.stop().await;
    });
    drop(runtime);
    let dir = site.data_dir();
    let root = || {
        let header = std::fs::read(dir.join(root::HEADER_NAME)).unwrap();
        (header, std::fs::read(Paths(&dir).root_key()).unwrap())
    };
    let rotate = || {
        let arguments = [
            "sealgate",
            "--data-dir",
            dir.to_str().unwrap(),
            "root",
            "rotate",
        ];
        crate::run(Cli::try_parse_from(arguments).unwrap())
    };
    let before = root();
    rotate().unwrap();
    let after = root();
    assert!(before.0 != after.0 && before.1 != after.1);
    let said = |records: &[serde_json::Value]| -> Vec<String> {
        let of = records
            .iter()
            .filter(|record| record["operation"] == "RotateRootKey");
        of.map(|record| {
            assert_eq!(record["resource"], "root-key");
            assert_eq!(record["principal"], "sealgate");
            assert!(record["account"].is_null(), "it is the whole store's");
            record["outcome"].as_str().unwrap().to_owned()
        })
        .collect()
    };
    assert_eq!(said(&records(&dir)), ["Intended", "Success"]);

    // No folder, so that the log cannot be opened.
    let (audit, away) = (Paths(&dir).audit(), dir.join("away"));
    std::fs::rename(&audit, &away).unwrap();
    std::fs::write(&audit, b"").unwrap();
    std::fs::set_permissions(&audit, Permissions::from_mode(0o600)).unwrap();
    let refused = format!("{:#}", rotate().unwrap_err());
    assert!(refused.contains("audit log"), "{refused}");
    assert!(root() == after);
}
