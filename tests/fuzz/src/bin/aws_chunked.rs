//! Bodies in `aws-chunked` encoding.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iam::fuzzing::chunked(data));
