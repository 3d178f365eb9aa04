//! The lock on a folder: one process at a time has it.

use std::{io, path::Path, sync::Arc};

use crate::disk::{Disk, File, Mode};

/// The lock on a file, held until this value is dropped or the process ends, however it ends: the kernel gives it back
/// (`flock(2)`), so no stale lock is left to be judged at the next start. A process started from this one does not
/// inherit it.
///
/// The file stays behind and is never removed: whoever opened it before the removal would hold a lock that nobody who
/// comes later meets.
#[derive(Debug)]
pub struct Lock {
    _file: Arc<dyn File>,
}

impl Lock {
    /// Takes the lock on the file at `path`, which is made (mode 0600, empty) if it is not there and is not followed if
    /// it is a symbolic link. `WouldBlock` if another process, or another value of this type, has it. Does not wait.
    pub fn take(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let file = disk.open(path, Mode::Create)?;
        file.lock()?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use super::*;
    use crate::disk::{OsDisk, sim::SimDisk};

    fn is_held(disk: &dyn Disk, path: &Path) -> bool {
        match Lock::take(disk, path) {
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_second_holder_is_refused_until_the_first_drops_it() {
        let dir = tempfile::tempdir().unwrap();
        let on_disk = dir.path().join("LOCK");
        let disks: [(&dyn Disk, &Path); 2] =
            [(&OsDisk, &on_disk), (&SimDisk::new(1), Path::new("/LOCK"))];
        for (disk, path) in disks {
            let first = Lock::take(disk, path).unwrap();
            assert!(is_held(disk, path));
            // A refused one takes nothing from the first.
            assert!(is_held(disk, path));
            drop(first);
            assert!(!is_held(disk, path));
        }
    }

    #[test]
    fn a_holder_that_is_killed_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        // util-linux's, which shares no line with ours and takes the same lock.
        let mut holder = Command::new("flock")
            .args(["--no-fork", "--nonblock"])
            .arg(&path)
            .args(["sh", "-c", "echo held; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let out = holder.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut said).unwrap();
        assert_eq!(said, "held\n");
        assert!(is_held(&OsDisk, &path));
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert!(!is_held(&OsDisk, &path));
    }

    #[test]
    fn a_process_started_meanwhile_does_not_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let held = Lock::take(&OsDisk, &path).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        drop(held);
        assert!(!is_held(&OsDisk, &path));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("LOCK"));
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(Lock::take(&OsDisk, &link).is_err());
        assert!(!real.exists());
    }
}
