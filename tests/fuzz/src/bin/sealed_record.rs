//! Small records at rest: no input panics, and none but the one that was sealed, in its own row, opens.
#![no_main]

use crypto::random::SeededRandom;
use crypto::record::{Place, generation_of};
use crypto::secret::SecretBytes;
use crypto::store_key::GenerationKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let key = GenerationKey::from_secret(SecretBytes::init_with(|k| k.fill(3))).record_key("fuzz");
    let place = Place {
        table: "table",
        account: "account",
        region: "region",
        id: b"id",
        version: 1,
    };
    assert!(
        key.open_at(&place, data).is_err(),
        "opened what was never sealed"
    );
    let sealed = key.seal_at(&place, 7, data, &SeededRandom::new(1));
    let sealed = sealed.as_bytes();
    assert_eq!(generation_of(sealed), Ok(7));
    let opened = key.open_at(&place, sealed).expect("just sealed");
    assert_eq!(opened.expose(), data);
    let moved = Place {
        region: "regioni",
        id: b"d",
        ..place
    };
    assert!(
        key.open_at(&moved, sealed).is_err(),
        "the border of region and id moved"
    );
    if let Some(&at) = data.first() {
        let mut bent = sealed.to_vec();
        let at = usize::from(at) % bent.len();
        bent[at] ^= 0x10;
        assert!(
            key.open_at(&place, &bent).is_err(),
            "an altered record opened"
        );
    }
});
