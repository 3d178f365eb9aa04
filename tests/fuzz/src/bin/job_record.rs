//! What the job machinery reads back from the catalogue.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    jobs::fuzzing::record_contents(data);
});
