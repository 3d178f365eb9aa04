//! What each operation may do in each key state: the one place where that is decided.
//!
//! The table is the developer guide's, "Key states of AWS KMS keys". An operation that is not in
//! it is refused in every state but `Enabled`.

use crate::{error::KeyringError, key::KeyArn, key_state::KeyState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Allowed,
    /// `DisabledException`.
    Disabled,
    /// `KMSInvalidStateException`.
    Invalid,
    /// `UnsupportedOperationException`.
    Unsupported,
}
use Answer::{Allowed, Disabled, Invalid, Unsupported};

/// One row: the operations, then the answers when disabled, pending deletion, pending import,
/// unavailable.
type Row = (&'static [&'static str], [Answer; 4]);

const TABLE: &[Row] = &[
    (
        &[
            "Encrypt",
            "Decrypt",
            "ReEncryptFrom",
            "ReEncryptTo",
            "GenerateDataKey",
            "GenerateDataKeyWithoutPlaintext",
        ],
        [Disabled, Invalid, Invalid, Invalid],
    ),
    (
        &["EnableKey", "DisableKey"],
        [Allowed, Invalid, Invalid, Allowed],
    ),
    (
        &[
            "EnableKeyRotation",
            "DisableKeyRotation",
            "RotateKeyOnDemand",
        ],
        [Disabled, Invalid, Unsupported, Unsupported],
    ),
    (
        &[
            "TagResource",
            "UntagResource",
            "UpdateKeyDescription",
            "CreateAlias",
            "UpdateAlias",
            "ScheduleKeyDeletion",
        ],
        [Allowed, Invalid, Allowed, Allowed],
    ),
    (&["CancelKeyDeletion"], [Invalid, Allowed, Invalid, Invalid]),
    (
        &[
            "DescribeKey",
            "ListAliases",
            "ListResourceTags",
            "ListKeyPolicies",
            "GetKeyPolicy",
            "PutKeyPolicy",
            "DeleteAlias",
        ],
        [Allowed, Allowed, Allowed, Allowed],
    ),
    (
        &["GetKeyRotationStatus", "ListKeyRotations"],
        [Allowed, Allowed, Unsupported, Unsupported],
    ),
];

/// Whether `action` (`kms:Decrypt`) may be done to a key in `state`.
pub(crate) fn check(key: &KeyArn, state: KeyState, action: &str) -> Result<(), KeyringError> {
    let operation = action.strip_prefix("kms:").unwrap_or(action);
    let row = TABLE
        .iter()
        .find(|(operations, _)| operations.contains(&operation))
        .map_or([Disabled, Invalid, Invalid, Invalid], |(_, answers)| {
            *answers
        });
    let answer = match state {
        // Only a key that waits for its deletion can be told to stop waiting.
        KeyState::Enabled if operation == "CancelKeyDeletion" => Invalid,
        KeyState::Enabled => Allowed,
        KeyState::Disabled => row[0],
        KeyState::PendingDeletion => row[1],
        KeyState::PendingImport => row[2],
        KeyState::Unavailable => row[3],
    };
    match answer {
        Allowed => Ok(()),
        Disabled => Err(KeyringError::Disabled {
            key: key.as_arn().clone(),
        }),
        Invalid => Err(KeyringError::InvalidState {
            key: key.as_arn().clone(),
            state,
        }),
        Unsupported => Err(KeyringError::UnsupportedOperation(format!(
            "{key} {} {operation} is not supported.",
            state.refusal()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written from the specification's table, not from ours: operation, then the codes for
    /// enabled, disabled, pending deletion, pending import, unavailable ("" is allowed).
    const SPECIFIED: &[(&str, [&str; 5])] = &[
        ("Encrypt", ["", "D", "I", "I", "I"]),
        ("Decrypt", ["", "D", "I", "I", "I"]),
        ("ReEncryptFrom", ["", "D", "I", "I", "I"]),
        ("ReEncryptTo", ["", "D", "I", "I", "I"]),
        ("GenerateDataKey", ["", "D", "I", "I", "I"]),
        ("GenerateDataKeyWithoutPlaintext", ["", "D", "I", "I", "I"]),
        ("EnableKey", ["", "", "I", "I", ""]),
        ("DisableKey", ["", "", "I", "I", ""]),
        ("EnableKeyRotation", ["", "D", "I", "U", "U"]),
        ("DisableKeyRotation", ["", "D", "I", "U", "U"]),
        ("RotateKeyOnDemand", ["", "D", "I", "U", "U"]),
        ("TagResource", ["", "", "I", "", ""]),
        ("UntagResource", ["", "", "I", "", ""]),
        ("UpdateKeyDescription", ["", "", "I", "", ""]),
        ("CreateAlias", ["", "", "I", "", ""]),
        ("UpdateAlias", ["", "", "I", "", ""]),
        ("ScheduleKeyDeletion", ["", "", "I", "", ""]),
        ("CancelKeyDeletion", ["I", "I", "", "I", "I"]),
        ("DescribeKey", ["", "", "", "", ""]),
        ("ListAliases", ["", "", "", "", ""]),
        ("ListResourceTags", ["", "", "", "", ""]),
        ("GetKeyPolicy", ["", "", "", "", ""]),
        ("DeleteAlias", ["", "", "", "", ""]),
        ("GetKeyRotationStatus", ["", "", "", "U", "U"]),
        ("ListKeyRotations", ["", "", "", "U", "U"]),
        ("SomethingNew", ["", "D", "I", "I", "I"]),
    ];

    #[test]
    fn every_operation_answers_in_every_state_as_specified() {
        let key: KeyArn =
            "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
                .parse()
                .unwrap();
        let states = [
            KeyState::Enabled,
            KeyState::Disabled,
            KeyState::PendingDeletion,
            KeyState::PendingImport,
            KeyState::Unavailable,
        ];
        for (operation, answers) in SPECIFIED {
            for (state, expected) in states.iter().zip(answers) {
                let code = check(&key, *state, &format!("kms:{operation}"))
                    .err()
                    .map_or("", |error| error.code());
                let expected = match *expected {
                    "D" => "DisabledException",
                    "I" => "KMSInvalidStateException",
                    "U" => "UnsupportedOperationException",
                    allowed => allowed,
                };
                assert_eq!(code, expected, "{operation} when {state:?}");
            }
        }
    }

    #[test]
    fn no_operation_stands_in_two_rows() {
        let mut all: Vec<_> = TABLE.iter().flat_map(|(row, _)| *row).collect();
        let len = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), len);
    }
}
