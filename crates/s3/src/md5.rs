//! MD5 of bodies, those that arrive at the same time hashed together.
//!
//! An entity tag of SSE-S3 is the MD5 of the content, and was more than half of
//! the CPU of a large PUT. Several digests side by side ([`crypto::md5_lanes`])
//! cost little more than one. So a large body does not hash what arrives but keeps
//! it, refcounted and not copied, and goes on; the body that has enough waiting,
//! or has come to its end, hashes there and then what waits, its own and the
//! others'. Like the leader of a group commit, who must, does it for all; no timer
//! runs. A large body that meets no other has a blocking thread hash for it, and goes
//! on to receive meanwhile.
//!
//! Promises:
//! - What waits is bounded for each body: [`HARD_LEN`] and one read of the
//!   connection, and as much again while a run has it. A short piece would keep the
//!   whole buffer it was cut from: those are copied together.
//! - No lock is held while bytes are hashed, and a run takes a few milliseconds
//!   at most.
//! - A body never waits for another's bytes: only for a run that has its own, and
//!   before a run for tasks that are ready to go on, a bounded number of times.
//! - A small body, and any on a processor without lanes, hash as bytes arrive.
//! - No digest, no commit: a run that panics fails every body it had. A body
//!   dropped frees its place and its bytes at once, those in a run when that ends.
//! - A body that has nothing waiting costs the others nothing.
//!
//! Does not: wipe plaintext. What waits are the buffers hyper read from the
//! connection, or, for copies, what was just decrypted, which are not wiped without
//! this either; they live a little longer, at most as long as the request.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use crypto::md5_lanes::{Job, Kernel, Lanes, Stream};
use parking_lot::Mutex;

use crate::error::Error;

/// Shorter bodies hash as they arrive: a tenth of a millisecond.
const BODY_LEN_MIN: u64 = 64 << 10;
/// Waiting bytes from which a body hashes, if that fills lanes.
const SOFT_LEN: usize = 256 << 10;
/// Waiting bytes from which a body hashes in any case. Half and twice of both
/// cost more CPU for 32 MiB PUTs on 8 connections.
const HARD_LEN: usize = 1 << 20;
/// Shorter pieces are copied together, since a client chooses how it cuts its chunks
/// and each may keep a buffer of 64 KiB.
const PIECE_LEN_MIN: usize = 16 << 10;
/// Shorter runs are not worth the locks around them, nor other bodies' time.
const RUN_LEN_MIN: usize = 32 << 10;
/// A body that must hash lets other tasks go first, once for so many of its bytes.
/// That costs a few microseconds where no task is ready; hashing them, 230.
const BYTES_A_YIELD: usize = 128 << 10;
/// At most so many times.
const YIELDS_MAX: usize = 8;
/// Lanes that are worth no more yielding.
const LANES_ENOUGH: usize = 6;

/// A run panicked half-way through a body's digest.
const LOST: Error = Error::Internal("the MD5 of a body was lost");

/// The bodies that hash together.
pub(crate) struct Md5Group {
    lanes: usize,
    hash: fn(&mut [Job<'_>]),
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    next: u64,
    by_id: HashMap<u64, Entry>,
    /// Those that a run can take: with bytes waiting and their digest here.
    ready: HashSet<u64>,
    /// How many digests runs have.
    in_run: usize,
    /// Whether bodies have met lately, so that it is worth to wait for another.
    meeting: bool,
}

struct Entry {
    stream: Held,
    waiting: VecDeque<Bytes>,
    waiting_len: usize,
    /// Of the body's task, while it waits for a run to end.
    waker: Option<Waker>,
}

/// Where a member's digest in the making is.
enum Held {
    Here(Stream),
    InRun,
    Lost,
}

impl Md5Group {
    pub(crate) fn new() -> Self {
        Self::with(Kernel::detect().lanes(), |jobs| Lanes::new().update(jobs))
    }

    fn with(lanes: usize, hash: fn(&mut [Job<'_>])) -> Self {
        Self {
            lanes,
            hash,
            members: Mutex::default(),
        }
    }

    /// Starts the digest of a body of `len` bytes.
    pub(crate) fn begin(self: &Arc<Self>, len: u64) -> BodyMd5 {
        if len < BODY_LEN_MIN || self.lanes == 1 {
            return BodyMd5(Kind::Alone(Stream::new()));
        }
        let mut members = self.members.lock();
        let id = members.next;
        members.next += 1;
        members.meeting |= members.active() > 0;
        let entry = Entry {
            stream: Held::Here(Stream::new()),
            waiting: VecDeque::new(),
            waiting_len: 0,
            waker: None,
        };
        members.by_id.insert(id, entry);
        let group = Arc::clone(self);
        BodyMd5(Kind::Member(Member {
            group,
            id,
            gathered: Vec::new(),
            has_news: false,
        }))
    }
}

/// The MD5 of one body in the making.
pub(crate) struct BodyMd5(Kind);

// A box would save bytes in a value of which there is one for each body.
#[allow(clippy::large_enum_variant)]
enum Kind {
    Alone(Stream),
    Member(Member),
}

impl BodyMd5 {
    /// Takes in the next bytes, now or later. What waits is bounded only if
    /// [`room`](Self::room) is awaited between the calls.
    pub(crate) fn push(&mut self, bytes: &Bytes) {
        match &mut self.0 {
            Kind::Alone(stream) => stream.update(bytes),
            Kind::Member(member) => member.push(bytes),
        }
    }

    /// Makes room for the next bytes; may hash, on this thread, for others too, or
    /// on a blocking thread of the Tokio runtime it is called in. Cancel-safe.
    pub(crate) async fn room(&mut self) -> Result<(), Error> {
        if let Kind::Member(member) = &mut self.0
            && member.has_news
        {
            member.hashed(Until::Room).await?;
            member.has_news = false;
        }
        Ok(())
    }

    /// The digest of all bytes taken in; hashes as [`room`](Self::room) does.
    pub(crate) async fn finish(self) -> Result<[u8; 16], Error> {
        let stream = match self.0 {
            Kind::Alone(stream) => stream,
            Kind::Member(mut member) => {
                member.hand_over_gathered();
                member.hashed(Until::Empty).await?;
                member.leave().ok_or(LOST)?
            }
        };
        Ok(stream.finish())
    }
}

/// What a body waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Less waits than [`HARD_LEN`].
    Room,
    /// Nothing waits, and the digest is here.
    Empty,
}

/// A body's place in the group.
struct Member {
    group: Arc<Md5Group>,
    id: u64,
    /// Short pieces, not waiting yet.
    gathered: Vec<u8>,
    /// Whether more waits than when room was made last.
    has_news: bool,
}

impl Member {
    fn push(&mut self, bytes: &Bytes) {
        if bytes.len() >= PIECE_LEN_MIN {
            self.hand_over_gathered();
            self.hand_over(bytes.clone());
        } else {
            self.gathered.extend_from_slice(bytes);
            if self.gathered.len() >= PIECE_LEN_MIN {
                self.hand_over_gathered();
            }
        }
    }

    fn hand_over_gathered(&mut self) {
        if !self.gathered.is_empty() {
            let bytes = std::mem::take(&mut self.gathered);
            self.hand_over(bytes.into());
        }
    }

    fn hand_over(&mut self, bytes: Bytes) {
        self.has_news = true;
        let mut members = self.group.members.lock();
        let entry = members.entry(self.id);
        entry.waiting_len += bytes.len();
        entry.waiting.push_back(bytes);
        if matches!(entry.stream, Held::Here(_)) {
            members.ready.insert(self.id);
        }
    }

    async fn hashed(&self, until: Until) -> Result<(), Error> {
        let mut yields = 0;
        loop {
            let wanted = self.group.members.lock().yields(self.id, until);
            if yields >= wanted {
                break;
            }
            yields += 1;
            // Tasks that are ready go first. They bring bytes to share the run with,
            // or run themselves and take ours along.
            tokio::task::yield_now().await;
        }
        std::future::poll_fn(|cx| self.poll(cx, until)).await
    }

    fn poll(&self, cx: &mut Context<'_>, until: Until) -> Poll<Result<(), Error>> {
        loop {
            let mut members = self.group.members.lock();
            let entry = members.entry(self.id);
            match &entry.stream {
                Held::Lost => return Poll::Ready(Err(LOST)),
                Held::InRun if until == Until::Room && !entry.is_full() => {
                    return Poll::Ready(Ok(()));
                }
                Held::InRun => {
                    let waker = entry.waker.get_or_insert_with(|| cx.waker().clone());
                    waker.clone_from(cx.waker());
                    return Poll::Pending;
                }
                Held::Here(_) => {}
            }
            let lanes = self.group.lanes;
            let Some(len) = members.run_len(self.id, until, lanes) else {
                return Poll::Ready(Ok(()));
            };
            let lanes = if len < RUN_LEN_MIN { 1 } else { lanes };
            let elsewhere = until == Until::Room && members.is_alone();
            let run = Run {
                taken: members.take(self.id, len, lanes),
                group: Arc::clone(&self.group),
                hashed: false,
            };
            drop(members);
            if elsewhere {
                tokio::task::spawn_blocking(|| run.hash());
            } else {
                run.hash();
            }
        }
    }

    /// The digest, if it is here; what waits is dropped.
    fn leave(&self) -> Option<Stream> {
        let mut members = self.group.members.lock();
        members.ready.remove(&self.id);
        let entry = members.by_id.remove(&self.id)?;
        drop(members);
        match entry.stream {
            Held::Here(stream) => Some(stream),
            Held::InRun | Held::Lost => None,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Members {
    fn entry(&mut self, id: u64) -> &mut Entry {
        self.by_id
            .get_mut(&id)
            .expect("a member has its entry until it leaves")
    }

    /// How many have something to hash, or are being hashed.
    fn active(&self) -> usize {
        self.ready.len() + self.in_run
    }

    /// Whether there is nobody to share lanes with, nor was lately.
    fn is_alone(&self) -> bool {
        self.active() <= 1 && !self.meeting
    }

    /// How many bytes wait in each member that a run can take.
    fn waiting(&self) -> impl Iterator<Item = usize> {
        let ready = self.ready.iter().filter_map(|id| self.by_id.get(id));
        ready.map(|entry| entry.waiting_len)
    }

    /// How often member `id` should let others go first.
    fn yields(&mut self, id: u64, until: Until) -> usize {
        let entry = self.entry(id);
        let own = entry.waiting_len;
        let must_hash = entry.is_full() || (until == Until::Empty && own > 0);
        if !must_hash || !self.meeting {
            return 0;
        }
        if self.waiting().filter(|len| *len >= own / 2).count() >= LANES_ENOUGH {
            return 0;
        }
        own.div_ceil(BYTES_A_YIELD).min(YIELDS_MAX)
    }

    /// How many bytes of each member to hash now, if any, for member `id`.
    fn run_len(&mut self, id: u64, until: Until, lanes: usize) -> Option<usize> {
        let entry = self.entry(id);
        let (own, full) = (entry.waiting_len, entry.is_full());
        if own == 0 {
            return None;
        }
        if until == Until::Empty {
            return Some(own);
        }
        if own < SOFT_LEN && !full {
            return None;
        }
        if self.is_alone() {
            return Some(own);
        }
        // As many bytes as three quarters of the members have: that fills lanes to
        // the run's end, and leaves the rest for the next run.
        let rank = (self.active().min(lanes) * 3).div_ceil(4);
        let mut waiting: Vec<usize> = self.waiting().collect();
        let shared = if waiting.len() < rank {
            0
        } else {
            *waiting.select_nth_unstable_by(rank - 1, |a, b| b.cmp(a)).1
        };
        if full {
            let least = if own >= HARD_LEN { own - SOFT_LEN } else { own };
            return Some(shared.max(least));
        }
        (shared >= RUN_LEN_MIN).then_some(shared)
    }

    /// The first `len` bytes that wait in member `id` and in those others that have
    /// most, in no more than `lanes` members, longest first.
    fn take(&mut self, id: u64, len: usize, lanes: usize) -> Vec<Taken> {
        let own = self.entry(id).waiting_len;
        let mut ranked: Vec<(usize, u64)> = self
            .ready
            .iter()
            .filter(|other| **other != id)
            .filter_map(|other| Some((self.by_id.get(other)?.waiting_len, *other)))
            .collect();
        if ranked.len() >= lanes {
            ranked.select_nth_unstable_by(lanes - 1, |a, b| b.cmp(a));
            ranked.truncate(lanes - 1);
        }
        ranked.push((own, id));
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        if lanes > 1 {
            self.meeting = ranked.len() > 1;
        }
        let mut taken = Vec::with_capacity(ranked.len());
        for (_, id) in ranked {
            let Some(entry) = self.by_id.get_mut(&id) else {
                continue;
            };
            match std::mem::replace(&mut entry.stream, Held::InRun) {
                Held::Here(stream) => taken.push(Taken {
                    id,
                    stream,
                    pieces: entry.take(len),
                }),
                elsewhere => entry.stream = elsewhere,
            }
            self.ready.remove(&id);
        }
        self.in_run += taken.len();
        taken
    }
}

impl Entry {
    fn is_full(&self) -> bool {
        self.waiting_len >= HARD_LEN
    }

    /// The first `len` bytes that wait, or all of them.
    fn take(&mut self, len: usize) -> Vec<Bytes> {
        let mut left = len.min(self.waiting_len);
        self.waiting_len -= left;
        let mut pieces = Vec::with_capacity(self.waiting.len());
        while left > 0 {
            let Some(piece) = self.waiting.front_mut() else {
                break;
            };
            if piece.len() > left {
                pieces.push(piece.split_to(left));
                break;
            }
            left -= piece.len();
            pieces.extend(self.waiting.pop_front());
        }
        pieces
    }
}

/// What a run has of one member.
struct Taken {
    id: u64,
    stream: Stream,
    pieces: Vec<Bytes>,
}

/// Members being hashed. They get their digests back when it is dropped; if the
/// hash did not return, they are lost.
struct Run {
    group: Arc<Md5Group>,
    taken: Vec<Taken>,
    hashed: bool,
}

impl Run {
    fn hash(mut self) {
        let mut work: Vec<(&mut Stream, Vec<&[u8]>)> = self
            .taken
            .iter_mut()
            .map(|taken| {
                let pieces = taken.pieces.iter().map(|bytes| &**bytes);
                (&mut taken.stream, pieces.collect())
            })
            .collect();
        let mut jobs: Vec<Job<'_>> = work
            .iter_mut()
            .map(|(stream, pieces)| Job::new(stream, pieces))
            .collect();
        (self.group.hash)(&mut jobs);
        self.hashed = true;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut bytes = Vec::with_capacity(self.taken.len());
        let mut wakers = Vec::new();
        let mut guard = self.group.members.lock();
        let members = &mut *guard;
        for taken in self.taken.drain(..) {
            bytes.push(taken.pieces);
            members.in_run -= 1;
            // A member that left meanwhile wants nothing back.
            let Some(entry) = members.by_id.get_mut(&taken.id) else {
                continue;
            };
            entry.stream = if self.hashed {
                if entry.waiting_len > 0 {
                    members.ready.insert(taken.id);
                }
                Held::Here(taken.stream)
            } else {
                Held::Lost
            };
            wakers.extend(entry.waker.take());
        }
        drop(guard);
        drop(bytes);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::hash::Md5;
    use crypto::random::{Random, SeededRandom};
    use std::task::Waker;
    use std::time::Duration;

    fn data(len: usize) -> Bytes {
        let mut bytes = vec![0; len];
        SeededRandom::new(len as u64).fill(&mut bytes);
        bytes.into()
    }

    /// Sixteen lanes by whatever kernel there is, so that bodies meet on any processor.
    fn group() -> Arc<Md5Group> {
        Arc::new(Md5Group::with(16, |jobs| Lanes::new().update(jobs)))
    }

    async fn digest(group: Arc<Md5Group>, content: Bytes, piece_len: usize) -> [u8; 16] {
        let mut md5 = group.begin(content.len() as u64);
        for from in (0..content.len()).step_by(piece_len) {
            md5.push(&content.slice(from..content.len().min(from + piece_len)));
            md5.room().await.unwrap();
            tokio::task::yield_now().await;
        }
        md5.finish().await.unwrap()
    }

    fn waiting(group: &Md5Group) -> Vec<usize> {
        let members = group.members.lock();
        let waiting = members.by_id.values().map(|entry| entry.waiting_len);
        waiting.collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn bodies_of_any_length_get_their_own_digests() {
        let group = group();
        let lens = [0, 1, 65_535, 65_536, 65_537, 1 << 20, 3_000_001, 5 << 20];
        let bodies = (0..40).map(|i| {
            let content = data(lens[i % lens.len()] + i);
            let digest = digest(Arc::clone(&group), content.clone(), 1000 + 8009 * i);
            (content, tokio::spawn(digest))
        });
        for (content, digest) in bodies.collect::<Vec<_>>() {
            assert_eq!(digest.await.unwrap(), Md5::digest(&content));
        }
        assert!(group.members.lock().by_id.is_empty());
    }

    #[tokio::test]
    async fn what_waits_is_bounded_while_others_have_nothing_to_hash() {
        let group = group();
        let idle = group.begin(BODY_LEN_MIN);
        let content = data(8 << 20);
        let mut md5 = group.begin(content.len() as u64);
        for piece in content.chunks(300_000) {
            md5.push(&content.slice_ref(piece));
            md5.room().await.unwrap();
            assert!(waiting(&group).into_iter().all(|len| len < HARD_LEN));
        }
        assert_eq!(md5.finish().await.unwrap(), Md5::digest(&content));
        drop(idle);
    }

    #[tokio::test]
    async fn a_tiny_piece_does_not_keep_the_buffer_it_was_cut_from() {
        let group = group();
        let content = data(100_000);
        let mut md5 = group.begin(content.len() as u64);
        for piece in content.chunks(7) {
            let mut buffer = Bytes::from([piece, &[0; 8000]].concat());
            let cut = buffer.split_to(piece.len());
            md5.push(&cut);
            md5.room().await.unwrap();
            drop(buffer);
            assert!(cut.is_unique());
        }
        let waits = waiting(&group)[0];
        let pieces = group
            .members
            .lock()
            .by_id
            .values()
            .next()
            .unwrap()
            .waiting
            .len();
        assert!(
            pieces <= waits / PIECE_LEN_MIN,
            "{pieces} pieces of {waits} bytes"
        );
        assert_eq!(md5.finish().await.unwrap(), Md5::digest(&content));
    }

    #[tokio::test]
    async fn short_and_long_pieces_keep_their_order() {
        let group = group();
        let content = data(1 << 20);
        let mut md5 = group.begin(content.len() as u64);
        let mut rest = content.clone();
        for len in [1, 40_000, 3, 3, 16_384, 16_383, 2, 100_000]
            .into_iter()
            .cycle()
        {
            if rest.is_empty() {
                break;
            }
            md5.push(&rest.split_to(len.min(rest.len())));
            md5.room().await.unwrap();
        }
        assert_eq!(md5.finish().await.unwrap(), Md5::digest(&content));
    }

    #[tokio::test]
    async fn bodies_that_send_nothing_leave_a_body_alone() {
        let group = group();
        let silent: Vec<_> = (0..20).map(|_| group.begin(1 << 20)).collect();
        let content = data(SOFT_LEN);
        let mut md5 = group.begin(1 << 20);
        md5.push(&content);
        assert!(group.members.lock().is_alone());
        // Hashed at once, on a blocking thread, and not only when a megabyte waits.
        md5.room().await.unwrap();
        assert_eq!(waiting(&group).into_iter().sum::<usize>(), 0);
        assert_eq!(md5.finish().await.unwrap(), Md5::digest(&content));
        drop(silent);
        let members = group.members.lock();
        assert!(members.by_id.is_empty() && members.ready.is_empty() && members.in_run == 0);
    }

    #[tokio::test]
    async fn a_body_alone_is_hashed_elsewhere_and_a_small_one_has_no_place() {
        let group = group();
        let content = data(4 << 20);
        let mut md5 = group.begin(content.len() as u64);
        for piece in content.chunks(100_000) {
            md5.push(&content.slice_ref(piece));
            md5.room().await.unwrap();
            assert!(waiting(&group)[0] < HARD_LEN);
        }
        let small = group.begin(BODY_LEN_MIN - 1);
        assert_eq!(waiting(&group).len(), 1);
        assert_eq!(md5.finish().await.unwrap(), Md5::digest(&content));
        assert_eq!(small.finish().await.unwrap(), Md5::digest(b""));
    }

    #[tokio::test]
    async fn one_body_hashes_what_the_others_have_waiting() {
        let group = group();
        let content = data(usize::try_from(BODY_LEN_MIN).unwrap());
        let mut bodies: Vec<_> = (0..5).map(|_| group.begin(1 << 20)).collect();
        for md5 in &mut bodies {
            md5.push(&content);
            md5.room().await.unwrap();
        }
        assert_eq!(waiting(&group), [content.len(); 5]);
        let first = bodies.remove(0).finish().await.unwrap();
        assert_eq!(waiting(&group), [0; 4]);
        for md5 in bodies {
            assert_eq!(md5.finish().await.unwrap(), first);
        }
        assert_eq!(first, Md5::digest(&content));
    }

    #[tokio::test]
    async fn a_dropped_body_frees_its_place_and_its_bytes() {
        let group = group();
        let (content, other) = (data(100_000), data(200_000));
        let mut dropped = group.begin(1 << 20);
        let mut md5 = group.begin(other.len() as u64);
        dropped.push(&content);
        md5.push(&other);
        assert!(!content.is_unique());
        drop(dropped);
        assert!(content.is_unique());
        assert_eq!(waiting(&group), [other.len()]);
        assert_eq!(md5.finish().await.unwrap(), Md5::digest(&other));
        assert!(other.is_unique());
    }

    #[tokio::test]
    async fn a_run_elsewhere_that_panics_fails_its_body() {
        let group = Arc::new(Md5Group::with(2, |_| panic!("a run fails")));
        let mut md5 = group.begin(1 << 20);
        md5.push(&data(SOFT_LEN));
        md5.room().await.unwrap();
        assert_eq!(waiting(&group), [0]);
        assert!(matches!(md5.finish().await, Err(Error::Internal(_))));
    }

    #[tokio::test]
    async fn a_run_that_panics_fails_every_body_it_had_and_no_other() {
        let group = Arc::new(Md5Group::with(2, |_| panic!("a run fails")));
        let mut bodies: Vec<_> = (0..3).map(|_| group.begin(1 << 20)).collect();
        bodies[0].push(&data(2 * RUN_LEN_MIN));
        bodies[1].push(&data(RUN_LEN_MIN));
        let spared = bodies.pop().unwrap();
        let shared = bodies.pop().unwrap();
        let leader = bodies.pop().unwrap();
        assert!(tokio::spawn(leader.finish()).await.unwrap_err().is_panic());
        assert!(matches!(shared.finish().await, Err(Error::Internal(_))));
        assert_eq!(spared.finish().await.unwrap(), Md5::digest(b""));
        assert!(group.members.lock().by_id.is_empty());
    }

    #[test]
    fn a_body_in_anothers_run_goes_on_and_waits_only_at_its_end() {
        use futures::executor::block_on;
        static GATE: Mutex<()> = Mutex::new(());
        let group = Arc::new(Md5Group::with(16, |jobs| {
            let _open = GATE.lock();
            Lanes::new().update(jobs);
        }));
        let (content, other) = (data(100_000), data(70_000));
        let mut bodies: Vec<_> = (0..3).map(|_| group.begin(1 << 20)).collect();
        for md5 in &mut bodies {
            md5.push(&content);
        }
        let (left, mut md5) = (bodies.pop().unwrap(), bodies.pop().unwrap());
        let leader = bodies.pop().unwrap();

        let closed = GATE.lock();
        let running = std::thread::spawn(move || block_on(leader.finish()).unwrap());
        while waiting(&group).contains(&content.len()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // All three are in the run: one goes on to receive, one is dropped.
        md5.push(&other);
        block_on(md5.room()).unwrap();
        drop(left);
        let mut finish = Box::pin(md5.finish());
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..=YIELDS_MAX + 1 {
            assert!(finish.as_mut().poll(&mut cx).is_pending());
        }
        drop(closed);
        assert_eq!(running.join().unwrap(), Md5::digest(&content));
        assert_eq!(
            block_on(finish).unwrap(),
            Md5::digest(&[content, other].concat())
        );
        assert!(group.members.lock().by_id.is_empty());
    }
}
