//! The threads that number records, write them in groups, and answer.
//!
//! Callers append to one buffer under one short lock. Two threads run the same loop. There are two turns, each held by
//! one thread at a time: the **writing** turn takes what has gathered, numbers and chains it, and writes
//! its frame to the journal; the **syncing** turn syncs the journal, appends what it made durable to the segment and
//! wakes whoever waits, all in one go. A thread that has finished a sync takes what has gathered meanwhile and goes
//! on, so that a lone group never changes threads. While it syncs and much gathers, the other thread writes the
//! next group ahead; the next sync covers both.
//!
//! The order of a group is: journal written, journal synced, segment appended, callers answered. A caller that was
//! answered before the sync could lose its record; one that was answered before the append could not find it in the
//! live file.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use host::File;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::{
    chain::{self, Head, Mark},
    error::AuditError,
    event::{Event, timestamp},
    group::{GROUP_RECORDS_MAX, GROUPS_BEGUN_MAX, Kind, RECORD_LEN_MAX},
    journal::{FrameBuffer, FrameHeader, HALF_LEN, frame_len},
    note::Note,
    options::AuditOptions,
    recover::Opened,
    segment::{Place, Segments},
};

/// A group takes no more records when it is this long, in bytes, so it is at most this and one record long.
const GROUP_LEN_MAX: usize = 256 << 10;
/// Gathered bytes that are written ahead while a sync runs: a write much shorter than a sync is not worth waking a
/// thread for.
const EAGER_LEN: usize = 16 << 10;
/// Groups that are written and not synced, at most.
const UNSYNCED_MAX: usize = 4;
/// How long a full disk is left alone before the next try.
const FULL_PAUSE: Duration = Duration::from_millis(200);

const _: () = assert!((UNSYNCED_MAX as u64) < GROUPS_BEGUN_MAX);

// The longest group, with 8 bytes in each sector and the header, fits a half.
const _: () = assert!(
    GROUP_LEN_MAX + RECORD_LEN_MAX + GROUP_RECORDS_MAX * chain::OVERHEAD_MAX
        < HALF_LEN - HALF_LEN / 32
);

pub(crate) struct Shared {
    state: Mutex<State>,
    /// The threads wait here.
    work: Condvar,
    /// Callers wait here for room in the queue.
    room: Notify,
    /// Held with the writing turn.
    pen: Mutex<Pen>,
    /// Held with the syncing turn.
    segments: Mutex<Segments>,
    journal: Arc<dyn File>,
    failure: OnceLock<Arc<str>>,
    /// As `State::full`, for who only asks: each use of a key does, beside those who append.
    full: AtomicBool,
    queue_len: usize,
    pub(crate) data_events: bool,
    segment_len: u64,
    half_len: usize,
    clock: Arc<dyn host::Clock>,
}

struct State {
    queue: Batch,
    writing: bool,
    syncing: bool,
    closing: bool,
    full: bool,
    /// Written, not yet synced.
    written: VecDeque<Group>,
    /// How many groups are written or being synced.
    unsynced: usize,
    /// Bytes left in the half of the journal that is written.
    left: usize,
    /// Whether all that the other half holds is synced in a segment.
    other_free: bool,
    /// The last group known durable.
    durable: u64,
    /// The last record synced in a segment.
    carried: u64,
    mark: Mark,
    /// The last group that the journal has and a full disk keeps out of its segment.
    kept_out: Option<(u64, Head)>,
}

/// Records that have gathered.
#[derive(Default)]
struct Batch {
    /// Their JSON without braces, one after another.
    rests: Vec<u8>,
    /// Where each ends, and what it is.
    ends: Vec<(usize, Kind)>,
    ticket: Arc<Ticket>,
}

/// What all callers of one group wait for.
#[derive(Default)]
pub(crate) struct Ticket {
    /// The number of the first record, or why there is none.
    done: OnceLock<Result<u64, AuditError>>,
    notify: Notify,
}

/// A group on its way from the journal to a segment.
struct Group {
    number: u64,
    first: u64,
    head: Head,
    place: Place,
    /// Whether its frame is the first of a half: all before it are in the other one.
    begins_half: bool,
    ticket: Arc<Ticket>,
}

/// Where the next group goes.
struct Pen {
    /// Where in the journal: the start of the half, and the offset in it.
    half: usize,
    at: usize,
    group: u64,
    head: Head,
    /// Numbers after `head` that the next record names as lost: it comes after them.
    skip_to: u64,
    segment: u64,
    segment_end: u64,
    /// Intents without an outcome.
    open: BTreeSet<u64>,
    frame: FrameBuffer,
}

impl Ticket {
    fn finish(&self, result: Result<u64, AuditError>) {
        let _ = self.done.set(result);
        self.notify.notify_waiters();
    }

    async fn wait(&self) -> Result<u64, AuditError> {
        loop {
            let notified = self.notify.notified();
            // Created before the look, so that what happens between is not missed.
            if let Some(done) = self.done.get() {
                return done.clone();
            }
            notified.await;
        }
    }
}

impl Shared {
    pub(crate) fn new(opened: Opened, options: &AuditOptions) -> Self {
        Self {
            state: Mutex::new(State {
                queue: Batch::default(),
                writing: false,
                syncing: false,
                closing: false,
                full: false,
                written: VecDeque::new(),
                unsynced: 0,
                left: options.half_len - opened.journal_at,
                other_free: true,
                durable: opened.group,
                carried: opened.head.last,
                mark: Mark {
                    sequence: opened.head.last,
                    digest: opened.head.link,
                },
                kept_out: None,
            }),
            work: Condvar::new(),
            room: Notify::new(),
            pen: Mutex::new(Pen {
                half: 0,
                at: opened.journal_at,
                group: opened.group,
                head: opened.head,
                skip_to: 0,
                segment: opened.segment,
                segment_end: opened.segment_end,
                open: opened.open,
                frame: FrameBuffer::default(),
            }),
            segments: Mutex::new(opened.segments),
            journal: opened.journal,
            failure: OnceLock::new(),
            full: AtomicBool::new(false),
            queue_len: options.queue_len.clamp(1, GROUP_RECORDS_MAX),
            data_events: options.data_events,
            segment_len: options.segment_len,
            half_len: options.half_len,
            clock: Arc::clone(&options.clock),
        }
    }

    pub(crate) fn check(&self) -> Result<(), AuditError> {
        if let Some(why) = self.failure.get() {
            return Err(AuditError::Failed(Arc::clone(why)));
        }
        if self.full.load(Ordering::Acquire) {
            return Err(AuditError::Full);
        }
        Ok(())
    }

    pub(crate) fn mark(&self) -> Mark {
        self.state.lock().mark
    }

    pub(crate) async fn record(&self, event: &Event<'_>, kind: Kind) -> Result<u64, AuditError> {
        let (ticket, index) = self.hand_over(event, kind).await?;
        Ok(ticket.wait().await? + index)
    }

    /// Puts the record into the next group; which, and at which place.
    pub(crate) async fn hand_over(
        &self,
        event: &Event<'_>,
        kind: Kind,
    ) -> Result<(Arc<Ticket>, u64), AuditError> {
        // Made before the lock is taken. A buffer a thread, so that a record allocates nothing.
        thread_local! {
            static REST: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        let intent = match kind {
            Kind::Outcome(intent) => Some(intent),
            Kind::Plain | Kind::Intent => None,
        };
        let mut encoded: Option<Vec<u8>> = None;
        loop {
            let room = self.room.notified();
            let handed = REST.with_borrow_mut(|rest| {
                if let Some(encoded) = &encoded {
                    return self.push(encoded, kind);
                }
                rest.clear();
                event.write_to(rest, intent);
                if rest.len() + chain::OVERHEAD_MAX > RECORD_LEN_MAX {
                    return Err(AuditError::TooLong { len: rest.len() });
                }
                let handed = self.push(rest, kind)?;
                if handed.is_none() {
                    encoded = Some(rest.clone());
                }
                Ok(handed)
            })?;
            if let Some(handed) = handed {
                return Ok(handed);
            }
            room.await;
        }
    }

    /// `None` if there is no room.
    fn push(&self, rest: &[u8], kind: Kind) -> Result<Option<(Arc<Ticket>, u64)>, AuditError> {
        let mut state = self.state.lock();
        if let Some(why) = self.failure.get() {
            return Err(AuditError::Failed(Arc::clone(why)));
        }
        if state.full {
            return Err(AuditError::Full);
        }
        if state.queue.ends.len() >= self.queue_len || state.queue.rests.len() >= GROUP_LEN_MAX {
            return Ok(None);
        }
        let before = state.queue.rests.len();
        let index = state.queue.push(rest, kind);
        let ticket = Arc::clone(&state.queue.ticket);
        let idle = before == 0 && !state.syncing && !state.writing;
        let much = state.syncing
            && !state.writing
            && (before < EAGER_LEN && state.queue.rests.len() >= EAGER_LEN);
        drop(state);
        if idle || much {
            self.work.notify_one();
        }
        Ok(Some((ticket, index)))
    }

    /// Records what opening found. Blocking, before there are threads.
    pub(crate) fn note(&self, notes: Vec<Note>) -> Result<(), AuditError> {
        for note in notes {
            let mut state = self.state.lock();
            let now = self.clock.now();
            self.pen.lock().skip_to = note.skip_to();
            state
                .queue
                .push(note.json(&timestamp(now)).as_bytes(), note.kind());
            let ticket = Arc::clone(&state.queue.ticket);
            self.write_turn(&mut state);
            self.sync_turn(&mut state);
            drop(state);
            if let Some(Err(error)) = ticket.done.get() {
                return Err(error.clone());
            }
        }
        Ok(())
    }

    /// A thread's life: until the log is closed and nothing waits.
    pub(crate) fn run(&self) {
        // If the disk panics, nobody may believe the log still works.
        let _guard = FailOnPanic(self);
        let mut state = self.state.lock();
        loop {
            if self.may_write(&state) {
                self.write_turn(&mut state);
                if !state.syncing {
                    self.sync_turn(&mut state);
                }
            } else if state.full && !state.syncing && !state.closing {
                self.work.wait_for(&mut state, FULL_PAUSE);
                if state.full && !state.syncing && !state.closing {
                    self.sync_turn(&mut state);
                }
            } else if state.closing && (state.queue.ends.is_empty() || state.full) {
                break;
            } else {
                self.work.wait(&mut state);
            }
        }
    }

    fn may_write(&self, state: &State) -> bool {
        let need = frame_len(state.queue.lines_len_max());
        !state.queue.ends.is_empty()
            && !state.writing
            && !state.full
            && (!state.syncing || state.queue.rests.len() >= EAGER_LEN)
            && state.unsynced < UNSYNCED_MAX
            && (need <= state.left || state.other_free)
    }

    /// Takes what has gathered and writes its frame.
    fn write_turn(&self, state: &mut MutexGuard<'_, State>) {
        state.writing = true;
        let batch = std::mem::take(&mut state.queue);
        let (durable, carried) = (state.durable, state.carried);
        let needs_half = frame_len(batch.lines_len_max()) > state.left;
        let written = MutexGuard::unlocked(state, || {
            self.room.notify_waiters();
            if let Some(why) = self.failure.get() {
                return Err((AuditError::Failed(Arc::clone(why)), 0));
            }
            let mut pen = self.pen.lock();
            let written = pen.write(self, &batch, durable, carried, needs_half);
            written.map_err(|error| (error, self.half_len - pen.at))
        });
        state.writing = false;
        match written {
            Ok((group, left)) => {
                state.left = left;
                if group.begins_half {
                    state.other_free = false;
                }
                state.unsynced += 1;
                state.written.push_back(group);
            }
            Err((error, left)) => {
                state.left = left;
                if let AuditError::Failed(why) = &error {
                    self.fail(why);
                } else {
                    self.set_full(state);
                }
                batch.ticket.finish(Err(error));
            }
        }
    }

    /// Syncs what is written, and what is written meanwhile, until there is no more.
    fn sync_turn(&self, state: &mut MutexGuard<'_, State>) {
        state.syncing = true;
        loop {
            let groups = std::mem::take(&mut state.written);
            if !self.sync_groups(state, groups) {
                break;
            }
            if !state.written.is_empty() {
                continue;
            }
            // The turn is given up for the look, so that little is not left to gather.
            state.syncing = false;
            let more = self.may_write(state);
            state.syncing = true;
            if !more {
                break;
            }
            self.write_turn(state);
        }
        state.syncing = false;
        if state.closing || state.full {
            self.work.notify_all();
        }
    }

    /// Syncs groups that were written; whether the turn goes on.
    fn sync_groups(&self, state: &mut MutexGuard<'_, State>, groups: VecDeque<Group>) -> bool {
        let count = groups.len();
        let carried = MutexGuard::unlocked(state, || self.make_durable(groups));
        state.unsynced -= count;
        match carried {
            Ok(Some(carried)) => {
                state.carried = carried;
                state.other_free = true;
            }
            Ok(None) => {}
            Err(AuditError::Full) => return false,
            Err(_) => {
                self.refuse(state);
                return false;
            }
        }
        if self.failure.get().is_some() {
            self.refuse(state);
            return false;
        }
        true
    }

    /// Syncs the journal, appends to the segments, answers; and how far the segments are synced, if they were.
    ///
    /// Whoever is answered finds the log as the answer says: its state is set first.
    fn make_durable(&self, groups: VecDeque<Group>) -> Result<Option<u64>, AuditError> {
        let failed = |what: &str, error: &io::Error| {
            let why: Arc<str> = format!("{what}: {error}").into();
            self.fail(&why);
            AuditError::Failed(why)
        };
        let mut segments = self.segments.lock();
        let last = groups.back().map(|group| (group.number, group.head));
        let mut waiting = Vec::with_capacity(groups.len());
        let mut result = match self.failure.get() {
            // A group may have been written while the sync before this one failed. The next sync would succeed, having
            // nothing left to write.
            Some(why) => Err(AuditError::Failed(Arc::clone(why))),
            None if groups.is_empty() => Ok(()),
            None => self
                .journal
                .sync_data()
                .map_err(|error| failed("the journal was not synced", &error)),
        };
        for group in groups {
            waiting.push((group.ticket, group.first));
            // The segments get nothing that is not durable in the journal.
            if result.is_ok() {
                if group.begins_half {
                    segments.set_due();
                }
                segments.put(group.place);
            }
        }
        if result.is_ok() {
            result = segments.append().map_err(|error| match error {
                error if is_full(&error) => AuditError::Full,
                error => failed("a segment was not written", &error),
            });
            let mut state = self.state.lock();
            match &result {
                // No frame may say that a group is durable before the segment has it: who reads the journal and then
                // the segments finds there what it says.
                Ok(()) => {
                    let kept_out = state.kept_out.take();
                    state.now_durable(last.or(kept_out));
                    if std::mem::take(&mut state.full) {
                        self.full.store(false, Ordering::Release);
                        tracing::warn!("audit log: there is space again; keys are used again");
                    }
                }
                Err(AuditError::Full) => {
                    state.kept_out = last.or(state.kept_out);
                    self.set_full(&mut state);
                }
                Err(_) => {}
            }
        }
        for (ticket, first) in waiting {
            ticket.finish(result.clone().map(|()| first));
        }
        result?;
        segments
            .sync_if_due()
            .map_err(|error| failed("a segment was not synced", &error))
    }

    fn set_full(&self, state: &mut State) {
        if !state.full {
            tracing::error!("audit log: the disk is full; no key is used until there is space");
        }
        state.full = true;
        self.full.store(true, Ordering::Release);
        self.room.notify_waiters();
        let queue = std::mem::take(&mut state.queue);
        queue.ticket.finish(Err(AuditError::Full));
    }

    fn fail(&self, why: &Arc<str>) {
        if self.failure.set(Arc::clone(why)).is_ok() {
            tracing::error!(%why, "audit log failed: no key is used any more");
        }
    }

    /// Answers whoever still waits, once the log has failed.
    fn refuse(&self, state: &mut State) {
        let why = self.failure.get().cloned().unwrap_or_default();
        let error = AuditError::Failed(why);
        for group in state.written.drain(..) {
            group.ticket.finish(Err(error.clone()));
        }
        state.unsynced = 0;
        std::mem::take(&mut state.queue).ticket.finish(Err(error));
        self.room.notify_waiters();
    }

    /// No more is taken; the threads end when nothing waits.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_all();
    }

    /// The end, once the threads are gone: the segment is synced, and a last frame says so.
    pub(crate) fn finish(&self) {
        if self.check().is_err() {
            return;
        }
        // Should any of it fail, the records are durable in the journal, from which the next start carries them over.
        if let Err(error) = self.segments.lock().sync() {
            tracing::warn!(%error, "audit segment not synced");
            return;
        }
        let durable = self.state.lock().durable;
        if let Err(error) = self.pen.lock().close(self, durable) {
            tracing::warn!(%error, "audit journal not closed");
        }
    }
}

impl State {
    /// The journal has all groups up to this one.
    fn now_durable(&mut self, last: Option<(u64, Head)>) {
        if let Some((number, head)) = last {
            self.durable = number;
            self.mark = Mark {
                sequence: head.last,
                digest: head.link,
            };
        }
    }
}

impl Batch {
    fn push(&mut self, rest: &[u8], kind: Kind) -> u64 {
        self.rests.extend_from_slice(rest);
        self.ends.push((self.rests.len(), kind));
        self.ends.len() as u64 - 1
    }

    fn lines_len_max(&self) -> usize {
        self.rests.len() + self.ends.len() * chain::OVERHEAD_MAX
    }
}

impl Pen {
    /// Numbers, chains and writes a batch; and how much is left in the half it went to. If it fails for want of space,
    /// the next frame goes to the same place and has the same group: two frames of one group may not stand in the file,
    /// and this one may stand there whole.
    fn write(
        &mut self,
        shared: &Shared,
        batch: &Batch,
        durable: u64,
        carried: u64,
        needs_half: bool,
    ) -> Result<(Group, usize), AuditError> {
        let lines_max = batch.lines_len_max() as u64;
        let rolls = self.segment_end > 0 && self.segment_end + lines_max > shared.segment_len;
        let before = self.head;
        let mut head = Head {
            last: before.last.max(self.skip_to),
            ..before
        };
        let first = head.last + 1;
        let (segment, offset) = if rolls || self.segment_end == 0 {
            (first, 0)
        } else {
            (self.segment, self.segment_end)
        };
        let mut lines = Vec::with_capacity(batch.lines_len_max());
        let mut open = Vec::new();
        let mut start = 0;
        for &(end, kind) in &batch.ends {
            let begins = offset == 0 && start == 0;
            let rest = &batch.rests[start..end];
            head.link = chain::write(&mut lines, head.last + 1, &head.link, begins, rest);
            head.last += 1;
            start = end;
            open.push((kind, head.last));
        }
        for (kind, sequence) in &open {
            match kind {
                Kind::Plain => {}
                Kind::Intent => _ = self.open.insert(*sequence),
                Kind::Outcome(intent) => _ = self.open.remove(intent),
            }
        }
        let header = FrameHeader {
            group: self.group + 1,
            before: before.last,
            first,
            count: u32::try_from(batch.ends.len()).expect("a group's"),
            len: u32::try_from(lines.len()).expect("a group's"),
            segment,
            offset,
            durable,
            carried,
            open: self.open.first().copied().unwrap_or(0),
            base: before.link,
            link: head.link,
        };
        if needs_half {
            (self.half, self.at) = (shared.half_len - self.half, 0);
        }
        let (half, at) = (self.half, self.at);
        let frame = self.frame.encode(&header, &lines);
        let frame_len = frame.len();
        if let Err(error) = shared.journal.write_at((half + at) as u64, frame) {
            if is_full(&error) {
                for (kind, sequence) in &open {
                    match kind {
                        Kind::Plain => {}
                        Kind::Intent => _ = self.open.remove(sequence),
                        Kind::Outcome(intent) => _ = self.open.insert(*intent),
                    }
                }
                return Err(AuditError::Full);
            }
            let why = format!("the journal was not written: {error}");
            return Err(AuditError::Failed(why.into()));
        }
        self.group += 1;
        self.head = head;
        self.segment = segment;
        self.segment_end = offset + lines.len() as u64;
        self.at = at + frame_len;
        let group = Group {
            number: header.group,
            first,
            head,
            place: Place {
                segment,
                offset,
                lines,
                last: head.last,
            },
            begins_half: at == 0,
            ticket: Arc::clone(&batch.ticket),
        };
        Ok((group, shared.half_len - self.at))
    }

    /// Writes and syncs a frame without records: all before it is synced in the segments.
    fn close(&mut self, shared: &Shared, durable: u64) -> io::Result<()> {
        if self.group != durable {
            return Ok(());
        }
        let header = FrameHeader {
            group: self.group + 1,
            before: self.head.last,
            first: self.head.last + 1,
            count: 0,
            len: 0,
            segment: self.segment,
            offset: self.segment_end,
            durable,
            carried: self.head.last,
            open: self.open.first().copied().unwrap_or(0),
            base: self.head.link,
            link: self.head.link,
        };
        let frame = self.frame.encode(&header, &[]);
        let place = match self.at + frame.len() <= shared.half_len {
            true => self.half + self.at,
            // The other half holds nothing any more that is not in a synced segment.
            false => shared.half_len - self.half,
        };
        shared.journal.write_at(place as u64, frame)?;
        shared.journal.sync_data()
    }
}

/// Whether a failed write has only met a full disk.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

#[cfg(test)]
mod campaign;

struct FailOnPanic<'a>(&'a Shared);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.0.fail(&"its thread panicked".into());
        let mut state = self.0.state.lock();
        self.0.refuse(&mut state);
    }
}
