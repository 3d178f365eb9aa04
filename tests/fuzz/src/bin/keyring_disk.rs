//! What the keyring reads back from the catalogue and the audit log from its folder, and key arguments. The first byte chooses which.
#![no_main]

use audit::fuzzing::{accepted_losses, journal, segment};
use keyring::fuzzing::{key_argument, record_contents};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [which, bytes @ ..] = data else { return };
    match which % 5 {
        0 => segment(bytes),
        1 => record_contents(bytes),
        2 => key_argument(bytes),
        3 => journal(bytes),
        _ => accepted_losses(bytes),
    }
});
