//! EC2, Query, 2016-11-15: the operations of volumes and what clients ask before them.
//!
//! Promises:
//! - no operation without its [`iam::Authorized`], asked for the volume itself where there is one;
//! - a parameter we do not know, or know and cannot honour, is refused: a volume that was to come
//!   from a snapshot does not come empty;
//! - errors carry EC2's own codes, in EC2's envelope.
//!
//! Not promised: what EBS does around a volume. Availability zones are names without meaning; the
//! volume type is kept and told and changes nothing; provisioned IOPS and throughput are taken and
//! forgotten. Attaching is not EC2's business here: a volume is an NBD export.
mod encryption;
mod fault;
mod filter;
#[rustfmt::skip] // generated, a shape a line
mod model;
mod places;
mod request;
mod tags;
mod volumes;

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode, header, request::Parts};
use iam::{Authorizer, Caller, Region, RequestContext, Via};
use volume::Volumes;

use self::{fault::Fault, request::Request};
use crate::{
    Answer, Protocol,
    error::{refuse, respond},
    query::Form,
};

/// The operations there are.
pub(crate) const OPERATIONS: [&str; 14] = [
    "CreateTags",
    "CreateVolume",
    "DeleteTags",
    "DeleteVolume",
    "DescribeAvailabilityZones",
    "DescribeRegions",
    "DescribeTags",
    "DescribeVolumes",
    "DisableEbsEncryptionByDefault",
    "EnableEbsEncryptionByDefault",
    "GetEbsDefaultKmsKeyId",
    "GetEbsEncryptionByDefault",
    "ModifyEbsDefaultKmsKeyId",
    "ResetEbsDefaultKmsKeyId",
];

/// What EC2 has for volumes and we do not yet.
pub(crate) const NOT_YET: [&str; 16] = [
    "AttachVolume",
    "CopySnapshot",
    "CopyVolumes",
    "CreateSnapshot",
    "CreateSnapshots",
    "DeleteSnapshot",
    "DescribeSnapshotAttribute",
    "DescribeSnapshots",
    "DescribeVolumeAttribute",
    "DescribeVolumeStatus",
    "DescribeVolumesModifications",
    "DetachVolume",
    "ModifySnapshotAttribute",
    "ModifyVolume",
    "ModifyVolumeAttribute",
    "ResetSnapshotAttribute",
];

/// Answers one request. `regions` are those that DescribeRegions names.
pub async fn handle(
    volumes: &Volumes,
    authorizer: &Authorizer,
    regions: &[Region],
    context: &Arc<RequestContext>,
    head: &Parts,
    body: Bytes,
) -> Answer {
    let caller = Caller::new(context, Via::Api);
    let host = head
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let (operation, result) = match Form::read(head, &body) {
        Ok(form) => {
            let host = host.unwrap_or_default();
            Request {
                volumes,
                authorizer,
                regions,
                caller,
                host,
                form,
            }
            .dispatch()
            .await
        }
        Err(wrong) => ("unknown", Err(Fault::Malformed(wrong.to_string()))),
    };
    let code = result.as_ref().err().map(Fault::code);
    let response = match result {
        Ok(xml) => respond(
            Protocol::Ec2,
            StatusCode::OK,
            caller.request_id(),
            xml.into(),
        ),
        Err(fault) => explain(&fault, operation, caller),
    };
    Answer {
        operation,
        code,
        response,
    }
}

impl Request<'_> {
    async fn dispatch(self) -> (&'static str, Result<String, Fault>) {
        let action = self.form.get("Action").unwrap_or_default();
        match action {
            "CreateVolume" => ("CreateVolume", self.create_volume().await),
            "DescribeVolumes" => ("DescribeVolumes", self.describe_volumes()),
            "DeleteVolume" => ("DeleteVolume", self.delete_volume().await),
            "CreateTags" => ("CreateTags", self.create_tags().await),
            "DeleteTags" => ("DeleteTags", self.delete_tags().await),
            "DescribeTags" => ("DescribeTags", self.describe_tags()),
            "EnableEbsEncryptionByDefault" => (
                "EnableEbsEncryptionByDefault",
                self.enable_encryption_by_default().await,
            ),
            "DisableEbsEncryptionByDefault" => (
                "DisableEbsEncryptionByDefault",
                self.disable_encryption_by_default().await,
            ),
            "GetEbsEncryptionByDefault" => (
                "GetEbsEncryptionByDefault",
                self.get_encryption_by_default().await,
            ),
            "GetEbsDefaultKmsKeyId" => ("GetEbsDefaultKmsKeyId", self.get_default_key().await),
            "ModifyEbsDefaultKmsKeyId" => {
                ("ModifyEbsDefaultKmsKeyId", self.modify_default_key().await)
            }
            "ResetEbsDefaultKmsKeyId" => {
                ("ResetEbsDefaultKmsKeyId", self.reset_default_key().await)
            }
            "DescribeAvailabilityZones" => (
                "DescribeAvailabilityZones",
                self.describe_availability_zones(),
            ),
            "DescribeRegions" => ("DescribeRegions", self.describe_regions()),
            "" => ("unknown", Err(Fault::MissingParameter("Action"))),
            other => match NOT_YET.into_iter().find(|name| *name == other) {
                Some(name) => (name, Err(Fault::NotImplemented(name))),
                None => {
                    let name = other.chars().take(64).collect();
                    ("unknown", Err(Fault::InvalidAction(name)))
                }
            },
        }
    }
}

fn explain(fault: &Fault, operation: &'static str, caller: Caller<'_>) -> Response<Bytes> {
    if fault.is_internal() {
        tracing::error!(operation, request_id = caller.request_id(), error = %fault, "EC2 request failed");
    }
    refuse(
        Protocol::Ec2,
        fault.status(),
        fault.code(),
        &fault.message(),
        caller.request_id(),
    )
}
