//! Randomness that is no secret: ids, jitter, temporary names. Keys and nonces come from `crypto` alone.

use std::time::Duration;

/// A source of random bytes.
pub trait Entropy: Send + Sync {
    /// Fills `out` whole.
    fn fill(&self, out: &mut [u8]);

    /// A random number.
    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random (version 4) UUID, RFC 9562, section 5.4, as its 16 bytes.
    fn uuid(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        bytes
    }

    /// A duration between half of `around` and one and a half of it, so that many waiters do not wake together.
    fn jitter(&self, around: Duration) -> Duration {
        let permille = u32::try_from(500 + self.number() % 1001).unwrap_or(1000);
        around.saturating_mul(permille) / 1000
    }
}

/// The text form of a UUID: lower-case hexadecimal, hyphens after bytes 4, 6, 8 and 10.
pub fn uuid_text(bytes: &[u8; 16]) -> String {
    // Not through `write!`: each request's id is written here.
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    std::str::from_utf8(&text)
        .expect("digits and hyphens")
        .to_owned()
}

/// The operating system's generator (`getrandom(2)`).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, mut out: &mut [u8]) {
        while !out.is_empty() {
            match rustix::rand::getrandom(&mut *out, rustix::rand::GetRandomFlags::empty()) {
                Ok(filled) => out = &mut out[filled..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the operating system gives no random bytes: {error}"),
            }
        }
    }
}

/// Entropy that follows from a seed: SplitMix64. For tests.
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug)]
pub struct SeededEntropy(parking_lot::Mutex<u64>);

#[cfg(any(test, feature = "test-util"))]
impl SeededEntropy {
    /// A generator at the beginning of `seed`'s stream.
    pub fn new(seed: u64) -> Self {
        Self(parking_lot::Mutex::new(seed))
    }

    /// A number below `end`, which is not 0.
    pub fn below(&self, end: u64) -> u64 {
        self.number() % end
    }

    /// True once in `n` times, on average.
    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `from`, which is not empty.
    pub fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(from.len() as u64)).expect("it is below a usize");
        &from[at]
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Entropy for SeededEntropy {
    fn fill(&self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            let bytes = self.number().to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        }
    }

    fn number(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_its_version_and_is_written_as_one() {
        let text = uuid_text(&SeededEntropy::new(1).uuid());
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "4");
        assert!("89ab".contains(&text[19..20]), "{text}");
        assert_ne!(SystemEntropy.uuid(), SystemEntropy.uuid());
    }

    #[test]
    fn a_uuid_is_written_in_five_groups_of_lower_case_digits() {
        let bytes = 0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978_u128.to_be_bytes();
        let text = uuid_text(&bytes);
        assert_eq!(text, "01234567-89ab-cdef-0f1e-2d3c4b5a6978");
    }

    #[test]
    fn equal_seeds_replay_and_jitter_stays_within_a_half() {
        let (a, b) = (SeededEntropy::new(7), SeededEntropy::new(7));
        for _ in 0..1000 {
            let wait = a.jitter(Duration::from_secs(10));
            assert_eq!(wait, b.jitter(Duration::from_secs(10)));
            assert!((5..=15).contains(&wait.as_secs()), "{wait:?}");
        }
    }
}
