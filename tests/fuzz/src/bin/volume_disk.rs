//! What a volume reads back from its disk: metadata log, records, the copy of its row or what is sealed in one, and the claim on a client token. The first byte chooses which.
#![no_main]

use volume::fuzzing::{descriptor, log, record, token_claim};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, bytes @ ..] = data else { return };
    match which % 4 {
        0 => log(bytes),
        1 => record(bytes),
        2 => descriptor(bytes),
        _ => token_claim(bytes),
    }
});
