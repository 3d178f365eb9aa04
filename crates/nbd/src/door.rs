//! Who is let in at one listener: limits under which a crowd of strangers shuts nobody out.
//!
//! A client that has said nothing yet costs little but counts: it waits in the handshake. When more wait than may, the one
//! to go is the oldest of those that come from where most come from, so a flood turns out its own. Connections that
//! have an export are counted apart, and no crowd in the handshake takes a place of theirs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::Peer;

/// Where clients come from that are treated as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    User(u32),
    Address(IpAddr),
}

impl Origin {
    fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Unix { uid, .. } => Self::User(*uid),
            Peer::Tcp { addr } | Peer::Tls { addr, .. } => Self::Address(match addr.ip() {
                // Whoever has one address of these has all of its 2^64 neighbours (RFC 4291, 2.5.4).
                IpAddr::V6(ip) if ip.to_ipv4_mapped().is_none() => {
                    IpAddr::V6((ip.to_bits() >> 64 << 64).into())
                }
                ip => ip.to_canonical(),
            }),
        }
    }
}

/// A listener's limits.
pub(crate) struct Door {
    waiting_max: usize,
    waiting: Mutex<Waiting>,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, (Origin, Arc<Notify>)>,
    by_origin: HashMap<Origin, BTreeSet<u64>>,
}

impl Waiting {
    fn add(&mut self, origin: Origin, turned_out: Arc<Notify>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_age.insert(number, (origin, turned_out));
        self.by_origin.entry(origin).or_default().insert(number);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Notify>> {
        let (origin, turned_out) = self.by_age.remove(&number)?;
        if let Some(numbers) = self.by_origin.get_mut(&origin) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_origin.remove(&origin);
            }
        }
        Some(turned_out)
    }

    /// Turns out the oldest of the largest crowd; of crowds of one size, the one that has waited longest.
    fn turn_one_out(&mut self) {
        let oldest = self
            .by_origin
            .values()
            .max_by_key(|numbers| (numbers.len(), std::cmp::Reverse(numbers.first().copied())))
            .and_then(|numbers| numbers.first().copied());
        if let Some(turned_out) = oldest.and_then(|number| self.remove(number)) {
            turned_out.notify_one();
        }
    }
}

impl Door {
    /// `waiting_max` clients in the handshake, `places` beyond it.
    pub(crate) fn new(waiting_max: usize, places: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting_max: waiting_max.max(1),
            waiting: Mutex::default(),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Never left half changed by anything that can panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client has come. Another one may have to go for it.
    pub(crate) fn enter(self: &Arc<Self>, peer: &Peer) -> Guest {
        let mut guest = Guest {
            door: Arc::clone(self),
            origin: Origin::of(peer),
            turned_out: Arc::default(),
            number: 0,
        };
        guest.wait();
        guest
    }
}

/// A client in the handshake; it leaves when this is dropped.
pub(crate) struct Guest {
    door: Arc<Door>,
    origin: Origin,
    turned_out: Arc<Notify>,
    number: u64,
}

impl Guest {
    fn wait(&mut self) {
        let mut waiting = self.door.waiting();
        self.number = waiting.add(self.origin, Arc::clone(&self.turned_out));
        if waiting.by_age.len() > self.door.waiting_max {
            waiting.turn_one_out();
        }
    }

    /// Returns when this client has to make room for another one. Cancel-safe.
    pub(crate) fn turned_out(&self) -> impl Future<Output = ()> + Send + 'static {
        let turned_out = Arc::clone(&self.turned_out);
        async move { turned_out.notified().await }
    }

    /// Gives the client a place beyond the handshake, if there is one; from then on it is not turned out.
    pub(crate) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.door.places).try_acquire_owned().ok()?;
        // Turned out a moment ago: it is being closed, and attaches nothing.
        self.door.waiting().remove(self.number).map(|_| place)
    }

    /// The client had a place and lost it: it waits again, as the youngest.
    pub(crate) fn wait_again(&mut self) {
        self.wait();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.waiting().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(addr: &str) -> Peer {
        Peer::Tcp {
            addr: addr.parse().unwrap(),
        }
    }

    fn is_out(guest: &Guest) -> bool {
        use std::task::{Context, Poll, Waker};
        let mut turned_out = std::pin::pin!(guest.turned_out());
        let mut context = Context::from_waker(Waker::noop());
        turned_out.as_mut().poll(&mut context) == Poll::Ready(())
    }

    #[test]
    fn a_flood_turns_out_its_own() {
        let door = Door::new(3, 9);
        let lone = door.enter(&tcp("10.0.0.1:1"));
        let first = door.enter(&tcp("10.0.0.2:1"));
        let second = door.enter(&tcp("10.0.0.2:2"));
        let third = door.enter(&tcp("10.0.0.2:3"));
        assert!(is_out(&first));
        assert!(!is_out(&lone) && !is_out(&second) && !is_out(&third));
    }

    #[test]
    fn of_many_single_clients_the_oldest_goes() {
        let door = Door::new(2, 9);
        let guests: Vec<_> = (1..=3)
            .map(|i| door.enter(&tcp(&format!("10.0.0.{i}:1"))))
            .collect();
        assert!(is_out(&guests[0]));
        assert!(!is_out(&guests[1]) && !is_out(&guests[2]));
    }

    #[test]
    fn a_network_of_64_bits_is_one_origin_and_a_mapped_address_is_its_v4() {
        let of = |addr: &str| Origin::of(&tcp(addr));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:1]:2"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:10.0.0.1]:1"), of("10.0.0.1:2"));
    }

    #[test]
    fn who_has_a_place_is_not_turned_out_and_who_loses_it_waits_again() {
        let door = Door::new(1, 1);
        let mut first = door.enter(&tcp("10.0.0.1:1"));
        let place = first.admit().unwrap();
        let second = door.enter(&tcp("10.0.0.1:2"));
        assert!(!is_out(&first) && !is_out(&second));
        assert!(second.admit().is_none(), "there is one place");
        drop(place);
        first.wait_again();
        assert!(is_out(&second) && !is_out(&first));
        drop(first);
        assert!(door.waiting().by_age.is_empty() && door.waiting().by_origin.is_empty());
    }
}
