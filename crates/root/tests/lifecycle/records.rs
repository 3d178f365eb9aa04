//! A table of sealed records that outlives the store key's handle, as a catalogue would.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use crypto::{random::SystemRandom, record::Place};
use root::{Page, RecordKey, Reseal, ResealError, StoreKey};

pub(crate) type Rows = Arc<Mutex<BTreeMap<u8, (u64, Vec<u8>)>>>;

pub(crate) struct Table {
    pub(crate) key: RecordKey,
    pub(crate) rows: Rows,
    /// How many pages may be re-sealed before it fails.
    pub(crate) pages: Mutex<u32>,
}

pub(crate) fn place(id: &u8, version: u64) -> Place<'_> {
    Place {
        table: "rows",
        account: "123456789012",
        region: "us-east-1",
        id: std::slice::from_ref(id),
        version,
    }
}

impl Table {
    pub(crate) fn new(key: &StoreKey, rows: &Rows, pages: u32) -> Arc<Self> {
        Arc::new(Self {
            key: key.table("rows"),
            rows: Arc::clone(rows),
            pages: Mutex::new(pages),
        })
    }

    pub(crate) fn put(&self, id: u8) {
        let sealing = self.key.sealing();
        let mut rows = self.rows.lock().unwrap();
        let version = rows.get(&id).map_or(0, |(version, _)| *version) + 1;
        let sealed = sealing.seal(&place(&id, version), &[id; 3], &SystemRandom);
        rows.insert(id, (version, sealed.into_bytes()));
    }

    /// Every record opens to what was put.
    pub(crate) fn check(&self) {
        for (id, (version, sealed)) in &*self.rows.lock().unwrap() {
            let opened = self.key.open(&place(id, *version), sealed);
            assert_eq!(opened.unwrap().expose(), [*id; 3]);
        }
    }
}

#[async_trait]
impl Reseal for Table {
    fn name(&self) -> &str {
        "rows"
    }

    async fn reseal(&self, after: Option<&[u8]>) -> Result<Page, ResealError> {
        {
            let mut pages = self.pages.lock().unwrap();
            *pages = pages.checked_sub(1).ok_or("killed here")?;
        }
        let from = after.map_or(0, |after| after[0] + 1);
        let page: Vec<u8> = {
            let rows = self.rows.lock().unwrap();
            rows.range(from..).map(|(id, _)| *id).take(2).collect()
        };
        let mut resealed = 0;
        for id in &page {
            let stale = self.key.is_stale(&self.rows.lock().unwrap()[id].1);
            if stale {
                self.put(*id);
                resealed += 1;
            }
        }
        Ok(Page {
            next: page.last().filter(|_| page.len() == 2).map(|id| vec![*id]),
            resealed,
        })
    }
}
