//! What an NBD client sends: the handshake, and requests in any pieces. The first byte chooses which.
#![no_main]

use nbd::fuzzing::{handshake, requests};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, bytes @ ..] = data else { return };
    match which % 2 {
        0 => requests(bytes),
        _ => handshake(bytes),
    }
});
