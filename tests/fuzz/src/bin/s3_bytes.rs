//! Envelopes of objects, records of buckets, and the headers and names that S3 clients send. The first byte chooses which.
#![no_main]

use s3::fuzzing::{
    bucket_records, encryption_context, encryption_headers, envelope, names, range_header, route,
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, bytes @ ..] = data else { return };
    match which % 7 {
        0 => envelope(bytes),
        1 => range_header(bytes),
        2 => encryption_context(bytes),
        3 => encryption_headers(bytes),
        4 => route(bytes),
        5 => names(bytes),
        _ => bucket_records(bytes),
    }
});
