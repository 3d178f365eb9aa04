//! What KMS checks beyond its service model, which has been checked before: ranges that are narrower,
//! members that are needed without being required, names and ARNs.
use std::ops::RangeInclusive;

use keyring::{AliasName, KeyArgument, Page};

use super::fault::Fault;

/// A member that this operation needs, although the model does not require it.
pub(super) fn needed<T>(value: Option<T>, member: &str) -> Result<T, Fault> {
    value.ok_or_else(|| {
        Fault::Validation(format!(
            "1 validation error detected: Value null at '{member}' failed to satisfy constraint: \
             Member must not be null"
        ))
    })
}

/// A number whose range is narrower than the model's.
pub(super) fn number(value: i64, bounds: RangeInclusive<i64>, member: &str) -> Result<i64, Fault> {
    let constraint = if value < *bounds.start() {
        format!(
            "Member must have value greater than or equal to {}",
            bounds.start()
        )
    } else if value > *bounds.end() {
        format!(
            "Member must have value less than or equal to {}",
            bounds.end()
        )
    } else {
        return Ok(value);
    };
    Err(Fault::Validation(format!(
        "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: \
         {constraint}"
    )))
}

/// A key argument in any of its four forms.
pub(super) fn key(value: &str) -> Result<KeyArgument, Fault> {
    Ok(value.parse()?)
}

/// A key argument that may be left out.
pub(super) fn optional_key(value: Option<&str>) -> Result<Option<KeyArgument>, Fault> {
    value.map(key).transpose()
}

/// A key argument that may not be an alias.
pub(super) fn key_itself(value: &str) -> Result<KeyArgument, Fault> {
    Ok(key(value)?.without_alias()?)
}

/// An alias name.
pub(super) fn alias(value: &str) -> Result<AliasName, Fault> {
    Ok(value.parse()?)
}

/// `Limit` and `Marker`; the model lets every list have a limit of 1000.
pub(super) fn page(
    limit: Option<i64>,
    limit_max: i64,
    marker: Option<String>,
) -> Result<Page, Fault> {
    let limit = limit
        .map(|limit| number(limit, 1..=limit_max, "limit"))
        .transpose()?
        .map(|limit| u32::try_from(limit).expect("at most a thousand"));
    Ok(Page { limit, marker })
}

/// `GrantTokens`: there are no grants, so there is no token that is valid.
pub(super) fn grant_tokens(tokens: Option<&[String]>) -> Result<(), Fault> {
    if tokens.unwrap_or_default().is_empty() {
        Ok(())
    } else {
        Err(Fault::InvalidGrantToken)
    }
}

/// An encryption algorithm: every key here has the same one.
pub(super) fn algorithm(value: Option<&str>) -> Result<(), Fault> {
    match value {
        None | Some("SYMMETRIC_DEFAULT") => Ok(()),
        Some(other) => Err(Fault::InvalidKeyUsage(other.to_owned())),
    }
}
