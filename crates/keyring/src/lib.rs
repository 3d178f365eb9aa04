//! Keys with KMS semantics.
