//! Root-key providers: whoever can wrap and unwrap a store key.

use std::fmt;

use async_trait::async_trait;
use crypto::store_key::GenerationKey;

use crate::{error::RootError, id::RootKeyId};

/// The kind of a provider, as the header spells it in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A key in a file.
    File,
    /// A key derived from a passphrase.
    Passphrase,
}

impl Kind {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Passphrase => 2,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::File),
            2 => Some(Self::Passphrase),
            _ => None,
        }
    }

    /// Its name, as it stands in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Passphrase => "passphrase",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A wrapped store key, with what its provider needs to unwrap it. Public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The kind of provider that made it.
    pub kind: Kind,
    /// The root key that it is wrapped under.
    pub root_key: RootKeyId,
    /// The provider's own parameters, at most [`PARAMETERS_LEN_MAX`](Self::PARAMETERS_LEN_MAX) bytes.
    pub parameters: Vec<u8>,
    /// The store key, sealed; at most [`CIPHERTEXT_LEN_MAX`](Self::CIPHERTEXT_LEN_MAX) bytes.
    pub ciphertext: Vec<u8>,
}

impl Wrapped {
    /// Most bytes of a provider's parameters.
    pub const PARAMETERS_LEN_MAX: usize = 256;
    /// Most bytes of a wrapped store key.
    pub const CIPHERTEXT_LEN_MAX: usize = 1024;
}

/// Wraps and unwraps store keys under a root key that it never shows.
///
/// Async, since the key may be in another machine. Both calls may take seconds (a passphrase) and may be cancelled
/// anywhere.
#[async_trait]
pub trait RootKeyProvider: Send + Sync + fmt::Debug {
    /// Which kind it is.
    fn kind(&self) -> Kind;

    /// Where the root key is, for messages. Never anything secret.
    fn describe(&self) -> String;

    /// Makes the root key and keeps it durably if there is none yet; says whether it did. Never replaces one. Called
    /// for an empty store, and for a new provider in a rotation of the root key.
    async fn ensure(&self) -> Result<bool, RootError>;

    /// Wraps `key`, bound to `aad`.
    async fn wrap(&self, key: &GenerationKey, aad: &[u8]) -> Result<Wrapped, RootError>;

    /// Opens what [`wrap`](Self::wrap) made under the same root key and `aad`.
    ///
    /// Fails with `Missing` if there is no root key, with `WrongRootKey` if there is another one, and with
    /// `Unauthentic` if it is the right one and `wrapped` was changed or belongs elsewhere.
    async fn unwrap(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<GenerationKey, RootError>;
}
