//! Who may be connected to one HTTP listener: limits under which a crowd shuts nobody out.
//!
//! A client is a stranger until a signature of its has been verified on this connection, and known from then on; there are
//! so many places for either. When one more stranger comes than may, the oldest goes of those that come from where most
//! come from, so a flood turns out its own. When one more is known than may, one that holds a place without using it goes
//! first: the idle, then whoever is furthest behind in what the server waits for. Of a listener without signatures every
//! client is a stranger.
//!
//! Nothing here waits; what a connection holds is given back when its [`Guest`] is dropped.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use host::memory::Account;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pace::{Pace, Progress};

/// A client that is this far behind may lose its place to another one: long enough for a lost packet to be sent again.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// Why a connection was closed that its client had not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Too many clients have not signed anything yet.
    Crowded,
    /// Its place was needed, and it did not use it.
    Unused,
    /// There is no place for it.
    Full,
    /// What it held in memory was needed, and it did not use it.
    Memory,
    /// It kept the server waiting for too long.
    Stalled,
}

impl Why {
    pub(crate) const ALL: [Self; 5] = [
        Self::Crowded,
        Self::Unused,
        Self::Full,
        Self::Memory,
        Self::Stalled,
    ];

    /// A sentence, for the log.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Crowded => {
                "a client was turned out: too many have not signed anything ([aws] strangers_max), or no descriptors are left"
            }
            Self::Unused => {
                "an unused connection was closed for another one ([aws] connections_max)"
            }
            Self::Full => {
                "a request was refused: as many connections are at work as may be ([aws] connections_max)"
            }
            Self::Memory => {
                "a client that kept the server waiting was cut off: others need the memory ([aws] body_memory_mib)"
            }
            Self::Stalled => {
                "a client that kept the server waiting was given up ([aws] stall_seconds, bytes_per_second_min)"
            }
        }
    }

    /// One word, for metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crowded => "crowded",
            Self::Unused => "unused",
            Self::Full => "full",
            Self::Memory => "memory",
            Self::Stalled => "stalled",
        }
    }
}

/// Where clients come from that are treated as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Origin(IpAddr);

impl Origin {
    fn of(address: SocketAddr) -> Self {
        Self(match address.ip() {
            // Whoever has one address of these has all of its 2^64 neighbours (RFC 4291, 2.5.4).
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_none() => {
                IpAddr::V6((ip.to_bits() >> 64 << 64).into())
            }
            ip => ip.to_canonical(),
        })
    }
}

/// A client's end of one connection.
#[derive(Debug)]
pub(crate) struct Client {
    /// Where it comes from.
    pub(crate) address: SocketAddr,
    /// How it keeps up.
    pub(crate) progress: Arc<Progress>,
    /// What its requests hold.
    pub(crate) memory: Arc<Account>,
    /// Requests that are being answered.
    requests: AtomicUsize,
    leaves: Notify,
    is_leaving: AtomicBool,
}

impl Client {
    /// Whether its connection does nothing.
    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && !self.progress.is_sending()
    }

    /// How far it is behind, if that is enough to lose its place.
    fn silence(&self) -> Option<Duration> {
        Some(self.progress.behind()).filter(|behind| *behind >= SILENT_AFTER)
    }
}

/// Numbers of clients by where they come from; a lower number came earlier.
#[derive(Default)]
struct Crowds {
    by_origin: HashMap<Origin, BTreeSet<u64>>,
    len: usize,
}

impl Crowds {
    fn add(&mut self, origin: Origin, number: u64) {
        if self.by_origin.entry(origin).or_default().insert(number) {
            self.len += 1;
        }
    }

    fn remove(&mut self, origin: Origin, number: u64) -> bool {
        let Some(numbers) = self.by_origin.get_mut(&origin) else {
            return false;
        };
        let removed = numbers.remove(&number);
        if numbers.is_empty() {
            self.by_origin.remove(&origin);
        }
        self.len -= usize::from(removed);
        removed
    }

    fn len_of(&self, origin: Origin) -> usize {
        self.by_origin.get(&origin).map_or(0, BTreeSet::len)
    }

    /// The largest; of some of one size, the one with the oldest client.
    fn largest(&self) -> Option<(Origin, &BTreeSet<u64>)> {
        let largest = self
            .by_origin
            .iter()
            .max_by_key(|(_, crowd)| (crowd.len(), std::cmp::Reverse(crowd.first().copied())));
        largest.map(|(origin, crowd)| (*origin, crowd))
    }
}

#[derive(Default)]
struct State {
    next: u64,
    clients: HashMap<u64, (Origin, Arc<Client>)>,
    strangers: Crowds,
    known: Crowds,
}

impl State {
    fn turn_out(&mut self, number: u64) -> Option<Arc<Client>> {
        let (origin, client) = self.clients.remove(&number)?;
        self.strangers.remove(origin, number);
        self.known.remove(origin, number);
        client.is_leaving.store(true, Ordering::Relaxed);
        client.leaves.notify_one();
        Some(client)
    }

    fn oldest_stranger(&self) -> Option<u64> {
        let (_, crowd) = self.strangers.largest()?;
        crowd.first().copied()
    }

    /// Who of the known has to go for one more from `origin`.
    fn gives_way_to(&self, origin: Origin) -> Option<u64> {
        let (largest, crowd) = self.known.largest()?;
        // In the largest crowd, if it is not that of the one who comes: each loses to its own.
        let own = self.known.by_origin.get(&origin);
        let outnumbered = crowd.len() > self.known.len_of(origin) + 1;
        let crowd = match own {
            Some(own) if !outnumbered => own,
            _ => crowd,
        };
        let client = |number: &u64| self.clients.get(number).map(|(_, client)| client);
        let idle = crowd
            .iter()
            .find(|number| client(number).is_some_and(|client| client.is_idle()));
        let silent = || {
            let behind = |number: &&u64| client(number).and_then(|client| client.silence());
            crowd
                .iter()
                .filter(|number| behind(number).is_some())
                .max_by_key(behind)
        };
        let oldest = || crowd.first().filter(|_| largest != origin && outnumbered);
        idle.or_else(silent).or_else(oldest).copied()
    }
}

/// Told of each connection that is closed although its client had not ended it.
pub(crate) type Told = Box<dyn Fn(Why, IpAddr) + Send + Sync>;

/// How many there may be, and what is asked of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) strangers_max: usize,
    pub(crate) known_max: usize,
    pub(crate) pace: Pace,
}

/// One listener's limits.
pub(crate) struct Door {
    places: Places,
    state: Mutex<State>,
    told: Told,
}

impl Door {
    pub(crate) fn new(places: Places, told: Told) -> Arc<Self> {
        Arc::new(Self {
            places,
            state: Mutex::default(),
            told,
        })
    }

    /// A client has come. Another one may have to go for it.
    pub(crate) fn enter(self: &Arc<Self>, address: SocketAddr) -> Arc<Guest> {
        let origin = Origin::of(address);
        let client = Arc::new(Client {
            address,
            progress: Arc::new(Progress::new(self.places.pace)),
            memory: Arc::default(),
            requests: AtomicUsize::new(0),
            leaves: Notify::new(),
            is_leaving: AtomicBool::new(false),
        });
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.clients.insert(number, (origin, Arc::clone(&client)));
        state.strangers.add(origin, number);
        let mut gone = None;
        if state.strangers.len > self.places.strangers_max.max(1) {
            let oldest = state.oldest_stranger();
            gone = oldest.and_then(|oldest| state.turn_out(oldest));
        }
        drop(state);
        self.tell(Why::Crowded, gone);
        Arc::new(Guest {
            door: Arc::clone(self),
            origin,
            number,
            client,
        })
    }

    /// The process has no descriptors left: the one goes that would be missed least.
    pub(crate) fn make_room(&self) {
        let mut state = self.state.lock();
        let first = state.oldest_stranger().or_else(|| {
            let (origin, _) = state.known.largest()?;
            state.gives_way_to(origin)
        });
        let gone = first.and_then(|number| state.turn_out(number));
        drop(state);
        self.tell(Why::Crowded, gone);
    }

    /// Closes up to `count` of those that hold memory and are behind, the furthest first.
    pub(crate) fn free_memory(&self, count: usize) {
        let mut state = self.state.lock();
        let mut silent: Vec<_> = state
            .clients
            .iter()
            .filter(|(_, (_, client))| client.memory.held() > 0)
            .filter_map(|(number, (_, client))| Some((client.silence()?, *number)))
            .collect();
        silent.sort_unstable_by(|a, b| b.cmp(a));
        silent.truncate(count);
        let gone: Vec<_> = silent
            .into_iter()
            .filter_map(|(_, number)| state.turn_out(number))
            .collect();
        drop(state);
        for client in gone {
            self.tell(Why::Memory, Some(client));
        }
    }

    /// How many clients are connected.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.state.lock().clients.len()
    }

    fn tell(&self, why: Why, gone: Option<Arc<Client>>) {
        if let Some(client) = gone {
            (self.told)(why, client.address.ip());
        }
    }
}

/// A client that is connected; it leaves when the last of these is dropped.
pub(crate) struct Guest {
    door: Arc<Door>,
    origin: Origin,
    number: u64,
    pub(crate) client: Arc<Client>,
}

/// There is no place for one more that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoPlace;

impl Guest {
    /// Returns when this client has to make room for another one. Cancel-safe.
    pub(crate) fn turned_out(&self) -> impl Future<Output = ()> + Send + 'static {
        let client = Arc::clone(&self.client);
        async move { client.leaves.notified().await }
    }

    /// A signature of this client's was verified. Another one may have to go for it.
    pub(crate) fn is_known(&self) -> Result<(), NoPlace> {
        if self.client.is_leaving.load(Ordering::Relaxed) {
            return Err(NoPlace);
        }
        let door = &self.door;
        let mut state = door.state.lock();
        if !state.strangers.remove(self.origin, self.number) {
            // It is known already, or was turned out a moment ago.
            return match state.clients.contains_key(&self.number) {
                true => Ok(()),
                false => Err(NoPlace),
            };
        }
        let mut gone = None;
        if state.known.len >= door.places.known_max.max(1) {
            let first = state.gives_way_to(self.origin);
            gone = first.and_then(|first| state.turn_out(first));
            if gone.is_none() {
                state.strangers.add(self.origin, self.number);
                drop(state);
                (door.told)(Why::Full, self.client.address.ip());
                return Err(NoPlace);
            }
        }
        state.known.add(self.origin, self.number);
        drop(state);
        door.tell(Why::Unused, gone);
        Ok(())
    }

    /// This client kept the server waiting for too long.
    pub(crate) fn stalled(&self) {
        (self.door.told)(Why::Stalled, self.client.address.ip());
    }

    /// A request has come; it is answered when what is returned is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> Busy {
        self.client.progress.begin();
        self.client.requests.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.door.state.lock();
        if state.clients.remove(&self.number).is_some() {
            state.strangers.remove(self.origin, self.number);
            state.known.remove(self.origin, self.number);
        }
    }
}

/// A request that is being answered.
pub(crate) struct Busy(Arc<Guest>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.client.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn door(strangers_max: usize, known_max: usize) -> Arc<Door> {
        let pace = Pace {
            window: Duration::from_secs(30),
            bytes_per_second_min: 1000,
        };
        let places = Places {
            strangers_max,
            known_max,
            pace,
        };
        Door::new(places, Box::new(|_, _| {}))
    }

    fn enter(door: &Arc<Door>, address: &str) -> Arc<Guest> {
        door.enter(address.parse().unwrap())
    }

    fn is_out(guest: &Guest) -> bool {
        guest.client.is_leaving.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_flood_of_strangers_turns_out_its_own_and_nobody_who_is_known() {
        let door = door(3, 9);
        let known = enter(&door, "10.0.0.2:9");
        known.is_known().unwrap();
        let lone = enter(&door, "10.0.0.1:1");
        let flood: Vec<_> = (1..=20)
            .map(|port| enter(&door, &format!("10.0.0.2:{port}")))
            .collect();
        let out = flood.iter().filter(|guest| is_out(guest)).count();
        assert_eq!(out, 18);
        assert!(!is_out(&lone) && !is_out(&known));
        flood[0].turned_out().await;
        assert_eq!(flood[0].is_known(), Err(NoPlace));
    }

    #[tokio::test]
    async fn the_idle_give_way_to_who_has_something_to_ask() {
        let door = door(9, 2);
        let (busy, idle) = (enter(&door, "10.0.0.1:1"), enter(&door, "10.0.0.1:2"));
        busy.is_known().unwrap();
        idle.is_known().unwrap();
        let _request = busy.request();
        let new = enter(&door, "10.0.0.1:3");
        let another = new.request();
        new.is_known().unwrap();
        assert!(is_out(&idle) && !is_out(&busy) && !is_out(&new));
        // Now both are at work, and come from the same place: the third has to wait.
        let third = enter(&door, "10.0.0.1:4");
        let _third = third.request();
        assert_eq!(third.is_known(), Err(NoPlace));
        drop((new, another));
        third.is_known().unwrap();
    }

    #[tokio::test]
    async fn who_holds_most_places_gives_one_to_who_has_none() {
        let door = door(9, 3);
        let hog: Vec<_> = (1..=3)
            .map(|port| enter(&door, &format!("10.0.0.1:{port}")))
            .collect();
        let _requests: Vec<_> = hog.iter().map(Guest::request).collect();
        hog.iter().for_each(|guest| guest.is_known().unwrap());
        let (other, fourth) = (enter(&door, "10.0.0.2:1"), enter(&door, "10.0.0.1:4"));
        let _busy = (other.request(), fourth.request());
        assert_eq!(fourth.is_known(), Err(NoPlace));
        other.is_known().unwrap();
        assert!(is_out(&hog[0]) && !is_out(&hog[1]) && !is_out(&hog[2]));
    }

    #[tokio::test]
    async fn everything_is_given_back() {
        let door = door(3, 3);
        let guest = enter(&door, "[2001:db8::1]:1");
        let request = guest.request();
        guest.is_known().unwrap();
        guest.is_known().unwrap();
        drop((guest, request));
        let state = door.state.lock();
        assert!(state.clients.is_empty());
        assert_eq!((state.known.len, state.strangers.len), (0, 0));
        assert!(state.known.by_origin.is_empty() && state.strangers.by_origin.is_empty());
    }

    #[test]
    fn a_network_of_64_bits_is_one_origin_and_a_mapped_address_is_its_v4() {
        let of = |address: &str| Origin::of(address.parse().unwrap());
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:1]:2"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:10.0.0.1]:1"), of("10.0.0.1:2"));
    }
}
