//! The tokens of lists: where the next page starts.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::Error;

/// An opaque token that says where the next page starts.
pub(super) fn token(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(name)
}

/// Reads a token back.
pub(super) fn parse_token(token: &str) -> Result<String, Error> {
    let name = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|name| String::from_utf8(name).ok());
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| Error::invalid_argument("The continuation token provided is incorrect"))
}
