//! Keeping marks and stamps up to date, and comparing them at a start.

use std::{path::Path, sync::Arc};

use catalogue::{Batch, Catalogue, CatalogueError, Expect, Key, Scope, Sequence, Table};
use crypto::random::Random;
use root::{RecordKey, RootError, StoreKey};
use tokio::sync::Mutex;

use crate::{
    error::{PartsError, Refusal, Wrong},
    mark::{Mark, Marks},
    part::Part,
    stamp::{Stamp, StampError, Stamped},
};

pub(crate) const TABLE: Table = Table::new("part-mark");
const ID: &[u8] = b"marks";

/// The marks of a store.
pub struct Ledger {
    pub(crate) catalogue: Arc<dyn Catalogue>,
    pub(crate) key: RecordKey,
    pub(crate) random: Arc<dyn Random>,
    /// How far the catalogue was when the marks were read.
    sequence: Sequence,
    state: Mutex<State>,
}

struct State {
    marks: Marks,
    /// Of their record; 0 if there is none.
    version: u64,
    /// How far the catalogue was when marks and stamps were last kept.
    kept_at: Sequence,
}

/// Marks belong to the whole store.
pub(crate) fn key() -> Key {
    Key::new(Scope::default(), ID)
}

impl Ledger {
    /// Reads the marks. Changes nothing.
    pub async fn load(
        catalogue: Arc<dyn Catalogue>,
        store_key: &StoreKey,
        random: Arc<dyn Random>,
    ) -> Result<Self, PartsError> {
        let record_key = store_key.table(TABLE.name());
        let sequence = catalogue.sequence().await?;
        let (marks, version) = match catalogue.get(TABLE, &key()).await? {
            None => (Marks::default(), 0),
            Some(record) => {
                let opened = record_key
                    .open(&record.place(TABLE), &record.sealed)
                    .map_err(|error| match error {
                        RootError::Generation { found } => PartsError::Generation { found },
                        other => PartsError::Marks(other.to_string()),
                    })?;
                let marks = Marks::decode(opened.expose())
                    .ok_or_else(|| PartsError::Marks("the record does not read".to_owned()))?;
                (marks, record.version)
            }
        };
        Ok(Self {
            catalogue,
            key: record_key,
            random,
            sequence,
            state: Mutex::new(State {
                marks,
                version,
                kept_at: Sequence(0),
            }),
        })
    }

    /// Whether marks were never kept: the first start has not come to its end yet, and nothing can be missing.
    pub async fn is_new(&self) -> bool {
        self.state.lock().await.version == 0
    }

    /// Compares a part's stamp, as [`Stamped::read`] gave it, with the part's mark and the catalogue. `path` is for the
    /// message; `catalogue` is where that is.
    pub async fn check_stamp(
        &self,
        part: Part,
        path: &Path,
        catalogue: &Path,
        stamp: Result<Option<Stamp>, StampError>,
    ) -> Result<(), Refusal> {
        let marked = self.state.lock().await.marks.parts.get(&part).copied();
        let refuse = |wrong| {
            Err(Refusal {
                part,
                path: path.to_owned(),
                wrong,
            })
        };
        let stamp = match (stamp, marked) {
            (Err(StampError::OtherStore(store)), _) => return refuse(Wrong::OtherStore { store }),
            (Err(StampError::Damaged(why)), _) => return refuse(Wrong::Damaged(why)),
            (Err(StampError::Newer(why)), _) => return refuse(Wrong::Newer(why)),
            (Err(StampError::Unreadable { kind, why }), _) => {
                return refuse(Wrong::Unreadable { kind, why });
            }
            (Ok(None), Some(_)) => return refuse(Wrong::Missing),
            (Ok(None), None) => return Ok(()),
            (Ok(Some(stamp)), _) => stamp,
        };
        if let Some(mark) = marked
            && stamp.sequence < mark.sequence
        {
            return refuse(Wrong::Older {
                found: stamp.sequence,
                marked: mark.sequence,
            });
        }
        self.check_catalogue(catalogue, stamp)
    }

    /// Compares the catalogue, which is at `path`, with a part's stamp.
    pub fn check_catalogue(&self, path: &Path, stamp: Stamp) -> Result<(), Refusal> {
        if self.sequence < stamp.catalogue {
            return Err(Refusal {
                part: Part::Catalogue,
                path: path.to_owned(),
                wrong: Wrong::Older {
                    found: self.sequence.0,
                    marked: stamp.catalogue.0,
                },
            });
        }
        Ok(())
    }

    /// Compares what a part without a stamp says of itself with its mark; `None` if it is not there.
    pub async fn check_mark(
        &self,
        part: Part,
        path: &Path,
        found: Option<Mark>,
    ) -> Result<(), Refusal> {
        let marked = self.state.lock().await.marks.parts.get(&part).copied();
        compare(part, path, found, marked)
    }

    /// Compares how far what is in a stamped part is with how far it was.
    pub async fn check_contents(
        &self,
        part: Part,
        path: &Path,
        found: Mark,
    ) -> Result<(), Refusal> {
        let marked = self.state.lock().await.marks.contents.get(&part).copied();
        compare(part, path, Some(found), marked)
    }

    /// Brings stamps and marks up to date, if anything has changed since or `always` is set. `observed` is what the parts
    /// without a stamp say of themselves, and how far what is in a stamped part is: what was durable before the call.
    /// Returns whether there was anything to do.
    ///
    /// Stamps first, the marks after them: a crash in between leaves stamps that are ahead of their marks, which no start
    /// refuses.
    pub async fn keep(
        &self,
        stamped: &[Arc<dyn Stamped>],
        observed: &[(Part, Mark)],
        always: bool,
    ) -> Result<bool, PartsError> {
        let mut state = self.state.lock().await;
        let sequence = self.catalogue.sequence().await?;
        let has_stamp = |part| stamped.iter().any(|stamped| stamped.part() == part);
        let same = observed.iter().all(|(part, mark)| {
            let marks = match has_stamp(*part) {
                true => &state.marks.contents,
                false => &state.marks.parts,
            };
            marks.get(part) == Some(mark)
        });
        if !always && same && sequence == state.kept_at && state.version > 0 {
            return Ok(false);
        }
        let mut marks = state.marks.clone();
        for part in stamped {
            stamp(&mut marks, &**part, sequence).await?;
        }
        for (part, mark) in observed {
            match has_stamp(*part) {
                true => marks.contents.insert(*part, *mark),
                false => marks.parts.insert(*part, *mark),
            };
        }
        self.commit(&mut state, marks).await?;
        Ok(true)
    }

    /// Takes a part for what it is now: the way out of a refusal. A part with a stamp is stamped anew, and has to be there.
    /// `observed` is as in [`keep`](Self::keep).
    pub async fn accept(
        &self,
        part: Part,
        stamped: &[Arc<dyn Stamped>],
        observed: Option<Mark>,
    ) -> Result<(), PartsError> {
        let mut state = self.state.lock().await;
        let sequence = self.catalogue.sequence().await?;
        let mut marks = state.marks.clone();
        for stamped in stamped {
            // A catalogue that is accepted is one that no stamp is ahead of.
            if stamped.part() != part && part != Part::Catalogue {
                continue;
            }
            stamp(&mut marks, &**stamped, sequence).await?;
        }
        let has_stamp = stamped.iter().any(|stamped| stamped.part() == part);
        match (observed, has_stamp) {
            (Some(mark), true) => drop(marks.contents.insert(part, mark)),
            (Some(mark), false) => drop(marks.parts.insert(part, mark)),
            (None, true) => drop(marks.contents.remove(&part)),
            // It is made anew by the next start.
            (None, false) => {
                marks.parts.remove(&part);
                marks.contents.remove(&part);
            }
        }
        self.commit(&mut state, marks).await
    }

    /// How far what is in a stamped part was, if that has a mark.
    pub async fn contents(&self, part: Part) -> Option<Mark> {
        self.state.lock().await.marks.contents.get(&part).copied()
    }

    /// How far a part was, if it has a mark.
    pub async fn mark(&self, part: Part) -> Option<Mark> {
        self.state.lock().await.marks.parts.get(&part).copied()
    }

    async fn commit(&self, state: &mut State, marks: Marks) -> Result<(), PartsError> {
        loop {
            let sealing = self.key.sealing();
            let expect = match state.version {
                0 => Expect::Absent,
                version => Expect::Version(version),
            };
            let version = expect.next_version();
            let key = key();
            let place = key.place(TABLE, version);
            let sealed = sealing.seal(&place, &marks.encode(), &*self.random);
            let batch = Batch::new().put(TABLE, key.clone(), expect, sealed);
            match self.catalogue.commit(batch).await {
                Ok(sequence) => {
                    state.marks = marks;
                    state.version = version;
                    state.kept_at = sequence;
                    return Ok(());
                }
                // The record was sealed anew meanwhile, by a rotation of the store key: nobody else writes it.
                Err(CatalogueError::Conflict { .. }) => {
                    let found = self.catalogue.get(TABLE, &key).await?;
                    state.version = found.map_or(0, |record| record.version);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn compare(
    part: Part,
    path: &Path,
    found: Option<Mark>,
    marked: Option<Mark>,
) -> Result<(), Refusal> {
    let wrong = match (found, marked) {
        (_, None) => return Ok(()),
        (None, Some(_)) => Wrong::Missing,
        (Some(found), Some(marked)) if found.sequence < marked.sequence => Wrong::Older {
            found: found.sequence,
            marked: marked.sequence,
        },
        (Some(found), Some(marked))
            if found.sequence == marked.sequence && found.digest != marked.digest =>
        {
            Wrong::Other
        }
        _ => return Ok(()),
    };
    Err(Refusal {
        part,
        path: path.to_owned(),
        wrong,
    })
}

/// Stamps a part one further than it is marked, and marks it so.
async fn stamp(
    marks: &mut Marks,
    stamped: &dyn Stamped,
    catalogue: Sequence,
) -> Result<(), PartsError> {
    let part = stamped.part();
    let sequence = marks.parts.get(&part).map_or(0, |mark| mark.sequence) + 1;
    let stamp = Stamp {
        sequence,
        catalogue,
    };
    let written = stamped.write(stamp).await;
    written.map_err(|reason| PartsError::Stamp { part, reason })?;
    marks.parts.insert(part, Mark::at(sequence));
    Ok(())
}
