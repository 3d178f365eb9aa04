//! AES-256-XTS (IEEE 1619-2018, SP 800-38E) over runs of whole sectors.
//!
//! One key, four kernels, the same bytes. The kernel is chosen once a process,
//! from what the processor can do; [`XtsKey::with_kernel`] pins one for tests
//! and benches.
//!
//! Promises: any number of whole sectors, in place, tweak = 128-bit little
//! endian sector index; a key with equal halves is refused; round keys are wiped
//! on drop. Does not: ciphertext stealing (no data unit of ours is broken),
//! authentication (XTS has none).
//!
//! Why each kernel is constant time stands at its head; `tests/constant_time` checks
//! it on the machine code of those this processor runs.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use crate::CryptoError;
use crate::secret::SecretBytes;
use crate::sector::{SectorIndex, SectorSize};

/// An implementation of the cipher.
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
        return x86::runs(self);
        #[cfg(not(target_arch = "x86_64"))]
        return false;
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

/// An expanded AES-256-XTS key, bound to a kernel.
pub struct XtsKey {
    kernel: Kernel,
    schedule: Schedule,
}

enum Schedule {
    #[cfg(target_arch = "x86_64")]
    X86(x86::Schedule),
    Portable(portable::Schedule),
}

impl XtsKey {
    /// Expands `key` (data key, then tweak key) for the fastest kernel.
    ///
    /// Fails with [`CryptoError::EqualKeyHalves`].
    pub fn new(key: &SecretBytes<64>) -> Result<Self, CryptoError> {
        Self::with_kernel(key, Kernel::detect())
    }

    /// Expands `key` for a kernel of the caller's choice; fails if the
    /// processor cannot run it.
    pub fn with_kernel(key: &SecretBytes<64>, kernel: Kernel) -> Result<Self, CryptoError> {
        use subtle::ConstantTimeEq;
        let (data, tweak) = key.expose().split_at(32);
        if bool::from(data.ct_eq(tweak)) {
            return Err(CryptoError::EqualKeyHalves);
        }
        if !kernel.is_available() {
            return Err(CryptoError::KernelUnavailable {
                kernel: kernel.name(),
            });
        }
        let schedule = match kernel {
            Kernel::Portable => Schedule::Portable(portable::Schedule::new(key)),
            #[cfg(target_arch = "x86_64")]
            kernel => Schedule::X86(x86::Schedule::new(key, kernel)),
            #[cfg(not(target_arch = "x86_64"))]
            _ => Schedule::Portable(portable::Schedule::new(key)),
        };
        Ok(Self { kernel, schedule })
    }

    /// The kernel that runs.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Encrypts whole sectors in place; the first has index `first`.
    ///
    /// # Panics
    /// If `buf` is not whole sectors: use [`crate::sector`], which checks.
    pub fn seal(&self, buf: &mut [u8], size: SectorSize, first: SectorIndex) {
        assert!(buf.len().is_multiple_of(size.bytes()), "whole sectors");
        match &self.schedule {
            #[cfg(target_arch = "x86_64")]
            Schedule::X86(schedule) => schedule.seal(buf, size.bytes(), first.get()),
            Schedule::Portable(schedule) => schedule.seal(buf, size.bytes(), first.get()),
        }
    }

    /// Decrypts whole sectors in place; the first has index `first`.
    ///
    /// # Panics
    /// If `buf` is not whole sectors: use [`crate::sector`], which checks.
    pub fn open(&self, buf: &mut [u8], size: SectorSize, first: SectorIndex) {
        assert!(buf.len().is_multiple_of(size.bytes()), "whole sectors");
        match &self.schedule {
            #[cfg(target_arch = "x86_64")]
            Schedule::X86(schedule) => schedule.open(buf, size.bytes(), first.get()),
            Schedule::Portable(schedule) => schedule.open(buf, size.bytes(), first.get()),
        }
    }
}

impl std::fmt::Debug for XtsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "XtsKey({}, redacted)", self.kernel)
    }
}
