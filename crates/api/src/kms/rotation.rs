//! Rotation: on demand, by the calendar, and what happened.
use bytes::Bytes;
use keyring::RotationKind;
use serde::{Deserialize, Serialize};

use super::{
    fault::Fault,
    keys::{Done, OneKey},
    request::Request,
    validate::{key_itself, page},
    wire::{Time, answer, empty},
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Enable {
    key_id: String,
    rotation_period_in_days: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    key_id: String,
    include_key_material: Option<String>,
    limit: Option<i64>,
    marker: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status<'a> {
    key_id: &'a str,
    key_rotation_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_period_in_days: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_rotation_date: Option<Time>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    key_id: &'a str,
    key_material_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_date: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_type: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed<'a> {
    rotations: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    truncated: bool,
}

impl Request<'_> {
    pub(super) async fn rotate_key_on_demand(self) -> Result<Bytes, Fault> {
        let request: OneKey = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        let key = self.keyring.rotate_key_on_demand(authorized).await?;
        answer(&Done {
            key_id: key.as_str(),
        })
    }

    pub(super) async fn enable_key_rotation(self) -> Result<Bytes, Fault> {
        let request: Enable = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let period = request.rotation_period_in_days;
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        self.keyring.enable_key_rotation(authorized, period).await?;
        empty()
    }

    pub(super) async fn disable_key_rotation(self) -> Result<Bytes, Fault> {
        let request: OneKey = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        self.keyring.disable_key_rotation(authorized).await?;
        empty()
    }

    pub(super) async fn get_key_rotation_status(self) -> Result<Bytes, Fault> {
        let request: OneKey = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let authorized = self.keyring.authorize(self.caller, &key).await?;
        let status = self.keyring.get_key_rotation_status(authorized).await?;
        answer(&Status {
            key_id: status.key.as_str(),
            key_rotation_enabled: status.period_days.is_some(),
            rotation_period_in_days: status.period_days,
            next_rotation_date: status.next.map(Time),
        })
    }

    pub(super) async fn list_key_rotations(self) -> Result<Bytes, Fault> {
        let request: List = self.parse()?;
        let key = key_itself(&request.key_id)?;
        let all = request.include_key_material.as_deref() == Some("ALL_KEY_MATERIAL");
        let page = page(request.limit, 1000, request.marker)?;
        let authorized: iam::Authorized<iam::ListKeyRotations, _> =
            self.keyring.authorize(self.caller, &key).await?;
        let arn = authorized.arn().clone();
        let listed = self.keyring.list_key_rotations(authorized, page).await?;
        // Material made with the key is no rotation; a page that held it comes out one shorter.
        let entry = |rotation: keyring::Rotation| {
            let (rotation_type, rotated) = match rotation.kind {
                RotationKind::Creation if !all => return None,
                RotationKind::Creation => (None, false),
                RotationKind::OnDemand => (Some("ON_DEMAND"), true),
                RotationKind::Automatic => (Some("AUTOMATIC"), true),
            };
            Some(Entry {
                key_id: arn.as_str(),
                key_material_id: rotation.material.to_string(),
                rotation_date: rotated.then_some(Time(rotation.date)),
                rotation_type,
            })
        };
        answer(&Listed {
            rotations: listed.entries.into_iter().filter_map(entry).collect(),
            truncated: listed.next_marker.is_some(),
            next_marker: listed.next_marker,
        })
    }
}
