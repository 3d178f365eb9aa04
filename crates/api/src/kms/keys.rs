//! Keys: made, described, listed, switched on and off, deleted.
use bytes::Bytes;
use keyring::{Account, CreateKey, KeyMetadata, KeyState, PendingWindow};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{
    fault::Fault,
    request::Request,
    tags::{Tag, read_tags},
    validate::{grant_tokens, key, key_itself, number, page},
    wire::{Time, answer, empty},
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Create {
    policy: Option<IgnoredAny>,
    description: Option<String>,
    key_usage: Option<String>,
    customer_master_key_spec: Option<String>,
    key_spec: Option<String>,
    origin: Option<String>,
    custom_key_store_id: Option<IgnoredAny>,
    xks_key_id: Option<IgnoredAny>,
    tags: Option<Vec<Tag>>,
    multi_region: Option<bool>,
}

impl Create {
    /// Refuses what would make another kind of key than the one we make.
    fn check_kind(&self) -> Result<(), Fault> {
        if !matches!(self.key_usage.as_deref(), None | Some("ENCRYPT_DECRYPT")) {
            return Err(Fault::Unsupported(
                "Only keys of usage ENCRYPT_DECRYPT are supported.",
            ));
        }
        if self.key_spec.is_some() && self.customer_master_key_spec.is_some() {
            return Err(Fault::Validation(
                "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. \
                 CustomerMasterKeySpec is deprecated."
                    .to_owned(),
            ));
        }
        let spec = self
            .key_spec
            .as_deref()
            .or(self.customer_master_key_spec.as_deref());
        if !matches!(spec, None | Some("SYMMETRIC_DEFAULT")) {
            return Err(Fault::Unsupported(
                "Only keys of spec SYMMETRIC_DEFAULT are supported.",
            ));
        }
        if !matches!(self.origin.as_deref(), None | Some("AWS_KMS"))
            || self.custom_key_store_id.is_some()
            || self.xks_key_id.is_some()
        {
            return Err(Fault::Unsupported(
                "Only keys of origin AWS_KMS are supported.",
            ));
        }
        if self.multi_region == Some(true) {
            return Err(Fault::Unsupported("Multi-Region keys are not supported."));
        }
        if self.policy.is_some() {
            return Err(Fault::Unsupported(
                "Key policies are not supported: leave Policy out for the default policy.",
            ));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OneKey {
    pub(super) key_id: String,
    grant_tokens: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    limit: Option<i64>,
    marker: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Describe {
    key_id: String,
    description: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ScheduleDeletion {
    key_id: String,
    pending_window_in_days: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetPolicy {
    key_id: String,
    policy_name: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata<'a> {
    #[serde(rename = "AWSAccountId")]
    account: &'a str,
    key_id: String,
    arn: &'a str,
    creation_date: Time,
    enabled: bool,
    description: &'a str,
    key_usage: &'static str,
    key_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_date: Option<Time>,
    origin: &'static str,
    key_manager: &'static str,
    customer_master_key_spec: &'static str,
    key_spec: &'static str,
    encryption_algorithms: &'static [&'static str],
    multi_region: bool,
    current_key_material_id: String,
}

impl<'a> From<&'a KeyMetadata> for Metadata<'a> {
    fn from(key: &'a KeyMetadata) -> Self {
        let arn = key.arn.as_arn();
        Self {
            account: arn.account().map_or("", iam::AccountId::as_str),
            key_id: key.arn.key_id().to_string(),
            arn: arn.as_str(),
            creation_date: Time(key.created),
            enabled: key.state == KeyState::Enabled,
            description: &key.description,
            key_usage: key.usage.as_str(),
            key_state: key.state.as_str(),
            deletion_date: key.deletion_date.map(Time),
            origin: key.origin.as_str(),
            key_manager: key.manager(),
            customer_master_key_spec: key.spec.as_str(),
            key_spec: key.spec.as_str(),
            encryption_algorithms: key.spec.encryption_algorithms(),
            multi_region: key.arn.key_id().is_multi_region(),
            current_key_material_id: key.current_material.to_string(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described<'a> {
    key_metadata: Metadata<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedKey {
    key_id: String,
    key_arn: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    keys: Vec<ListedKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    truncated: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Scheduled<'a> {
    key_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_date: Option<Time>,
    key_state: &'static str,
    pending_window_in_days: u8,
}

/// The answer of operations that say which key they were done to.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Done<'a> {
    pub(super) key_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Policy {
    policy: String,
    policy_name: &'static str,
}

impl Request<'_> {
    pub(super) async fn create_key(self) -> Result<Bytes, Fault> {
        let request: Create = self.parse()?;
        request.check_kind()?;
        let description = request.description.unwrap_or_default();
        let tags = read_tags(request.tags.unwrap_or_default());

        let authorized = self.keyring.authorize(self.caller, Account).await?;
        let key = self
            .keyring
            .create_key(authorized, CreateKey { description, tags })
            .await?;
        answer(&Described {
            key_metadata: (&key).into(),
        })
    }

    pub(super) async fn describe_key(self) -> Result<Bytes, Fault> {
        let request: OneKey = self.parse()?;
        let key = key(&request.key_id)?;
        grant_tokens(request.grant_tokens.as_deref())?;
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        let key = self.keyring.describe_key(authorized).await?;
        answer(&Described {
            key_metadata: (&key).into(),
        })
    }

    pub(super) async fn list_keys(self) -> Result<Bytes, Fault> {
        let request: List = self.parse()?;
        let page = page(request.limit, 1000, request.marker)?;
        let authorized = self.keyring.authorize(self.caller, Account).await?;
        let listed = self.keyring.list_keys(authorized, page).await?;
        let entry = |arn: keyring::KeyArn| ListedKey {
            key_id: arn.key_id().to_string(),
            key_arn: arn.to_string(),
        };
        answer(&Listed {
            keys: listed.entries.into_iter().map(entry).collect(),
            truncated: listed.next_marker.is_some(),
            next_marker: listed.next_marker,
        })
    }

    pub(super) async fn update_key_description(self) -> Result<Bytes, Fault> {
        let request: Describe = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let description = request.description;
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        self.keyring
            .update_key_description(authorized, description)
            .await?;
        empty()
    }

    pub(super) async fn enable_key(self) -> Result<Bytes, Fault> {
        let request: OneKey = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        self.keyring.enable_key(authorized).await?;
        empty()
    }

    pub(super) async fn disable_key(self) -> Result<Bytes, Fault> {
        let request: OneKey = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        self.keyring.disable_key(authorized).await?;
        empty()
    }

    pub(super) async fn schedule_key_deletion(self) -> Result<Bytes, Fault> {
        let request: ScheduleDeletion = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let window = match request.pending_window_in_days {
            Some(days) => PendingWindow::from_days(number(days, 7..=30, "pendingWindowInDays")?)?,
            None => PendingWindow::default(),
        };
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        let key = self
            .keyring
            .schedule_key_deletion(authorized, window)
            .await?;
        answer(&Scheduled {
            key_id: key.arn.as_str(),
            deletion_date: key.deletion_date.map(Time),
            key_state: key.state.as_str(),
            pending_window_in_days: window.days(),
        })
    }

    pub(super) async fn cancel_key_deletion(self) -> Result<Bytes, Fault> {
        let request: OneKey = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        let key = self.keyring.cancel_key_deletion(authorized).await?;
        answer(&Done {
            key_id: key.as_str(),
        })
    }

    pub(super) async fn get_key_policy(self) -> Result<Bytes, Fault> {
        let request: GetPolicy = self.parse()?;
        let key = key_itself(&request.key_id)?;
        if !matches!(request.policy_name.as_deref(), None | Some("default")) {
            return Err(keyring::KeyringError::NotFound("No such policy exists".to_owned()).into());
        }
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        let policy = self.keyring.get_key_policy(authorized).await?;
        answer(&Policy {
            policy,
            policy_name: "default",
        })
    }
}
