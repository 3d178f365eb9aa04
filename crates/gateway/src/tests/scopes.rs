//! Several accounts and regions: each has its own, and none of another's.

use http::Method;
use serde_json::json;

use super::{HERE, ONE, Site, THERE, TWO};

const BOTH: [&str; 2] = [ONE, TWO];
const REGIONS: [&str; 2] = [HERE, THERE];
/// Every pair.
const PLACES: [(&str, &str); 4] = [(ONE, HERE), (ONE, THERE), (TWO, HERE), (TWO, THERE)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_belong_to_the_account_and_region_that_made_them() {
    let site = Site::new();
    let server = site.start(&BOTH, &REGIONS).await.unwrap();
    let mut blobs = Vec::new();
    for place in PLACES {
        let arn = server.create_key(place).await;
        let (account, region) = place;
        assert!(
            arn.starts_with(&format!("arn:aws:kms:{region}:{account}:key/")),
            "{arn}"
        );
        let alias = json!({"AliasName": "alias/same", "TargetKeyId": arn});
        server.kms(place, "CreateAlias", alias).await.ok();
        let input = json!({"KeyId": "alias/same", "Plaintext": "c2VjcmV0"});
        let blob = server.kms(place, "Encrypt", input).await.ok().json();
        assert_eq!(blob["KeyId"], arn);
        blobs.push((place, arn, blob["CiphertextBlob"].clone()));
    }
    for asking in PLACES {
        let listed = server.kms(asking, "ListKeys", json!({})).await.ok().json();
        assert_eq!(listed["Keys"].as_array().unwrap().len(), 1, "{listed}");
        for (owner, arn, blob) in &blobs {
            let opened = server
                .kms(asking, "Decrypt", json!({"CiphertextBlob": blob}))
                .await;
            let described = server
                .kms(asking, "DescribeKey", json!({"KeyId": arn}))
                .await;
            if asking == *owner {
                assert_eq!(opened.ok().json()["Plaintext"], "c2VjcmV0");
                described.ok();
                continue;
            }
            assert_eq!(opened.status, 400, "{}", opened.text);
            // Of another account: denied. Of another region: no ARN of this one's.
            let due = match asking.0 == owner.0 {
                true => "NotFoundException",
                false => "AccessDeniedException",
            };
            assert_eq!(
                described.json()["__type"],
                due,
                "{asking:?} {}",
                described.text
            );
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bucket_names_are_one_space_and_a_bucket_is_reached_in_its_region() {
    let site = Site::new();
    let server = site.start(&BOTH, &REGIONS).await.unwrap();
    let (here, there) = ((ONE, HERE), (ONE, THERE));
    server.s3(here, Method::PUT, "/first", "").await.ok();
    let constraint = "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
    // From the classic region into another one; from any other only into itself.
    server
        .s3(here, Method::PUT, "/second", constraint)
        .await
        .ok();
    server
        .s3(there, Method::PUT, "/third", constraint)
        .await
        .ok();
    let wrong = constraint.replace("eu-west-1", "us-east-1");
    let wrong = server
        .call(there, "s3", (Method::PUT, "/fourth"), &[], wrong)
        .await;
    wrong.fails(400, "IllegalLocationConstraintException");
    let unknown = constraint.replace("eu-west-1", "eu-west-2");
    let unknown = server
        .call(here, "s3", (Method::PUT, "/fourth"), &[], unknown)
        .await;
    unknown.fails(400, "IllegalLocationConstraintException");

    let location = server
        .s3(there, Method::GET, "/second?location", "")
        .await
        .ok();
    assert!(
        location.text.contains(">eu-west-1</LocationConstraint>"),
        "{}",
        location.text
    );
    for target in ["/second", "/second/key"] {
        let moved = server.s3(here, Method::GET, target, "").await;
        moved.fails(301, "PermanentRedirect");
        assert_eq!(moved.headers["x-amz-bucket-region"], THERE);
    }
    let head = server.s3(here, Method::HEAD, "/second", "").await;
    assert_eq!((head.status.as_u16(), &*head.text), (301, ""));
    assert_eq!(head.headers["x-amz-bucket-region"], THERE);
    server
        .s3(there, Method::PUT, "/second/key", "body")
        .await
        .ok();
    let got = server.s3(there, Method::GET, "/second/key", "").await.ok();
    assert_eq!(got.text, "body");
    let source = [("x-amz-copy-source", "/second/key")];
    let copied = server
        .call(here, "s3", (Method::PUT, "/first/copy"), &source, "")
        .await;
    copied.fails(501, "NotImplemented");

    // Another account sees nothing of it, and cannot have the name.
    for region in REGIONS {
        let other = (TWO, region);
        server
            .s3(other, Method::GET, "/second", "")
            .await
            .fails(403, "AccessDenied");
        server
            .s3(other, Method::DELETE, "/second", "")
            .await
            .fails(403, "AccessDenied");
        let taken = server.s3(other, Method::PUT, "/second", "").await;
        taken.fails(409, "BucketAlreadyExists");
        let listed = server.s3(other, Method::GET, "/", "").await.ok();
        assert!(!listed.text.contains("<Name>"), "{}", listed.text);
    }
    let owned = server.s3(here, Method::PUT, "/second", "").await;
    owned.fails(409, "BucketAlreadyOwnedByYou");
    for place in [here, there] {
        let listed = server.s3(place, Method::GET, "/", "").await.ok();
        let names: Vec<&str> = listed.text.split("<Name>").skip(1).collect();
        let names: Vec<&str> = names
            .iter()
            .map(|rest| rest.split_once('<').unwrap().0)
            .collect();
        assert_eq!(names, ["first", "second", "third"], "{}", listed.text);
        let named = |region| {
            listed
                .text
                .matches(&format!("<BucketRegion>{region}<"))
                .count()
        };
        assert_eq!((named(HERE), named(THERE)), (1, 2));
    }
    let some = server
        .s3(here, Method::GET, "/?bucket-region=eu-west-1", "")
        .await
        .ok();
    assert!(!some.text.contains("first") && some.text.contains("third"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_belong_to_the_account_and_region_that_made_them() {
    let site = Site::new();
    let server = site.start(&BOTH, &REGIONS).await.unwrap();
    let mut made = Vec::new();
    for place in PLACES {
        let create = format!(
            "Action=CreateVolume&Size=1&Encrypted=true&AvailabilityZone={}a",
            place.1
        );
        let volume = server.ec2(place, &create).await.ok();
        let key = volume.xml("kmsKeyId");
        let due = format!("arn:aws:kms:{}:{}:key/", place.1, place.0);
        assert!(key.starts_with(&due), "{key}");
        made.push((place, volume.xml("volumeId").to_owned()));
    }
    let elsewhere = "Action=CreateVolume&Size=1&AvailabilityZone=eu-west-1a";
    assert!(!server.ec2((ONE, HERE), elsewhere).await.status.is_success());
    for asking in PLACES {
        let listed = server.ec2(asking, "Action=DescribeVolumes").await.ok();
        assert_eq!(
            listed.text.matches("<volumeId>").count(),
            1,
            "{}",
            listed.text
        );
        let regions = server.ec2(asking, "Action=DescribeRegions").await.ok();
        assert_eq!(regions.text.matches("<regionName>").count(), 2);
        for (owner, id) in &made {
            let delete = format!("Action=DeleteVolume&VolumeId={id}");
            if asking != *owner {
                let refused = server.ec2(asking, &delete).await;
                assert!(!refused.status.is_success(), "{asking:?} {owner:?}");
            }
        }
    }
    for (place, id) in &made {
        server
            .ec2(*place, &format!("Action=DeleteVolume&VolumeId={id}"))
            .await
            .ok();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_not_served_is_refused_and_the_store_is_the_operators() {
    let site = Site::new();
    let server = site.start(&BOTH, &REGIONS).await.unwrap();
    let nowhere = server.kms((ONE, "eu-west-2"), "ListKeys", json!({})).await;
    assert!(nowhere.status.is_client_error() && nowhere.text.contains("eu-west-2"));
    let s3 = server.s3((ONE, "eu-west-2"), Method::GET, "/", "").await;
    s3.fails(400, "AuthorizationHeaderMalformed");
    for (account, allowed) in [(ONE, true), (TWO, false)] {
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", "Sealgate.ListJobs"),
        ];
        let post = (Method::POST, "/");
        let jobs = server
            .call((account, THERE), "sealgate", post, &headers, "{}")
            .await;
        assert_eq!(jobs.status.is_success(), allowed, "{}", jobs.text);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_the_audit_log_say_in_which_account_and_region() {
    let site = Site::new();
    let server = site.start(&BOTH, &REGIONS).await.unwrap();
    for (account, region) in PLACES {
        server.create_key((account, region)).await;
        let bucket = format!("/b-{account}-{region}");
        server
            .call((account, region), "s3", (Method::PUT, &bucket), &[], "")
            .await
            .ok();
    }
    let records = server.records();
    for operation in ["CreateKey", "CreateBucket"] {
        let said: Vec<_> = records
            .iter()
            .filter(|record| record["operation"] == operation && record["outcome"] == "Success")
            .map(|record| {
                (
                    record["account"].as_str().unwrap(),
                    record["region"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(said, PLACES, "{operation}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_and_regions_are_added_and_none_that_has_something_is_left_out() {
    let site = Site::new();
    let server = site.start(&[ONE], &[HERE]).await.unwrap();
    let arn = server.create_key((ONE, HERE)).await;
    server.stop().await;

    let server = site.start(&[TWO, ONE], &[THERE, HERE]).await.unwrap();
    let described = server
        .kms((ONE, HERE), "DescribeKey", json!({"KeyId": arn}))
        .await;
    described.ok();
    server
        .s3((TWO, THERE), Method::PUT, "/second", "")
        .await
        .ok();
    server.stop().await;

    for (accounts, regions, missing) in [
        (
            &[ONE][..],
            &[HERE, THERE][..],
            "buckets of account 210987654321 in region eu-west-1",
        ),
        (
            &[ONE, TWO],
            &[HERE],
            "buckets of account 210987654321 in region eu-west-1",
        ),
        (
            &[TWO],
            &[HERE, THERE],
            "keys of account 123456789012 in region us-east-1",
        ),
        (
            &[ONE, TWO],
            &[THERE],
            "keys of account 123456789012 in region us-east-1",
        ),
    ] {
        let refused = site.start(accounts, regions).await;
        let refused = format!("{:#}", refused.err().unwrap());
        assert!(refused.contains(missing), "{refused}");
    }
    let server = site.start(&[ONE, TWO], &[HERE, THERE]).await.unwrap();
    server
        .s3((TWO, THERE), Method::DELETE, "/second", "")
        .await
        .ok();
    server.stop().await;
    // What has nothing any more may go.
    let server = site.start(&[ONE], &[HERE]).await.unwrap();
    server
        .kms((ONE, HERE), "DescribeKey", json!({"KeyId": arn}))
        .await
        .ok();
    server.stop().await;
}
