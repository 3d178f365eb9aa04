//! The manual: how Sealgate is built, what it protects from whom, what it promises, how to run it.

#[doc = include_str!("../manual/architecture.md")]
pub mod architecture {}

#[doc = include_str!("../manual/threat-model.md")]
pub mod threat_model {}

#[doc = include_str!("../manual/semantics.md")]
pub mod semantics {}

#[doc = include_str!("../manual/formats.md")]
pub mod formats {}

#[doc = include_str!("../manual/operations.md")]
pub mod operations {}

#[doc = include_str!("../../../docs/guide/attach.md")]
pub mod attach {}

#[doc = include_str!("../../../docs/reference/audit-log.md")]
pub mod audit_log {}

#[doc = include_str!("../../../docs/guide/damaged-volumes.md")]
pub mod damaged_volumes {}
