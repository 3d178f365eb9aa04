//! What the keyring reads back from its directory, and key arguments. The first byte chooses which.
#![no_main]

use keyring::fuzzing::{audit_segment, key_argument, record_contents, root_key_file};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, bytes @ ..] = data else { return };
    match which % 4 {
        0 => audit_segment(bytes),
        1 => root_key_file(bytes),
        2 => record_contents(bytes),
        _ => key_argument(bytes),
    }
});
