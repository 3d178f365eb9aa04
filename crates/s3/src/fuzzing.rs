//! Private decoders, for the fuzz targets alone.

use http::{HeaderMap, HeaderValue};

/// Envelopes of objects, uploads and parts, after their seal was opened: what
/// is read is written the same.
pub fn envelope(data: &[u8]) {
    crate::envelope::decode_any(data);
}

/// The records of a bucket and of the claim on its name, after their seal was
/// opened: what is read is written the same.
pub fn bucket_records(data: &[u8]) {
    crate::bucket::decode_any(data);
}

/// The `Range` header: what it means lies within the object.
pub fn range_header(data: &[u8]) {
    let Some((size, text)) = data.split_first_chunk::<8>() else {
        return;
    };
    let size = u64::from_be_bytes(*size);
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    if let Some(Ok(range)) = crate::range::ByteRange::parse(text).map(|range| range.resolve(size)) {
        assert!(range.start < range.end && range.end <= size);
    }
    if let Some(range) = crate::range::ByteRange::parse_copy_source(text) {
        assert!(range.start < range.end);
    }
}

/// The encryption-context header: what is read is answered and read the same.
pub fn encryption_context(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let parsed = crate::sse::parse_context(text);
    if let Some((context, answered)) = parsed
        .ok()
        .and_then(|context| crate::sse::context_header(&context).map(|answer| (context, answer)))
    {
        let again = crate::sse::parse_context(&answered).expect("an answer is a context");
        assert_eq!(again, context);
    }
}

/// The encryption headers, one `name: value` a line: never a panic, never a key
/// printed.
pub fn encryption_headers(data: &[u8]) {
    let headers = lines(data);
    let transport = crate::sse::Confidential(true);
    let _ = crate::sse::wanted(&headers, transport);
    let _ = crate::sse::customer_only(&headers, transport);
    let _ = crate::sse::copy_source(&headers, transport);
    let _ = crate::guard::Promised::of_headers(&headers);
}

/// A method, a path kind and a query: an operation takes only what it knows.
pub fn route(data: &[u8]) {
    use crate::route::{Query, Target};
    let [which, query @ ..] = data else { return };
    let Ok(query) = std::str::from_utf8(query) else {
        return;
    };
    let methods = ["GET", "PUT", "POST", "DELETE", "HEAD"];
    let method = methods[usize::from(*which) % methods.len()];
    let method = http::Method::from_bytes(method.as_bytes()).expect("a method");
    let targets = [Target::Service, Target::Bucket, Target::Object];
    let target = targets[usize::from(*which / 8) % targets.len()];
    if let Ok(query) = Query::parse(Some(query)) {
        let _ = crate::route::route(&method, target, &query, &HeaderMap::new());
        let again = Query::parse(Some(&query.encode_for_s3s())).expect("what we write, we read");
        assert_eq!(again.encode_for_s3s(), query.encode_for_s3s());
    }
}

/// Names in headers and lists: continuation tokens and copy sources.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = crate::url::split_copy_source(text);
    let _ = crate::dates::parse_http_date(text);
    crate::front::check_token(text);
}

fn lines(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = http::HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::random::{Random, SeededRandom};

    #[test]
    fn the_entry_points_take_anything() {
        let random = SeededRandom::new(3);
        let targets: [fn(&[u8]); 7] = [
            envelope,
            bucket_records,
            range_header,
            encryption_context,
            encryption_headers,
            route,
            names,
        ];
        let golden = include_bytes!("envelope/golden/object-3.plain");
        for target in targets {
            target(golden);
            target(include_bytes!("bucket/golden/bucket.record"));
            target(include_bytes!("bucket/golden/name.record"));
            target(b"bytes=0-1");
            target(b"x-amz-server-side-encryption: aws:kms\nx-amz-server-side-encryption-context: e30=");
            target(b"\x01prefix=a%2Bb&encoding-type=url");
            for len in 0..200 {
                let mut bytes = vec![0; len];
                random.fill(&mut bytes);
                target(&bytes);
            }
        }
    }
}
