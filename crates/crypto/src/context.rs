//! The encryption context: names and values that must be the same when opening.
//!
//! It is authenticated, not secret, and appears in the audit log. Two contexts
//! are equal if and only if their canonical forms are, byte for byte: no case
//! folding, no Unicode normalisation.

use std::collections::BTreeMap;

use crate::CryptoError;
use crate::derive::push_prefixed;

/// Greatest length of the canonical form, in bytes. AWS states no limit; this
/// one bounds what a request can make the keyring hash and log.
pub const CONTEXT_LEN_MAX: usize = 8192;

/// Name and value pairs bound to a wrapped key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptionContext(BTreeMap<String, String>);

impl EncryptionContext {
    /// The empty context.
    pub fn new() -> Self {
        Self::default()
    }

    /// Collects pairs; fails on a name given twice and above [`CONTEXT_LEN_MAX`].
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, CryptoError> {
        let mut context = Self::new();
        for (name, value) in pairs {
            context.insert(name, value)?;
        }
        Ok(context)
    }

    /// Adds one pair; fails on a name already there and above [`CONTEXT_LEN_MAX`],
    /// and leaves the context as it was.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<(), CryptoError> {
        let (name, value) = (name.into(), value.into());
        if self.0.contains_key(&name) {
            return Err(CryptoError::DuplicateContextName);
        }
        let len = self
            .canonical_len()
            .saturating_add(name.len())
            .saturating_add(value.len())
            .saturating_add(8);
        if len > CONTEXT_LEN_MAX {
            return Err(CryptoError::ContextTooLong {
                len,
                max: CONTEXT_LEN_MAX,
            });
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Pairs in canonical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// The pairs, for who does not know this type.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The form that is authenticated: the number of pairs, then for each pair,
    /// sorted by the bytes of its name, name and value, each behind its length.
    /// All numbers are 32 bits, big endian.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.canonical_len());
        let count = u32::try_from(self.0.len()).expect("bounded by CONTEXT_LEN_MAX");
        out.extend_from_slice(&count.to_be_bytes());
        for (name, value) in &self.0 {
            push_prefixed(&mut out, name.as_bytes());
            push_prefixed(&mut out, value.as_bytes());
        }
        out
    }

    fn canonical_len(&self) -> usize {
        4 + self
            .0
            .iter()
            .map(|(n, v)| 8 + n.len() + v.len())
            .sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
        EncryptionContext::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn a_boundary_moved_between_name_and_value_is_another_context() {
        assert_ne!(
            context(&[("a", "bc")]).canonical(),
            context(&[("ab", "c")]).canonical()
        );
        assert_ne!(context(&[("a", "")]).canonical(), context(&[]).canonical());
        assert_ne!(
            context(&[("a", "b"), ("c", "d")]).canonical(),
            context(&[("a", "b\0\0\0\x01c\0\0\0\x01d")]).canonical()
        );
    }

    #[test]
    fn the_order_of_pairs_does_not_matter() {
        assert_eq!(
            context(&[("b", "1"), ("a", "2")]).canonical(),
            context(&[("a", "2"), ("b", "1")]).canonical()
        );
    }

    #[test]
    fn case_and_unicode_forms_stay_apart() {
        assert_ne!(
            context(&[("A", "1")]).canonical(),
            context(&[("a", "1")]).canonical()
        );
        assert_ne!(
            context(&[("\u{e9}", "1")]).canonical(),
            context(&[("e\u{301}", "1")]).canonical()
        );
    }

    #[test]
    fn a_name_given_twice_is_refused() {
        assert_eq!(
            EncryptionContext::from_pairs([("a", "1"), ("a", "1")]).unwrap_err(),
            CryptoError::DuplicateContextName
        );
    }

    #[test]
    fn a_context_above_the_limit_is_refused_and_the_limit_itself_is_not() {
        let value = "v".repeat(CONTEXT_LEN_MAX - 4 - 8 - 1);
        assert_eq!(context(&[("n", &value)]).canonical().len(), CONTEXT_LEN_MAX);
        assert!(matches!(
            EncryptionContext::from_pairs([("nn", value)]),
            Err(CryptoError::ContextTooLong { .. })
        ));
    }
}
