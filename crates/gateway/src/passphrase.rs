//! Reads a passphrase: from the terminal without echo, or from a file descriptor. Never from an argument or the
//! environment, which other processes can read.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};

use anyhow::{Context, bail, ensure};
use keyring::SecretVec;
use root::PassphraseProvider;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::config::PassphraseFrom;

const LEN_MAX: usize = PassphraseProvider::LEN_MAX;

/// Reads a passphrase; `new` asks on a terminal twice, since a mistyped one would lock the store. Blocks.
pub(crate) fn read(from: PassphraseFrom, new: bool) -> anyhow::Result<SecretVec> {
    match from {
        PassphraseFrom::Fd(number) => read_fd(number),
        PassphraseFrom::Prompt if new => {
            let first = prompt("New passphrase: ")?;
            let second = prompt("The same again: ")?;
            ensure!(same(&first, &second), "the two passphrases differ");
            Ok(first)
        }
        PassphraseFrom::Prompt => prompt("Passphrase: "),
    }
}

fn same(a: &SecretVec, b: &SecretVec) -> bool {
    a.len() == b.len()
        && aws_lc_rs::constant_time::verify_slices_are_equal(a.expose(), b.expose()).is_ok()
}

/// All of the descriptor's bytes, without one newline at their end.
fn read_fd(number: u32) -> anyhow::Result<SecretVec> {
    // Opened anew by its name: a number alone cannot be made into a file without unsafe code.
    let path = format!("/proc/self/fd/{number}");
    let mut file =
        File::open(&path).with_context(|| format!("cannot read file descriptor {number}"))?;
    let mut len = 0;
    let mut failed = None;
    let buffer = SecretVec::init_with(LEN_MAX + 2, |buffer| {
        while len < buffer.len() {
            match file.read(&mut buffer[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
    });
    if let Some(error) = failed {
        return Err(error).with_context(|| format!("cannot read file descriptor {number}"));
    }
    let bytes = &buffer.expose()[..len];
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    ensure!(
        !bytes.is_empty(),
        "file descriptor {number} holds no passphrase"
    );
    ensure!(
        bytes.len() <= LEN_MAX,
        "the passphrase is longer than {LEN_MAX} bytes"
    );
    Ok(SecretVec::from_slice(bytes))
}

/// The terminal's settings, put back on drop.
struct Silent<'a> {
    tty: &'a File,
    before: Termios,
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.tty, OptionalActions::Flush, &self.before);
        let mut tty = self.tty;
        let _ = tty.write_all(b"\r\n");
    }
}

fn prompt(text: &str) -> anyhow::Result<SecretVec> {
    let tty = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let tty = tty.context("no terminal to ask for the passphrase on (root_key.passphrase = \"fd:N\" reads a file descriptor)")?;
    let mut out = &tty;
    out.write_all(text.as_bytes())?;
    let before = tcgetattr(&tty)?;
    let mut silent = before.clone();
    // Byte by byte, and Ctrl-C as a byte: the process must not die with the echo off.
    silent
        .local_modes
        .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(&tty, OptionalActions::Flush, &silent)?;
    let _silent = Silent { tty: &tty, before };
    let mut line = Line::default();
    let mut ended = Ok(());
    let buffer = SecretVec::init_with(LEN_MAX, |buffer| {
        let mut byte = [0];
        let mut input = &tty;
        ended = loop {
            match input.read(&mut byte) {
                Ok(0) => break Err("the terminal is gone"),
                Ok(_) => {
                    if let Some(end) = line.take(byte[0], buffer) {
                        break end;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break Err("the terminal cannot be read"),
            }
        };
        crypto::secret::wipe(&mut byte);
    });
    match ended {
        Ok(()) => Ok(SecretVec::from_slice(&buffer.expose()[..line.len])),
        Err(why) => bail!("{why}"),
    }
}

/// A line that is being typed.
#[derive(Default)]
struct Line {
    len: usize,
}

impl Line {
    /// Takes a byte typed; `Some` at the end of the line.
    fn take(&mut self, byte: u8, buffer: &mut [u8]) -> Option<Result<(), &'static str>> {
        match byte {
            b'\n' | b'\r' => return Some(Ok(())),
            // Ctrl-C, Ctrl-D.
            3 | 4 => return Some(Err("interrupted")),
            // Backspace takes a whole character of UTF-8.
            8 | 127 => {
                while self.len > 0 {
                    self.len -= 1;
                    if buffer[self.len] & 0xc0 != 0x80 {
                        break;
                    }
                }
            }
            byte => match buffer.get_mut(self.len) {
                Some(place) => {
                    *place = byte;
                    self.len += 1;
                }
                None => return Some(Err("the passphrase is too long")),
            },
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn typed(bytes: &[u8]) -> (Option<Result<(), &'static str>>, Vec<u8>) {
        let (mut line, mut buffer) = (Line::default(), [0; 8]);
        let end = bytes.iter().find_map(|byte| line.take(*byte, &mut buffer));
        (end, buffer[..line.len].to_vec())
    }

    #[test]
    fn a_line_is_typed_corrected_and_ended() {
        assert_eq!(typed(b"abc\n"), (Some(Ok(())), b"abc".to_vec()));
        let corrected = typed("a\u{e4}\u{7f}b\u{7f}\u{7f}\u{7f}c\r".as_bytes());
        assert_eq!(corrected, (Some(Ok(())), b"c".to_vec()));
        assert_eq!(typed(b"ab\x03").0, Some(Err("interrupted")));
        assert!(typed(b"123456789").0.unwrap().is_err());
        assert_eq!(typed(b"abc").0, None);
    }

    #[test]
    fn a_file_descriptor_is_read_to_its_end_without_its_last_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        let read = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            let file = File::open(&path).unwrap();
            let number = u32::try_from(file.as_raw_fd()).unwrap();
            read(PassphraseFrom::Fd(number), true)
        };
        assert_eq!(read(b"two words\n").unwrap().expose(), b"two words");
        assert_eq!(read(b" a\n\n").unwrap().expose(), b" a\n");
        assert_eq!(read(&[b'x'; LEN_MAX]).unwrap().len(), LEN_MAX);
        assert!(read(&[b'x'; LEN_MAX + 1]).is_err());
        assert!(read(b"\n").is_err() && read(b"").is_err());
    }
}
