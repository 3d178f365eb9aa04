//! What an NBD client sends: the handshake, and requests in any pieces; and what a server says in a handshake. The first byte chooses which.
#![no_main]

use nbd::fuzzing::{client, handshake, requests};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, bytes @ ..] = data else { return };
    match which % 3 {
        0 => requests(bytes),
        1 => handshake(bytes),
        _ => client(bytes),
    }
});
