//! Which operation a request is, decided before s3s sees it.
//!
//! s3s falls through to the plain operation when it does not know a
//! sub-resource: `PUT /b/k?encryption` would overwrite the object with the XML.
//! So every request is matched here first, and what is not on the list, with
//! every query parameter it carries, is `NotImplemented` and has no effect.
//!
//! Promises: an [`Operation`] other than the one returned is never run (the
//! front compares it again when s3s calls back), and no parameter reaches s3s
//! that the operation does not take.

use http::{HeaderMap, Method};

use crate::error::Error;

/// What a request's path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/`
    Service,
    /// `/bucket` or `/bucket/`
    Bucket,
    /// `/bucket/key`
    Object,
}

/// How the front treats a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// None is read.
    Empty,
    /// A small XML document, read whole within a limit and checked first.
    Xml,
    /// Object data, streamed.
    Stream,
}

macro_rules! operations {
    ($($name:ident: $body:ident, [$($param:literal),*];)*) => {
        /// Every operation the front runs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Operation { $(#[allow(missing_docs)] $name,)* }

        impl Operation {
            /// S3's name of it.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What becomes of the request's body.
            pub(crate) fn body(self) -> BodyKind {
                match self { $(Self::$name => BodyKind::$body,)* }
            }

            /// The query parameters it takes.
            fn params(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($param),*],)* }
            }
        }
    };
}

operations! {
    ListBuckets: Empty, ["max-buckets", "continuation-token", "prefix", "bucket-region"];
    CreateBucket: Xml, [];
    HeadBucket: Empty, [];
    DeleteBucket: Empty, [];
    GetBucketLocation: Empty, ["location"];
    GetBucketVersioning: Empty, ["versioning"];
    GetBucketEncryption: Empty, ["encryption"];
    PutBucketEncryption: Xml, ["encryption"];
    DeleteBucketEncryption: Empty, ["encryption"];
    ListObjects: Empty, ["prefix", "delimiter", "marker", "max-keys", "encoding-type"];
    ListObjectsV2: Empty, ["list-type", "prefix", "delimiter", "continuation-token", "start-after", "max-keys", "encoding-type", "fetch-owner"];
    ListMultipartUploads: Empty, ["uploads", "prefix", "delimiter", "key-marker", "upload-id-marker", "max-uploads", "encoding-type"];
    DeleteObjects: Xml, ["delete"];
    PutObject: Stream, [];
    CopyObject: Empty, [];
    GetObject: Empty, ["partNumber", "versionId", "response-content-type", "response-content-language", "response-expires", "response-cache-control", "response-content-disposition", "response-content-encoding"];
    HeadObject: Empty, ["partNumber", "versionId", "response-content-type", "response-content-language", "response-expires", "response-cache-control", "response-content-disposition", "response-content-encoding"];
    DeleteObject: Empty, ["versionId"];
    GetObjectAttributes: Empty, ["attributes", "versionId"];
    GetObjectTagging: Empty, ["tagging", "versionId"];
    PutObjectTagging: Xml, ["tagging", "versionId"];
    DeleteObjectTagging: Empty, ["tagging", "versionId"];
    CreateMultipartUpload: Empty, ["uploads"];
    UploadPart: Stream, ["partNumber", "uploadId"];
    UploadPartCopy: Empty, ["partNumber", "uploadId"];
    CompleteMultipartUpload: Xml, ["uploadId"];
    AbortMultipartUpload: Empty, ["uploadId"];
    ListParts: Empty, ["uploadId", "max-parts", "part-number-marker"];
}

impl Operation {
    /// Whether it reads or writes an object, its tags or its parts: what CloudTrail calls a data event.
    pub(crate) fn is_data_event(self) -> bool {
        use Operation::*;
        matches!(
            self,
            DeleteObjects
                | PutObject
                | CopyObject
                | GetObject
                | HeadObject
                | DeleteObject
                | GetObjectAttributes
                | GetObjectTagging
                | PutObjectTagging
                | DeleteObjectTagging
                | CreateMultipartUpload
                | UploadPart
                | UploadPartCopy
                | CompleteMultipartUpload
                | AbortMultipartUpload
                | ListParts
        )
    }
}

/// Parameters that say which sub-resource is meant. At most one of them may be
/// there, and an operation is chosen by it.
const SELECTORS: &[&str] = &[
    "attributes",
    "delete",
    "encryption",
    "location",
    "tagging",
    "uploads",
    "versioning",
];

/// Parameters every request may carry and nobody needs: the SDKs' name of the
/// operation. Removed before s3s.
const IGNORED: &[&str] = &["x-id"];

/// Headers whose effect we do not have, and which change what a write means:
/// ignoring them would do something else than was asked.
const REFUSED_HEADERS: &[&str] = &[
    "x-amz-write-offset-bytes",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
    "x-amz-bucket-object-lock-enabled",
    "x-amz-rename-source",
    "x-amz-if-match-last-modified-time",
    "x-amz-if-match-size",
    "x-amz-mfa",
];

/// Parameters a request may have, signature and all: operations take at most nine. Bounds the
/// search for one given twice.
const PARAMS_MAX: usize = 64;

/// A request's query, split and decoded, signature parameters removed.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Splits a raw query. Names and values must be UTF-8 once decoded, and a
    /// name that decides anything may come once only.
    pub(crate) fn parse(raw: Option<&str>) -> Result<Self, Error> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in raw
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if is_presign_param(&name) || IGNORED.contains(&name.as_str()) {
                continue;
            }
            if pairs.len() == PARAMS_MAX {
                return Err(unknown());
            }
            if pairs.iter().any(|(seen, _)| *seen == name) {
                return Err(Error::invalid_argument("A query parameter is given twice."));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Written anew for s3s, every byte outside the unreserved set encoded,
    /// without what the front applies itself.
    pub(crate) fn encode_for_s3s(&self) -> String {
        let mut out = String::new();
        for (name, value) in self
            .pairs
            .iter()
            .filter(|(name, _)| !name.starts_with("response-"))
        {
            if !out.is_empty() {
                out.push('&');
            }
            out.extend(iam::uri::encode(name));
            out.push('=');
            out.extend(iam::uri::encode(value));
        }
        out
    }
}

/// `application/x-www-form-urlencoded`, as s3s and AWS read queries: a plus is
/// a space.
fn decode(text: &str) -> Result<String, Error> {
    iam::uri::decode_form(text).ok_or_else(|| {
        Error::client(
            http::StatusCode::BAD_REQUEST,
            "InvalidURI",
            "Couldn't parse the specified URI.",
        )
    })
}

/// The parameters of a presigned URL, which the verifier has consumed.
fn is_presign_param(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-signedheaders",
        "x-amz-signature",
        "x-amz-security-token",
        "x-amz-content-sha256",
    ];
    NAMES.iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// Names the operation, or says that there is none.
pub(crate) fn route(
    method: &Method,
    target: Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Operation, Error> {
    let mut selectors = SELECTORS.iter().copied().filter(|name| query.has(name));
    let selector = selectors.next();
    if selectors.next().is_some() {
        return Err(unknown());
    }
    let copy = headers.contains_key("x-amz-copy-source");
    let operation = match (target, method.as_str(), selector) {
        (Target::Service, "GET", None) => Operation::ListBuckets,
        (Target::Bucket, "PUT", None) => Operation::CreateBucket,
        (Target::Bucket, "HEAD", None) => Operation::HeadBucket,
        (Target::Bucket, "DELETE", None) => Operation::DeleteBucket,
        (Target::Bucket, "GET", Some("location")) => Operation::GetBucketLocation,
        (Target::Bucket, "GET", Some("versioning")) => Operation::GetBucketVersioning,
        (Target::Bucket, "GET", Some("encryption")) => Operation::GetBucketEncryption,
        (Target::Bucket, "PUT", Some("encryption")) => Operation::PutBucketEncryption,
        (Target::Bucket, "DELETE", Some("encryption")) => Operation::DeleteBucketEncryption,
        (Target::Bucket, "GET", Some("uploads")) => Operation::ListMultipartUploads,
        (Target::Bucket, "GET", None) => match query.get("list-type") {
            Some("2") => Operation::ListObjectsV2,
            None => Operation::ListObjects,
            Some(_) => return Err(unknown()),
        },
        (Target::Bucket, "POST", Some("delete")) => Operation::DeleteObjects,
        (Target::Object, "PUT", None) => {
            match (query.has("partNumber") || query.has("uploadId"), copy) {
                (true, true) => Operation::UploadPartCopy,
                (true, false) => Operation::UploadPart,
                (false, true) => Operation::CopyObject,
                (false, false) => Operation::PutObject,
            }
        }
        (Target::Object, "GET", None) if query.has("uploadId") => Operation::ListParts,
        (Target::Object, "GET", None) => Operation::GetObject,
        (Target::Object, "HEAD", None) => Operation::HeadObject,
        (Target::Object, "DELETE", None) if query.has("uploadId") => {
            Operation::AbortMultipartUpload
        }
        (Target::Object, "DELETE", None) => Operation::DeleteObject,
        (Target::Object, "GET", Some("attributes")) => Operation::GetObjectAttributes,
        (Target::Object, "GET", Some("tagging")) => Operation::GetObjectTagging,
        (Target::Object, "PUT", Some("tagging")) => Operation::PutObjectTagging,
        (Target::Object, "DELETE", Some("tagging")) => Operation::DeleteObjectTagging,
        (Target::Object, "POST", Some("uploads")) => Operation::CreateMultipartUpload,
        (Target::Object, "POST", None) if query.has("uploadId") => {
            Operation::CompleteMultipartUpload
        }
        _ => return Err(unknown()),
    };
    let known = operation.params();
    if query
        .pairs
        .iter()
        .any(|(name, _)| !known.contains(&name.as_str()))
    {
        return Err(unknown());
    }
    if copy && !matches!(operation, Operation::CopyObject | Operation::UploadPartCopy) {
        return Err(unknown());
    }
    let parts = matches!(operation, Operation::UploadPart | Operation::UploadPartCopy);
    if parts && !(query.has("partNumber") && query.has("uploadId")) {
        return Err(Error::invalid_argument(
            "This operation takes both partNumber and uploadId.",
        ));
    }
    if REFUSED_HEADERS
        .iter()
        .any(|name| headers.contains_key(*name))
    {
        return Err(Error::not_implemented(
            "A header you provided implies functionality that is not implemented",
        ));
    }
    // An aws-chunked body has its own framing; a form is another operation.
    let form = headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| {
            value
                .as_bytes()
                .to_ascii_lowercase()
                .starts_with(b"multipart/form-data")
        });
    if form && method == Method::POST {
        return Err(unknown());
    }
    Ok(operation)
}

fn unknown() -> Error {
    Error::not_implemented(
        "A header or query parameter you provided implies functionality that is not implemented",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, target: Target, query: &str) -> Result<Operation, Error> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let query = Query::parse(Some(query))?;
        route(&method, target, &query, &HeaderMap::new())
    }

    fn refused(method: &str, target: Target, query: &str) {
        let error = find(method, target, query).expect_err(query);
        assert_eq!(error.code(), "NotImplemented", "{method} {query}");
    }

    #[test]
    fn no_unknown_sub_resource_falls_through_to_the_plain_operation() {
        for query in [
            "acl",
            "encryption",
            "retention",
            "legal-hold",
            "restore",
            "torrent",
            "select",
            "renameObject",
            "versions",
            "policy",
            "foo",
            "append",
            "annotation=x",
            "object-lock",
        ] {
            for method in ["PUT", "GET", "DELETE", "POST", "HEAD"] {
                refused(method, Target::Object, query);
            }
        }
        for query in [
            "acl",
            "policy",
            "cors",
            "lifecycle",
            "website",
            "versions",
            "tagging",
            "logging",
            "notification",
            "replication",
            "requestPayment",
            "accelerate",
            "object-lock",
            "ownershipControls",
            "publicAccessBlock",
            "analytics",
            "inventory",
            "metrics",
            "session",
            "metadataTable",
            "abac",
            "intelligent-tiering",
        ] {
            for method in ["PUT", "GET", "DELETE", "POST", "HEAD"] {
                refused(method, Target::Bucket, query);
            }
        }
    }

    #[test]
    fn a_flood_of_parameters_is_refused_before_they_are_compared() {
        let flood: Vec<String> = (0..20_000).map(|n| format!("{n:x}")).collect();
        let error = Query::parse(Some(&flood.join("&"))).unwrap_err();
        assert_eq!(error.code(), "NotImplemented");
    }

    #[test]
    fn a_parameter_of_another_operation_is_refused() {
        refused("PUT", Target::Object, "prefix=a");
        refused("GET", Target::Object, "max-keys=1");
        refused("PUT", Target::Object, "tagging&uploads");
        refused("GET", Target::Bucket, "list-type=3");
        refused("PATCH", Target::Object, "");
    }

    #[test]
    fn what_the_sdks_send_is_found() {
        let object = Target::Object;
        for (method, target, query, expected) in [
            (
                "GET",
                Target::Service,
                "x-id=ListBuckets",
                Operation::ListBuckets,
            ),
            (
                "GET",
                Target::Bucket,
                "list-type=2&prefix=&delimiter=%2F&encoding-type=url",
                Operation::ListObjectsV2,
            ),
            ("GET", Target::Bucket, "", Operation::ListObjects),
            ("PUT", object, "x-id=PutObject", Operation::PutObject),
            (
                "PUT",
                object,
                "partNumber=1&uploadId=u",
                Operation::UploadPart,
            ),
            ("POST", object, "uploads=", Operation::CreateMultipartUpload),
            (
                "POST",
                object,
                "uploadId=u",
                Operation::CompleteMultipartUpload,
            ),
            (
                "DELETE",
                object,
                "uploadId=u",
                Operation::AbortMultipartUpload,
            ),
            (
                "GET",
                object,
                "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0&response-content-type=a%2Fb",
                Operation::GetObject,
            ),
        ] {
            assert_eq!(find(method, target, query).unwrap(), expected, "{query}");
        }
    }

    #[test]
    fn a_form_upload_is_refused_before_a_byte_of_it_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "content-type",
            "multipart/form-data; boundary=x".parse().unwrap(),
        );
        let error = route(&Method::POST, Target::Bucket, &Query::default(), &headers).unwrap_err();
        assert_eq!(error.code(), "NotImplemented");
    }

    #[test]
    fn a_query_survives_being_written_anew() {
        let query = Query::parse(Some("prefix=a%2Bb+c%26d&delimiter=%2F&X-Amz-Date=x")).unwrap();
        assert_eq!(query.get("prefix"), Some("a+b c&d"));
        let again = Query::parse(Some(&query.encode_for_s3s())).unwrap();
        assert_eq!(again.get("prefix"), Some("a+b c&d"));
        assert_eq!(again.get("X-Amz-Date"), None);
        assert!(Query::parse(Some("prefix=a&prefix=b")).is_err());
    }
}
