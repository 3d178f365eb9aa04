//! Which service a request says it is for, as far as that can be read.
use http::{header, request::Parts};
use percent_encoding::percent_decode_str;

/// The service in the first credential scope that can be read, of the `Authorization` header, else
/// of a presigned query. Nothing is verified and the rest of the signature may be as malformed as it
/// likes: this chooses the form in which a refusal is told, and nothing else.
///
/// A scope ends with `SERVICE/aws4_request`; of one that ends otherwise, the field where the service
/// belongs is taken (`AKID/DATE/REGION/SERVICE`).
pub fn claimed_service(head: &Parts) -> Option<String> {
    let in_header = head
        .headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter_map(|value| value.split_once("Credential=").map(|(_, rest)| rest))
        .find_map(|rest| service(rest.split([',', ' ', '\t']).next()?));
    in_header.or_else(|| {
        head.uri.query()?.split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            if !percent_decode_str(name).eq(*b"X-Amz-Credential") {
                return None;
            }
            service(&percent_decode_str(value).decode_utf8().ok()?)
        })
    })
}

fn service(credential: &str) -> Option<String> {
    let fields: Vec<&str> = credential.split('/').take(8).collect();
    let name = match fields.as_slice() {
        [.., name, "aws4_request"] => name,
        [_, _, _, name, ..] => name,
        _ => return None,
    };
    let plain = (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    plain.then(|| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(target: &str, authorization: &[&str]) -> Option<String> {
        let mut request = http::Request::get(target);
        for value in authorization {
            request = request.header("authorization", *value);
        }
        claimed_service(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_scope_is_read_however_malformed_the_rest_is() {
        for authorization in [
            "AWS4-HMAC-SHA256 Credential=AK/20130524/us-east-1/kms/aws4_request, SignedHeaders=host, Signature=00",
            "AWS4-HMAC-SHA256 Credential=AK/20130524/us-east-1/kms/aws4_request",
            "AWS4-HMAC-SHA256 SignedHeaders=,Credential=AK/day/nowhere/kms/aws4_request,Signature",
            "AWS4-HMAC-SHA512 Credential=AK/20130524/us-east-1/kms",
            "AWS4-HMAC-SHA256 Credential=AK/20130524/us-east-1/kms/AWS4_REQUEST, Signature=x",
            // Version 4A has no region in its scope.
            "AWS4-ECDSA-P256-SHA256 Credential=AK/20130524/kms/aws4_request, Signature=x",
        ] {
            assert_eq!(
                claimed("/", &[authorization]).as_deref(),
                Some("kms"),
                "{authorization}"
            );
        }
        let twice = [
            "AWS AK:c2ln",
            "AWS4-HMAC-SHA256 Credential=AK/d/r/ec2/aws4_request",
        ];
        assert_eq!(claimed("/", &twice).as_deref(), Some("ec2"));
    }

    #[test]
    fn a_presigned_scope_is_read_if_there_is_no_header() {
        let target =
            "/?%58-Amz-Credential=AK%2F20130524%2Fus-east-1%2Fsts%2Faws4_request&X-Amz-Date=%zz";
        assert_eq!(claimed(target, &[]).as_deref(), Some("sts"));
        let both = ["AWS4-HMAC-SHA256 Credential=AK/d/r/kms/aws4_request"];
        assert_eq!(claimed(target, &both).as_deref(), Some("kms"));
    }

    #[test]
    fn what_is_no_scope_claims_nothing() {
        for authorization in [
            "AWS AK:c2ln",
            "AWS4-HMAC-SHA256 Credential=AK/20130524/us-east-1",
            "AWS4-HMAC-SHA256 Credential=AK/d/r/k!s/aws4_request",
            "AWS4-HMAC-SHA256 Credential=AK/d/r//aws4_request",
            "Bearer x",
        ] {
            assert_eq!(claimed("/b/k", &[authorization]), None, "{authorization}");
        }
        assert_eq!(claimed("/b/k?X-Amz-Credential=%ff", &[]), None);
        assert_eq!(claimed("/b/k?credential=a/b/c/kms", &[]), None);
    }
}
