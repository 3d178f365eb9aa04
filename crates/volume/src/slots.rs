//! Which slots of the slot file are free, and how they get space.
//!
//! A slot goes round: *bare* (no space on disk) or *ready* (space taken ahead, in runs, for what is written in order, so
//! that it neither runs out of space nor waits for block allocation) → in use by the map → *retired* (the map let go of
//! it, but the record that says so is not durable, so a crash may bring it back) → *punched* → bare, with the next sync.
//!
//! Slots are handed out in order, next to the caller's last one if that is free, so that what is written in order lies
//! in order and is read back with one call. Scattered writes get bare ones: a slot is 512 KiB, and takes no more than what
//! is written there.

use std::{collections::BTreeMap, io};

use parking_lot::Mutex;

use crate::geometry::{Slot, SlotRun};

/// Space is taken ahead for an eighth of what was taken so before, within these bounds (in slots: 4 MiB, 64 MiB), so that
/// little written in order wastes little, and much asks seldom.
const GROW_MIN: u32 = 8;
const GROW_MAX: u32 = 128;
/// One past the greatest slot number; the value itself stands for "no slot" in the formats.
const SLOTS_END: u32 = u32::MAX;

/// The allocator of one slot file.
pub(crate) struct Slots {
    state: Mutex<State>,
}

struct State {
    ready: RunSet,
    bare: RunSet,
    /// Of the free ones, those that could not be punched: they are not empty.
    soiled: RunSet,
    /// One past the last slot that was ever handed out or made ready.
    end: u32,
    /// How many slots got their space ahead.
    spaced: u32,
    retired: Vec<SlotRun>,
    punched: Vec<(SlotRun, bool)>,
}

/// A slot that was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) slot: Slot,
    /// Whether it has its space.
    pub(crate) spaced: bool,
    /// Whether it reads as zeroes.
    pub(crate) empty: bool,
}

impl Slots {
    /// With `end` slots in the file, all of them in use but those that the caller is to [`restore`](Self::restore) once
    /// they are punched.
    pub(crate) fn new(end: u32) -> Self {
        Self {
            state: Mutex::new(State {
                ready: RunSet::default(),
                bare: RunSet::default(),
                soiled: RunSet::default(),
                end,
                spaced: 0,
                retired: Vec::new(),
                punched: Vec::new(),
            }),
        }
    }

    /// Takes a free slot, `near` if that is free; with `ahead` one that has space, and space for more behind it.
    /// `allocate(run)` takes space in the slot file; it is called under this allocator's lock.
    pub(crate) fn take(
        &self,
        near: Option<Slot>,
        ahead: bool,
        allocate: impl Fn(SlotRun) -> io::Result<()>,
    ) -> io::Result<Taken> {
        let mut state = self.state.lock();
        let (slot, spaced) = if ahead {
            (state.take_ready(near, allocate)?, true)
        } else {
            state.take_any(near)?
        };
        Ok(Taken {
            slot: Slot(slot),
            spaced,
            empty: !state.soiled.remove(slot),
        })
    }

    /// Returns a slot that was taken and never written.
    pub(crate) fn give_back(&self, taken: Taken) {
        let mut state = self.state.lock();
        let to = if taken.spaced {
            &mut state.ready
        } else {
            &mut state.bare
        };
        to.insert(taken.slot.0, 1);
        if !taken.empty {
            state.soiled.insert(taken.slot.0, 1);
        }
    }

    /// A slot that the map let go of. It stays untouched until the next record is durable.
    pub(crate) fn retire(&self, run: SlotRun) {
        push_run(&mut self.state.lock().retired, run);
    }

    /// The slots retired so far. Call it before collecting the map's changes: then every slot returned has its change
    /// among them or in an earlier record.
    pub(crate) fn take_retired(&self) -> Vec<SlotRun> {
        std::mem::take(&mut self.state.lock().retired)
    }

    /// Puts back what [`take_retired`](Self::take_retired) gave, if the record could not be written.
    pub(crate) fn untake_retired(&self, mut runs: Vec<SlotRun>) {
        let mut state = self.state.lock();
        std::mem::swap(&mut state.retired, &mut runs);
        for run in runs {
            push_run(&mut state.retired, run);
        }
    }

    /// Slots without use are punched, or could not be (`empty`). They are to be [`restore`](Self::restore)d when that is
    /// durable: one that is taken before might have its old bytes again after a power cut, among the new ones.
    pub(crate) fn punched(&self, run: SlotRun, empty: bool) {
        self.state.lock().punched.push((run, empty));
    }

    /// The slots punched so far. Call it before the slot file is synced, and restore them afterwards.
    pub(crate) fn take_punched(&self) -> Vec<(SlotRun, bool)> {
        std::mem::take(&mut self.state.lock().punched)
    }

    /// Slots without use may be taken again. `empty`: they read as zeroes.
    pub(crate) fn restore(&self, run: SlotRun, empty: bool) {
        let mut state = self.state.lock();
        state.bare.insert(run.first.0, run.count);
        if !empty {
            state.soiled.insert(run.first.0, run.count);
        }
    }
}

impl State {
    fn take_ready(
        &mut self,
        near: Option<Slot>,
        allocate: impl Fn(SlotRun) -> io::Result<()>,
    ) -> io::Result<u32> {
        if let Some(near) = near
            && self.ready.remove(near.0)
        {
            return Ok(near.0);
        }
        if let Some(first) = self.ready.pop_first() {
            return Ok(first);
        }
        self.grow(near, allocate)?;
        match near {
            Some(near) if self.ready.remove(near.0) => Ok(near.0),
            _ => {
                let first = self.ready.pop_first();
                Ok(first.expect("growing made at least one slot ready"))
            }
        }
    }

    /// One that has space is taken from the end of those, where what is written in order comes last. Also says whether
    /// it has.
    fn take_any(&mut self, near: Option<Slot>) -> io::Result<(u32, bool)> {
        if let Some(Slot(near)) = near {
            if self.ready.remove(near) {
                return Ok((near, true));
            }
            if self.bare.remove(near) {
                return Ok((near, false));
            }
        }
        if let Some(last) = self.ready.pop_last() {
            return Ok((last, true));
        }
        if let Some(first) = self.bare.pop_first() {
            return Ok((first, false));
        }
        if self.end == SLOTS_END {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.end += 1;
        Ok((self.end - 1, false))
    }

    /// Makes some slots ready: free ones first, from `near` on if that is one, then at the end of the file. If the disk
    /// has no room for many, it may have room for one.
    fn grow(
        &mut self,
        near: Option<Slot>,
        allocate: impl Fn(SlotRun) -> io::Result<()>,
    ) -> io::Result<()> {
        let want = (self.spaced / 8).clamp(GROW_MIN, GROW_MAX);
        let bare = near
            .and_then(|near| self.bare.from(near.0))
            .or_else(|| self.bare.first());
        for count in [want, 1] {
            let (first, count, at_end) = match bare {
                Some((first, len)) => (first, len.min(count), false),
                None => (self.end, count.min(SLOTS_END - self.end), true),
            };
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let run = SlotRun {
                first: Slot(first),
                count,
            };
            match allocate(run) {
                Ok(()) => {}
                // No such call here: the space is taken when it is written.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull && count > 1 => continue,
                Err(error) => return Err(error),
            }
            if at_end {
                self.end += count;
            } else {
                self.bare.take(first, count);
            }
            self.ready.insert(first, count);
            self.spaced = self.spaced.saturating_add(count);
            return Ok(());
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

/// Appends a run, joining it to the last one if it follows on.
fn push_run(runs: &mut Vec<SlotRun>, run: SlotRun) {
    match runs.last_mut() {
        Some(last) if last.first.0 + last.count == run.first.0 => last.count += run.count,
        _ => runs.push(run),
    }
}

/// A set of numbers, kept as runs: first → count.
#[derive(Default)]
struct RunSet(BTreeMap<u32, u32>);

impl RunSet {
    fn first(&self) -> Option<(u32, u32)> {
        self.0.first_key_value().map(|(first, len)| (*first, *len))
    }

    /// What is left of the run that `at` is in, from there on.
    fn from(&self, at: u32) -> Option<(u32, u32)> {
        let (first, len) = self.0.range(..=at).next_back()?;
        (at - first < *len).then(|| (at, first + len - at))
    }

    fn pop_first(&mut self) -> Option<u32> {
        let (first, _) = self.first()?;
        self.remove(first);
        Some(first)
    }

    fn pop_last(&mut self) -> Option<u32> {
        let (first, len) = self.0.last_key_value()?;
        let last = first + len - 1;
        self.remove(last);
        Some(last)
    }

    /// Takes `count` from `first` on, which are all in one run.
    fn take(&mut self, first: u32, count: u32) {
        let (start, len) = self.0.range(..=first).next_back().expect("it is in a run");
        let (start, end) = (*start, start + len);
        debug_assert!(first + count <= end);
        self.0.remove(&start);
        if first > start {
            self.0.insert(start, first - start);
        }
        if end > first + count {
            self.0.insert(first + count, end - first - count);
        }
    }

    fn remove(&mut self, at: u32) -> bool {
        let Some((first, len)) = self.0.range(..=at).next_back().map(|(f, l)| (*f, *l)) else {
            return false;
        };
        if at - first >= len {
            return false;
        }
        self.0.remove(&first);
        if at > first {
            self.0.insert(first, at - first);
        }
        if first + len > at + 1 {
            self.0.insert(at + 1, first + len - at - 1);
        }
        true
    }

    fn insert(&mut self, mut first: u32, mut len: u32) {
        if let Some((before, before_len)) = self.0.range(..first).next_back().map(|(f, l)| (*f, *l))
        {
            assert!(before + before_len <= first, "a slot is free twice");
            if before + before_len == first {
                self.0.remove(&before);
                first = before;
                len += before_len;
            }
        }
        if let Some((after, after_len)) = self.0.range(first..).next().map(|(f, l)| (*f, *l)) {
            assert!(first + len <= after, "a slot is free twice");
            if first + len == after {
                self.0.remove(&after);
                len += after_len;
            }
        }
        self.0.insert(first, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    fn run(first: u32, count: u32) -> SlotRun {
        SlotRun {
            first: Slot(first),
            count,
        }
    }

    #[test]
    fn what_is_written_in_order_gets_slots_in_order_and_space_in_runs() {
        let slots = Slots::new(0);
        let calls = RefCell::new(Vec::new());
        let allocate = |run| {
            calls.borrow_mut().push(run);
            Ok(())
        };
        let take = |near| slots.take(near, true, allocate).unwrap();
        for n in 0..9 {
            assert_eq!(take(None).slot, Slot(n));
        }
        assert_eq!(*calls.borrow(), [run(0, 8), run(8, 8)]);
        assert_eq!(take(Some(Slot(12))).slot, Slot(12));
        assert_eq!(take(Some(Slot(12))).slot, Slot(9));
    }

    #[test]
    fn scattered_writes_take_no_space_ahead_but_what_there_is() {
        let slots = Slots::new(0);
        let none = |_| panic!("nothing is taken ahead");
        let any = |near| slots.take(near, false, none).unwrap();
        let taken = any(None);
        assert_eq!(
            taken,
            Taken {
                slot: Slot(0),
                spaced: false,
                empty: true
            }
        );
        slots.give_back(taken);
        assert_eq!(any(None), taken);
        assert_eq!(slots.take(None, true, |_| Ok(())).unwrap().slot, Slot(1));
        // Slots 2 to 8 have space; the last of them goes first.
        assert_eq!((any(None).slot, any(None).spaced), (Slot(8), true));
        assert_eq!(any(Some(Slot(2))).slot, Slot(2));
    }

    #[test]
    fn a_retired_slot_is_not_handed_out_before_it_is_restored() {
        let slots = Slots::new(0);
        let take = || slots.take(None, true, |_| Ok(())).unwrap().slot;
        let first = take();
        slots.retire(run(first.0, 1));
        let mut seen: Vec<_> = (0..20).map(|_| take()).collect();
        assert!(!seen.contains(&first));
        let retired = slots.take_retired();
        slots.untake_retired(retired);
        let retired = slots.take_retired();
        assert_eq!(retired, [run(0, 1)]);
        slots.restore(retired[0], true);
        seen = (0..10).map(|_| take()).collect();
        assert!(seen.contains(&first));
    }

    #[test]
    fn a_slot_that_could_not_be_punched_is_not_called_empty() {
        let slots = Slots::new(3);
        slots.restore(run(0, 2), false);
        slots.restore(run(2, 1), true);
        let take = || slots.take(None, false, |_| Ok(())).unwrap();
        let first = take();
        assert!(!first.empty);
        slots.give_back(first);
        assert_eq!(take(), first);
        assert!(!take().empty);
        assert!(take().empty && take().empty);
    }

    #[test]
    fn a_full_disk_gives_its_last_slot_and_then_an_error() {
        let slots = Slots::new(0);
        let left = Cell::new(1);
        let allocate = |run: SlotRun| {
            if run.count > left.get() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            left.set(left.get() - run.count);
            Ok(())
        };
        let take = || slots.take(None, true, allocate);
        assert_eq!(take().unwrap().slot, Slot(0));
        assert_eq!(take().unwrap_err().kind(), io::ErrorKind::StorageFull);
        left.set(1);
        assert_eq!(take().unwrap().slot, Slot(1));
    }

    #[test]
    fn runs_join_and_split() {
        let mut set = RunSet::default();
        set.insert(0, 2);
        set.insert(4, 2);
        set.insert(2, 2);
        assert_eq!(set.first(), Some((0, 6)));
        assert!(set.remove(3) && !set.remove(3) && !set.remove(6));
        let all = |set: &RunSet| set.0.iter().map(|(a, b)| (*a, *b)).collect::<Vec<_>>();
        assert_eq!(all(&set), [(0, 3), (4, 2)]);
        assert_eq!((set.from(1), set.from(3)), (Some((1, 2)), None));
        set.take(1, 1);
        assert_eq!(all(&set), [(0, 1), (2, 1), (4, 2)]);
        assert_eq!(set.pop_last(), Some(5));
    }
}
