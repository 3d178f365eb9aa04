//! Bodies of KMS (JSON) and Query (form) requests. The first byte chooses which.
#![no_main]

use api::fuzzing::{kms_json, query_form};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, body @ ..] = data else { return };
    match which % 2 {
        0 => kms_json(body),
        _ => query_form(body),
    }
});
