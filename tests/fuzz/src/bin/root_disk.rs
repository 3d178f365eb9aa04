//! The root key file, the root header, and a kept pass of a rotation. The first byte chooses which.
#![no_main]

use root::fuzzing::{checked_root_header, root_header, root_key_file, rotation_pass};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, bytes @ ..] = data else { return };
    match which % 4 {
        0 => root_key_file(bytes),
        1 => root_header(bytes),
        2 => rotation_pass(bytes),
        _ => checked_root_header(bytes),
    }
});
