//! One KMS request on its way, and its parameters.
use iam::Caller;
use keyring::Keyring;

use super::fault::Fault;
use crate::model::Operation;

/// One request on its way.
pub(super) struct Request<'a> {
    pub(super) keyring: &'a Keyring,
    pub(super) caller: Caller<'a>,
    pub(super) operation: &'static Operation,
    pub(super) body: &'a [u8],
}

impl Request<'_> {
    /// The parameters, checked against the model: what it requires is there, and within its bounds.
    pub(super) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, Fault> {
        self.operation.check(self.body)?;
        // An empty body is how some clients write "no parameters".
        let text = match self.body.trim_ascii() {
            b"" => b"{}",
            text => text,
        };
        // As text, of which no string is looked through again for what is not UTF-8.
        let parsed = match std::str::from_utf8(text) {
            Ok(text) => serde_json::from_str(text),
            Err(_) => serde_json::from_slice(text),
        };
        parsed.map_err(|error| Fault::malformed(&error))
    }
}
