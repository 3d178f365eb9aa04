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

use crate::CryptoError;
use crate::data_unit::{SectorIndex, SectorSize};
use crate::kernel::Kernel;
use crate::secret::SecretBytes;

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
