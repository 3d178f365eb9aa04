//! The transmission phase without I/O: requests come in through one buffer, replies go out through another.
//!
//! A driver gives received bytes to [`Core::space`] and [`Core::received`], calls [`Core::step`], sends
//! [`Core::replies`] and goes on. Many requests are served from one receive and answered with one send. A write's payload
//! goes to the export straight from the receive buffer, a read's straight into the send buffer.
//!
//! The buffers are all the memory a connection takes, whatever its client sends. They begin small, grow as far as the
//! client has use for it, and are small again once [`Core::rest`] was called: most of ten thousand connections are idle. A
//! request that fails is still taken whole, payload and all, so the stream never loses its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::attached::Attached;
use crate::codec::{Request, chunk_header, simple_reply};
use crate::observer::{Closed, Command, Observer};
use crate::protocol::{
    ALLOCATION_CONTEXT_ID, CHUNK_HEADER_LEN, REQUEST_LEN, chunk, command_flag, state,
};
use crate::stopwatch::Stopwatch;
use crate::{Errno, ExportInfo, Extent, ExtentKind, ZeroOptions};

/// A receive takes up to this much. Larger ones measured alike.
const RECEIVE_LEN: usize = 512 * 1024;
/// What the buffers begin with: some requests of 4 KiB.
const RESTING_LEN: usize = 16 * 1024;
/// How much larger the receive buffer becomes when a receive filled it.
const GROWTH: usize = 4;
/// Replies are sent once there is this much of them.
const SEND_LEN: usize = 256 * 1024;
/// Data moves in slices of at most this many bytes; 128 KiB and up measured alike.
const SLICE_LEN: usize = 128 * 1024;
/// Headers of the slices of one send, which do not count: a send is whole slices.
const HEADERS_LEN: usize = 4096;
/// Room for the last slice and its headers behind a send buffer that was almost full.
const SEND_ROOM: usize = SLICE_LEN + 4096;
/// Writes are cut at multiples of this of the export's offset, so that whole sectors stay whole.
const ALIGN: u64 = 4096;
/// Reads from this length on are asked for holes first; below it asking costs more than reading.
const SPARSE_READ_MIN: u32 = 64 * 1024;
/// Extents that one answer to `NBD_CMD_BLOCK_STATUS` holds at most: 8 KiB of it.
const EXTENTS_MAX: usize = 1024;

/// What was negotiated for a connection.
pub(crate) struct Negotiated {
    pub(crate) export: Attached,
    pub(crate) info: ExportInfo,
    pub(crate) structured: bool,
    /// `base:allocation` was selected.
    pub(crate) allocation: bool,
}

/// What a driver has to do next. Replies, if there are any, are to be sent first in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Receive more.
    Receive,
    /// Send what there is and come back.
    Send,
    /// Close the connection.
    Close(Closed),
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
struct Moving {
    request: Request,
    /// Next byte of the export.
    offset: u64,
    left: usize,
    /// What went wrong; the rest of a payload is then taken and dropped.
    outcome: Result<(), Errno>,
    taken: Stopwatch,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Idle,
    Reading(Moving),
    Writing(Moving),
}

/// How far the end of the server has come to this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    Not,
    /// What had arrived when the drain began is served as ever.
    LastReceive,
    /// What came after it stays unanswered, and the connection is closed: a client that reconnects sends it again, where
    /// an answer of `ESHUTDOWN` would be the request's end, and an I/O error to a file system above.
    Over,
}

/// One connection.
pub(crate) struct Core {
    negotiated: Negotiated,
    observer: Arc<dyn Observer>,
    draining: Arc<AtomicBool>,
    drain: Drain,
    received: Vec<u8>,
    /// Bytes `head..tail` of `received` are still to be looked at.
    head: usize,
    tail: usize,
    replies: Vec<u8>,
    replies_len: usize,
    state: State,
    extents: Vec<Extent>,
    /// Requests begun since the driver last asked.
    begun: usize,
}

impl Core {
    pub(crate) fn new(
        negotiated: Negotiated,
        observer: Arc<dyn Observer>,
        draining: Arc<AtomicBool>,
    ) -> Self {
        Self {
            negotiated,
            observer,
            draining,
            drain: Drain::Not,
            received: vec![0; RESTING_LEN],
            head: 0,
            tail: 0,
            replies: vec![0; RESTING_LEN],
            replies_len: 0,
            state: State::Idle,
            extents: Vec::new(),
            begun: 0,
        }
    }

    /// Where the next receive goes; never empty after [`Step::Receive`].
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.received[self.tail..]
    }

    /// Says that `len` bytes were put at the start of [`space`](Self::space).
    pub(crate) fn received(&mut self, len: usize) {
        self.tail = (self.tail + len).min(self.received.len());
        if self.tail == self.received.len() && self.tail < RECEIVE_LEN {
            self.received
                .resize((self.tail * GROWTH).min(RECEIVE_LEN), 0);
        }
        if self.draining.load(Ordering::Relaxed) {
            self.drain = match self.drain {
                Drain::Not => Drain::LastReceive,
                Drain::LastReceive | Drain::Over => Drain::Over,
            };
        }
    }

    /// Whether the buffers have more room than an idle connection needs.
    pub(crate) fn is_grown(&self) -> bool {
        self.received.len() > RESTING_LEN || self.replies.len() > RESTING_LEN
    }

    /// Gives back the room that buffers have grown by. What was received and is still to be looked at stays. To be called
    /// after [`Step::Receive`], when nothing has come for a while.
    pub(crate) fn rest(&mut self) {
        debug_assert!(self.head == 0 && self.replies_len == 0);
        // Room behind what is here, for the receive to go into.
        let len = (self.tail + 1)
            .next_multiple_of(RESTING_LEN)
            .min(self.received.len());
        self.received.truncate(len);
        self.received.shrink_to_fit();
        self.replies.truncate(RESTING_LEN);
        self.replies.shrink_to_fit();
    }

    /// What is to be sent.
    pub(crate) fn replies(&self) -> &[u8] {
        &self.replies[..self.replies_len]
    }

    /// Says that all of it was.
    pub(crate) fn sent(&mut self) {
        self.replies_len = 0;
    }

    /// Whether the client hung up at a request's end, or inside one.
    pub(crate) fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Idle) && self.head == self.tail
    }

    /// How many requests have begun since this was last asked.
    pub(crate) fn take_begun(&mut self) -> usize {
        std::mem::take(&mut self.begun)
    }

    /// Serves what was received, until more is needed or enough is to be sent.
    pub(crate) fn step(&mut self) -> Step {
        loop {
            if self.replies_len >= SEND_LEN {
                return Step::Send;
            }
            let next = match self.state {
                State::Idle => self.begin(),
                State::Reading(moving) => self.read_on(moving),
                State::Writing(moving) => self.write_on(moving),
            };
            if let Some(step) = next {
                return step;
            }
        }
    }

    fn begin(&mut self) -> Option<Step> {
        if self.drain == Drain::Over {
            return Some(Step::Close(Closed::Shutdown));
        }
        let Some(header) = self.received[self.head..self.tail].first_chunk::<REQUEST_LEN>() else {
            return Some(self.need_more());
        };
        let Some(request) = Request::parse(header) else {
            return Some(Step::Close(Closed::Misbehaved));
        };
        self.head += REQUEST_LEN;
        self.begun += 1;
        let moving = Moving {
            request,
            offset: request.offset,
            left: request.len as usize,
            outcome: self.check(&request),
            taken: Stopwatch::start(),
        };
        match request.command {
            Command::Disconnect => return Some(Step::Close(Closed::ByClient)),
            Command::Write => self.state = State::Writing(moving),
            Command::Read if moving.outcome.is_ok() => self.state = State::Reading(moving),
            Command::BlockStatus if moving.outcome.is_ok() => self.block_status(moving),
            _ => {
                let outcome = moving.outcome.and_then(|()| self.execute(&request));
                self.finish(&moving, outcome);
            }
        }
        None
    }

    /// Refuses what must not reach the export.
    fn check(&self, request: &Request) -> Result<(), Errno> {
        let info = &self.negotiated.info;
        use command_flag::{DF, FAST_ZERO, FUA, NO_HOLE, REQ_ONE};
        let flags = match request.command {
            Command::Read if self.negotiated.structured => FUA | DF,
            Command::WriteZeroes => FUA | NO_HOLE | FAST_ZERO,
            Command::BlockStatus => FUA | REQ_ONE,
            Command::Unknown => return Err(Errno::Inval),
            // FUA is allowed, and without meaning, on every other command.
            _ => FUA,
        };
        if request.flags & !flags != 0 {
            return Err(Errno::Inval);
        }
        let changes = matches!(
            request.command,
            Command::Write | Command::Trim | Command::WriteZeroes
        );
        if changes && info.read_only {
            return Err(Errno::Perm);
        }
        if matches!(request.command, Command::Flush | Command::Disconnect) {
            return Ok(());
        }
        let end = request.offset.checked_add(u64::from(request.len));
        if end.is_none_or(|end| end > info.size) {
            return Err(match request.command {
                Command::Write | Command::WriteZeroes => Errno::NoSpc,
                _ => Errno::Inval,
            });
        }
        match request.command {
            Command::Read | Command::Write if request.len > info.block_sizes.maximum => {
                Err(Errno::Inval)
            }
            // What does not fit one chunk cannot be answered unfragmented.
            Command::Read if request.flags & DF != 0 && request.len as usize > SLICE_LEN => {
                Err(Errno::Overflow)
            }
            Command::BlockStatus if !self.negotiated.allocation || request.len == 0 => {
                Err(Errno::Inval)
            }
            _ => Ok(()),
        }
    }

    /// A command without data.
    fn execute(&self, request: &Request) -> Result<(), Errno> {
        let export = &self.negotiated.export;
        let (offset, len) = (request.offset, u64::from(request.len));
        let fua = request.flags & command_flag::FUA != 0;
        match request.command {
            Command::Flush => export.flush(),
            Command::Trim if len == 0 => Ok(()),
            Command::Trim => export.trim(offset, len, fua),
            Command::WriteZeroes if len == 0 => Ok(()),
            Command::WriteZeroes => export.write_zeroes(
                offset,
                len,
                ZeroOptions {
                    no_hole: request.flags & command_flag::NO_HOLE != 0,
                    fua,
                    fast: request.flags & command_flag::FAST_ZERO != 0,
                },
            ),
            Command::Cache if len == 0 => Ok(()),
            Command::Cache => export.cache(offset, len),
            _ => Err(Errno::Inval),
        }
    }

    /// Answers a request that has no data to give, or failed before any was given.
    fn finish(&mut self, moving: &Moving, outcome: Result<(), Errno>) {
        let request = &moving.request;
        let structured = self.negotiated.structured
            && matches!(request.command, Command::Read | Command::BlockStatus);
        match outcome {
            Err(errno) if structured => {
                // The error, and a message of no bytes.
                let header = chunk_header(request.cookie, chunk::DONE, chunk::ERROR, 6);
                self.put(&header);
                self.put(&errno.code().to_be_bytes());
                self.put(&0u16.to_be_bytes());
            }
            Ok(()) if structured => {
                self.put(&chunk_header(request.cookie, chunk::DONE, chunk::NONE, 0));
            }
            outcome => self.put(&simple_reply(request.cookie, outcome)),
        }
        self.observe(moving, outcome);
        self.state = State::Idle;
    }

    fn observe(&self, moving: &Moving, outcome: Result<(), Errno>) {
        let bytes = u64::from(moving.request.len);
        let elapsed = moving.taken.elapsed();
        self.observer
            .request(moving.request.command, bytes, elapsed, outcome);
    }

    /// Takes as much of a write's payload as is here.
    fn write_on(&mut self, mut moving: Moving) -> Option<Step> {
        let fua = moving.request.flags & command_flag::FUA != 0;
        if moving.left > 0 {
            let here = moving.left.min(self.tail - self.head);
            let mut take = here.min(SLICE_LEN);
            if take < moving.left {
                // Not the end of the request: leave a sector that is only partly here for the next round.
                let end = moving.offset.wrapping_add(take as u64);
                let over = usize::try_from(end % ALIGN).unwrap_or_default();
                if moving.outcome.is_ok() {
                    take = take.saturating_sub(over);
                }
            }
            if take == 0 {
                self.state = State::Writing(moving);
                return Some(self.need_more());
            }
            let whole = take == moving.request.len as usize;
            if moving.outcome.is_ok() {
                let payload = &mut self.received[self.head..self.head + take];
                let export = &self.negotiated.export;
                moving.outcome = export.write(moving.offset, payload, fua && whole);
            }
            self.head += take;
            moving.left -= take;
            moving.offset = moving.offset.wrapping_add(take as u64);
            self.state = State::Writing(moving);
            if moving.left > 0 {
                return None;
            }
            if fua && !whole && moving.outcome.is_ok() {
                moving.outcome = self.negotiated.export.flush();
            }
        }
        self.finish(&moving, moving.outcome);
        None
    }

    /// Puts the next slice of a read into the send buffer.
    fn read_on(&mut self, mut moving: Moving) -> Option<Step> {
        let request = moving.request;
        if moving.left == 0 {
            self.finish(&moving, Ok(()));
            return None;
        }
        let first = moving.left == request.len as usize;
        let fits = moving.left.min(SLICE_LEN);
        if self.replies_len + fits > SEND_LEN + HEADERS_LEN && self.replies_len > 0 {
            return Some(Step::Send);
        }
        let outcome = if self.negotiated.structured {
            self.read_chunk(&mut moving, fits)
        } else {
            self.read_simple(&mut moving, fits, first)
        };
        match outcome {
            Ok(()) if moving.left == 0 => {
                self.observe(&moving, Ok(()));
                self.state = State::Idle;
                None
            }
            Ok(()) => {
                self.state = State::Reading(moving);
                None
            }
            // An error chunk may follow data chunks; a simple reply can only begin with its error.
            Err(errno) if first || self.negotiated.structured => {
                self.finish(&moving, Err(errno));
                None
            }
            Err(errno) => {
                self.observe(&moving, Err(errno));
                Some(Step::Close(Closed::Failed))
            }
        }
    }

    fn read_simple(&mut self, moving: &mut Moving, len: usize, first: bool) -> Result<(), Errno> {
        let header = simple_reply(moving.request.cookie, Ok(()));
        let skip = if first { header.len() } else { 0 };
        let at = self.replies_len + skip;
        self.make_room(at + len);
        let export = &self.negotiated.export;
        export.read(moving.offset, &mut self.replies[at..at + len])?;
        if first {
            self.put(&header);
        }
        self.replies_len += len;
        moving.offset += len as u64;
        moving.left -= len;
        Ok(())
    }

    /// One chunk: data, or a hole where there is one.
    fn read_chunk(&mut self, moving: &mut Moving, fits: usize) -> Result<(), Errno> {
        let request = &moving.request;
        let unfragmented = request.flags & command_flag::DF != 0;
        let mut len = fits;
        let mut hole = false;
        if !unfragmented && request.len >= SPARSE_READ_MIN {
            self.extents.clear();
            self.negotiated.export.extents(
                moving.offset,
                moving.left as u64,
                1,
                &mut self.extents,
            )?;
            if let Some(extent) = self.extents.first() {
                hole = extent.kind != ExtentKind::Data;
                let most = if hole { moving.left } else { fits };
                len = usize::try_from(extent.len)
                    .unwrap_or(usize::MAX)
                    .clamp(1, most);
            }
        }
        let done = if len == moving.left { chunk::DONE } else { 0 };
        if hole {
            let hole_len = u32::try_from(len).map_err(|_| Errno::Io)?;
            self.put(&chunk_header(request.cookie, done, chunk::OFFSET_HOLE, 12));
            self.put(&moving.offset.to_be_bytes());
            self.put(&hole_len.to_be_bytes());
        } else {
            let at = self.replies_len + CHUNK_HEADER_LEN + 8;
            self.make_room(at + len);
            let export = &self.negotiated.export;
            export.read(moving.offset, &mut self.replies[at..at + len])?;
            let payload_len = u32::try_from(len + 8).map_err(|_| Errno::Io)?;
            self.put(&chunk_header(
                request.cookie,
                done,
                chunk::OFFSET_DATA,
                payload_len,
            ));
            self.put(&moving.offset.to_be_bytes());
            self.replies_len += len;
        }
        moving.offset += len as u64;
        moving.left -= len;
        Ok(())
    }

    fn block_status(&mut self, moving: Moving) {
        let request = moving.request;
        let one = request.flags & command_flag::REQ_ONE != 0;
        let mut found = std::mem::take(&mut self.extents);
        found.clear();
        let max = if one { 1 } else { EXTENTS_MAX };
        let len = u64::from(request.len);
        let outcome = self
            .negotiated
            .export
            .extents(request.offset, len, max, &mut found);
        let mut descriptors: Vec<(u32, u32)> = Vec::with_capacity(found.len());
        let mut left = len;
        for extent in found.iter().take(max) {
            let len = u32::try_from(extent.len.min(left)).unwrap_or(u32::MAX);
            let flags = match extent.kind {
                ExtentKind::Data => 0,
                ExtentKind::Zero => state::ZERO,
                ExtentKind::Hole => state::ZERO | state::HOLE,
            };
            left -= u64::from(len);
            match descriptors.last_mut() {
                Some((last, same)) if *same == flags => *last = last.saturating_add(len),
                _ if len > 0 => descriptors.push((len, flags)),
                _ => {}
            }
        }
        self.extents = found;
        match outcome {
            Ok(()) if !descriptors.is_empty() => {
                let payload_len = u32::try_from(4 + 8 * descriptors.len()).unwrap_or(u32::MAX);
                let header = chunk_header(
                    request.cookie,
                    chunk::DONE,
                    chunk::BLOCK_STATUS,
                    payload_len,
                );
                self.put(&header);
                self.put(&ALLOCATION_CONTEXT_ID.to_be_bytes());
                for (len, flags) in descriptors {
                    self.put(&len.to_be_bytes());
                    self.put(&flags.to_be_bytes());
                }
                self.observe(&moving, Ok(()));
                self.state = State::Idle;
            }
            // An export that knows nothing of a range that it has.
            Ok(()) => self.finish(&moving, Err(Errno::Io)),
            Err(errno) => self.finish(&moving, Err(errno)),
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.replies_len + bytes.len();
        self.make_room(end);
        self.replies[self.replies_len..end].copy_from_slice(bytes);
        self.replies_len = end;
    }

    /// Replies may reach up to `end`.
    fn make_room(&mut self, end: usize) {
        if self.replies.len() < end {
            debug_assert!(end <= SEND_LEN + SEND_ROOM);
            let len = end.next_power_of_two().min(SEND_LEN + SEND_ROOM).max(end);
            self.replies.resize(len, 0);
        }
    }

    /// Moves what is left to the front, so that the next receive has room.
    fn need_more(&mut self) -> Step {
        if self.head == self.tail {
            self.head = 0;
            self.tail = 0;
        } else if self.head > 0 {
            self.received.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
        Step::Receive
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockSizes, Export, ExportName, Unobserved};

    /// Reads as zeroes and takes everything.
    struct Blank;

    impl Export for Blank {
        fn info(&self) -> ExportInfo {
            ExportInfo {
                name: ExportName::new("blank").unwrap(),
                description: String::new(),
                size: 1 << 30,
                read_only: false,
                multi_conn: true,
                block_sizes: BlockSizes::default(),
            }
        }
        fn read(&self, _: u64, buf: &mut [u8]) -> Result<(), Errno> {
            buf.fill(0);
            Ok(())
        }
        fn write(&self, _: u64, _: &mut [u8], _: bool) -> Result<(), Errno> {
            Ok(())
        }
        fn flush(&self) -> Result<(), Errno> {
            Ok(())
        }
        fn trim(&self, _: u64, _: u64, _: bool) -> Result<(), Errno> {
            Ok(())
        }
        fn write_zeroes(&self, _: u64, _: u64, _: ZeroOptions) -> Result<(), Errno> {
            Ok(())
        }
    }

    fn core(draining: &Arc<AtomicBool>) -> Core {
        let export = Arc::new(Blank);
        let negotiated = Negotiated {
            info: export.info(),
            export: Attached::new(export),
            structured: false,
            allocation: false,
        };
        Core::new(negotiated, Arc::new(Unobserved), Arc::clone(draining))
    }

    fn write_request(cookie: u8, len: u32) -> Vec<u8> {
        let mut bytes = crate::protocol::REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend([0, 0, 0, 1]);
        bytes.extend([cookie; 8]);
        bytes.extend(0u64.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes
    }

    fn feed(core: &mut Core, bytes: &[u8]) {
        core.space()[..bytes.len()].copy_from_slice(bytes);
        core.received(bytes.len());
    }

    /// The error code of each simple reply, which are then sent.
    fn codes(core: &mut Core) -> Vec<u8> {
        let codes = core.replies().chunks(16).map(|r| r[7]).collect();
        core.sent();
        codes
    }

    #[test]
    fn a_drain_answers_what_has_arrived_and_leaves_unanswered_what_comes_later() {
        let draining = Arc::new(AtomicBool::new(false));
        let mut core = core(&draining);
        // Half a write, then the drain, then its other half and one more: both had been sent before.
        feed(&mut core, &write_request(1, 8));
        assert_eq!(core.step(), Step::Receive);
        draining.store(true, Ordering::Relaxed);
        let mut rest = vec![7; 8];
        rest.extend(write_request(2, 0));
        rest.extend(&write_request(3, 4096)[..20]);
        feed(&mut core, &rest);
        assert_eq!(core.step(), Step::Receive);
        assert_eq!(codes(&mut core), [0, 0]);
        // A client that reconnects sends it again, and anything that comes later.
        let mut late = write_request(3, 4096)[20..].to_vec();
        late.extend([0; 4096]);
        feed(&mut core, &late);
        assert_eq!(core.step(), Step::Close(Closed::Shutdown));
        assert!(codes(&mut core).is_empty());
    }

    #[test]
    fn a_write_that_had_begun_when_the_drain_did_is_answered_when_its_data_come_late() {
        let draining = Arc::new(AtomicBool::new(false));
        let mut core = core(&draining);
        draining.store(true, Ordering::Relaxed);
        feed(&mut core, &write_request(1, 8));
        assert_eq!(core.step(), Step::Receive);
        feed(&mut core, &[7; 4]);
        assert_eq!(core.step(), Step::Receive);
        let mut rest = vec![7; 4];
        rest.extend(write_request(2, 0));
        feed(&mut core, &rest);
        assert_eq!(core.step(), Step::Close(Closed::Shutdown));
        assert_eq!(codes(&mut core), [0]);
    }

    #[test]
    fn buffers_grow_with_what_a_client_does_and_shrink_when_it_rests() {
        let mut core = core(&Arc::default());
        assert!(!core.is_grown());
        // A long write, as fast as the buffer takes it, and a read of as much as is sent at once.
        let mut bytes = write_request(1, 1 << 20);
        bytes.resize(bytes.len() + (1 << 20), 7);
        let mut read = write_request(2, 128 << 10);
        read[7] = 0;
        bytes.extend(&read);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            assert_eq!(core.step(), Step::Receive);
            let len = core.space().len().min(rest.len());
            feed(&mut core, &rest[..len]);
            rest = &rest[len..];
        }
        assert_eq!(core.step(), Step::Receive);
        assert_eq!(core.replies().len(), 16 + 16 + (128 << 10));
        assert_eq!(core.received.len(), RECEIVE_LEN);
        core.sent();
        // In the middle of a write's last sector.
        let mut bytes = write_request(3, 8192);
        bytes.extend([1; 4096 + 100]);
        feed(&mut core, &bytes);
        assert_eq!(core.step(), Step::Receive);
        core.rest();
        assert!(!core.is_grown());
        assert!(core.received.capacity() + core.replies.capacity() <= 2 * RESTING_LEN);
        feed(&mut core, &[1; 4096 - 100]);
        assert_eq!(core.step(), Step::Receive);
        assert_eq!(codes(&mut core), [0]);
        assert!(core.is_between_requests());
    }

    #[test]
    fn a_long_read_leaves_in_sends_of_whole_slices() {
        for structured in [false, true] {
            let mut core = core(&Arc::default());
            core.negotiated.structured = structured;
            let mut read = write_request(1, 1 << 20);
            read[7] = 0;
            feed(&mut core, &read);
            let mut sends = Vec::new();
            loop {
                let step = core.step();
                sends.extend(Some(core.replies().len() / SLICE_LEN).filter(|slices| *slices > 0));
                core.sent();
                if step == Step::Receive {
                    break;
                }
            }
            assert_eq!(sends, [2; 4], "structured: {structured}");
        }
    }

    #[test]
    fn a_write_of_four_gigabytes_is_refused_without_room_for_it() {
        let mut core = core(&Arc::default());
        feed(&mut core, &write_request(1, u32::MAX));
        let mut left = u32::MAX as usize;
        while left > 0 {
            assert_eq!(core.step(), Step::Receive);
            let len = core.space().len().min(left);
            assert!(len > 0);
            core.received(len);
            left -= len;
        }
        assert_eq!(core.step(), Step::Receive);
        assert_eq!(codes(&mut core), [28], "past the end: no space");
        assert!(core.is_between_requests());
    }
}
