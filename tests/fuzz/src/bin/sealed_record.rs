//! Small records at rest: no input panics, and none but the one that was sealed, in its own row, opens.
#![no_main]

use crypto::random::SeededRandom;
use crypto::secret::SecretBytes;
use crypto::store_key::GenerationKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let key = GenerationKey::from_secret(SecretBytes::init_with(|k| k.fill(3))).record_key("fuzz");
    assert!(
        key.open("table", b"id", data).is_err(),
        "opened what was never sealed"
    );
    let sealed = key.seal("table", b"id", data, &SeededRandom::new(1));
    assert_eq!(
        key.open("table", b"id", &sealed)
            .expect("just sealed")
            .expose(),
        data
    );
    assert!(
        key.open("tablei", b"d", &sealed).is_err(),
        "the border of table and id moved"
    );
    if let Some(&at) = data.first() {
        let mut bent = sealed.clone();
        let at = usize::from(at) % bent.len();
        bent[at] ^= 0x10;
        assert!(
            key.open("table", b"id", &bent).is_err(),
            "an altered record opened"
        );
    }
});
