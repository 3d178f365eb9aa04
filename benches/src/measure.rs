//! Timing several things so that their ratios mean something.
//!
//! The machine's clock and its neighbours drift by a third within minutes, so
//! nothing is timed on its own: in each round every case runs once, for a few
//! milliseconds, and a ratio is the median over rounds of the ratio within a
//! round. Time is the thread's own (CLOCK_THREAD_CPUTIME_ID): these cases never
//! wait, and what another process takes of the core is not theirs to answer for.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Something that can be timed: each call handles `bytes`.
pub struct Case {
    /// What runs.
    pub name: String,
    /// Bytes handled by one call.
    pub bytes: usize,
    /// One call.
    pub run: Box<dyn FnMut()>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Speeds of one case, round by round.
#[derive(Debug)]
pub struct Speeds {
    /// The case's name.
    pub name: String,
    /// Gigabytes (10^9) a second in each round.
    pub rounds: Vec<f64>,
}

impl Speeds {
    /// The middle of all rounds, in GB/s.
    pub fn median(&self) -> f64 {
        median(self.rounds.clone())
    }

    /// The middle of this case's speed over `other`'s, round by round.
    pub fn ratio(&self, other: &Self) -> f64 {
        median(
            self.rounds
                .iter()
                .zip(&other.rounds)
                .map(|(a, b)| a / b)
                .collect(),
        )
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs every case once a round, `slice` long each time.
pub fn interleaved(cases: &mut [Case], rounds: usize, slice: Duration) -> Vec<Speeds> {
    let mut speeds: Vec<Speeds> = cases
        .iter()
        .map(|case| Speeds {
            name: case.name.clone(),
            rounds: Vec::with_capacity(rounds),
        })
        .collect();
    let calls: Vec<u32> = cases.iter_mut().map(|case| calls_in(case, slice)).collect();
    for _ in 0..rounds {
        for ((case, speed), calls) in cases.iter_mut().zip(&mut speeds).zip(&calls) {
            let start = cpu_time();
            for _ in 0..*calls {
                (case.run)();
            }
            #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
            let bytes = case.bytes as f64 * f64::from(*calls);
            speed
                .rounds
                .push(bytes / cpu_time().saturating_sub(start).as_secs_f64() / 1e9);
        }
    }
    speeds
}

/// How many calls fill `slice`, after warming up for as long.
fn calls_in(case: &mut Case, slice: Duration) -> u32 {
    let start = cpu_time();
    let mut calls = 0;
    while cpu_time().saturating_sub(start) < slice {
        (case.run)();
        calls += 1;
    }
    calls
}

/// Time this thread has spent on a core.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).expect("CPU time is not negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_rounds_and_not_across_them() {
        let speeds = |rounds: &[f64]| Speeds {
            name: String::new(),
            rounds: rounds.to_vec(),
        };
        // The machine halves its clock in the middle; the ratio does not change.
        let ratio = speeds(&[4.0, 4.0, 2.0, 2.0, 2.0]).ratio(&speeds(&[2.0, 2.0, 1.0, 1.0, 1.0]));
        assert_eq!(ratio, 2.0);
    }
}
