//! What a volume reads back from its disk: metadata log, records, the copy of its row or what is sealed in one, the claim
//! on a client token, what is sealed of the default encryption, the header and owner table of its slots, and its epoch. The
//! first byte chooses which.
#![no_main]

use volume::fuzzing::{default_encryption, descriptor, epoch, log, owner, record, token_claim};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, bytes @ ..] = data else { return };
    match which % 7 {
        0 => log(bytes),
        1 => record(bytes),
        2 => descriptor(bytes),
        3 => token_claim(bytes),
        4 => default_encryption(bytes),
        5 => owner(bytes),
        _ => epoch(bytes),
    }
});
