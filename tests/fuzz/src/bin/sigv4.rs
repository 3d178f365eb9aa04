//! Signed requests: whatever a stranger sends as path, query and headers, the verifier neither panics nor says yes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iam::fuzzing::request(data));
