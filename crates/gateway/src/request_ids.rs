//! Ids of requests, as AWS gives them: UUIDs.
//!
//! Random, so that one tells nothing about other requests. They are no secret, so what is drawn ahead may lie in memory:
//! the generator asks the processor anew at each call, which for sixteen bytes takes longer than all else.

use std::sync::Arc;

use crypto::random::Random;
use parking_lot::Mutex;

/// Length of an id in bytes.
const LEN: usize = 16;
/// Ids that are drawn at a time.
const DRAWN: usize = 64;

/// Where ids come from.
pub(crate) struct RequestIds {
    random: Arc<dyn Random>,
    ahead: Mutex<Ahead>,
}

struct Ahead {
    bytes: [u8; LEN * DRAWN],
    /// How many of them are not given out yet.
    left: usize,
}

impl RequestIds {
    pub(crate) fn new(random: Arc<dyn Random>) -> Self {
        Self {
            random,
            ahead: Mutex::new(Ahead {
                bytes: [0; LEN * DRAWN],
                left: 0,
            }),
        }
    }

    /// An id that was not given before.
    pub(crate) fn next(&self) -> String {
        let mut ahead = self.ahead.lock();
        if ahead.left == 0 {
            self.random.fill(&mut ahead.bytes);
            ahead.left = ahead.bytes.len();
        }
        let start = ahead.bytes.len() - ahead.left;
        ahead.left -= LEN;
        let mut id = [0; LEN];
        id.copy_from_slice(&ahead.bytes[start..start + LEN]);
        drop(ahead);
        host::entropy::uuid_text(&id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crypto::random::SeededRandom;

    use super::*;

    #[test]
    fn no_id_is_given_twice() {
        let ids = RequestIds::new(Arc::new(SeededRandom::new(1)));
        let given: BTreeSet<String> = (0..3 * DRAWN + 1).map(|_| ids.next()).collect();
        assert_eq!(given.len(), 3 * DRAWN + 1);
        assert!(given.iter().all(|id| id.len() == 36));
    }
}
