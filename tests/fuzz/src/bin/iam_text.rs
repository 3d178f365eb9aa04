//! Credential scopes, paths, queries and ARNs. The first byte chooses which.
#![no_main]

use iam::fuzzing::{arn, authorization, canonical};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, text @ ..] = data else { return };
    match which % 3 {
        0 => authorization(text),
        1 => canonical(text),
        _ => arn(text),
    }
});
