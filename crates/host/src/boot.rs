//! Which boot of the machine this is: whether the page cache that a process left behind can still be there.

use std::{fmt, fs, io};

/// Where Linux says it, as a UUID drawn anew at each boot (`random(4)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A boot of a machine. Two that are equal are the same one: what a process wrote and did not sync before it was
/// killed is still there for the next.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId([u8; 16]);

impl BootId {
    /// The boot that this process runs in.
    ///
    /// # Errors
    /// If the kernel does not say; then nothing is known of what an earlier process left.
    pub fn current() -> io::Result<Self> {
        Self::parse(&fs::read_to_string(BOOT_ID)?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the boot id is no UUID"))
    }

    /// The boot with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text
            .trim_end()
            .bytes()
            .filter(|byte| *byte != b'-')
            .map(|byte| u8::try_from(char::from(byte).to_digit(16)?).ok())
            .collect::<Option<_>>()?;
        let mut bytes = [0; 16];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::entropy::uuid_text(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_the_same_as_long_as_the_machine_runs() {
        assert_eq!(BootId::current().unwrap(), BootId::current().unwrap());
    }

    #[test]
    fn what_the_kernel_says_is_read_and_nothing_else() {
        let text = "01234567-89ab-cdef-0011-223344556677\n";
        let boot = BootId::parse(text).unwrap();
        assert_eq!(boot.as_bytes()[..4], [0x01, 0x23, 0x45, 0x67]);
        assert_eq!(format!("{boot:?}\n"), text);
        for wrong in ["", "0123", "g1234567-89ab-cdef-0011-223344556677"] {
            assert_eq!(BootId::parse(wrong), None, "{wrong}");
        }
    }
}
