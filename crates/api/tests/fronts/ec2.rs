//! EC2's volume operations as an SDK sees them.
use crate::fixture::{ACCOUNT, Fixture, text, texts};

const CREATE: &str = "Action=CreateVolume&AvailabilityZone=us-east-1a&Size=1";

#[tokio::test]
async fn a_volume_is_made_described_and_deleted() {
    let fixture = Fixture::volumes().await;
    let xml = fixture
        .ec2_ok(&format!(
            "{CREATE}&Encrypted=true&VolumeType=gp3&TagSpecification.1.ResourceType=volume\
             &TagSpecification.1.Tag.1.Key=Name&TagSpecification.1.Tag.1.Value=data+1"
        ))
        .await;
    assert!(
        xml.contains("<CreateVolumeResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">")
    );
    let id = text(&xml, "volumeId");
    assert!(id.starts_with("vol-"));
    for (name, expected) in [
        ("size", "1"),
        ("availabilityZone", "us-east-1a"),
        ("volumeType", "gp3"),
        ("encrypted", "true"),
        ("key", "Name"),
        ("value", "data 1"),
    ] {
        assert_eq!(text(&xml, name), expected, "{name}");
    }
    let key = text(&xml, "kmsKeyId");
    assert!(
        key.starts_with(&format!("arn:aws:kms:us-east-1:{ACCOUNT}:key/")),
        "{key}"
    );
    assert!(text(&xml, "createTime").ends_with('Z'));

    let described = fixture
        .ec2_ok(&format!("Action=DescribeVolumes&VolumeId.1={id}"))
        .await;
    assert_eq!(texts(&described, "volumeId"), [id]);
    assert_eq!(text(&described, "status"), "available");

    let deleted = fixture
        .ec2_ok(&format!("Action=DeleteVolume&VolumeId={id}"))
        .await;
    assert_eq!(text(&deleted, "return"), "true");
    let gone = fixture
        .ec2_error(&format!("Action=DescribeVolumes&VolumeId.1={id}"))
        .await;
    assert_eq!(gone, "InvalidVolume.NotFound");
    let gone = fixture
        .ec2_error(&format!("Action=DeleteVolume&VolumeId={id}"))
        .await;
    assert_eq!(gone, "InvalidVolume.NotFound");
}

#[tokio::test]
async fn a_volume_without_encryption_says_so() {
    let fixture = Fixture::volumes().await;
    fixture.ec2_ok("Action=DisableEbsEncryptionByDefault").await;
    let xml = fixture.ec2_ok(&format!("{CREATE}&Encrypted=false")).await;
    assert_eq!(text(&xml, "encrypted"), "false");
    assert!(texts(&xml, "kmsKeyId").is_empty());
}

#[tokio::test]
async fn parameters_that_cannot_be_honoured_are_refused() {
    let fixture = Fixture::volumes().await;
    for (form, code) in [
        ("Action=CreateVolume&Size=1", "MissingParameter"),
        (
            "Action=CreateVolume&AvailabilityZone=us-east-1a",
            "MissingParameter",
        ),
        (
            "Action=CreateVolume&AvailabilityZone=eu-west-1a&Size=1",
            "InvalidParameterValue",
        ),
        (
            "Action=CreateVolume&AvailabilityZone=us-east-1a&Size=0",
            "InvalidParameterValue",
        ),
        (
            "Action=CreateVolume&AvailabilityZone=us-east-1a&Size=-1",
            "InvalidParameterValue",
        ),
        (
            "Action=CreateVolume&AvailabilityZone=us-east-1a&Size=99999",
            "InvalidParameterValue",
        ),
        (
            &format!("{CREATE}&SnapshotId=snap-1"),
            "UnsupportedOperation",
        ),
        (
            &format!("{CREATE}&MultiAttachEnabled=true"),
            "UnsupportedOperation",
        ),
        (&format!("{CREATE}&Nonsense=1"), "UnknownParameter"),
        (&format!("{CREATE}&Encrypted=yes"), "InvalidParameterValue"),
        (&format!("{CREATE}&VolumeType=gp9"), "InvalidParameterValue"),
        (
            &format!("{CREATE}&Encrypted=false&KmsKeyId=alias/x"),
            "InvalidParameterDependency",
        ),
        (
            &format!("{CREATE}&Encrypted=true&KmsKeyId=alias/none"),
            "InvalidKmsKeyId.NotFound",
        ),
        (
            &format!("{CREATE}&TagSpecification.1.ResourceType=snapshot"),
            "InvalidParameterValue",
        ),
        (&format!("{CREATE}&Size=1"), "MalformedQueryString"),
        (&format!("{CREATE}&DryRun=true"), "DryRunOperation"),
        (
            "Action=DeleteVolume&VolumeId=nonsense",
            "InvalidVolumeID.Malformed",
        ),
        (
            "Action=DescribeVolumes&MaxResults=4",
            "InvalidParameterValue",
        ),
        (
            "Action=DescribeVolumes&Filter.1.Name=nonsense&Filter.1.Value.1=x",
            "InvalidParameterValue",
        ),
        (
            "Action=DescribeVolumes&NextToken=nonsense",
            "InvalidParameterValue",
        ),
        ("Action=CreateSnapshot", "NotImplemented"),
        ("Action=RunInstances", "InvalidAction"),
        ("Action=", "MissingParameter"),
    ] {
        assert_eq!(fixture.ec2_error(form).await, code, "{form}");
    }
    assert!(texts(&fixture.ec2_ok("Action=DescribeVolumes").await, "item").is_empty());
}

#[tokio::test]
async fn volumes_are_filtered_and_come_in_pages() {
    let fixture = Fixture::volumes().await;
    for index in 0..7 {
        let tag = format!(
            "TagSpecification.1.ResourceType=volume&TagSpecification.1.Tag.1.Key=n\
             &TagSpecification.1.Tag.1.Value=v{index}"
        );
        fixture.ec2_ok(&format!("{CREATE}&{tag}")).await;
    }
    let first = fixture.ec2_ok("Action=DescribeVolumes&MaxResults=5").await;
    let token = text(&first, "nextToken");
    let second = fixture
        .ec2_ok(&format!(
            "Action=DescribeVolumes&MaxResults=5&NextToken={token}"
        ))
        .await;
    assert!(texts(&second, "nextToken").is_empty());
    let mut ids = texts(&first, "volumeId");
    ids.extend(texts(&second, "volumeId"));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 7);

    let count = async |filter: &str| {
        let xml = fixture
            .ec2_ok(&format!("Action=DescribeVolumes&{filter}"))
            .await;
        texts(&xml, "volumeId").len()
    };
    assert_eq!(
        count("Filter.1.Name=tag:n&Filter.1.Value.1=v1&Filter.1.Value.2=v2").await,
        2
    );
    assert_eq!(count("Filter.1.Name=tag:n&Filter.1.Value.1=v*").await, 7);
    assert_eq!(count("Filter.1.Name=tag-key&Filter.1.Value.1=n").await, 7);
    assert_eq!(
        count(
            "Filter.1.Name=tag:n&Filter.1.Value.1=v1&Filter.2.Name=encrypted&Filter.2.Value.1=false"
        )
        .await,
        0
    );
    assert_eq!(count("Filter.1.Name=size&Filter.1.Value.1=1").await, 7);
}

#[tokio::test]
async fn tags_are_set_listed_and_taken_off() {
    let fixture = Fixture::volumes().await;
    let xml = fixture.ec2_ok(CREATE).await;
    let id = text(&xml, "volumeId");
    fixture
        .ec2_ok(&format!(
            "Action=CreateTags&ResourceId.1={id}&Tag.1.Key=a&Tag.1.Value=1&Tag.2.Key=b&Tag.2.Value="
        ))
        .await;
    let listed = fixture
        .ec2_ok(&format!(
            "Action=DescribeTags&Filter.1.Name=resource-id&Filter.1.Value.1={id}"
        ))
        .await;
    assert_eq!(texts(&listed, "key"), ["a", "b"]);
    assert_eq!(texts(&listed, "resourceType"), ["volume", "volume"]);

    let delete = |tag: &str| format!("Action=DeleteTags&ResourceId.1={id}&{tag}");
    fixture
        .ec2_ok(&delete("Tag.1.Key=a&Tag.1.Value=other"))
        .await;
    assert_eq!(
        texts(&fixture.ec2_ok("Action=DescribeTags").await, "key").len(),
        2
    );
    fixture.ec2_ok(&delete("Tag.1.Key=a")).await;
    assert_eq!(
        texts(&fixture.ec2_ok("Action=DescribeTags").await, "key"),
        ["b"]
    );
    fixture
        .ec2_ok(&format!("Action=DeleteTags&ResourceId.1={id}"))
        .await;
    assert!(texts(&fixture.ec2_ok("Action=DescribeTags").await, "key").is_empty());

    let unknown = "Action=CreateTags&ResourceId.1=vol-00000000000000000&Tag.1.Key=a&Tag.1.Value=1";
    assert_eq!(fixture.ec2_error(unknown).await, "InvalidVolume.NotFound");
    let other = "Action=CreateTags&ResourceId.1=i-1&Tag.1.Key=a&Tag.1.Value=1";
    assert_eq!(fixture.ec2_error(other).await, "InvalidID");
}

#[tokio::test]
async fn places_are_the_region_and_its_zones() {
    let fixture = Fixture::volumes().await;
    let zones = fixture.ec2_ok("Action=DescribeAvailabilityZones").await;
    assert_eq!(
        texts(&zones, "zoneName"),
        ["us-east-1a", "us-east-1b", "us-east-1c"]
    );
    assert_eq!(text(&zones, "zoneId"), "use1-az1");
    let one = fixture
        .ec2_ok("Action=DescribeAvailabilityZones&ZoneName.1=us-east-1b")
        .await;
    assert_eq!(texts(&one, "zoneName"), ["us-east-1b"]);
    let regions = fixture.ec2_ok("Action=DescribeRegions").await;
    assert_eq!(texts(&regions, "regionName"), ["us-east-1", "eu-west-1"]);
    let one = fixture.ec2_ok("Action=DescribeRegions&RegionName.1=eu-west-1");
    assert_eq!(texts(&one.await, "regionName"), ["eu-west-1"]);
    let unknown = fixture.ec2_error("Action=DescribeRegions&RegionName.1=eu-west-2");
    assert_eq!(unknown.await, "InvalidParameterValue");
    assert_eq!(text(&regions, "regionEndpoint"), "127.0.0.1:9000");
}

#[tokio::test]
async fn a_strange_principal_is_denied_everything() {
    let mut fixture = Fixture::volumes().await;
    fixture.account = "999999999999";
    for form in [
        CREATE,
        "Action=DescribeVolumes",
        "Action=DescribeTags",
        "Action=DescribeRegions",
    ] {
        assert_eq!(
            fixture.ec2_error(form).await,
            "UnauthorizedOperation",
            "{form}"
        );
    }
}
