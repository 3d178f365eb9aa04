//! Private decoders, for the fuzz targets alone.

use crypto::{secret::SecretBytes, store_key::GenerationKey};

use crate::header::Header;

/// A root key file: what is read is written the same.
pub fn root_key_file(data: &[u8]) {
    crate::file::FileProvider::check_text(data);
}

/// A root header: what is read is written the same, but for its MAC and checksum.
pub fn root_header(data: &[u8]) {
    if let Ok(read) = Header::decode(data) {
        let key = GenerationKey::from_secret(SecretBytes::init_with(|key| key.fill(1)));
        let again = read.header.encode(&key);
        assert_eq!(again[..again.len() - 64], data[..data.len() - 64]);
        assert_eq!(read.authenticates(&key), again == data);
    }
}

/// A kept pass of a rotation: what is read is written the same.
pub fn rotation_pass(data: &[u8]) {
    if let Some(pass) = crate::Pass::decode(data)
        && !data.is_empty()
    {
        assert_eq!(pass.encode(), data);
    }
}

/// A root header whose checksum is made to match, so that the fields behind it are reached.
pub fn checked_root_header(data: &[u8]) {
    use sha2::{Digest as _, Sha256};
    let mut bytes = data.to_vec();
    bytes.extend_from_slice(&Sha256::digest(data));
    root_header(&bytes);
}
