//! Rounds of [`flush`](super::Engine::flush): one thread at a time runs one, and one serves all that wait.

use parking_lot::{Condvar, Mutex};

use crate::VolumeError;

/// Who runs a round, and how the last one ended.
pub(super) struct Rounds {
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    running: bool,
    /// Rounds begun. A request needs one that begins after it asked.
    begun: u64,
    ended: u64,
    outcome: Result<(), VolumeError>,
}

impl Rounds {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                running: false,
                begun: 0,
                ended: 0,
                outcome: Ok(()),
            }),
            ended: Condvar::new(),
        }
    }

    /// Runs `round`, or shares one that begins from now on.
    pub(super) fn run(
        &self,
        round: impl Fn() -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let mut state = self.state.lock();
        let needed = state.begun + 1;
        loop {
            if state.ended >= needed {
                return state.outcome.clone();
            }
            if state.running {
                self.ended.wait(&mut state);
                continue;
            }
            state.running = true;
            state.begun += 1;
            drop(state);
            let guard = EndOnUnwind(self);
            let outcome = round();
            #[expect(
                clippy::mem_forget,
                reason = "the round has not unwound; it holds no secret"
            )]
            std::mem::forget(guard);
            state = self.state.lock();
            state.end(outcome);
            self.ended.notify_all();
        }
    }
}

impl State {
    fn end(&mut self, outcome: Result<(), VolumeError>) {
        self.running = false;
        self.ended = self.begun;
        self.outcome = outcome;
    }
}

/// If a round panics, those who wait for it are not to wait for ever.
struct EndOnUnwind<'a>(&'a Rounds);

impl Drop for EndOnUnwind<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.end(Err(VolumeError::Failed("a flush panicked".into())));
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn waiting_flushes_share_one_round_that_begins_after_them() {
        let commit = Rounds::new();
        let rounds = AtomicU32::new(0);
        let hold = Mutex::new(());
        let held = hold.lock();
        let round = || {
            rounds.fetch_add(1, SeqCst);
            drop(hold.lock());
            Ok(())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| commit.run(round).unwrap());
            while rounds.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            // All of these ask while the first round runs, so it does not cover them.
            for _ in 0..8 {
                scope.spawn(|| commit.run(round).unwrap());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            drop(held);
        });
        let rounds = rounds.load(SeqCst);
        assert!((2..9).contains(&rounds), "{rounds}");
    }

    #[test]
    fn a_round_that_panics_fails_those_who_wait() {
        let commit = Rounds::new();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = commit.run(|| panic!("on purpose"));
        }));
        assert!(caught.is_err());
        assert!(!commit.state.lock().running);
        assert!(commit.run(|| Ok(())).is_ok());
    }
}
