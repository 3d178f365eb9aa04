//! Which protocol a request speaks. Apart from [`Protocol`] itself, which every front names: this
//! names the table of services, and so every front.
use http::{HeaderMap, request::Parts};
use iam::sigv4::claimed_service;

use crate::{
    protocol::{Protocol, media_type},
    service::Service,
};

impl Protocol {
    /// The protocol that a request speaks, for an error that is found before its service is known or
    /// its signature is believed. The first of these that says something decides:
    ///
    /// 1. the service in the credential scope, even if the signature around it is wrong or malformed;
    /// 2. `X-Amz-Target`: JSON;
    /// 3. the content type: `application/x-amz-json-…` JSON, a form Query;
    /// 4. nothing: S3, the one service that is asked for without a signature.
    pub fn of_request(head: &Parts) -> Self {
        claimed_service(head)
            .and_then(|scope| Self::of_scope(&scope))
            .or_else(|| Self::of_headers(&head.headers))
            .unwrap_or(Self::S3)
    }

    /// The protocol of the service in a credential scope; `None` if the service is not known here.
    fn of_scope(scope: &str) -> Option<Self> {
        /// Services that are not served, whose clients should still understand that.
        const NOT_SERVED: [(&str, Protocol); 4] = [
            ("s3express", Protocol::S3),
            ("s3-object-lambda", Protocol::S3),
            ("secretsmanager", Protocol::Json),
            ("ssm", Protocol::Json),
        ];
        Service::of_scope(scope).map(Service::protocol).or_else(|| {
            let (_, protocol) = NOT_SERVED.iter().find(|(name, _)| *name == scope)?;
            Some(*protocol)
        })
    }

    fn of_headers(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key("x-amz-target") {
            return Some(Self::Json);
        }
        let media_type = media_type(headers)?;
        if media_type.starts_with("application/x-amz-json-") {
            Some(Self::Json)
        } else if media_type == "application/x-www-form-urlencoded" {
            Some(Self::Query)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(headers: &[(&str, &str)]) -> Protocol {
        let mut request = http::Request::post("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Protocol::of_request(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_scope_speaks_before_the_target_and_the_target_before_the_content_type() {
        let scope = |service: &str| format!("AWS4-HMAC-SHA256 Credential=AK/d/r/{service}/x, S=");
        let targets = [None, Some("TrentService.Encrypt")];
        let types = [
            (None, None),
            (
                Some("application/x-amz-json-1.0; charset=utf-8"),
                Some(Protocol::Json),
            ),
            (
                Some("Application/X-WWW-Form-URLencoded"),
                Some(Protocol::Query),
            ),
            (Some("text/plain"), None),
        ];
        let scopes = [
            (None, None),
            (Some("s3"), Some(Protocol::S3)),
            (Some("kms"), Some(Protocol::Json)),
            (Some("ssm"), Some(Protocol::Json)),
            (Some("sts"), Some(Protocol::Query)),
            (Some("iam"), Some(Protocol::Query)),
            (Some("ec2"), Some(Protocol::Ec2)),
            (Some("dynamodb"), None),
        ];
        for (service, by_scope) in scopes {
            for target in targets {
                for (content_type, by_type) in types {
                    let authorization = service.map(scope);
                    let mut headers = Vec::new();
                    headers.extend(
                        authorization
                            .as_deref()
                            .map(|value| ("authorization", value)),
                    );
                    headers.extend(target.map(|value| ("x-amz-target", value)));
                    headers.extend(content_type.map(|value| ("content-type", value)));
                    let expected = by_scope
                        .or(target.map(|_| Protocol::Json))
                        .or(by_type)
                        .unwrap_or(Protocol::S3);
                    assert_eq!(spoken(&headers), expected, "{headers:?}");
                }
            }
        }
    }

    #[test]
    fn two_content_types_are_none() {
        let json = "application/x-amz-json-1.1";
        let form = "application/x-www-form-urlencoded";
        assert_eq!(
            spoken(&[("content-type", json), ("content-type", form)]),
            Protocol::S3
        );
    }
}
