//! DescribeAvailabilityZones and DescribeRegions: regions with three zones each that differ in name
//! alone. Clients ask for them before they make a volume.
use iam::Resource;

use super::{
    fault::Fault,
    filter::{Filtered, Filters},
    request::Request,
};

/// The zones of a region, `us-east-1a` and so on.
pub(super) fn zones(region: &str) -> impl Iterator<Item = String> {
    ["a", "b", "c"]
        .into_iter()
        .map(move |letter| format!("{region}{letter}"))
}

/// `use1-az1` for `us-east-1a`: the first letters of the region's first two words, its number, the
/// zone's.
fn zone_id(region: &str, index: usize) -> String {
    let mut words = region.split('-');
    let first = words.next().unwrap_or_default();
    let second = words
        .next()
        .and_then(|word| word.get(..1))
        .unwrap_or_default();
    let number = words.next().unwrap_or_default();
    format!("{first}{second}{number}-az{}", index + 1)
}

struct Zone<'a> {
    name: String,
    id: String,
    region: &'a str,
}

impl Filtered for Zone<'_> {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        Some(vec![match name {
            "zone-name" => self.name.clone(),
            "zone-id" => self.id.clone(),
            "region-name" | "group-name" => self.region.to_owned(),
            "state" => "available".to_owned(),
            "zone-type" => "availability-zone".to_owned(),
            "opt-in-status" => "opt-in-not-required".to_owned(),
            _ => return None,
        }])
    }
}

const ZONE_FILTERS: [&str; 7] = [
    "zone-name",
    "zone-id",
    "region-name",
    "group-name",
    "state",
    "zone-type",
    "opt-in-status",
];

struct Region<'a>(&'a str);

impl Filtered for Region<'_> {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        Some(vec![match name {
            "region-name" => self.0.to_owned(),
            "opt-in-status" => "opt-in-not-required".to_owned(),
            _ => return None,
        }])
    }
}

impl Request<'_> {
    /// The region of the request.
    pub(super) fn region(&self) -> String {
        self.volumes
            .every()
            .arn()
            .region()
            .unwrap_or_default()
            .to_owned()
    }

    pub(super) fn describe_availability_zones(self) -> Result<String, Fault> {
        self.takes(&["ZoneName", "ZoneId", "Filter", "AllAvailabilityZones"])?;
        self.flag("AllAvailabilityZones")?;
        let filters = Filters::read(&self.form, |name| ZONE_FILTERS.contains(&name))?;
        let (names, ids) = (self.form.list("ZoneName"), self.form.list("ZoneId"));
        let region = self.region();
        let zones: Vec<Zone<'_>> = zones(&region)
            .enumerate()
            .map(|(index, name)| Zone {
                name,
                id: zone_id(&region, index),
                region: &region,
            })
            .collect();
        let unknown = |asked: &&&str| {
            !zones
                .iter()
                .any(|zone| zone.name == ***asked || zone.id == ***asked)
        };
        if let Some(unknown) = names.iter().chain(&ids).find(unknown) {
            return Err(Fault::invalid(
                "availability-zone",
                unknown,
                "There is no such zone.",
            ));
        }
        let _listing = self.authorize::<iam::DescribeAvailabilityZones, _>(self.volumes.every())?;
        Ok(self.answer("DescribeAvailabilityZonesResponse", |xml| {
            xml.element("availabilityZoneInfo", |xml| {
                let asked = |zone: &&Zone<'_>| {
                    (names.is_empty() || names.contains(&zone.name.as_str()))
                        && (ids.is_empty() || ids.contains(&zone.id.as_str()))
                };
                for zone in zones
                    .iter()
                    .filter(asked)
                    .filter(|zone| filters.pass(*zone))
                {
                    xml.element("item", |xml| {
                        xml.text("optInStatus", "opt-in-not-required");
                        xml.element("messageSet", |_| {});
                        xml.text("regionName", zone.region);
                        xml.text("zoneName", &zone.name);
                        xml.text("zoneId", &zone.id);
                        xml.text("groupName", zone.region);
                        xml.text("networkBorderGroup", zone.region);
                        xml.text("zoneType", "availability-zone");
                        xml.text("zoneState", "available");
                    });
                }
            });
        }))
    }

    pub(super) fn describe_regions(self) -> Result<String, Fault> {
        self.takes(&["RegionName", "Filter", "AllRegions"])?;
        self.flag("AllRegions")?;
        let filters = Filters::read(&self.form, |name| {
            ["region-name", "opt-in-status"].contains(&name)
        })?;
        let names = self.form.list("RegionName");
        let unknown = |name: &&&str| self.regions.iter().all(|region| region.as_str() != **name);
        if let Some(other) = names.iter().find(unknown) {
            return Err(Fault::invalid("region", other, "There is no such region."));
        }
        let _listing = self.authorize::<iam::DescribeRegions, _>(self.volumes.every())?;
        Ok(self.answer("DescribeRegionsResponse", |xml| {
            xml.element("regionInfo", |xml| {
                let regions = self.regions.iter().map(iam::Region::as_str);
                for region in regions
                    .filter(|region| names.is_empty() || names.contains(region))
                    .filter(|region| filters.pass(&Region(region)))
                {
                    xml.element("item", |xml| {
                        xml.text("regionName", region);
                        xml.text("regionEndpoint", self.host);
                        xml.text("optInStatus", "opt-in-not-required");
                    });
                }
            });
        }))
    }
}
