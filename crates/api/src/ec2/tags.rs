//! Tags of volumes: given with CreateVolume, set, taken off, listed.
use volume::{Tag, VolumeId};

use super::{
    fault::Fault,
    filter::{Filtered, Filters},
    request::Request,
};
use crate::{query::Form, xml::Xml};

/// Resources one request may tag.
const RESOURCES_MAX: usize = 1000;

/// `tagSet`.
pub(super) fn tag_set(xml: &mut Xml, tags: &[Tag]) {
    xml.element("tagSet", |xml| {
        for tag in tags {
            xml.element("item", |xml| {
                xml.text("key", &tag.key);
                xml.text("value", &tag.value);
            });
        }
    });
}

/// The tags a new volume is to have.
pub(super) fn tag_specification(form: &Form) -> Result<Vec<Tag>, Fault> {
    let mut tags = Vec::new();
    for number in form.numbers("TagSpecification") {
        let name = format!("TagSpecification.{number}");
        match form.get(&format!("{name}.ResourceType")) {
            Some("volume") => tags.extend(read_tags(form, &format!("{name}.Tag"))?),
            Some(other) => {
                return Err(Fault::invalid(
                    "ResourceType",
                    other,
                    "Only a volume is being made.",
                ));
            }
            None => return Err(Fault::MissingParameter("TagSpecification.ResourceType")),
        }
    }
    Ok(tags)
}

/// `PREFIX.N.Key` and `PREFIX.N.Value`, where a value left out is empty.
fn read_tags(form: &Form, prefix: &str) -> Result<Vec<Tag>, Fault> {
    form.numbers(prefix)
        .into_iter()
        .map(|number| {
            let key = form
                .get(&format!("{prefix}.{number}.Key"))
                .ok_or(Fault::MissingParameter("Tag.Key"))?;
            let value = form
                .get(&format!("{prefix}.{number}.Value"))
                .unwrap_or_default();
            Ok(Tag::new(key, value)?)
        })
        .collect()
}

/// A tag with what it is on.
struct Placed<'a> {
    volume: VolumeId,
    tag: &'a Tag,
}

impl Filtered for Placed<'_> {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        if let Some(key) = name.strip_prefix("tag:") {
            return Some(
                (self.tag.key == key)
                    .then(|| self.tag.value.clone())
                    .into_iter()
                    .collect(),
            );
        }
        Some(vec![match name {
            "resource-id" => self.volume.to_string(),
            "resource-type" => "volume".to_owned(),
            "key" => self.tag.key.clone(),
            "value" => self.tag.value.clone(),
            _ => return None,
        }])
    }
}

impl Request<'_> {
    /// The volumes named by `ResourceId.N`.
    fn resources(&self) -> Result<Vec<VolumeId>, Fault> {
        let ids = self.form.list("ResourceId");
        if ids.is_empty() {
            return Err(Fault::MissingParameter("ResourceId"));
        }
        if ids.len() > RESOURCES_MAX {
            return Err(Fault::InvalidParameterValue(format!(
                "A request names at most {RESOURCES_MAX} resources."
            )));
        }
        let invalid = |id: &str| Fault::InvalidId(id.chars().take(64).collect());
        ids.into_iter()
            .map(|id| id.parse().map_err(|_| invalid(id)))
            .collect()
    }

    /// Whether all of them exist: tagging several is not one step, so the likeliest failure is found
    /// before the first.
    fn all_exist(&self, ids: &[VolumeId]) -> Result<(), Fault> {
        let authorized = self.authorize(self.volumes.every())?;
        self.volumes.describe(authorized, ids)?;
        Ok(())
    }

    pub(super) async fn create_tags(self) -> Result<String, Fault> {
        self.takes(&["ResourceId", "Tag"])?;
        let ids = self.resources()?;
        let tags = read_tags(&self.form, "Tag")?;
        if tags.is_empty() {
            return Err(Fault::MissingParameter("Tag"));
        }
        self.all_exist(&ids)?;
        for id in ids {
            let authorized = self.authorize(self.volumes.one(id))?;
            self.volumes.create_tags(authorized, tags.clone()).await?;
        }
        Ok(self.answer("CreateTagsResponse", |xml| xml.text("return", true)))
    }

    pub(super) async fn delete_tags(self) -> Result<String, Fault> {
        self.takes(&["ResourceId", "Tag"])?;
        let ids = self.resources()?;
        let mut tags = Vec::new();
        for number in self.form.numbers("Tag") {
            let key = self
                .form
                .get(&format!("Tag.{number}.Key"))
                .ok_or(Fault::MissingParameter("Tag.Key"))?;
            // A value that is given, were it empty, must be the tag's.
            let value = self.form.get_even_empty(&format!("Tag.{number}.Value"));
            tags.push((key.to_owned(), value.map(str::to_owned)));
        }
        self.all_exist(&ids)?;
        for id in ids {
            let tags = if tags.is_empty() {
                self.all_tags(&id)?
            } else {
                tags.clone()
            };
            let authorized = self.authorize(self.volumes.one(id))?;
            self.volumes.delete_tags(authorized, tags).await?;
        }
        Ok(self.answer("DeleteTagsResponse", |xml| xml.text("return", true)))
    }

    /// Every tag of a volume: what DeleteTags means when it names none.
    fn all_tags(&self, id: &VolumeId) -> Result<Vec<(String, Option<String>)>, Fault> {
        let authorized = self.authorize(self.volumes.every())?;
        let volumes = self
            .volumes
            .describe(authorized, std::slice::from_ref(id))?;
        Ok(volumes
            .into_iter()
            .flat_map(|volume| volume.tags)
            .map(|tag| (tag.key, None))
            .collect())
    }

    pub(super) fn describe_tags(self) -> Result<String, Fault> {
        self.lacks(&["MaxResults", "NextToken"])?;
        self.takes(&["Filter"])?;
        let filters = Filters::read(&self.form, |name| {
            name.starts_with("tag:")
                || ["resource-id", "resource-type", "key", "value"].contains(&name)
        })?;
        let _listing = self.authorize::<iam::DescribeTags, _>(self.volumes.every())?;
        let mut volumes = self
            .volumes
            .describe(self.authorize(self.volumes.every())?, &[])?;
        volumes.sort_by_key(|volume| volume.id);
        Ok(self.answer("DescribeTagsResponse", |xml| {
            xml.element("tagSet", |xml| {
                for volume in &volumes {
                    for tag in &volume.tags {
                        let placed = Placed {
                            volume: volume.id,
                            tag,
                        };
                        if filters.pass(&placed) {
                            xml.element("item", |xml| {
                                xml.text("resourceId", volume.id);
                                xml.text("resourceType", "volume");
                                xml.text("key", &tag.key);
                                xml.text("value", &tag.value);
                            });
                        }
                    }
                }
            });
        }))
    }
}
