//! Bodies of KMS and Sealgate (JSON) and Query (form) requests. The first byte chooses which.
#![no_main]

use api::fuzzing::{kms_json, query_form, sealgate_json};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, body @ ..] = data else { return };
    match which % 3 {
        0 => kms_json(body),
        1 => sealgate_json(body),
        _ => query_form(body),
    }
});
