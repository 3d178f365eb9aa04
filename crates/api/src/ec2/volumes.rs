//! CreateVolume, DescribeVolumes, DeleteVolume.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use volume::{
    CreateVolume, Encryption, Listing, Protection, VolumeError, VolumeId, VolumeInfo, VolumeSize,
    VolumeType,
};

use super::{
    fault::Fault,
    filter::{Filtered, Filters},
    places,
    request::Request,
    tags::{tag_set, tag_specification},
};
use crate::{time::iso8601, xml::Xml};

/// Entries of a page at most, and at least if the client says how many.
const RESULTS_MAX: usize = 1000;
const RESULTS_MIN: u64 = 5;

impl Request<'_> {
    pub(super) async fn create_volume(self) -> Result<String, Fault> {
        self.lacks(&[
            "SnapshotId",
            "SourceVolumeId",
            "OutpostArn",
            "AvailabilityZoneId",
            "VolumeInitializationRate",
            "Operator",
        ])?;
        self.takes(&[
            "AvailabilityZone",
            "Size",
            "Encrypted",
            "KmsKeyId",
            "VolumeType",
            "Iops",
            "Throughput",
            "MultiAttachEnabled",
            "TagSpecification",
            "ClientToken",
        ])?;
        if self.flag("MultiAttachEnabled")? == Some(true) {
            return Err(Fault::Unsupported("MultiAttachEnabled"));
        }
        // Taken and forgotten: every volume gets what the machine has.
        self.number("Iops")?;
        self.number("Throughput")?;
        let zone = self.required("AvailabilityZone")?;
        if !places::zones(&self.region()).any(|known| known == zone) {
            return Err(Fault::invalid(
                "availabilityZone",
                zone,
                "There is no such zone.",
            ));
        }
        let size = self
            .number("Size")?
            .ok_or(Fault::MissingParameter("Size"))?;
        let client_token = self.form.get("ClientToken");
        if client_token.is_some_and(|token| token.len() > 64 || !token.is_ascii()) {
            return Err(Fault::InvalidParameterValue(
                "A client token has at most 64 ASCII characters.".to_owned(),
            ));
        }
        let request = CreateVolume {
            size: VolumeSize::from_gib(size)?,
            encryption: self.encryption()?,
            volume_type: match self.form.get("VolumeType") {
                Some(name) => name.parse()?,
                None => VolumeType::default(),
            },
            availability_zone: zone.to_owned(),
            tags: tag_specification(&self.form)?,
            client_token: client_token.map(str::to_owned),
        };
        if !request.tags.is_empty() {
            let _tagging = self.authorize::<iam::CreateTags, _>(self.volumes.new_one())?;
        }
        let authorized = self.authorize(self.volumes.new_one())?;
        let volume = self.volumes.create(authorized, request).await?;
        Ok(self.answer("CreateVolumeResponse", |xml| describe(xml, &volume)))
    }

    fn encryption(&self) -> Result<Encryption, Fault> {
        match (self.flag("Encrypted")?, self.form.get("KmsKeyId")) {
            (Some(true), None) => Ok(Encryption::Sealed { key: None }),
            (Some(true), Some(key)) => Ok(Encryption::Sealed {
                key: Some(key.parse().map_err(VolumeError::from)?),
            }),
            (Some(false), Some(_)) => Err(VolumeError::KeyWithoutEncryption.into()),
            (Some(false), None) => Ok(Encryption::Unencrypted),
            (None, Some(key)) => Ok(Encryption::Default {
                key: Some(key.parse().map_err(VolumeError::from)?),
            }),
            (None, None) => Ok(Encryption::Default { key: None }),
        }
    }

    pub(super) fn describe_volumes(self) -> Result<String, Fault> {
        self.takes(&["VolumeId", "Filter", "MaxResults", "NextToken"])?;
        let ids = self.form.list("VolumeId");
        let ids: Vec<VolumeId> = ids.into_iter().map(str::parse).collect::<Result<_, _>>()?;
        let filters = Filters::read(&self.form, |name| {
            name.starts_with("tag:") || VOLUME_FILTERS.contains(&name)
        })?;
        let limit = match self.number("MaxResults")? {
            Some(_) if !ids.is_empty() => {
                return Err(Fault::InvalidParameterCombination(
                    "The parameter volumeId cannot be used with the parameter maxResults",
                ));
            }
            Some(limit) if limit < RESULTS_MIN => {
                let shown = limit.to_string();
                return Err(Fault::invalid(
                    "maxResults",
                    &shown,
                    "It must be 5 or more.",
                ));
            }
            Some(limit) => usize::try_from(limit)
                .unwrap_or(RESULTS_MAX)
                .min(RESULTS_MAX),
            None => usize::MAX,
        };
        let after = self.form.get("NextToken").map(read_token).transpose()?;

        let authorized = self.authorize(self.volumes.every())?;
        let Listing {
            volumes: shown,
            more,
        } = if ids.is_empty() {
            self.volumes
                .list(authorized, after, limit, |volume| filters.pass(volume))?
        } else {
            let mut volumes = self.volumes.describe(authorized, &ids)?;
            volumes.sort_by_key(|volume| volume.id);
            volumes.retain(|volume| {
                after.is_none_or(|after| volume.id > after) && filters.pass(volume)
            });
            Listing {
                volumes,
                more: false,
            }
        };
        Ok(self.answer("DescribeVolumesResponse", |xml| {
            xml.element("volumeSet", |xml| {
                for volume in &shown {
                    xml.element("item", |xml| describe(xml, volume));
                }
            });
            if let (true, Some(last)) = (more, shown.last()) {
                xml.text("nextToken", URL_SAFE_NO_PAD.encode(last.id.to_string()));
            }
        }))
    }

    pub(super) async fn delete_volume(self) -> Result<String, Fault> {
        self.takes(&["VolumeId"])?;
        let id: VolumeId = self.required("VolumeId")?.parse()?;
        let authorized = self.authorize(self.volumes.one(id))?;
        self.volumes.delete(authorized).await?;
        Ok(self.answer("DeleteVolumeResponse", |xml| xml.text("return", true)))
    }
}

/// A token of ours: the last id of the page before.
fn read_token(token: &str) -> Result<VolumeId, Fault> {
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| Fault::invalid("nextToken", token, "It is no token of this list."))
}

/// The members of a volume, in an `item` or in the answer itself.
fn describe(xml: &mut Xml, volume: &VolumeInfo) {
    xml.text("volumeId", volume.id);
    xml.text("size", volume.size.gib());
    xml.text("snapshotId", "");
    xml.text("availabilityZone", &volume.availability_zone);
    xml.text("status", volume.state);
    xml.text("createTime", iso8601(volume.created));
    xml.element("attachmentSet", |_| {});
    tag_set(xml, &volume.tags);
    xml.text("volumeType", volume.volume_type);
    match &volume.protection {
        Protection::Sealed { key } => {
            xml.text("encrypted", true);
            xml.text("kmsKeyId", key);
        }
        Protection::Unencrypted => xml.text("encrypted", false),
    }
    xml.text("multiAttachEnabled", false);
}

const VOLUME_FILTERS: [&str; 8] = [
    "volume-id",
    "status",
    "size",
    "encrypted",
    "volume-type",
    "availability-zone",
    "create-time",
    "tag-key",
];

impl Filtered for VolumeInfo {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        if let Some(key) = name.strip_prefix("tag:") {
            return Some(
                self.tags
                    .iter()
                    .filter(|tag| tag.key == key)
                    .map(|tag| tag.value.clone())
                    .collect(),
            );
        }
        Some(match name {
            "volume-id" => vec![self.id.to_string()],
            "status" => vec![self.state.to_string()],
            "size" => vec![self.size.gib().to_string()],
            "encrypted" => {
                vec![matches!(self.protection, Protection::Sealed { .. }).to_string()]
            }
            "volume-type" => vec![self.volume_type.to_string()],
            "availability-zone" => vec![self.availability_zone.clone()],
            "create-time" => vec![iso8601(self.created)],
            "tag-key" => self.tags.iter().map(|tag| tag.key.clone()).collect(),
            _ => return None,
        })
    }
}
