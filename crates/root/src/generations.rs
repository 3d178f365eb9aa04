//! Live generations of the store key, and the record keys derived from them.
//!
//! While the store key is rotated two generations live: the newest seals, both open. A record that was sealed under
//! the older one and is not committed yet would be missed by the pass that re-seals, so sealing takes a [`Sealing`],
//! which is held until the commit's fate is known; the pass begins when those of the older generation are gone.
//!
//! A record that was read before the rotation ended may be opened after it. So a process goes on opening what it read
//! under generations that have ended meanwhile; the header has them no more, and the next start does not know them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use crypto::{
    random::Random,
    record::{self, Place, SealedRecord, generation_of},
    secret::SecretVec,
    store_key::GenerationKey,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::error::RootError;

/// So many generations that have ended are kept for what was read under them: a read does not outlast as many rotations.
const ENDED_MAX: usize = 4;

/// A generation and its secret.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u32,
    pub(crate) key: GenerationKey,
}

/// The generations that live at one time.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) current: Arc<Generation>,
    pub(crate) previous: Option<Arc<Generation>>,
    /// Those that ended in this process, the last one first.
    ended: Vec<Arc<Generation>>,
    /// How many [`Sealing`]s there are under these.
    sealing: AtomicUsize,
}

impl Live {
    fn new(
        current: Arc<Generation>,
        previous: Option<Arc<Generation>>,
        ended: Vec<Arc<Generation>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            current,
            previous,
            ended,
            sealing: AtomicUsize::new(0),
        })
    }
}

/// What a store key and the record keys made from it share.
#[derive(Debug)]
pub(crate) struct Generations {
    /// A sealing is counted while this is read-locked: one that began before a rotation is seen by it.
    live: RwLock<Arc<Live>>,
    ended: Notify,
    /// Earlier ones that were sealed under when they were replaced.
    old: Mutex<Vec<Arc<Live>>>,
}

impl Generations {
    pub(crate) fn new(current: Generation, previous: Option<Generation>) -> Self {
        Self {
            live: RwLock::new(Live::new(
                Arc::new(current),
                previous.map(Arc::new),
                Vec::new(),
            )),
            ended: Notify::new(),
            old: Mutex::default(),
        }
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read())
    }

    /// From now on `current` seals.
    pub(crate) fn publish(&self, current: Arc<Generation>, previous: Option<Arc<Generation>>) {
        let before = {
            let mut live = self.live.write();
            let lives = |number| {
                number == current.number || previous.as_ref().is_some_and(|p| p.number == number)
            };
            let mut ended = live.ended.clone();
            let before = [Some(&live.current), live.previous.as_ref()];
            for generation in before.into_iter().flatten() {
                if !lives(generation.number) {
                    ended.insert(0, Arc::clone(generation));
                }
            }
            ended.truncate(ENDED_MAX);
            std::mem::replace(&mut *live, Live::new(current, previous, ended))
        };
        self.old.lock().push(before);
        self.forget_ended();
    }

    /// Waits until nobody seals under an older set of generations. Cancel-safe.
    pub(crate) async fn settled(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Registered before looking, so that an end between the two is not missed.
            ended.as_mut().enable();
            if self.forget_ended() {
                return;
            }
            ended.await;
        }
    }

    /// Drops those that nobody seals under any more; whether none is left.
    fn forget_ended(&self) -> bool {
        let mut old = self.old.lock();
        old.retain(|live| live.sealing.load(Ordering::Acquire) > 0);
        old.is_empty()
    }

    fn begin_sealing(&self) -> Arc<Live> {
        let live = self.live.read();
        live.sealing.fetch_add(1, Ordering::AcqRel);
        Arc::clone(&live)
    }
}

/// Record keys of one table, derived from one set of generations.
#[derive(Debug)]
struct Derived {
    live: Arc<Live>,
    current: record::RecordKey,
    previous: Option<record::RecordKey>,
    ended: Vec<(u32, record::RecordKey)>,
}

impl Derived {
    fn new(live: Arc<Live>, table: &str) -> Self {
        Self {
            current: live.current.key.record_key(table),
            previous: live.previous.as_ref().map(|p| p.key.record_key(table)),
            ended: live
                .ended
                .iter()
                .map(|ended| (ended.number, ended.key.record_key(table)))
                .collect(),
            live,
        }
    }
}

/// Seals and opens the records of one table, through every rotation of the store key.
#[derive(Debug)]
pub struct RecordKey {
    table: String,
    generations: Arc<Generations>,
    derived: ArcSwap<Derived>,
}

/// The right to seal under the generation that was the newest when it was taken. Held until the records that were
/// sealed are committed or given up; a rotation of the store key waits for its end, so it is not held for long.
#[derive(Debug)]
#[must_use = "the records sealed with it may be missed by a rotation once it is dropped"]
pub struct Sealing {
    table: String,
    derived: Arc<Derived>,
    generations: Arc<Generations>,
}

impl Drop for Sealing {
    fn drop(&mut self) {
        if self.derived.live.sealing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.generations.ended.notify_waiters();
        }
    }
}

impl RecordKey {
    pub(crate) fn new(generations: Arc<Generations>, table: &str) -> Self {
        let derived = Derived::new(generations.live(), table);
        Self {
            table: table.to_owned(),
            derived: ArcSwap::from_pointee(derived),
            generations,
        }
    }

    /// Takes the right to seal.
    pub fn sealing(&self) -> Sealing {
        let derived = self.derived_of(self.generations.begin_sealing());
        Sealing {
            table: self.table.clone(),
            derived,
            generations: Arc::clone(&self.generations),
        }
    }

    /// Opens what was sealed for the same place under any live generation, or one that ended since this process began.
    ///
    /// Fails with `Generation` if the record names another, with `Unauthentic` if it was changed or
    /// belongs elsewhere.
    pub fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Result<SecretVec, RootError> {
        let found = generation_of(sealed).map_err(|_| RootError::Unauthentic)?;
        let derived = self.derived_of(self.generations.live());
        let live = &derived.live;
        let key = if found == live.current.number {
            &derived.current
        } else {
            match (&live.previous, &derived.previous) {
                (Some(previous), Some(key)) if previous.number == found => key,
                _ => match derived.ended.iter().find(|(number, _)| *number == found) {
                    Some((_, key)) => key,
                    None => return Err(RootError::Generation { found }),
                },
            }
        };
        key.open_at(place, sealed)
            .map_err(|_| RootError::Unauthentic)
    }

    /// Whether a record is sealed under an older generation than the newest, and so must be sealed again.
    pub fn is_stale(&self, sealed: &[u8]) -> bool {
        generation_of(sealed) != Ok(self.generations.live().current.number)
    }

    fn derived_of(&self, live: Arc<Live>) -> Arc<Derived> {
        let derived = self.derived.load_full();
        if Arc::ptr_eq(&derived.live, &live) {
            return derived;
        }
        let derived = Arc::new(Derived::new(live, &self.table));
        self.derived.store(Arc::clone(&derived));
        derived
    }
}

impl Sealing {
    /// Seals `plaintext` for `place`, which must be in this key's table.
    pub fn seal(&self, place: &Place<'_>, plaintext: &[u8], random: &dyn Random) -> SealedRecord {
        assert_eq!(place.table, self.table, "a record key seals its own table");
        let generation = self.derived.live.current.number;
        self.derived
            .current
            .seal_at(place, generation, plaintext, random)
    }
}
