//! Randomness, passed in: nothing in the workspace asks the system by itself.
//!
//! [`SystemRandom`] is the one for production. `SeededRandom` (feature
//! `test-util`) replays: equal seeds give equal bytes, so golden files and
//! failures can be reproduced.
#![expect(
    clippy::disallowed_methods,
    reason = "it wraps AWS-LC's generator for everyone else"
)]

/// A source of bytes nobody can predict.
pub trait Random: Send + Sync {
    /// Fills `out` whole. A source that cannot do so must panic: going on with
    /// predictable keys is worse than stopping.
    fn fill(&self, out: &mut [u8]);
}

/// AWS-LC's generator: CTR-DRBG per thread, seeded from the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) {
        aws_lc_rs::rand::fill(out).expect("the operating system gives random bytes");
    }
}

/// A generator whose output follows from its seed alone. For tests.
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug)]
pub struct SeededRandom {
    seed: u64,
    blocks: std::sync::atomic::AtomicU64,
}

#[cfg(any(test, feature = "test-util"))]
impl SeededRandom {
    /// A generator that starts at the beginning of `seed`'s stream.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            blocks: std::sync::atomic::AtomicU64::new(0),
        }
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) {
        use sha2::{Digest, Sha256};
        for part in out.chunks_mut(32) {
            let block = self
                .blocks
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut hash = Sha256::new();
            hash.update(self.seed.to_be_bytes());
            hash.update(block.to_be_bytes());
            part.copy_from_slice(&hash.finalize()[..part.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_replay_and_unequal_ones_do_not() {
        let draw = |seed| {
            let mut bytes = [0; 70];
            SeededRandom::new(seed).fill(&mut bytes);
            bytes
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn the_system_generator_does_not_repeat_itself() {
        let mut a = [0; 32];
        let mut b = [0; 32];
        SystemRandom.fill(&mut a);
        SystemRandom.fill(&mut b);
        assert_ne!(a, b);
    }
}
