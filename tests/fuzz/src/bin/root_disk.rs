//! The root key file and the root header. The first byte chooses which.
#![no_main]

use root::fuzzing::{checked_root_header, root_header, root_key_file};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, bytes @ ..] = data else { return };
    match which % 3 {
        0 => root_key_file(bytes),
        1 => root_header(bytes),
        _ => checked_root_header(bytes),
    }
});
