//! How far a rotation of the store key has come: which owner's turn it is, and from where.
//!
//! A pass goes through every page of every owner. It is kept by whoever drives the rotation, so that a restart goes on
//! where it was; a pass that was kept for other owners begins anew, since an owner that was not asked would lose what
//! it has under the old generation.

use std::sync::Arc;

use crate::{error::RootError, reseal::Reseal};

/// The first byte of a pass as it is kept.
const FORMAT: u8 = 1;

/// A place in a pass. The default is the beginning of the first one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pass {
    /// Names of the owners that it goes through, in order. Empty before the first page.
    owners: Vec<String>,
    /// Whose turn it is.
    owner: usize,
    /// Where the owner's next page begins.
    after: Option<Vec<u8>>,
    /// Records re-sealed in this pass.
    resealed: u64,
}

/// How one page went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advanced {
    /// There is more to do.
    Page {
        /// Where the next page is.
        next: Pass,
        /// Records of this page that were re-sealed.
        resealed: u64,
    },
    /// A whole pass found nothing left to be re-sealed.
    Finished,
}

impl Pass {
    /// Re-seals one page, durably.
    pub(crate) async fn page(mut self, owners: &[Arc<dyn Reseal>]) -> Result<Advanced, RootError> {
        let names = || owners.iter().map(|owner| owner.name());
        if !names().eq(self.owners.iter().map(String::as_str)) {
            self = Self {
                owners: names().map(str::to_owned).collect(),
                ..Self::default()
            };
        }
        let mut resealed = 0;
        if let Some(owner) = owners.get(self.owner) {
            let page = owner.reseal(self.after.as_deref()).await;
            let page = page.map_err(|source| RootError::Reseal {
                owner: owner.name().to_owned(),
                source,
            })?;
            resealed = page.resealed;
            self.resealed = self.resealed.saturating_add(resealed);
            self.after = page.next;
            if self.after.is_none() {
                self.owner += 1;
            }
        }
        if self.owner >= owners.len() {
            if self.resealed == 0 {
                return Ok(Advanced::Finished);
            }
            (self.owner, self.resealed) = (0, 0);
        }
        Ok(Advanced::Page {
            next: self,
            resealed,
        })
    }

    /// The form in which it is kept. `FORMAT.md` has the fields.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(number(self.owners.len()));
        for name in &self.owners {
            bytes.extend(number(name.len()));
            bytes.extend(name.as_bytes());
        }
        bytes.extend(number(self.owner));
        bytes.extend(self.resealed.to_be_bytes());
        if let Some(after) = &self.after {
            bytes.push(1);
            bytes.extend(after);
        } else {
            bytes.push(0);
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote; no bytes are the beginning. `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let bytes = &mut bytes.strip_prefix(&[FORMAT])?;
        let owners = (0..take_number(bytes)?)
            .map(|_| {
                let len = take_number(bytes)?;
                let name = std::str::from_utf8(bytes.split_off(..len)?).ok()?;
                Some(name.to_owned())
            })
            .collect::<Option<Vec<_>>>()?;
        let owner = take_number(bytes)?;
        let resealed = u64::from_be_bytes(bytes.split_off(..8)?.try_into().ok()?);
        let after = match (bytes.split_off_first()?, bytes) {
            (0, []) => None,
            (1, after) => Some(after.to_vec()),
            _ => return None,
        };
        Some(Self {
            owners,
            owner,
            after,
            resealed,
        })
    }
}

/// Owners are few and their names short.
fn number(n: usize) -> [u8; 2] {
    u16::try_from(n)
        .expect("no store has 65,536 owners, nor one such a name")
        .to_be_bytes()
}

fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let number = bytes.split_off(..2)?.try_into().ok()?;
    Some(u16::from_be_bytes(number).into())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::reseal::{Page, ResealError};

    const GOLDEN: &[u8] = include_bytes!("../golden/rotation.pass");

    /// Has so many pages, of which each needs to be re-sealed once.
    struct Pages(&'static str, Mutex<Vec<bool>>);

    fn owner(name: &'static str, pages: usize) -> Arc<dyn Reseal> {
        Arc::new(Pages(name, Mutex::new(vec![true; pages])))
    }

    #[async_trait]
    impl Reseal for Pages {
        fn name(&self) -> &str {
            self.0
        }

        async fn reseal(&self, after: Option<&[u8]>) -> Result<Page, ResealError> {
            let mut pages = self.1.lock().unwrap();
            let at = after.map_or(0, |after| usize::from(after[0]));
            let resealed = std::mem::take(&mut pages[at]);
            let next = (at + 1 < pages.len()).then(|| vec![u8::try_from(at + 1).unwrap()]);
            Ok(Page {
                next,
                resealed: resealed.into(),
            })
        }
    }

    async fn pages(owners: &[Arc<dyn Reseal>], mut pass: Pass) -> (u64, u64) {
        let (mut calls, mut total) = (0, 0);
        loop {
            calls += 1;
            // Kept and read back each time, as a job does.
            let kept = Pass::decode(&pass.encode()).unwrap();
            assert_eq!(kept, pass);
            match kept.page(owners).await.unwrap() {
                Advanced::Page { next, resealed } => (pass, total) = (next, total + resealed),
                Advanced::Finished => return (calls, total),
            }
        }
    }

    #[tokio::test]
    async fn a_pass_goes_through_every_page_until_one_finds_nothing() {
        let owners = [owner("a", 3), owner("b", 2)];
        assert_eq!(pages(&owners, Pass::default()).await, (10, 5));
        assert_eq!(pages(&owners, Pass::default()).await, (5, 0));
        assert_eq!(pages(&[], Pass::default()).await, (1, 0));
    }

    #[tokio::test]
    async fn a_pass_that_was_kept_for_other_owners_begins_anew() {
        let (a, b) = (owner("a", 1), owner("b", 1));
        let kept = match Pass::default().page(&[Arc::clone(&b), owner("c", 1)]).await {
            Ok(Advanced::Page { next, .. }) => next,
            other => panic!("{other:?}"),
        };
        // `a` comes before the place that was kept: it is asked all the same.
        assert_eq!(pages(&[a, b], kept).await, (4, 1));
    }

    #[test]
    fn the_golden_pass_is_read_and_written_the_same_and_nothing_else_is_read() {
        let pass = Pass {
            owners: vec!["jobs".to_owned(), "job-subjects".to_owned()],
            owner: 1,
            after: Some(b"\x00key".to_vec()),
            resealed: 258,
        };
        assert_eq!(pass.encode(), GOLDEN);
        assert_eq!(Pass::decode(GOLDEN), Some(pass));
        assert_eq!(Pass::decode(b""), Some(Pass::default()));
        for len in 1..GOLDEN.len() - 4 {
            assert_eq!(Pass::decode(&GOLDEN[..len]), None, "{len}");
        }
        let mut newer = GOLDEN.to_vec();
        newer[0] = 2;
        assert_eq!(Pass::decode(&newer), None);
    }
}
