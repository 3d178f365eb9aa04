//! Rounds of [`flush`](super::Engine::flush): one thread at a time runs one, and one serves all that wait.

use parking_lot::{Condvar, Mutex};

use crate::VolumeError;

/// The log is written anew when it is longer than this and three times what the last new one was. Tests make it short, so
/// that they see that often.
const LOG_LEN_MIN: u64 = if cfg!(test) { 32 << 10 } else { 8 << 20 };

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
    /// When the log is to be written anew.
    checkpoint_at: u64,
}

impl Rounds {
    /// For a log of that length, of which a part is the checkpoint that it began with.
    pub(super) fn new(checkpoint_len: u64) -> Self {
        Self {
            state: Mutex::new(State {
                running: false,
                begun: 0,
                ended: 0,
                outcome: Ok(()),
                checkpoint_at: checkpoint_at(checkpoint_len),
            }),
            ended: Condvar::new(),
        }
    }

    /// Whether a log of that length is to be written anew.
    pub(super) fn wants_checkpoint(&self, log_len: u64) -> bool {
        log_len > self.state.lock().checkpoint_at
    }

    /// The log is not to be written anew before it is longer than this.
    pub(super) fn checkpoint_past(&self, log_len: u64) {
        self.state.lock().checkpoint_at = log_len;
    }

    /// The log was written anew, and is now of that length.
    pub(super) fn checkpointed(&self, checkpoint_len: u64) {
        self.checkpoint_past(checkpoint_at(checkpoint_len));
    }

    /// Runs `round`, or shares one that begins from now on. With `own`, runs one in any case.
    pub(super) fn run(
        &self,
        own: bool,
        mut round: impl FnMut() -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let mut state = self.state.lock();
        let needed = state.begun + 1;
        let mut ran = !own;
        loop {
            if ran && state.ended >= needed {
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
            ran = true;
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

fn checkpoint_at(checkpoint_len: u64) -> u64 {
    LOG_LEN_MIN.max(checkpoint_len.saturating_mul(3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn waiting_flushes_share_one_round_that_begins_after_them() {
        let commit = Rounds::new(0);
        let rounds = AtomicU32::new(0);
        let hold = Mutex::new(());
        let held = hold.lock();
        let round = || {
            rounds.fetch_add(1, SeqCst);
            drop(hold.lock());
            Ok(())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| commit.run(false, round).unwrap());
            while rounds.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            // All of these ask while the first round runs, so it does not cover them.
            for _ in 0..8 {
                scope.spawn(|| commit.run(false, round).unwrap());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            drop(held);
        });
        let rounds = rounds.load(SeqCst);
        assert!((2..9).contains(&rounds), "{rounds}");
    }

    #[test]
    fn a_round_that_panics_fails_those_who_wait() {
        let commit = Rounds::new(0);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = commit.run(false, || panic!("on purpose"));
        }));
        assert!(caught.is_err());
        assert!(!commit.state.lock().running);
        assert!(commit.run(false, || Ok(())).is_ok());
    }
}
