//! What a simulated file holds: in the page cache, and on the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use super::SECTOR_LEN;
use crate::entropy::{Entropy as _, SeededEntropy};

/// What space is counted in, and what one cache entry holds.
pub(super) const PAGE_LEN: usize = 4096;

/// A page's bytes; `None` is zeroes.
type Bytes = Option<Arc<[u8; PAGE_LEN]>>;

/// Eight sectors; bit n of a mask is the n-th.
#[derive(Debug, Clone, Default)]
struct Page {
    /// What readers see.
    now: Bytes,
    /// What is on the disk.
    disk: Bytes,
    /// Written since the last sync.
    dirty: u8,
    /// Written, and called clean by a failed sync: seen by readers until the power fails.
    lost: u8,
}

/// How much of what was not synced a power cut keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep(u64);

impl Keep {
    /// None, some, most or all of it.
    pub(super) fn draw(rng: &SeededEntropy) -> Self {
        Self(rng.below(4))
    }

    /// Whether it keeps this one.
    pub(super) fn one(self, rng: &SeededEntropy) -> bool {
        match self.0 {
            0 => false,
            3 => true,
            1 => rng.one_in(4),
            _ => !rng.one_in(4),
        }
    }

    /// Which sectors of a page it keeps; all or none if a page is `whole`.
    fn mask(self, whole: bool, rng: &SeededEntropy) -> u8 {
        if whole {
            return if self.one(rng) { 0xff } else { 0 };
        }
        let [a, b, ..] = rng.number().to_le_bytes();
        match self.0 {
            0 => 0,
            3 => 0xff,
            1 => a & b,
            _ => a | b,
        }
    }
}

impl Page {
    /// Writes back the sectors of a mask.
    fn write_back(&mut self, mask: u8) {
        if mask == 0xff {
            self.disk = self.now.clone();
        } else if mask != 0 {
            copy(&self.now, &mut self.disk, mask);
        }
        self.dirty &= !mask;
        self.lost &= !mask;
    }
}

/// The sectors that a range within a page touches.
fn mask_of(within: Range<usize>) -> u8 {
    let mut mask = 0;
    for sector in within.start / SECTOR_LEN..within.end.div_ceil(SECTOR_LEN) {
        mask |= 1 << sector;
    }
    mask
}

fn copy(from: &Bytes, to: &mut Bytes, mask: u8) {
    if from.is_none() && to.is_none() {
        return;
    }
    let to = Arc::make_mut(to.get_or_insert_with(zeroes));
    for sector in (0..8).filter(|sector| mask >> sector & 1 == 1) {
        let range = sector * SECTOR_LEN..(sector + 1) * SECTOR_LEN;
        match from {
            Some(from) => to[range.clone()].copy_from_slice(&from[range]),
            None => to[range].fill(0),
        }
    }
}

fn zeroes() -> Arc<[u8; PAGE_LEN]> {
    Arc::new([0; PAGE_LEN])
}

/// The parts of a range that lie in one page each: page, range within it.
fn pages(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let page_len = PAGE_LEN as u64;
    let last = match range.is_empty() {
        true => range.start / page_len,
        false => range.end.div_ceil(page_len),
    };
    (range.start / page_len..last).map(move |page| {
        let start = range.start.max(page * page_len) - page * page_len;
        let end = range.end.min((page + 1) * page_len) - page * page_len;
        (page, start as usize..end as usize)
    })
}

/// A file's bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pages: BTreeMap<u64, Page>,
    /// Pages that have space.
    taken: BTreeSet<u64>,
    pub(super) len: u64,
    len_disk: u64,
    /// Whether the length changed since the last sync.
    len_dirty: bool,
    /// Whether the disk writes pages whole, not sectors.
    whole: bool,
}

impl Content {
    /// An empty file on a disk that writes pages whole, or sectors.
    pub(super) fn new(whole: bool) -> Self {
        Self {
            whole,
            ..Self::default()
        }
    }

    /// What the disk writes whole, in bytes.
    pub(super) fn unit(&self) -> usize {
        if self.whole { PAGE_LEN } else { SECTOR_LEN }
    }

    /// How much space it has.
    pub(super) fn taken(&self) -> u64 {
        (self.taken.len() * PAGE_LEN) as u64
    }

    /// How much more space a range needs.
    pub(super) fn lacks(&self, range: Range<u64>) -> u64 {
        let new = pages(range).filter(|(page, _)| !self.taken.contains(page));
        (new.count() * PAGE_LEN) as u64
    }

    pub(super) fn take(&mut self, range: Range<u64>) {
        self.taken.extend(pages(range).map(|(page, _)| page));
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) {
        let mut rest = buf;
        for (page, within) in pages(offset..offset + rest.len() as u64) {
            let (now, later) = rest.split_at_mut(within.len());
            match self.pages.get(&page).and_then(|page| page.now.as_ref()) {
                Some(bytes) => now.copy_from_slice(&bytes[within]),
                None => now.fill(0),
            }
            rest = later;
        }
    }

    /// Writes into the cache; the file has space there.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], rng: &SeededEntropy) {
        let end = offset + bytes.len() as u64;
        let mut rest = bytes;
        for (page, within) in pages(offset..end) {
            let (now, later) = rest.split_at(within.len());
            let page = self.touch(page, mask_of(within.clone()), rng);
            Arc::make_mut(page.now.get_or_insert_with(zeroes))[within].copy_from_slice(now);
            rest = later;
        }
        if end > self.len && !bytes.is_empty() {
            self.set_len_only(end);
        }
    }

    /// A range reads as zeroes; whole pages of it give their space back.
    pub(super) fn punch(&mut self, range: Range<u64>, rng: &SeededEntropy) {
        let touched: Vec<_> = match range.end.checked_sub(range.start) {
            Some(len) if len > 0 => {
                let last = range.end.div_ceil(PAGE_LEN as u64);
                let held = self.pages.range(range.start / PAGE_LEN as u64..last);
                held.map(|(page, _)| *page).collect()
            }
            _ => return,
        };
        for page in touched {
            let start = range.start.saturating_sub(page * PAGE_LEN as u64) as usize;
            let end = (range.end - page * PAGE_LEN as u64).min(PAGE_LEN as u64) as usize;
            let page = self.touch(page, mask_of(start..end), rng);
            if start == 0 && end == PAGE_LEN {
                page.now = None;
            } else if let Some(bytes) = &mut page.now {
                Arc::make_mut(bytes)[start..end].fill(0);
            }
        }
        let whole = range.start.div_ceil(PAGE_LEN as u64)..range.end / PAGE_LEN as u64;
        if whole.start < whole.end {
            let mut above = self.taken.split_off(&whole.start);
            self.taken.append(&mut above.split_off(&whole.end));
        }
    }

    pub(super) fn set_len(&mut self, len: u64, rng: &SeededEntropy) {
        if len < self.len {
            // To the end of the last page, so that its space goes too.
            self.punch(len..self.len.next_multiple_of(PAGE_LEN as u64), rng);
        }
        self.set_len_only(len);
    }

    /// The file grows; what is new reads as zeroes.
    pub(super) fn grow(&mut self, len: u64) {
        if len > self.len {
            self.set_len_only(len);
        }
    }

    fn set_len_only(&mut self, len: u64) {
        self.len_dirty |= self.len != len;
        self.len = len;
    }

    /// A page of which some sectors are about to change.
    fn touch(&mut self, page: u64, mask: u8, rng: &SeededEntropy) -> &mut Page {
        let page = self.pages.entry(page).or_default();
        let again = page.dirty & mask;
        if again != 0 {
            // What was there before may have been written back by the kernel itself.
            let [a, b, ..] = rng.number().to_le_bytes();
            page.write_back(match self.whole {
                true if a < 64 => page.dirty,
                true => 0,
                false => again & a & b,
            });
        }
        page.dirty |= mask;
        page.lost &= !mask;
        page
    }

    /// All that was written is on the disk.
    pub(super) fn sync(&mut self) {
        for page in self.pages.values_mut() {
            page.write_back(page.dirty);
        }
        self.pages
            .retain(|_, page| page.lost != 0 || page.now.is_some() || page.disk.is_some());
        if std::mem::take(&mut self.len_dirty) {
            self.len_disk = self.len;
        }
    }

    /// Some of what was written is on the disk, all of it counts as clean.
    pub(super) fn sync_fails(&mut self, rng: &SeededEntropy) {
        let keep = Keep::draw(rng);
        for page in self.pages.values_mut().filter(|page| page.dirty != 0) {
            page.write_back(page.dirty & keep.mask(self.whole, rng));
            page.lost |= std::mem::take(&mut page.dirty);
        }
        self.len_dirty = false;
    }

    /// Readers see what the disk has, of what is clean.
    pub(super) fn forget_clean(&mut self) {
        for page in self.pages.values_mut().filter(|page| page.lost != 0) {
            let lost = std::mem::take(&mut page.lost);
            copy(&page.disk, &mut page.now, lost);
        }
    }

    /// Of what was not synced, any part is kept.
    pub(super) fn power_fails(&mut self, rng: &SeededEntropy) {
        let keep = Keep::draw(rng);
        for page in self.pages.values_mut() {
            if page.dirty != 0 {
                page.write_back(page.dirty & keep.mask(self.whole, rng));
            }
            (page.dirty, page.lost) = (0, 0);
            page.now = page.disk.clone();
        }
        if self.len != self.len_disk {
            let (low, high) = (self.len.min(self.len_disk), self.len.max(self.len_disk));
            let between = low + rng.below(high - low + 1);
            self.len = [self.len, self.len_disk, self.len_disk, between][rng.below(4) as usize];
        }
        self.len_dirty = false;
        self.len_disk = self.len;
        // What is behind the end is no part of the file any more.
        let end = self.len;
        let first_out = end.div_ceil(PAGE_LEN as u64);
        self.pages.split_off(&first_out);
        if let Some(page) = self.pages.get_mut(&(end / PAGE_LEN as u64))
            && let Some(bytes) = &mut page.disk
        {
            Arc::make_mut(bytes)[(end % PAGE_LEN as u64) as usize..].fill(0);
            page.now = page.disk.clone();
        }
        self.pages.retain(|_, page| page.disk.is_some());
        self.taken.extend(self.pages.keys());
    }

    /// Changes a byte, in the cache and on the disk.
    pub(super) fn damage(&mut self, offset: u64, change: impl FnOnce(u8) -> u8) {
        let page = self.pages.entry(offset / PAGE_LEN as u64).or_default();
        let at = (offset % PAGE_LEN as u64) as usize;
        let now = Arc::make_mut(page.now.get_or_insert_with(zeroes));
        let byte = change(now[at]);
        now[at] = byte;
        Arc::make_mut(page.disk.get_or_insert_with(zeroes))[at] = byte;
    }

    /// Cuts it, in the cache and on the disk.
    pub(super) fn cut(&mut self, len: u64, rng: &SeededEntropy) {
        self.set_len(len, rng);
        self.sync();
    }

    /// Every page, as it is in the cache and as it is on the disk.
    pub(super) fn each_page(&self) -> impl Iterator<Item = &[u8]> {
        self.pages.values().flat_map(|page| {
            let bytes = [&page.now, &page.disk].into_iter().flatten();
            bytes.map(|bytes| &bytes[..])
        })
    }
}
