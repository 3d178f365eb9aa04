//! Taking the signature off a request that has been verified.
use http::{Uri, header, request::Parts, uri::PathAndQuery};

/// The headers only the verifier needs.
const HEADERS: [&str; 3] = ["x-amz-date", "x-amz-security-token", "x-amz-content-sha256"];

/// The query parameters only the verifier needs.
const PARAMETERS: [&str; 8] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
    "X-Amz-Content-Sha256",
];

/// Removes what only the verifier needs, so that a front without authentication takes the request:
/// `Authorization`, `X-Amz-Date`, `X-Amz-Security-Token`, `X-Amz-Content-Sha256`, and the
/// authentication parameters of a presigned query. Every other parameter stays as it is, byte for
/// byte, in its order.
///
/// Call it after verification and after reading what [`crate::chunked::Options`] needs.
pub fn strip(head: &mut Parts) {
    head.headers.remove(header::AUTHORIZATION);
    for name in HEADERS {
        head.headers.remove(name);
    }
    let Some(query) = head.uri.query() else {
        return;
    };
    let is_kept = |pair: &&str| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        // A name may be percent-encoded needlessly; compare what it decodes to.
        let name = percent_encoding::percent_decode_str(name).collect::<Vec<u8>>();
        !PARAMETERS.iter().any(|ours| ours.as_bytes() == name)
    };
    let kept: Vec<&str> = query.split('&').filter(is_kept).collect();
    if kept.len() == query.split('&').count() {
        return;
    }
    let target = match kept.as_slice() {
        [] => head.uri.path().to_owned(),
        kept => format!("{}?{}", head.uri.path(), kept.join("&")),
    };
    let mut parts = head.uri.clone().into_parts();
    // A part of a valid target is valid; were it not, the request would stay as it was.
    if let Ok(target) = target.parse::<PathAndQuery>() {
        parts.path_and_query = Some(target);
        if let Ok(uri) = Uri::from_parts(parts) {
            head.uri = uri;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_authentication_stays_byte_for_byte() {
        let request = http::Request::get(
            "http://h:9000/b/k%20?partNumber=1&X-Amz-Algorithm=A&X-Amz-Credential=c&X-Amz-Date=d\
             &X-Amz-Expires=1&uploadId=a%2Fb+c&X-Amz-SignedHeaders=host&X-Amz-Signature=s&%58-Amz-Date=e",
        )
        .header("authorization", "AWS4-HMAC-SHA256 x")
        .header("x-amz-date", "x")
        .header("x-amz-content-sha256", "x")
        .header("x-amz-meta-a", "kept")
        .body(())
        .unwrap();
        let (mut head, ()) = request.into_parts();
        strip(&mut head);
        assert_eq!(
            head.uri.to_string(),
            "http://h:9000/b/k%20?partNumber=1&uploadId=a%2Fb+c"
        );
        assert_eq!(head.headers.len(), 1);
    }

    #[test]
    fn a_query_of_authentication_alone_goes_away() {
        let (mut head, ()) = http::Request::get("/b?X-Amz-Signature=s")
            .body(())
            .unwrap()
            .into_parts();
        strip(&mut head);
        assert_eq!(head.uri.to_string(), "/b");
    }
}
