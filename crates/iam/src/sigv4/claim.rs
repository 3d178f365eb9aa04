//! Which service a request says it is for, and with which access key, as far as that can be read.
use http::{header, request::Parts};
use percent_encoding::percent_decode_str;

/// The service in the first credential scope that can be read, of the `Authorization` header, else
/// of a presigned query. Nothing is verified and the rest of the signature may be as malformed as it
/// likes: this chooses the form in which a refusal is told, and nothing else.
///
/// A scope ends with `SERVICE/aws4_request`; of one that ends otherwise, the field where the service
/// belongs is taken (`AKID/DATE/REGION/SERVICE`).
pub fn claimed_service(head: &Parts) -> Option<String> {
    credential(head, service)
}

/// The access key id in the first credential that can be read, of the `Authorization` header, else of a presigned query;
/// `None` unless it has the form of AWS's ids (16 to 32 capitals and digits), so that a secret that was put in its place
/// is not shown. Nothing is verified: this is for the log of what was refused, and for nothing else.
pub fn claimed_access_key(head: &Parts) -> Option<String> {
    credential(head, |credential| {
        let id = credential.split('/').next()?;
        let of_aws = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        let shown = (16..=32).contains(&id.len()) && id.bytes().all(of_aws);
        shown.then(|| id.to_owned())
    })
}

/// What `read` finds in the first credential in which it finds something.
fn credential(head: &Parts, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let in_header = head
        .headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter_map(|value| value.split_once("Credential=").map(|(_, rest)| rest))
        .find_map(|rest| read(rest.split([',', ' ', '\t']).next()?));
    in_header.or_else(|| {
        head.uri.query()?.split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            if !percent_decode_str(name).eq(*b"X-Amz-Credential") {
                return None;
            }
            read(&percent_decode_str(value).decode_utf8().ok()?)
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
    fn an_access_key_is_shown_and_a_secret_in_its_place_is_not() {
        let shown = |id: &str| {
            let request = http::Request::get("/").header(
                "authorization",
                format!("AWS4-HMAC-SHA256 Credential={id}/20130524/us-east-1/kms/aws4_request"),
            );
            claimed_access_key(&request.body(()).unwrap().into_parts().0)
        };
        assert_eq!(
            shown("AKIDEXAMPLE00001").as_deref(),
            Some("AKIDEXAMPLE00001")
        );
        for hidden in [
            "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEYXX",
            "AKID",
            "",
            "AKIDEXAMPLE-0001",
            "AKIDEXAMPLE00001AKIDEXAMPLE000012",
        ] {
            assert_eq!(shown(hidden), None, "{hidden}");
        }
        let presigned = http::Request::get("/?X-Amz-Credential=AKIDEXAMPLE00001%2Fd%2Fr%2Fs3%2Fx");
        let head = presigned.body(()).unwrap().into_parts().0;
        assert_eq!(
            claimed_access_key(&head).as_deref(),
            Some("AKIDEXAMPLE00001")
        );
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
