//! Tags of keys.
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    fault::Fault,
    request::Request,
    validate::{key_itself, page},
    wire::{answer, empty},
};

/// A tag as it stands in JSON.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tag {
    tag_key: String,
    tag_value: String,
}

/// Tags for the keyring, which knows their bounds.
pub(super) fn read_tags(tags: Vec<Tag>) -> Vec<keyring::Tag> {
    tags.into_iter()
        .map(|tag| keyring::Tag {
            key: tag.tag_key,
            value: tag.tag_value,
        })
        .collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Put {
    key_id: String,
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Remove {
    key_id: String,
    tag_keys: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    key_id: String,
    limit: Option<i64>,
    marker: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    tags: Vec<Tag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    truncated: bool,
}

impl Request<'_> {
    pub(super) async fn tag_resource(self) -> Result<Bytes, Fault> {
        let request: Put = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let tags = read_tags(request.tags);
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        self.keyring.tag_resource(authorized, tags).await?;
        empty()
    }

    pub(super) async fn untag_resource(self) -> Result<Bytes, Fault> {
        let request: Remove = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        self.keyring
            .untag_resource(authorized, request.tag_keys)
            .await?;
        empty()
    }

    pub(super) async fn list_resource_tags(self) -> Result<Bytes, Fault> {
        let request: List = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let page = page(request.limit, 50, request.marker)?;
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        let listed = self.keyring.list_resource_tags(authorized, page).await?;
        answer(&Listed {
            tags: listed
                .entries
                .into_iter()
                .map(|tag| Tag {
                    tag_key: tag.key,
                    tag_value: tag.value,
                })
                .collect(),
            truncated: listed.next_marker.is_some(),
            next_marker: listed.next_marker,
        })
    }
}
