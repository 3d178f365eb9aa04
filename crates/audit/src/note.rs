//! The records that the log makes about itself.

use crate::group::Kind;

/// A record that the log makes about itself.
#[derive(Debug, Clone)]
pub(crate) enum Note {
    /// Numbers that were given out and never became durable.
    Gap(u64, u64),
    /// Numbers that were lost, which somebody accepted; what is after them begins with the last number given.
    Accepted { lost: Vec<(u64, u64)>, last: u64 },
    /// An intent whose outcome nobody knows: its number and its record.
    Unknown(u64, Vec<u8>),
}

impl Note {
    /// The number that the record comes after, if not the last record's.
    pub(crate) fn skip_to(&self) -> u64 {
        match self {
            Self::Gap(_, to) => *to,
            Self::Accepted { last, .. } => *last,
            Self::Unknown(..) => 0,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Gap(..) | Self::Accepted { .. } => Kind::Plain,
            Self::Unknown(intent, _) => Kind::Outcome(*intent),
        }
    }

    /// The record without its braces.
    pub(crate) fn json(&self, time: &str) -> String {
        let own = |operation: &str, lost: &[(u64, u64)]| {
            let lost = serde_json::to_string(lost).expect("numbers");
            format!(
                "\"time\":\"{time}\",\"operation\":\"{operation}\",\"outcome\":\"Success\",\"principal\":\"sealgate\",\"via\":\"internal\",\"lost\":{lost}"
            )
        };
        match self {
            Self::Gap(from, to) => own("AuditGap", &[(*from, *to)]),
            Self::Accepted { lost, .. } => own("AuditAcceptLoss", lost),
            Self::Unknown(intent, record) => {
                // The intent's own fields, but for those that are the log's.
                let mut fields: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_slice(record).unwrap_or_default();
                for name in ["seq", "prev", "hash"] {
                    fields.remove(name);
                }
                fields.insert("time".to_owned(), time.into());
                fields.insert("outcome".to_owned(), "Unknown".into());
                fields.insert("intent".to_owned(), (*intent).into());
                let text = serde_json::to_string(&fields).expect("it was read");
                text[1..text.len() - 1].to_owned()
            }
        }
    }
}
