//! What a group is made of, and how much of it.

/// Greatest length of one record, in bytes. Two encryption contexts of the greatest length, every byte escaped, fit
/// three times.
pub(crate) const RECORD_LEN_MAX: usize = 256 << 10;
/// Records in a group, at most. Recovery relies on it: no lost group held more.
pub(crate) const GROUP_RECORDS_MAX: usize = 1024;

/// Groups that are begun and not durable, at most, with some to spare. Recovery relies on it: a number that is further
/// is damage.
pub(crate) const GROUPS_BEGUN_MAX: u64 = 8;

/// What a record is to the log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Plain,
    Intent,
    /// Of the intent with this number.
    Outcome(u64),
}
