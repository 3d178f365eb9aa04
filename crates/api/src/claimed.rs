//! Which operation a request says it is, for the log and the metrics of what was refused before its front had it.
use http::request::Parts;

use crate::{query::Form, service::Service};

/// The operation that a request to a front of this crate says it is, as far as that can be read: its name from the
/// front's own list, so that a client cannot invent label values. `body` is what came of the body. Nothing is verified.
///
/// `None` for S3, whose operations crate `s3` knows.
pub fn claimed_operation(
    service: &Service,
    head: &Parts,
    body: Option<&bytes::Bytes>,
) -> Option<&'static str> {
    let find = |names: &[&'static str], name: &str| names.iter().find(|n| **n == name).copied();
    match service.scope() {
        "kms" => {
            let name = target(head)?.strip_prefix(crate::kms::TARGET_PREFIX)?;
            crate::kms::operation_named(name.strip_prefix('.')?)
        }
        "sealgate" => {
            let name = target(head)?.strip_prefix(crate::sealgate::TARGET_PREFIX)?;
            find(&crate::sealgate::OPERATIONS, name.strip_prefix('.')?)
        }
        "ec2" => find(&crate::ec2::OPERATIONS, &action(head, body)?)
            .or_else(|| find(&crate::ec2::NOT_YET, &action(head, body)?)),
        "sts" => find(&crate::sts::OPERATIONS, &action(head, body)?)
            .or_else(|| find(&crate::sts::NOT_YET, &action(head, body)?)),
        _ => None,
    }
}

fn target(head: &Parts) -> Option<&str> {
    head.headers.get("x-amz-target")?.to_str().ok()
}

fn action(head: &Parts, body: Option<&bytes::Bytes>) -> Option<String> {
    let none = bytes::Bytes::new();
    let form = Form::read(head, body.unwrap_or(&none)).ok()?;
    form.get("Action").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn claimed(
        service: &str,
        target: Option<&str>,
        body: Option<&'static str>,
    ) -> Option<&'static str> {
        let mut request = http::Request::post("/?Action=DescribeRegions");
        if let Some(target) = target {
            request = request.header("x-amz-target", target);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let service = Service::of_scope(service).unwrap();
        claimed_operation(service, &head, body.map(Bytes::from).as_ref())
    }

    #[test]
    fn an_operation_is_one_of_its_service_or_none() {
        for (service, target, body, expected) in [
            ("kms", Some("TrentService.Decrypt"), None, Some("Decrypt")),
            ("kms", Some("TrentService.Invented"), None, None),
            ("kms", Some("TrentServiceDecrypt"), None, None),
            ("kms", None, None, None),
            (
                "sealgate",
                Some("Sealgate.ListJobs"),
                None,
                Some("ListJobs"),
            ),
            ("sealgate", Some("Sealgate.Invented"), None, None),
            (
                "ec2",
                None,
                Some("Action=CreateVolume"),
                Some("CreateVolume"),
            ),
            (
                "ec2",
                None,
                Some("Action=CopySnapshot"),
                Some("CopySnapshot"),
            ),
            ("ec2", None, Some("Action=Invented"), None),
            ("ec2", None, None, None),
            ("sts", None, Some("Action=AssumeRole"), Some("AssumeRole")),
            (
                "sts",
                None,
                Some("Action=GetCallerIdentity"),
                Some("GetCallerIdentity"),
            ),
            ("s3", None, None, None),
            ("iam", None, Some("Action=ListUsers"), None),
        ] {
            assert_eq!(
                claimed(service, target, body),
                expected,
                "{service} {body:?}"
            );
        }
    }
}
