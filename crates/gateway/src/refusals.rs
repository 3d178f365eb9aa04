//! What is said of refused requests and clients: a count of each, and of each kind and peer a log line and an audit
//! record, at once the first time and then at most every [`INTERVAL`], with the number of those in between.
//!
//! Strangers cause these as often as they like, so everything is bounded: how many kinds and peers are told apart
//! ([`CROWD_MAX`]; beyond that a kind's peers are told together), and how many records wait for the audit log. Nobody
//! who is refused waits for that log. Never said: a secret, a signature, or what was in a request beside its names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use audit::{AuditLog, Event};
use host::Clock;
use tokio::sync::mpsc;

use crate::metrics::{Front, Metrics};
use crate::refusal_reason::Reason;

/// One kind of refusal of one peer is told this often at most.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// Kinds and peers that are told apart in an interval.
const CROWD_MAX: usize = 64;
/// Records that wait for the audit log; others are counted as not recorded.
const WAITING_MAX: usize = 256;
/// A code or a name that a client had a part in is cut here.
const TEXT_LEN_MAX: usize = 128;
/// Who is refused before it is known who it is.
const NOBODY: &str = "unauthenticated";

/// Something that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) front: Front,
    /// A name of the protocol, from a fixed set; `unknown` where it is not known.
    pub(crate) operation: &'static str,
    pub(crate) reason: Reason,
    /// The error's code, as the client was told it or CloudTrail would.
    pub(crate) code: Cow<'static, str>,
    /// The peer without what changes from one connection to the next: an address without its port.
    pub(crate) peer: String,
    pub(crate) source: Option<IpAddr>,
    /// With which access key, as claimed unless there is a principal.
    pub(crate) access_key: Option<String>,
    /// Who, if the signature was right.
    pub(crate) principal: Option<String>,
    pub(crate) request_id: String,
    /// What was asked for, where that is worth telling apart: an export.
    pub(crate) subject: Option<String>,
    /// Whether whoever refused it has recorded it in the audit log.
    pub(crate) recorded: bool,
}

/// What is told together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    reason: Reason,
    front: &'static str,
    /// Peer and subject; none once there are too many of them.
    who: Option<(String, Option<String>)>,
    /// In the audit log already.
    recorded: bool,
}

#[derive(Debug)]
struct Told {
    last: Duration,
    /// Not told since, and the newest of them.
    since: u64,
    newest: Option<Refused>,
}

/// A record for the audit log.
#[derive(Debug)]
pub(crate) struct Entry {
    refused: Refused,
    time: SystemTime,
    count: u64,
    /// Of several peers.
    several: bool,
}

/// Records on their way to the audit log; `None` behind the last one.
pub(crate) type Waiting = mpsc::Receiver<Option<Entry>>;

/// Tells of what is refused.
pub(crate) struct Refusals {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    crowd: Mutex<BTreeMap<Kind, Told>>,
    records: mpsc::Sender<Option<Entry>>,
}

impl Refusals {
    /// One, and the records that [`record`] has to take to the audit log.
    pub(crate) fn new(metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> (Arc<Self>, Waiting) {
        let (records, waiting) = mpsc::channel(WAITING_MAX);
        let refusals = Self {
            metrics,
            clock,
            crowd: Mutex::default(),
            records,
        };
        (Arc::new(refusals), waiting)
    }

    /// Counts a refusal, and tells of it if it is time to. Does not block.
    pub(crate) fn note(&self, mut refused: Refused) {
        cut(&mut refused.peer);
        if refused.code.len() > TEXT_LEN_MAX {
            cut(refused.code.to_mut());
        }
        if let Some(subject) = &mut refused.subject {
            cut(subject);
        }
        let Refused {
            front,
            operation,
            reason,
            ..
        } = refused;
        self.metrics.refused(front, operation, reason.label());
        let now = self.clock.elapsed();
        let mut crowd = self.crowd.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kind = Kind {
            reason,
            front: front.label(),
            who: Some((refused.peer.clone(), refused.subject.clone())),
            recorded: refused.recorded,
        };
        if !crowd.contains_key(&kind) && crowd.len() >= CROWD_MAX {
            crowd.retain(|_, told| told.since > 0 || now.saturating_sub(told.last) < INTERVAL);
            if crowd.len() >= CROWD_MAX {
                kind.who = None;
            }
        }
        let several = kind.who.is_none();
        let count = match crowd.get_mut(&kind) {
            Some(told) if now.saturating_sub(told.last) < INTERVAL => {
                told.since += 1;
                told.newest = Some(refused);
                return;
            }
            Some(told) => {
                told.last = now;
                told.newest = None;
                1 + std::mem::take(&mut told.since)
            }
            None => {
                let told = Told {
                    last: now,
                    since: 0,
                    newest: None,
                };
                crowd.insert(kind, told);
                1
            }
        };
        drop(crowd);
        self.tell(refused, count, several);
    }

    /// Tells of what was not told since, where it is time to; at the end, whenever it was.
    pub(crate) fn catch_up(&self, at_the_end: bool) {
        let now = self.clock.elapsed();
        let mut due = Vec::new();
        let mut crowd = self.crowd.lock().unwrap_or_else(PoisonError::into_inner);
        crowd.retain(|kind, told| {
            if !at_the_end && now.saturating_sub(told.last) < INTERVAL {
                return true;
            }
            let Some(newest) = told.newest.take() else {
                return false;
            };
            due.push((newest, std::mem::take(&mut told.since), kind.who.is_none()));
            told.last = now;
            true
        });
        drop(crowd);
        for (newest, count, several) in due {
            self.tell(newest, count, several);
        }
    }

    /// Tells of what is left, and ends [`record`] behind it.
    pub(crate) async fn finish(&self) {
        self.catch_up(true);
        // Only a recorder that has ended already takes nothing.
        let _ = self.records.send(None).await;
    }

    fn tell(&self, refused: Refused, count: u64, several: bool) {
        let peer = if several { "several" } else { &refused.peer };
        tracing::warn!(
            peer,
            front = refused.front.label(),
            operation = refused.operation,
            reason = refused.reason.label(),
            code = &*refused.code,
            access_key = refused.access_key.as_deref(),
            principal = refused.principal.as_deref(),
            subject = refused.subject.as_deref(),
            request_id = refused.request_id,
            count,
            "refused"
        );
        if refused.recorded {
            return;
        }
        let entry = Entry {
            refused,
            time: self.clock.now(),
            count,
            several,
        };
        // The log is behind, or gone: who is refused does not wait for it.
        if self.records.try_send(Some(entry)).is_err() {
            self.metrics.refusals_unrecorded(count);
        }
    }
}

impl Entry {
    fn event(&self) -> Event<'_> {
        let refused = &self.refused;
        let of_one = !self.several;
        let principal = refused.principal.as_deref().filter(|_| of_one);
        Event {
            access_key: refused.access_key.as_deref().filter(|_| of_one),
            resource: refused.subject.as_deref().filter(|_| of_one),
            request_id: &refused.request_id,
            source: refused.source.filter(|_| of_one),
            count: (self.count > 1).then_some(self.count),
            ..Event::new(
                self.time,
                refused.operation,
                &refused.code,
                principal.unwrap_or(NOBODY),
                refused.front.via(),
            )
        }
    }
}

/// Takes records to the audit log until [`Refusals::finish`], or nobody is left who could refuse anything. A log that takes none loses them, and
/// they are counted.
pub(crate) async fn record(mut waiting: Waiting, audit: AuditLog, metrics: Arc<Metrics>) {
    while let Some(Some(entry)) = waiting.recv().await {
        if let Err(error) = audit.record(&entry.event()).await {
            tracing::debug!(%error, "a refusal was not recorded");
            metrics.refusals_unrecorded(entry.count);
        }
    }
}

/// An NBD client without what changes from one connection to the next, and its address.
pub(crate) fn nbd_peer(peer: &nbd::Peer) -> (String, Option<IpAddr>) {
    match (peer, peer.addr()) {
        (nbd::Peer::Unix { uid, .. }, _) => (format!("uid {uid}"), None),
        (_, Some(addr)) => (addr.ip().to_canonical().to_string(), Some(addr.ip())),
        (_, None) => (peer.transport().to_owned(), None),
    }
}

fn cut(text: &mut String) {
    if text.len() > TEXT_LEN_MAX {
        let mut end = TEXT_LEN_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use host::clock::ManualClock;

    struct World {
        clock: Arc<ManualClock>,
        metrics: Arc<Metrics>,
        refusals: Arc<Refusals>,
        waiting: Waiting,
    }

    impl World {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
            let metrics = Arc::new(Metrics::new().unwrap());
            let (refusals, waiting) = Refusals::new(Arc::clone(&metrics), Arc::clone(&clock) as _);
            Self {
                clock,
                metrics,
                refusals,
                waiting,
            }
        }

        fn note(&self, reason: Reason, peer: &str) {
            self.refusals.note(Refused {
                front: Front::OTHER,
                operation: "unknown",
                reason,
                code: "SignatureDoesNotMatch".into(),
                peer: peer.to_owned(),
                source: peer.parse().ok(),
                access_key: Some("AKIDEXAMPLE00001".to_owned()),
                principal: None,
                request_id: "r".to_owned(),
                subject: None,
                recorded: false,
            });
        }

        /// For how many refusals each record stands that was made since.
        fn recorded(&mut self) -> Vec<u64> {
            std::iter::from_fn(|| self.waiting.try_recv().ok())
                .flatten()
                .map(|entry| entry.count)
                .collect()
        }

        fn metric(&self, name: &str) -> u64 {
            let (text, _) = self.metrics.render().unwrap();
            let text = String::from_utf8(text).unwrap();
            text.lines()
                .filter(|line| line.starts_with(name))
                .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
                .sum()
        }
    }

    #[test]
    fn each_kind_and_peer_is_told_at_once_and_a_flood_by_its_number() {
        let mut world = World::new();
        world.note(Reason::WrongSignature, "10.0.0.1");
        world.note(Reason::WrongSignature, "10.0.0.2");
        world.note(Reason::ClockSkew, "10.0.0.1");
        assert_eq!(world.recorded(), [1, 1, 1]);
        for _ in 0..1000 {
            world.note(Reason::WrongSignature, "10.0.0.1");
        }
        assert!(world.recorded().is_empty());
        world.refusals.catch_up(false);
        assert!(world.recorded().is_empty(), "it is not time yet");
        world.clock.advance(INTERVAL);
        world.note(Reason::WrongSignature, "10.0.0.1");
        assert_eq!(world.recorded(), [1001], "with the one that is told now");
        assert_eq!(world.metric("sealgate_refusals_total"), 1004);
    }

    #[test]
    fn what_was_not_told_is_when_its_time_has_come_or_the_end_has() {
        for at_the_end in [false, true] {
            let mut world = World::new();
            for _ in 0..3 {
                world.note(Reason::Validation, "10.0.0.1");
            }
            if !at_the_end {
                world.clock.advance(INTERVAL);
            }
            world.refusals.catch_up(at_the_end);
            assert_eq!(world.recorded(), [1, 2]);
            world.refusals.catch_up(true);
            assert!(world.recorded().is_empty());
        }
    }

    #[test]
    fn a_crowd_of_peers_is_told_together_and_the_table_stays_small() {
        let mut world = World::new();
        for n in 0..10_000_u32 {
            world.note(
                Reason::UnknownAccessKey,
                &IpAddr::from(n.to_be_bytes()).to_string(),
            );
        }
        let told = world.recorded();
        assert_eq!(told.len(), CROWD_MAX + 1, "one of them for all the others");
        world.clock.advance(INTERVAL);
        world.refusals.catch_up(false);
        let others = world.waiting.try_recv().unwrap().unwrap();
        assert!(others.several && others.event().access_key.is_none());
        assert_eq!(others.event().source, None);
        assert_eq!(told.len() as u64 + others.count, 10_000);
        world.clock.advance(INTERVAL);
        world.refusals.catch_up(false);
        assert!(world.refusals.crowd.lock().unwrap().is_empty());
    }

    #[test]
    fn records_that_nobody_takes_are_counted_and_nobody_waits() {
        let mut world = World::new();
        for _ in 0..WAITING_MAX + 5 {
            world.clock.advance(INTERVAL);
            world.note(Reason::Denied, "10.0.0.1");
        }
        assert_eq!(world.metric("sealgate_refusals_unrecorded_total"), 5);
        assert_eq!(world.recorded().len(), WAITING_MAX);
    }

    #[tokio::test]
    async fn a_dead_audit_log_takes_no_refusal_down() {
        use host::disk::sim::{Call, Failure, Fault, SimDisk};
        let world = World::new();
        let disk = SimDisk::new(1);
        let mut options = audit::AuditOptions::new("/audit", Arc::clone(&world.clock) as _);
        options.disk = Arc::new(disk.clone());
        let log = AuditLog::open(options).unwrap();
        disk.fail(Fault::new(Failure::Io).on(&[Call::SyncData]).at(".journal"));
        for peer in ["10.0.0.1", "10.0.0.2"] {
            world.note(Reason::WrongSignature, peer);
        }
        let metrics = Arc::clone(&world.metrics);
        let World {
            waiting, refusals, ..
        } = world;
        refusals.finish().await;
        record(waiting, log, Arc::clone(&metrics)).await;
        let (text, _) = metrics.render().unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("sealgate_refusals_unrecorded_total 2"),
            "{text}"
        );
    }

    #[test]
    fn long_names_are_cut_where_a_character_ends() {
        let mut text = "ä".repeat(TEXT_LEN_MAX);
        cut(&mut text);
        assert_eq!(text.len(), TEXT_LEN_MAX);
        let mut text = format!("x{}", "ä".repeat(TEXT_LEN_MAX));
        cut(&mut text);
        assert_eq!(text.len(), TEXT_LEN_MAX - 1);
    }
}
