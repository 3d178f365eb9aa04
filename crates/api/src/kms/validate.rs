//! The bounds the service model states, and AWS's way of saying that one was not kept.
use std::ops::RangeInclusive;

use keyring::{AliasName, KeyArgument, Page};

use super::fault::Fault;

fn violated(shown: Option<&str>, member: &str, constraint: &str) -> Fault {
    let value = match shown {
        Some(value) => {
            let value: String = value.chars().take(128).collect();
            format!("Value '{value}' at '{member}'")
        }
        None => format!("Value at '{member}'"),
    };
    Fault::Validation(format!(
        "1 validation error detected: {value} failed to satisfy constraint: {constraint}"
    ))
}

/// A member that must be there.
pub(super) fn required<T>(value: Option<T>, member: &str) -> Result<T, Fault> {
    value.ok_or_else(|| {
        Fault::Validation(format!(
            "1 validation error detected: Value null at '{member}' failed to satisfy constraint: \
             Member must not be null"
        ))
    })
}

/// A length, in bytes of a blob or characters of a text. The value is not shown.
pub(super) fn length(
    length: usize,
    bounds: RangeInclusive<usize>,
    member: &str,
) -> Result<(), Fault> {
    if length < *bounds.start() {
        let constraint = format!(
            "Member must have length greater than or equal to {}",
            bounds.start()
        );
        return Err(violated(None, member, &constraint));
    }
    if length > *bounds.end() {
        let constraint = format!(
            "Member must have length less than or equal to {}",
            bounds.end()
        );
        return Err(violated(None, member, &constraint));
    }
    Ok(())
}

/// A number.
pub(super) fn number(value: i64, bounds: RangeInclusive<i64>, member: &str) -> Result<i64, Fault> {
    let shown = value.to_string();
    if value < *bounds.start() {
        let constraint = format!(
            "Member must have value greater than or equal to {}",
            bounds.start()
        );
        return Err(violated(Some(&shown), member, &constraint));
    }
    if value > *bounds.end() {
        let constraint = format!(
            "Member must have value less than or equal to {}",
            bounds.end()
        );
        return Err(violated(Some(&shown), member, &constraint));
    }
    Ok(value)
}

/// One of the words a model's enumeration has.
pub(super) fn word(
    value: &str,
    words: &'static [&'static str],
    member: &str,
) -> Result<&'static str, Fault> {
    words
        .iter()
        .copied()
        .find(|word| *word == value)
        .ok_or_else(|| {
            let constraint = format!("Member must satisfy enum value set: [{}]", words.join(", "));
            violated(Some(value), member, &constraint)
        })
}

/// A key argument in any of its four forms.
pub(super) fn key(value: Option<&str>, member: &str) -> Result<KeyArgument, Fault> {
    let value = required(value, member)?;
    length(value.chars().count(), 1..=2048, member)?;
    Ok(value.parse()?)
}

/// A key argument that may be left out.
pub(super) fn optional_key(
    value: Option<&str>,
    member: &str,
) -> Result<Option<KeyArgument>, Fault> {
    value.map(|value| key(Some(value), member)).transpose()
}

/// A key argument that may not be an alias.
pub(super) fn key_itself(value: Option<&str>, member: &str) -> Result<KeyArgument, Fault> {
    Ok(key(value, member)?.without_alias()?)
}

/// An alias name.
pub(super) fn alias(value: Option<&str>) -> Result<AliasName, Fault> {
    let value = required(value, "aliasName")?;
    length(value.chars().count(), 1..=256, "aliasName")?;
    Ok(value.parse()?)
}

/// `Limit` and `Marker`.
pub(super) fn page(
    limit: Option<i64>,
    limit_max: i64,
    marker: Option<String>,
) -> Result<Page, Fault> {
    let limit = limit
        .map(|limit| number(limit, 1..=limit_max, "limit"))
        .transpose()?
        .map(|limit| u32::try_from(limit).expect("at most a thousand"));
    if let Some(marker) = &marker {
        length(marker.chars().count(), 1..=1024, "marker")?;
    }
    Ok(Page { limit, marker })
}

/// `GrantTokens`: there are no grants, so there is no token that is valid.
pub(super) fn grant_tokens(tokens: Option<&[String]>) -> Result<(), Fault> {
    let tokens = tokens.unwrap_or_default();
    length(tokens.len(), 0..=10, "grantTokens")?;
    if tokens.is_empty() {
        Ok(())
    } else {
        Err(Fault::InvalidGrantToken)
    }
}

/// An encryption algorithm: every key here has the same one.
pub(super) fn algorithm(value: Option<&str>, member: &str) -> Result<(), Fault> {
    const WORDS: &[&str] = &[
        "SYMMETRIC_DEFAULT",
        "RSAES_OAEP_SHA_1",
        "RSAES_OAEP_SHA_256",
        "SM2PKE",
    ];
    match value.map(|value| word(value, WORDS, member)).transpose()? {
        None | Some("SYMMETRIC_DEFAULT") => Ok(()),
        Some(other) => Err(Fault::InvalidKeyUsage(other)),
    }
}
