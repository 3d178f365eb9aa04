//! Which kernel runs: chosen once a process, from what the processor can do.

use std::sync::OnceLock;

/// An implementation of the compression function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// 16 lanes: AVX-512. Up to 8 streams run on AVX2, which takes a fifth less
    /// time for a block of each.
    Avx512,
    /// 8 lanes: AVX2.
    Avx2,
    /// One stream after the other: crate `md-5`.
    Scalar,
}

impl Kernel {
    /// Every kernel there is, fastest first.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Scalar];

    /// The fastest kernel this processor runs. Found once a process.
    pub fn detect() -> Self {
        static FASTEST: OnceLock<Kernel> = OnceLock::new();
        *FASTEST.get_or_init(|| {
            let runs = Self::ALL.into_iter().find(|kernel| kernel.is_available());
            runs.unwrap_or(Self::Scalar)
        })
    }

    /// Every kernel this processor runs, fastest first.
    pub fn available() -> Vec<Self> {
        let all = Self::ALL.into_iter();
        all.filter(|kernel| kernel.is_available()).collect()
    }

    /// Whether this processor runs it.
    pub fn is_available(self) -> bool {
        if self == Self::Scalar {
            return true;
        }
        #[cfg(target_arch = "x86_64")]
        return self.has_instructions();
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// Whether this processor, and the system under it, have the instructions of a kernel for x86-64; false for the
    /// scalar one, which is none.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn has_instructions(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2");
        match self {
            Self::Avx512 => avx2 && is_x86_feature_detected!("avx512f"),
            Self::Avx2 => avx2,
            Self::Scalar => false,
        }
    }

    /// How many streams advance together.
    pub const fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Avx2 => 8,
            Self::Scalar => 1,
        }
    }

    /// Name in tables and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Scalar => "scalar",
        }
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
