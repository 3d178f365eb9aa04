//! Wrapped keys: no input panics, and none but the one that was sealed opens.
#![no_main]

use crypto::context::EncryptionContext;
use crypto::random::SeededRandom;
use crypto::secret::SecretBytes;
use crypto::wrap::{BackingKey, BlobHeader, KeyBlob};
use libfuzzer_sys::fuzz_target;

fn key() -> BackingKey {
    BackingKey::from_secret(SecretBytes::init_with(|k| k.fill(7)))
}

fuzz_target!(|data: &[u8]| {
    let context = EncryptionContext::from_pairs([("a", "bc")]).expect("a small context");
    // Once as it is, and once laid over a blob that opens, so that what lies behind the header is reached.
    if let Ok(blob) = KeyBlob::parse(data) {
        assert!(
            blob.open(&key(), &context).is_err(),
            "opened what was never sealed"
        );
    }
    let header = BlobHeader {
        key_id: [9; 16],
        multi_region: false,
        material: 1,
    };
    let sealed = KeyBlob::seal(&key(), header, &context, b"data key", &SeededRandom::new(1))
        .expect("a short plaintext");
    let mut bent = sealed.clone();
    if let [at, length, edit @ ..] = data {
        let at = usize::from(*at) % (bent.len() + 1);
        let end = (at + usize::from(*length)).min(bent.len());
        bent.splice(at..end, edit.iter().copied());
    }
    let opened = KeyBlob::parse(&bent).and_then(|blob| blob.open(&key(), &context));
    assert_eq!(opened.is_ok(), bent == sealed, "an altered blob opened");
});
