//! What a volume reads back from its disk: metadata log, records, and the copy of its row or what is sealed in one. The first byte chooses which.
#![no_main]

use volume::fuzzing::{descriptor, log, record};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, bytes @ ..] = data else { return };
    match which % 3 {
        0 => log(bytes),
        1 => record(bytes),
        _ => descriptor(bytes),
    }
});
