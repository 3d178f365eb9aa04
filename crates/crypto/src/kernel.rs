//! Which kernel runs: chosen once a process, from what the processor can do.

use std::sync::OnceLock;

/// Which instructions an implementation of a cipher uses.
///
/// All give the same bytes. A cipher that has none of its own for a kernel runs
/// the portable one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Eight 512-bit registers in flight: AVX-512 with VAES and VPCLMULQDQ.
    Vaes512,
    /// 256-bit registers: AVX2 with VAES and VPCLMULQDQ.
    Vaes256,
    /// 128-bit registers: AES-NI.
    AesNi,
    /// Crate `aes`, which finds AES instructions by itself where there are any.
    Portable,
}

impl Kernel {
    /// Every kernel there is, fastest first.
    pub const ALL: [Self; 4] = [Self::Vaes512, Self::Vaes256, Self::AesNi, Self::Portable];

    /// The fastest kernel this processor runs. Found once a process.
    pub fn detect() -> Self {
        static FASTEST: OnceLock<Kernel> = OnceLock::new();
        *FASTEST.get_or_init(|| {
            let runs = Self::ALL.into_iter().find(|kernel| kernel.is_available());
            runs.unwrap_or(Self::Portable)
        })
    }

    /// Every kernel this processor runs, fastest first.
    pub fn available() -> Vec<Self> {
        let all = Self::ALL.into_iter();
        all.filter(|kernel| kernel.is_available()).collect()
    }

    /// Whether this processor runs it.
    pub fn is_available(self) -> bool {
        if self == Self::Portable {
            return true;
        }
        #[cfg(target_arch = "x86_64")]
        return self.has_instructions();
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// Whether this processor, and the system under it, have the instructions of a kernel for x86-64; false for the
    /// portable one, which is none.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_instructions(self) -> bool {
        let aes = is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
        let vaes = is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq");
        match self {
            Self::Vaes512 => {
                aes && vaes
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
            }
            Self::Vaes256 => aes && vaes && is_x86_feature_detected!("avx2"),
            Self::AesNi => aes,
            Self::Portable => false,
        }
    }

    /// Name in tables and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vaes512 => "vaes512",
            Self::Vaes256 => "vaes256",
            Self::AesNi => "aesni",
            Self::Portable => "portable",
        }
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
