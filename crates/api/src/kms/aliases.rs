//! Aliases.
use bytes::Bytes;
use keyring::Account;
use serde::{Deserialize, Serialize};

use super::{
    fault::Fault,
    request::Request,
    validate::{alias, key_itself, page},
    wire::{Time, answer, empty},
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Target {
    alias_name: String,
    target_key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Delete {
    alias_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    key_id: Option<String>,
    limit: Option<i64>,
    marker: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    alias_name: String,
    alias_arn: String,
    target_key_id: String,
    creation_date: Time,
    last_updated_date: Time,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    aliases: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    truncated: bool,
}

impl Request<'_> {
    pub(super) async fn create_alias(self) -> Result<Bytes, Fault> {
        let request: Target = self.parse()?;
        let name = alias(&request.alias_name)?;
        let target = key_itself(&request.target_key_id)?;
        let authorized = self.keyring.authorize(self.caller, &target).await?;
        self.keyring.create_alias(authorized, name).await?;
        empty()
    }

    pub(super) async fn update_alias(self) -> Result<Bytes, Fault> {
        let request: Target = self.parse()?;
        let name = alias(&request.alias_name)?;
        let target = key_itself(&request.target_key_id)?;
        let authorized = self.keyring.authorize(self.caller, &target).await?;
        self.keyring.update_alias(authorized, name).await?;
        empty()
    }

    pub(super) async fn delete_alias(self) -> Result<Bytes, Fault> {
        let request: Delete = self.parse()?;
        let name = alias(&request.alias_name)?;
        let authorized = self.keyring.authorize(self.caller, &name).await?;
        self.keyring.delete_alias(authorized).await?;
        empty()
    }

    pub(super) async fn list_aliases(self) -> Result<Bytes, Fault> {
        let request: List = self.parse()?;
        let key = request.key_id.as_deref().map(key_itself).transpose()?;
        let page = page(request.limit, 100, request.marker)?;
        let authorized = self.keyring.authorize(self.caller, Account).await?;
        let listed = self.keyring.list_aliases(authorized, key, page).await?;
        let entry = |alias: keyring::Alias| Entry {
            alias_name: alias.name.to_string(),
            alias_arn: alias.arn.to_string(),
            target_key_id: alias.target.key_id().to_string(),
            creation_date: Time(alias.created),
            last_updated_date: Time(alias.updated),
        };
        answer(&Listed {
            aliases: listed.entries.into_iter().map(entry).collect(),
            truncated: listed.next_marker.is_some(),
            next_marker: listed.next_marker,
        })
    }
}
