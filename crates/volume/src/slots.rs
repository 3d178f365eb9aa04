//! Which slots of the slot file are free, and how they get space.
//!
//! A slot goes round: *bare* (no space on disk) → *ready* (space taken, in runs, so that a write neither runs out of
//! space nor waits for block allocation) → in use by the map → *retired* (the map let go of it, but the record that says
//! so is not durable, so a crash may bring it back) → punched → bare.
//!
//! Slots are handed out in order, next to the caller's last one if that is free, so that what is written in order lies
//! in order and is read back with one call.

use std::{collections::BTreeMap, io};

use parking_lot::Mutex;

use crate::geometry::{CHUNK_LEN, Slot, SlotRun};

/// Space is taken an eighth of the file at a time, within these bounds (in slots: 4 MiB, 64 MiB), so that a small
/// volume wastes little and a large one asks seldom.
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
    /// One past the last slot that was ever handed out or made ready.
    end: u32,
    retired: Vec<SlotRun>,
}

impl Slots {
    /// With `end` slots in the file, all of them in use but those of `punched`, which the caller is to
    /// [`restore`](Self::restore) once they are punched.
    pub(crate) fn new(end: u32) -> Self {
        Self {
            state: Mutex::new(State {
                ready: RunSet::default(),
                bare: RunSet::default(),
                end,
                retired: Vec::new(),
            }),
        }
    }

    /// Takes a free slot, `near` if that is free. `allocate(offset, len)` takes space in the slot file; it is called
    /// under this allocator's lock.
    pub(crate) fn take(
        &self,
        near: Option<Slot>,
        allocate: impl Fn(u64, u64) -> io::Result<()>,
    ) -> io::Result<Slot> {
        let mut state = self.state.lock();
        if let Some(near) = near
            && state.ready.remove(near.0)
        {
            return Ok(near);
        }
        if let Some(first) = state.ready.pop_first() {
            return Ok(Slot(first));
        }
        state.grow(allocate)?;
        match near {
            Some(near) if state.ready.remove(near.0) => Ok(near),
            _ => {
                let first = state.ready.pop_first();
                Ok(Slot(first.expect("growing made at least one slot ready")))
            }
        }
    }

    /// Returns a slot that was taken and never came into the map.
    pub(crate) fn give_back(&self, slot: Slot) {
        self.state.lock().ready.insert(slot.0, 1);
    }

    /// A slot that the map let go of. It stays untouched until the next record is durable.
    pub(crate) fn retire(&self, slot: Slot) {
        push_run(
            &mut self.state.lock().retired,
            SlotRun {
                first: slot,
                count: 1,
            },
        );
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

    /// Slots without use and without space may be taken again.
    pub(crate) fn restore(&self, run: SlotRun) {
        self.state.lock().bare.insert(run.first.0, run.count);
    }
}

impl State {
    /// Makes some slots ready: free ones first, then at the end of the file. If the disk has no room for many, it
    /// may have room for one.
    fn grow(&mut self, allocate: impl Fn(u64, u64) -> io::Result<()>) -> io::Result<()> {
        let want = (self.end / 8).clamp(GROW_MIN, GROW_MAX);
        for count in [want, 1] {
            let (first, count, at_end) = match self.bare.first() {
                Some((first, len)) => (first, len.min(count), false),
                None => (self.end, count.min(SLOTS_END - self.end), true),
            };
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            match allocate(Slot(first).start(), u64::from(count) * CHUNK_LEN) {
                Ok(()) => {}
                // No such call here: the space is taken when it is written.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull && count > 1 => continue,
                Err(error) => return Err(error),
            }
            if at_end {
                self.end += count;
            } else {
                self.bare.take_front(first, count);
            }
            self.ready.insert(first, count);
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

    fn pop_first(&mut self) -> Option<u32> {
        let (first, _) = self.first()?;
        self.take_front(first, 1);
        Some(first)
    }

    /// Takes the first `count` of the run that begins with `first`.
    fn take_front(&mut self, first: u32, count: u32) {
        let len = self.0.remove(&first).expect("a run begins there");
        debug_assert!(count <= len);
        if len > count {
            self.0.insert(first + count, len - count);
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

    #[test]
    fn slots_come_in_order_and_space_in_runs() {
        let slots = Slots::new(0);
        let calls = RefCell::new(Vec::new());
        let allocate = |offset, len| {
            calls.borrow_mut().push((offset, len));
            Ok(())
        };
        for n in 0..9 {
            assert_eq!(slots.take(None, allocate).unwrap(), Slot(n));
        }
        assert_eq!(
            *calls.borrow(),
            [(0, 8 * CHUNK_LEN), (8 * CHUNK_LEN, 8 * CHUNK_LEN)]
        );
        assert_eq!(slots.take(Some(Slot(12)), allocate).unwrap(), Slot(12));
        assert_eq!(slots.take(Some(Slot(12)), allocate).unwrap(), Slot(9));
    }

    #[test]
    fn a_retired_slot_is_not_handed_out_before_it_is_restored() {
        let slots = Slots::new(0);
        let allocate = |_, _| Ok(());
        let first = slots.take(None, allocate).unwrap();
        slots.retire(first);
        let mut seen: Vec<_> = (0..20)
            .map(|_| slots.take(None, allocate).unwrap())
            .collect();
        assert!(!seen.contains(&first));
        let retired = slots.take_retired();
        slots.untake_retired(retired);
        let retired = slots.take_retired();
        assert_eq!(
            retired,
            [SlotRun {
                first: Slot(0),
                count: 1
            }]
        );
        slots.restore(retired[0]);
        seen = (0..10)
            .map(|_| slots.take(None, allocate).unwrap())
            .collect();
        assert!(seen.contains(&first));
    }

    #[test]
    fn a_full_disk_gives_its_last_slot_and_then_an_error() {
        let slots = Slots::new(0);
        let left = Cell::new(CHUNK_LEN);
        let allocate = |_, len| {
            if len > left.get() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            left.set(left.get() - len);
            Ok(())
        };
        assert_eq!(slots.take(None, allocate).unwrap(), Slot(0));
        let error = slots.take(None, allocate).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        left.set(CHUNK_LEN);
        assert_eq!(slots.take(None, allocate).unwrap(), Slot(1));
    }

    #[test]
    fn runs_join_and_split() {
        let mut set = RunSet::default();
        set.insert(0, 2);
        set.insert(4, 2);
        set.insert(2, 2);
        assert_eq!(set.first(), Some((0, 6)));
        assert!(set.remove(3) && !set.remove(3) && !set.remove(6));
        assert_eq!(
            set.0.iter().map(|(a, b)| (*a, *b)).collect::<Vec<_>>(),
            [(0, 3), (4, 2)]
        );
    }
}
