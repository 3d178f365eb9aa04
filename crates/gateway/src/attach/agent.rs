//! The agent of one device: replaces its connections when they die, and lets it fail where going on would be a lie.
//!
//! It knows the kernel and the server by traits, and time by a clock that is passed in. It is told what happens by
//! [`Agent::step`], and says when it wants to be called again at the latest.
//!
//! What it keeps to:
//! - **Only the same export in the same epoch takes over.** The kernel sends what was in flight once more, and nothing that
//!   was answered; where answers may have been lost the device is disconnected, so that its users get errors.
//! - It gives up for no other reason: the kernel's patience with a device without connections bounds the wait, not the agent.
//! - It never disconnects what is in use, but for the first reason.

use std::time::Duration;

use host::{Clock, Entropy};
use nbd::client::Offer;

use super::identity::{Compared, Identity};

/// How long after a failure the server is tried again: doubled from the first to the second, with jitter.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often it is looked whether the device is still there.
const TICK: Duration = Duration::from_secs(1);

/// What the agent asks of the kernel's NBD driver.
pub(crate) trait Kernel {
    /// A connection whose handshake is done.
    type Link;

    /// Hands a connection over to the device in the place of a dead one.
    fn hand_over(
        &self,
        device: u32,
        identity: &Identity,
        link: Self::Link,
    ) -> Result<Taken, Refused>;

    /// Disconnects the device unless somebody uses it.
    fn release(&self, device: u32) -> Result<(), Unreleased>;

    /// Disconnects the device, whoever uses it: from now on they get errors.
    fn fail(&self, device: u32) -> Result<(), Refused>;

    /// Whether the device is connected under this identity.
    fn is_connected(&self, device: u32, identity: &Identity) -> bool;
}

/// What the kernel did with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It replaced a dead one.
    Used,
    /// None was dead.
    Unneeded,
}

/// The kernel's refusal, in its words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

/// Why a device stays connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreleased {
    /// By whom, as far as that can be known.
    #[error("it is in use: {0}")]
    InUse(String),
    /// Something else went wrong.
    #[error("{0}")]
    Failed(String),
}

/// Where connections come from.
pub(crate) trait Server {
    /// A connection whose handshake is done.
    type Link;

    /// Makes a connection and attaches the export. Blocks, for seconds at most.
    fn dial(&self) -> anyhow::Result<(Self::Link, Offer)>;
}

/// What an agent is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing but time.
    Tick,
    /// A connection of that device has died.
    LinkDead(u32),
    /// Events were lost.
    Overrun,
    /// Detach the device if nobody uses it, and end.
    Stop,
    /// End, and leave the device as it is.
    Leave,
}

/// What an agent does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Waits for an event, so long at most.
    Wait(Duration),
    /// Ends.
    End(End),
}

/// How an agent ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The device is detached.
    Detached,
    /// Somebody else detached the device.
    Gone,
    /// The device is still attached, and another agent may take it over.
    Left(String),
    /// The device was made to fail.
    Lost(Loss),
}

/// Why a device was made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Loss {
    /// Another epoch.
    #[error("the server may have lost what it had acknowledged (another cache epoch)")]
    Epoch,
    /// Another size, other flags or another volume.
    #[error("the server offers another export by this name")]
    Export,
}

/// Keeps one device attached.
pub(crate) struct Agent<'a, K, S> {
    pub(crate) kernel: &'a K,
    pub(crate) server: &'a S,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) entropy: &'a dyn Entropy,
    device: u32,
    identity: Identity,
    size: u64,
    /// Connections that are dead, or may be.
    due: u32,
    /// When the server is tried again.
    try_at: Duration,
    /// How long to wait after the next failure; none since the last success.
    back_off: Option<Duration>,
}

impl<'a, L, K: Kernel<Link = L>, S: Server<Link = L>> Agent<'a, K, S> {
    /// The agent of a device whose connections are alive.
    pub(crate) fn new(
        (kernel, server): (&'a K, &'a S),
        (clock, entropy): (&'a dyn Clock, &'a dyn Entropy),
        device: u32,
        size: u64,
        identity: Identity,
    ) -> Self {
        Self {
            kernel,
            server,
            clock,
            entropy,
            device,
            identity,
            size,
            due: 0,
            try_at: Duration::ZERO,
            back_off: None,
        }
    }

    /// Takes any of the connections for dead: the kernel is offered one for each, and takes those that it needs. For a
    /// device whose last agent has died.
    pub(crate) fn doubting(mut self) -> Self {
        self.due = self.identity.links();
        self
    }

    /// Takes in an event and does what is due. Blocks while the server is tried.
    pub(crate) fn step(&mut self, event: Event) -> Next {
        match event {
            Event::Tick => {}
            Event::LinkDead(device) if device == self.device => {
                tracing::info!(device = self.device, "a connection has died");
                self.due = self.identity.links().min(self.due + 1);
            }
            Event::LinkDead(_) => {}
            Event::Overrun => self.due = self.identity.links(),
            Event::Leave => return Next::End(End::Left("it was asked to leave it".into())),
            // Releasing syncs the device, which would wait for a server that only this agent can find.
            Event::Stop if self.due > 0 => {
                return Next::End(End::Left("its server is away".into()));
            }
            Event::Stop => {
                return Next::End(match self.kernel.release(self.device) {
                    Ok(()) => End::Detached,
                    Err(error) => End::Left(error.to_string()),
                });
            }
        }
        while self.due > 0 && self.clock.elapsed() >= self.try_at {
            match self.replace() {
                Ok(()) => self.back_off = None,
                Err(Trouble::Later(error)) => self.wait(&error),
                Err(Trouble::Fatal(loss)) => return Next::End(self.lose(loss)),
            }
            if !self.kernel.is_connected(self.device, &self.identity) {
                return Next::End(End::Gone);
            }
        }
        if !self.kernel.is_connected(self.device, &self.identity) {
            return Next::End(End::Gone);
        }
        let wait = match self.due {
            0 => TICK,
            _ => self.try_at.saturating_sub(self.clock.elapsed()).min(TICK),
        };
        Next::Wait(wait)
    }

    /// Replaces one dead connection, or finds that none is dead.
    fn replace(&mut self) -> Result<(), Trouble> {
        let (link, offer) = self
            .server
            .dial()
            .map_err(|error| Trouble::Later(format!("{error:#}")))?;
        match self.identity.compare(self.size, &offer) {
            Compared::Same => {}
            Compared::OtherEpoch => return Err(Trouble::Fatal(Loss::Epoch)),
            Compared::OtherExport => return Err(Trouble::Fatal(Loss::Export)),
        }
        match self.kernel.hand_over(self.device, &self.identity, link) {
            Ok(Taken::Used) => {
                self.due -= 1;
                tracing::info!(device = self.device, due = self.due, "reconnected");
            }
            // A link that dies later is told later.
            Ok(Taken::Unneeded) => self.due = 0,
            Err(error) => return Err(Trouble::Later(error.to_string())),
        }
        Ok(())
    }

    fn wait(&mut self, error: &str) {
        let (first, longest) = BACK_OFF;
        match self.back_off {
            None => tracing::warn!(device = self.device, error, "cannot reconnect; trying on"),
            Some(_) => tracing::debug!(device = self.device, error, "cannot reconnect"),
        }
        let delay = self.back_off.unwrap_or(first);
        self.back_off = Some((delay * 2).min(longest));
        self.try_at = self.clock.elapsed() + self.entropy.jitter(delay);
    }

    fn lose(&self, loss: Loss) -> End {
        tracing::error!(device = self.device, volume = self.identity.volume(), epoch = self.identity.epoch(), error = %loss,
            "the device is made to fail");
        if let Err(error) = self.kernel.fail(self.device) {
            // It fails all the same, when the kernel's patience ends: nobody reconnects it.
            tracing::error!(device = self.device, %error, "the device could not be disconnected");
        }
        End::Lost(loss)
    }
}

/// Why a connection was not replaced.
enum Trouble {
    Later(String),
    Fatal(Loss),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::time::UNIX_EPOCH;

    use host::clock::ManualClock;
    use host::entropy::SeededEntropy;

    use super::super::identity::tests::{name, offer};
    use super::*;

    /// A kernel with one device and a server, as far as an agent sees them.
    #[derive(Default)]
    struct World {
        /// Connections of the device that live.
        alive: Cell<u32>,
        links: u32,
        gone: Cell<bool>,
        failed: Cell<bool>,
        held: Cell<bool>,
        /// What the server offers, if it is up.
        offers: RefCell<Option<Offer>>,
        dials: RefCell<Vec<Duration>>,
        clock: Option<ManualClock>,
    }

    struct Link;

    impl Kernel for World {
        type Link = Link;
        fn hand_over(&self, device: u32, identity: &Identity, _: Link) -> Result<Taken, Refused> {
            assert_eq!((device, identity), (3, &self.identity()));
            if self.gone.get() {
                return Err(Refused("not configured".into()));
            }
            if self.alive.get() == self.links {
                return Ok(Taken::Unneeded);
            }
            self.alive.set(self.alive.get() + 1);
            Ok(Taken::Used)
        }
        fn release(&self, _: u32) -> Result<(), Unreleased> {
            if self.held.get() {
                return Err(Unreleased::InUse("the mount at /mnt".into()));
            }
            self.gone.set(true);
            Ok(())
        }
        fn fail(&self, _: u32) -> Result<(), Refused> {
            self.failed.set(true);
            self.gone.set(true);
            Ok(())
        }
        fn is_connected(&self, _: u32, _: &Identity) -> bool {
            !self.gone.get()
        }
    }

    impl Server for World {
        type Link = Link;
        fn dial(&self) -> anyhow::Result<(Link, Offer)> {
            self.dials.borrow_mut().push(self.clock().elapsed());
            match &*self.offers.borrow() {
                Some(offer) => Ok((Link, offer.clone())),
                None => anyhow::bail!("connection refused"),
            }
        }
    }

    impl World {
        fn new(links: u32) -> Self {
            Self {
                alive: Cell::new(links),
                links,
                offers: RefCell::new(Some(offer('e'))),
                clock: Some(ManualClock::new(UNIX_EPOCH)),
                ..Self::default()
            }
        }
        fn clock(&self) -> &ManualClock {
            self.clock.as_ref().unwrap()
        }
        fn identity(&self) -> Identity {
            Identity::of(&offer('e'), &name(), self.links).unwrap()
        }
        fn agent<'a>(&'a self, entropy: &'a SeededEntropy) -> Agent<'a, Self, Self> {
            let (clock, size) = (self.clock(), offer('e').size);
            Agent::new((self, self), (clock, entropy), 3, size, self.identity())
        }
        /// The server dies, and all connections with it.
        fn kill(&self, agent: &mut Agent<'_, Self, Self>) -> Next {
            *self.offers.borrow_mut() = None;
            self.alive.set(0);
            let mut next = Next::Wait(Duration::ZERO);
            for _ in 0..self.links {
                next = agent.step(Event::LinkDead(3));
            }
            next
        }
        /// Lets time pass until the agent ends or has waited for that long.
        fn run(&self, agent: &mut Agent<'_, Self, Self>, time: Duration) -> Next {
            let until = self.clock().elapsed() + time;
            loop {
                match agent.step(Event::Tick) {
                    Next::Wait(wait) if self.clock().elapsed() < until => {
                        self.clock().advance(wait.max(Duration::from_millis(1)));
                    }
                    next => return next,
                }
            }
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn every_dead_connection_is_replaced_and_none_besides() {
        for links in [1, 4] {
            let (world, entropy) = (World::new(links), SeededEntropy::new(1));
            let mut agent = world.agent(&entropy);
            assert_eq!(agent.step(Event::Tick), Next::Wait(TICK));
            assert!(world.dials.borrow().is_empty());
            world.alive.set(links - 1);
            agent.step(Event::LinkDead(8));
            assert_eq!(world.alive.get(), links - 1, "another device's");
            agent.step(Event::LinkDead(3));
            assert_eq!((world.alive.get(), world.dials.borrow().len()), (links, 1));
            assert_eq!(agent.step(Event::Tick), Next::Wait(TICK));
        }
    }

    #[test]
    fn a_server_that_is_away_is_tried_ever_more_seldom_until_it_is_back() {
        let (world, entropy) = (World::new(4), SeededEntropy::new(7));
        let mut agent = world.agent(&entropy);
        world.kill(&mut agent);
        world.run(&mut agent, MINUTE);
        let dials = world.dials.borrow().clone();
        let gap = |two: &[Duration]| two[1].checked_sub(two[0]).unwrap();
        let gaps: Vec<Duration> = dials.windows(2).map(gap).collect();
        assert!(gaps[0] <= BACK_OFF.0 * 3 / 2, "{gaps:?}");
        for gap in &gaps[8..] {
            assert!(*gap >= BACK_OFF.1 / 2 && *gap <= BACK_OFF.1 * 2, "{gaps:?}");
        }
        let jitter = gaps[8..].windows(2).any(|two| two[0] != two[1]);
        assert!(jitter, "{gaps:?}");

        *world.offers.borrow_mut() = Some(offer('e'));
        world.run(&mut agent, BACK_OFF.1 * 2);
        assert_eq!(world.alive.get(), 4);
        // The next outage begins with short waits again.
        world.dials.borrow_mut().clear();
        world.kill(&mut agent);
        world.run(&mut agent, MINUTE / 10);
        let dials = world.dials.borrow();
        assert!(gap(&dials[..2]) <= BACK_OFF.0 * 3 / 2, "{dials:?}");
    }

    #[test]
    fn a_new_epoch_makes_the_device_fail_and_no_connection_is_handed_over() {
        let (world, entropy) = (World::new(2), SeededEntropy::new(1));
        let mut agent = world.agent(&entropy);
        world.kill(&mut agent);
        *world.offers.borrow_mut() = Some(offer('f'));
        let next = world.run(&mut agent, MINUTE);
        assert_eq!(next, Next::End(End::Lost(Loss::Epoch)));
        assert!(world.failed.get());
        assert_eq!(world.alive.get(), 0);
    }

    #[test]
    fn another_export_makes_the_device_fail() {
        let (world, entropy) = (World::new(1), SeededEntropy::new(1));
        let mut agent = world.agent(&entropy);
        world.kill(&mut agent);
        *world.offers.borrow_mut() = Some(Offer {
            size: 4 << 20,
            ..offer('e')
        });
        let next = world.run(&mut agent, MINUTE);
        assert_eq!(next, Next::End(End::Lost(Loss::Export)));
        assert!(world.failed.get());
    }

    #[test]
    fn an_agent_that_takes_over_offers_each_connection_and_the_kernel_takes_the_dead() {
        for dead in 0..=4 {
            let (world, entropy) = (World::new(4), SeededEntropy::new(1));
            world.alive.set(4 - dead);
            let mut agent = world.agent(&entropy).doubting();
            assert_eq!(agent.step(Event::Tick), Next::Wait(TICK));
            assert_eq!(world.alive.get(), 4, "{dead} dead");
            assert!(world.dials.borrow().len() <= 4);
        }
    }

    #[test]
    fn an_agent_that_takes_over_after_a_lost_cache_makes_the_device_fail() {
        let (world, entropy) = (World::new(2), SeededEntropy::new(1));
        world.alive.set(0);
        *world.offers.borrow_mut() = Some(offer('f'));
        let mut agent = world.agent(&entropy).doubting();
        let next = agent.step(Event::Tick);
        assert_eq!(next, Next::End(End::Lost(Loss::Epoch)));
        assert!(world.failed.get());
    }

    #[test]
    fn lost_events_are_taken_for_the_death_of_every_connection() {
        let (world, entropy) = (World::new(4), SeededEntropy::new(1));
        let mut agent = world.agent(&entropy);
        world.alive.set(1);
        agent.step(Event::Overrun);
        assert_eq!(world.alive.get(), 4);
    }

    #[test]
    fn a_device_that_is_in_use_stays_attached_when_its_agent_is_stopped() {
        let (world, entropy) = (World::new(1), SeededEntropy::new(1));
        world.held.set(true);
        let next = world.agent(&entropy).step(Event::Stop);
        let Next::End(End::Left(why)) = next else {
            panic!("{next:?}")
        };
        assert!(why.contains("/mnt"), "{why}");
        assert!(!world.gone.get());
        world.held.set(false);
        let next = world.agent(&entropy).step(Event::Leave);
        assert!(matches!(next, Next::End(End::Left(_))));
        assert!(!world.gone.get());
        let next = world.agent(&entropy).step(Event::Stop);
        assert_eq!(next, Next::End(End::Detached));
        assert!(world.gone.get());
    }

    #[test]
    fn an_agent_that_is_stopped_while_its_server_is_away_leaves_the_device() {
        let (world, entropy) = (World::new(1), SeededEntropy::new(1));
        let mut agent = world.agent(&entropy);
        world.kill(&mut agent);
        let next = agent.step(Event::Stop);
        assert_eq!(next, Next::End(End::Left("its server is away".into())));
        assert!(!world.gone.get());
    }

    #[test]
    fn an_agent_ends_when_somebody_else_detaches_the_device() {
        let (world, entropy) = (World::new(1), SeededEntropy::new(1));
        let mut agent = world.agent(&entropy);
        world.gone.set(true);
        assert_eq!(agent.step(Event::Tick), Next::End(End::Gone));
        // Even while the server is away, and in the middle of a reconnection.
        let world = World::new(1);
        let mut agent = world.agent(&entropy);
        world.kill(&mut agent);
        world.gone.set(true);
        assert_eq!(world.run(&mut agent, MINUTE), Next::End(End::Gone));
        let world = World::new(1);
        let mut agent = world.agent(&entropy);
        world.gone.set(true);
        assert_eq!(agent.step(Event::LinkDead(3)), Next::End(End::Gone));
    }
}
