//! A root key derived from a passphrase by Argon2id (RFC 9106).
//!
//! Salt and cost stand in clear beside the wrapped store key, so a store can be opened with the passphrase alone. Who
//! has the header can try passphrases against it at the cost of one derivation each.

use std::{fmt, sync::Arc};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use async_trait::async_trait;
use crypto::{
    random::Random,
    secret::{SecretBytes, SecretVec},
    store_key::{GenerationKey, RootKey},
};
use zeroize::Zeroize;

use crate::{
    blocking::blocking,
    error::RootError,
    id::RootKeyId,
    provider::{Kind, RootKeyProvider, Wrapped},
};

const SALT_LEN: usize = 16;
/// Salt, memory, passes, lanes.
const PARAMETERS_LEN: usize = SALT_LEN + 12;

/// What one derivation costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Argon2Cost {
    /// The second choice that RFC 9106, section 4 recommends: 64 MiB, 3 passes, 4 lanes. No less is taken.
    pub const RECOMMENDED: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 4,
    };
    /// The most that is taken from a header: one that was changed must not make the process take all memory, or
    /// never end.
    const MOST: Self = Self {
        memory_kib: 4 * 1024 * 1024,
        passes: 64,
        lanes: 64,
    };

    fn within(self, least: Self) -> bool {
        let most = Self::MOST;
        (least.memory_kib..=most.memory_kib).contains(&self.memory_kib)
            && (least.passes..=most.passes).contains(&self.passes)
            && (least.lanes..=most.lanes).contains(&self.lanes)
    }
}

/// A root key derived from a passphrase.
pub struct PassphraseProvider {
    passphrase: Arc<SecretVec>,
    cost: Argon2Cost,
    random: Arc<dyn Random>,
    /// The key that was derived last, with its salt and cost: one derivation serves all generations.
    derived: tokio::sync::Mutex<Option<(Parameters, Arc<RootKey>)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parameters {
    salt: [u8; SALT_LEN],
    cost: Argon2Cost,
}

impl fmt::Debug for PassphraseProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PassphraseProvider(redacted)")
    }
}

impl PassphraseProvider {
    /// Longest passphrase, in bytes.
    pub const LEN_MAX: usize = 4096;
    /// Shortest passphrase, in bytes.
    pub const LEN_MIN: usize = 8;

    /// The root key from `passphrase`, its bytes as they are; `Passphrase` if it is too short or too long.
    pub fn new(passphrase: SecretVec, random: Arc<dyn Random>) -> Result<Self, RootError> {
        Self::with_cost(passphrase, random, Argon2Cost::RECOMMENDED)
    }

    /// As [`new`](Self::new), at a higher cost.
    pub fn with_cost(
        passphrase: SecretVec,
        random: Arc<dyn Random>,
        cost: Argon2Cost,
    ) -> Result<Self, RootError> {
        if passphrase.len() < Self::LEN_MIN {
            return Err(RootError::Passphrase("it is shorter than 8 bytes"));
        }
        if passphrase.len() > Self::LEN_MAX {
            return Err(RootError::Passphrase("it is longer than 4096 bytes"));
        }
        if !cost.within(Argon2Cost::RECOMMENDED) {
            return Err(RootError::Passphrase("its Argon2id cost is out of bounds"));
        }
        Ok(Self {
            passphrase: Arc::new(passphrase),
            cost,
            random,
            derived: tokio::sync::Mutex::default(),
        })
    }

    async fn root_key(
        &self,
        parameters: Option<Parameters>,
    ) -> Result<(Parameters, Arc<RootKey>), RootError> {
        // Held over the derivation: two at a time would take twice the memory for the same key.
        let mut derived = self.derived.lock().await;
        if let Some((known, root)) = &*derived
            && parameters.is_none_or(|wanted| wanted == *known)
        {
            return Ok((*known, Arc::clone(root)));
        }
        let parameters = parameters.unwrap_or_else(|| {
            let mut salt = [0; SALT_LEN];
            self.random.fill(&mut salt);
            Parameters {
                salt,
                cost: self.cost,
            }
        });
        let passphrase = Arc::clone(&self.passphrase);
        let root = blocking(move || derive(&passphrase, &parameters)).await?;
        let root = Arc::new(root);
        *derived = Some((parameters, Arc::clone(&root)));
        Ok((parameters, root))
    }
}

impl Parameters {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.salt.to_vec();
        for number in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// Reads them from a header; `None` if they are not of this form or out of bounds.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != PARAMETERS_LEN {
            return None;
        }
        let (salt, numbers) = bytes.split_first_chunk::<SALT_LEN>()?;
        let number = |at: usize| {
            let bytes = numbers.get(at * 4..)?.first_chunk::<4>()?;
            Some(u32::from_be_bytes(*bytes))
        };
        let cost = Argon2Cost {
            memory_kib: number(0)?,
            passes: number(1)?,
            lanes: number(2)?,
        };
        cost.within(Argon2Cost::RECOMMENDED)
            .then_some(Self { salt: *salt, cost })
    }
}

/// Blocks for as long as the cost says, a good part of a second.
fn derive(passphrase: &SecretVec, parameters: &Parameters) -> Result<RootKey, RootError> {
    let cost = parameters.cost;
    let wrong = |_| RootError::Passphrase("its Argon2id cost is out of bounds");
    let params =
        Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(RootKey::LEN)).map_err(wrong)?;
    let mut blocks = Memory(vec![Block::default(); params.block_count()]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let secret = SecretBytes::try_init_with(|key| {
        argon2.hash_password_into_with_memory(
            passphrase.expose(),
            &parameters.salt,
            key,
            &mut blocks.0,
        )
    })
    .map_err(wrong)?;
    Ok(RootKey::from_secret(secret))
}

/// The derivation's memory, wiped: its last blocks give the key away.
struct Memory(Vec<Block>);

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Zeroize::zeroize);
    }
}

#[async_trait]
impl RootKeyProvider for PassphraseProvider {
    fn kind(&self) -> Kind {
        Kind::Passphrase
    }

    fn describe(&self) -> String {
        "the passphrase".to_owned()
    }

    async fn ensure(&self) -> Result<bool, RootError> {
        Ok(false)
    }

    async fn wrap(&self, key: &GenerationKey, aad: &[u8]) -> Result<Wrapped, RootError> {
        let (parameters, root) = self.root_key(None).await?;
        Ok(Wrapped {
            kind: Kind::Passphrase,
            root_key: RootKeyId::from_bytes(root.id()),
            parameters: parameters.to_bytes(),
            ciphertext: root.wrap(key, aad, &*self.random),
        })
    }

    async fn unwrap(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<GenerationKey, RootError> {
        let parameters = Parameters::from_bytes(&wrapped.parameters)
            .ok_or(RootError::Passphrase("its Argon2id cost is out of bounds"))?;
        let (_, root) = self.root_key(Some(parameters)).await?;
        let found = RootKeyId::from_bytes(root.id());
        if found != wrapped.root_key {
            return Err(RootError::WrongRootKey {
                from: self.describe(),
                needed: wrapped.root_key,
                found,
            });
        }
        root.unwrap(&wrapped.ciphertext, aad)
            .map_err(|_| RootError::Unauthentic)
    }
}

#[cfg(test)]
mod tests {
    use crypto::random::SeededRandom;

    use super::*;

    fn provider(passphrase: &str, seed: u64) -> PassphraseProvider {
        let secret = SecretVec::from_slice(passphrase.as_bytes());
        PassphraseProvider::new(secret, Arc::new(SeededRandom::new(seed))).unwrap()
    }

    #[tokio::test]
    async fn the_same_passphrase_unwraps_and_another_one_is_said_to_be_wrong() {
        let key = GenerationKey::generate(&SeededRandom::new(1));
        let wrapped = provider("correct horse", 2)
            .wrap(&key, b"here")
            .await
            .unwrap();
        let again = provider("correct horse", 3);
        let back = again.unwrap(&wrapped, b"here").await.unwrap();
        assert_eq!(back.secret().expose(), key.secret().expose());
        let moved = again.unwrap(&wrapped, b"there").await.unwrap_err();
        assert!(matches!(moved, RootError::Unauthentic));
        let error = provider("correct horsf", 3).unwrap(&wrapped, b"here").await;
        assert!(matches!(error, Err(RootError::WrongRootKey { .. })));
    }

    #[tokio::test]
    async fn a_cost_that_was_changed_to_almost_nothing_or_to_everything_is_refused() {
        let key = GenerationKey::generate(&SeededRandom::new(1));
        let provider = provider("correct horse", 2);
        let wrapped = provider.wrap(&key, b"").await.unwrap();
        for (at, value) in [
            (16, 8),
            (16, u32::MAX),
            (20, 0),
            (20, 65),
            (24, 0),
            (24, 65),
        ] {
            let mut changed = wrapped.clone();
            changed.parameters[at..at + 4].copy_from_slice(&u32::to_be_bytes(value));
            let error = provider.unwrap(&changed, b"").await.unwrap_err();
            assert!(matches!(error, RootError::Passphrase(_)), "{error}");
        }
    }

    #[test]
    fn a_passphrase_too_short_or_too_long_is_refused() {
        for len in [0, 7, 4097] {
            let secret = SecretVec::init_with(len, |bytes| bytes.fill(b'x'));
            let random = Arc::new(SeededRandom::new(1));
            assert!(PassphraseProvider::new(secret, random).is_err(), "{len}");
        }
    }

    #[test]
    fn the_derivation_is_argon2id_as_the_reference_has_it() {
        // From the reference implementation in C, through Python's argon2-cffi:
        // hash_secret_raw(b"correct horse", b"0123456789abcdef", 3, 65536, 4, 32, Type.ID)
        let parameters = Parameters {
            salt: *b"0123456789abcdef",
            cost: Argon2Cost::RECOMMENDED,
        };
        let root = derive(&SecretVec::from_slice(b"correct horse"), &parameters).unwrap();
        assert_eq!(hex::encode(root.secret().expose()), REFERENCE);
    }

    const REFERENCE: &str = "2f56f5363a695288ff28810e46ad69a1fe3068bc6494cd26a8a673b7d9c2b0a2";
}
