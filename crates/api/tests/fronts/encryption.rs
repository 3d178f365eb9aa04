//! Encryption by default, as an SDK sees it.
use serde_json::json;
use volume::EncryptionPolicy;

use crate::fixture::{Fixture, text, texts};

const CREATE: &str = "Action=CreateVolume&AvailabilityZone=us-east-1a&Size=1";
const ENABLE: &str = "Action=EnableEbsEncryptionByDefault";
const DISABLE: &str = "Action=DisableEbsEncryptionByDefault";
const GET: &str = "Action=GetEbsEncryptionByDefault";

impl Fixture {
    async fn encrypts_by_default(&self) -> String {
        text(&self.ec2_ok(GET).await, "ebsEncryptionByDefault").to_owned()
    }

    async fn default_key(&self) -> String {
        let xml = self.ec2_ok("Action=GetEbsDefaultKmsKeyId").await;
        text(&xml, "kmsKeyId").to_owned()
    }

    /// Of a new volume: the key it is encrypted under, or nothing.
    async fn made(&self, parameters: &str) -> Option<String> {
        let xml = self.ec2_ok(&format!("{CREATE}{parameters}")).await;
        let key = texts(&xml, "kmsKeyId").first().map(|key| (*key).to_owned());
        assert_eq!(text(&xml, "encrypted"), key.is_some().to_string());
        key
    }

    async fn new_key(&self) -> (String, String) {
        let made = self.kms("CreateKey", json!({})).await;
        let text = |name: &str| made["KeyMetadata"][name].as_str().unwrap().to_owned();
        (text("KeyId"), text("Arn"))
    }
}

#[tokio::test]
async fn a_volume_is_encrypted_unless_the_account_says_otherwise() {
    let mut fixture = Fixture::volumes().await;
    assert_eq!(fixture.encrypts_by_default().await, "true");
    let key = fixture.made("").await;
    assert!(key.is_some(), "nobody has said anything");
    // The default goes before what the request says, as on EC2.
    assert_eq!(fixture.made("&Encrypted=false").await, key);

    let xml = fixture.ec2_ok(DISABLE).await;
    assert_eq!(text(&xml, "ebsEncryptionByDefault"), "false");
    assert_eq!(fixture.made("").await, None);
    assert_eq!(fixture.made("&Encrypted=false").await, None);
    assert_eq!(fixture.made("&Encrypted=true").await, key);

    fixture.open_volumes(EncryptionPolicy::default()).await;
    assert_eq!(fixture.encrypts_by_default().await, "false", "reopened");
    let xml = fixture.ec2_ok(ENABLE).await;
    assert_eq!(text(&xml, "ebsEncryptionByDefault"), "true");
    assert_eq!(fixture.made("").await, key);
    for operation in [
        "DisableEbsEncryptionByDefault",
        "EnableEbsEncryptionByDefault",
    ] {
        assert_eq!(fixture.audited(operation), ["Intended", "Success"]);
    }
}

#[tokio::test]
async fn the_default_key_is_chosen_reset_and_must_be_usable() {
    let mut fixture = Fixture::volumes().await;
    assert_eq!(fixture.default_key().await, "alias/aws/ebs");
    let managed = fixture.made("").await.unwrap();
    let (id, arn) = fixture.new_key().await;
    let alias = json!({ "AliasName": "alias/mine", "TargetKeyId": id });
    let named = format!("TrentService.{}", "CreateAlias");
    assert_eq!(
        fixture
            .kms_raw(&named, alias.to_string())
            .await
            .response
            .status(),
        200
    );
    for name in [&id, &arn, "alias/mine"] {
        let modify = format!("Action=ModifyEbsDefaultKmsKeyId&KmsKeyId={name}");
        assert_eq!(text(&fixture.ec2_ok(&modify).await, "kmsKeyId"), arn);
    }
    fixture.open_volumes(EncryptionPolicy::default()).await;
    assert_eq!(fixture.default_key().await, arn, "reopened");
    let (_, other) = fixture.new_key().await;
    assert_eq!(fixture.made("").await.as_ref(), Some(&arn));
    assert_eq!(fixture.made("&Encrypted=true").await.as_ref(), Some(&arn));
    for encrypted in ["", "&Encrypted=true"] {
        let key = fixture.made(&format!("{encrypted}&KmsKeyId={other}")).await;
        assert_eq!(key.as_ref(), Some(&other));
    }

    let reset = fixture.ec2_ok("Action=ResetEbsDefaultKmsKeyId").await;
    assert_eq!(text(&reset, "kmsKeyId"), "alias/aws/ebs");
    assert_eq!(fixture.made("").await.as_ref(), Some(&managed));

    let (disabled, _) = fixture.new_key().await;
    let disable = json!({ "KeyId": disabled }).to_string();
    fixture.kms_raw("TrentService.DisableKey", disable).await;
    for (form, code) in [
        ("", "MissingParameter".to_owned()),
        (
            "&KmsKeyId=alias/none",
            "InvalidKmsKeyId.NotFound".to_owned(),
        ),
        (
            &format!("&KmsKeyId={disabled}"),
            "InvalidKmsKey.InvalidState".to_owned(),
        ),
        (
            &format!("&KmsKeyId={id}&Nonsense=1"),
            "UnknownParameter".to_owned(),
        ),
        (
            &format!("&KmsKeyId={id}&DryRun=yes"),
            "InvalidParameterValue".to_owned(),
        ),
        (
            &format!("&KmsKeyId={id}&DryRun=true"),
            "DryRunOperation".to_owned(),
        ),
    ] {
        let modify = format!("Action=ModifyEbsDefaultKmsKeyId{form}");
        assert_eq!(fixture.ec2_error(&modify).await, code, "{form}");
    }
    assert_eq!(fixture.default_key().await, "alias/aws/ebs");
    let success = ["Intended", "Success"];
    assert_eq!(
        fixture.audited("ModifyEbsDefaultKmsKeyId"),
        success.repeat(3)
    );
    assert_eq!(fixture.audited("ResetEbsDefaultKmsKeyId"), success);
}

#[tokio::test]
async fn a_key_without_encryption_is_refused_once_the_default_is_off() {
    let fixture = Fixture::volumes().await;
    let (id, _) = fixture.new_key().await;
    fixture.ec2_ok(DISABLE).await;
    for encrypted in ["", "&Encrypted=false"] {
        let form = format!("{CREATE}{encrypted}&KmsKeyId={id}");
        assert_eq!(
            fixture.ec2_error(&form).await,
            "InvalidParameterDependency",
            "{encrypted}"
        );
    }
}

#[tokio::test]
async fn required_encryption_cannot_be_switched_off() {
    let mut fixture = Fixture::volumes().await;
    fixture.ec2_ok(DISABLE).await;
    fixture
        .open_volumes(EncryptionPolicy {
            required: true,
            ..EncryptionPolicy::default()
        })
        .await;
    // Whatever was said before it was required.
    assert_eq!(fixture.encrypts_by_default().await, "true");
    assert!(fixture.made("").await.is_some());
    let refused = fixture
        .ec2_error(&format!("{CREATE}&Encrypted=false"))
        .await;
    assert_eq!(refused, "OperationNotPermitted");

    let fixture = Fixture::sealed_volumes().await;
    assert_eq!(fixture.ec2_error(DISABLE).await, "OperationNotPermitted");
    assert_eq!(fixture.encrypts_by_default().await, "true");
    assert_eq!(
        fixture.audited("DisableEbsEncryptionByDefault"),
        ["Intended", "OperationNotPermitted"]
    );
}

#[tokio::test]
async fn a_client_token_finds_its_volume_after_the_default_has_changed() {
    let fixture = Fixture::volumes().await;
    let form = format!("{CREATE}&ClientToken=token");
    let made = fixture.ec2_ok(&form).await;
    fixture.ec2_ok(DISABLE).await;
    let again = fixture.ec2_ok(&form).await;
    assert_eq!(text(&made, "volumeId"), text(&again, "volumeId"));
    let other = fixture.ec2_error(&format!("{form}&Encrypted=true")).await;
    assert_eq!(other, "IdempotentParameterMismatch");
}

#[tokio::test]
async fn a_key_of_another_account_may_not_be_chosen_by_who_may_not_see_it() {
    let mut fixture = Fixture::volumes().await;
    fixture.account = "999999999999";
    for action in [
        "EnableEbsEncryptionByDefault",
        "DisableEbsEncryptionByDefault",
        "GetEbsEncryptionByDefault",
        "GetEbsDefaultKmsKeyId",
        "ModifyEbsDefaultKmsKeyId&KmsKeyId=alias/aws/ebs",
        "ResetEbsDefaultKmsKeyId",
    ] {
        let refused = fixture.ec2_error(&format!("Action={action}")).await;
        assert_eq!(refused, "UnauthorizedOperation", "{action}");
    }
}
