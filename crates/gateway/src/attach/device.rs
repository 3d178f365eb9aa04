//! NBD devices as the kernel shows them in `/sys` and `/proc`: which there are, whose they are, who holds them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::identity::Identity;

/// Where the kernel shows things.
#[derive(Debug, Clone)]
pub(crate) struct Devices {
    sys: PathBuf,
    proc: PathBuf,
}

/// An NBD device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// The N of `/dev/nbdN`.
    pub(crate) index: u32,
    /// Size in bytes; 0 if it is not connected.
    pub(crate) size: u64,
    /// Whether it has a connection, living or dead. The kernel shows one that was disconnected while somebody had it open
    /// as if it still had: see `Driver::devices`.
    pub(crate) connected: bool,
    /// What it was connected with, if that was one of our agents. A device that has been disconnected keeps it for as
    /// long as somebody has it open.
    pub(crate) identity: Option<Identity>,
}

/// The name of a device.
pub(crate) fn path(index: u32) -> String {
    format!("/dev/nbd{index}")
}

/// The N of `/dev/nbdN`, or of `nbdN`.
pub(crate) fn index(text: &str) -> Option<u32> {
    let number = text.strip_prefix("/dev/").unwrap_or(text);
    let number = number.strip_prefix("nbd")?;
    let is_plain = number == "0" || !number.starts_with(['0', '+']);
    number.parse().ok().filter(|_| is_plain)
}

impl Devices {
    /// Those of this machine.
    pub(crate) fn new() -> Self {
        Self::below(Path::new("/"))
    }

    pub(crate) fn below(root: &Path) -> Self {
        Self {
            sys: root.join("sys/block"),
            proc: root.join("proc"),
        }
    }

    /// Every device, in the order of their numbers. None where the module is not loaded.
    pub(crate) fn all(&self) -> io::Result<Vec<Device>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.sys)? {
            let name = entry?.file_name();
            let Some(index) = name.to_str().and_then(index) else {
                continue;
            };
            all.extend(self.one(index)?);
        }
        all.sort_unstable_by_key(|device| device.index);
        Ok(all)
    }

    /// One device, if the kernel has it.
    pub(crate) fn one(&self, index: u32) -> io::Result<Option<Device>> {
        let folder = self.folder(index);
        let Some(sectors) = read(&folder.join("size"))? else {
            return Ok(None);
        };
        let pid = read(&folder.join("pid"))?;
        let backend = read(&folder.join("backend"))?;
        Ok(Some(Device {
            index,
            // Counted in 512 bytes whatever the block size is.
            size: sectors.parse::<u64>().unwrap_or(0).saturating_mul(512),
            connected: pid.is_some_and(|pid| pid != "0"),
            identity: backend.as_deref().and_then(Identity::parse),
        }))
    }

    /// What uses a device or one of its partitions: mount points, swap, devices on top of it.
    ///
    /// What is mounted in another mount namespace is not seen; the kernel's exclusive open knows that too.
    pub(crate) fn held_by(&self, index: u32) -> io::Result<Vec<String>> {
        let (mut numbers, mut names, mut held) = (Vec::new(), Vec::new(), Vec::new());
        let folder = self.folder(index);
        let whole = format!("nbd{index}");
        let mut parts = vec![(whole.clone(), folder.clone())];
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{whole}p")) {
                parts.push((name, entry.path()));
            }
        }
        for (name, folder) in parts {
            numbers.extend(read(&folder.join("dev"))?);
            names.push(format!("/dev/{name}"));
            match fs::read_dir(folder.join("holders")) {
                Ok(holders) => {
                    for holder in holders {
                        let holder = holder?.file_name();
                        held.push(format!("/dev/{}", holder.to_string_lossy()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        for line in fs::read_to_string(self.proc.join("self/mountinfo"))?.lines() {
            // proc_pid_mountinfo(5): id, parent, major:minor, root, mount point, …, "-", type, source, …
            let mut fields = line.split(' ');
            let number = fields.nth(2).unwrap_or_default();
            let point = fields.nth(1).unwrap_or_default();
            let source = line
                .split_once(" - ")
                .and_then(|(_, rest)| rest.split(' ').nth(1));
            let is_ours = numbers.iter().any(|ours| ours == number)
                || source.is_some_and(|source| names.iter().any(|name| name == source));
            if is_ours {
                held.push(format!("the mount at {}", unescape(point)));
            }
        }
        for line in read(&self.proc.join("swaps"))?.unwrap_or_default().lines() {
            let swap = line.split_ascii_whitespace().next().unwrap_or_default();
            if names.iter().any(|name| name == swap) {
                held.push(format!("swap on {swap}"));
            }
        }
        Ok(held)
    }

    fn folder(&self, index: u32) -> PathBuf {
        self.sys.join(format!("nbd{index}"))
    }

    /// Whether a socket with this inode is still there, in this network namespace. Who closes the last descriptor of one
    /// sees it go, unless the kernel itself has taken it.
    pub(crate) fn has_socket(&self, inode: u64) -> io::Result<bool> {
        let inode = inode.to_string();
        // The column of the inode, counted from 0, in each table. An orphan's is 0 in TCP's.
        for (table, column) in [("tcp", 9), ("tcp6", 9), ("unix", 6)] {
            let path = self.proc.join("self/net").join(table);
            let text = read(&path)?.unwrap_or_default();
            let has = |line: &str| line.split_ascii_whitespace().nth(column) == Some(&*inode);
            if text.lines().any(has) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A file's text without the newline at its end; `None` if there is no such file, or its device has just gone.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').to_owned())),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Takes back what the kernel does to blanks and backslashes in mount points: `\040`.
fn unescape(text: &str) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain + rest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::identity::tests::{name, offer};
    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn machine() -> (tempfile::TempDir, Devices) {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("sys/block/sda/size", "1\n"),
            ("sys/block/nbd10/size", "0\n"),
            ("sys/block/nbd2/size", "2048\n"),
            ("sys/block/nbd2/pid", "77\n"),
            ("sys/block/nbd2/dev", "43:64\n"),
            ("sys/block/nbd2/nbd2p1/dev", "43:65\n"),
            (
                "proc/self/mountinfo",
                "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
            ),
            (
                "proc/swaps",
                "Filename\tType\tSize\n/dev/sda2 partition 1 0 -2\n",
            ),
        ] {
            put(root.path(), file, text);
        }
        let identity = Identity::of(&offer('e'), &name(), 2).unwrap();
        put(
            root.path(),
            "sys/block/nbd2/backend",
            &format!("{identity}\n"),
        );
        let devices = Devices::below(root.path());
        (root, devices)
    }

    #[test]
    fn devices_are_listed_with_what_they_are() {
        let (_root, devices) = machine();
        let all = devices.all().unwrap();
        let indices: Vec<u32> = all.iter().map(|device| device.index).collect();
        assert_eq!(indices, [2, 10]);
        assert_eq!((all[0].size, all[0].connected), (1 << 20, true));
        assert_eq!(all[0].identity.as_ref().unwrap().name(), "db");
        assert!(!all[1].connected && all[1].identity.is_none());
        assert_eq!(devices.one(3).unwrap(), None);
    }

    #[test]
    fn a_device_that_was_disconnected_under_a_mount_is_not_connected() {
        let (root, devices) = machine();
        put(root.path(), "sys/block/nbd2/pid", "0\n");
        let device = devices.one(2).unwrap().unwrap();
        assert!(!device.connected && device.identity.is_some());
    }

    #[test]
    fn mounts_swap_and_devices_on_top_hold_a_device_and_its_partitions() {
        let (root, devices) = machine();
        assert!(devices.held_by(2).unwrap().is_empty());
        put(
            root.path(),
            "proc/self/mountinfo",
            "30 1 43:65 / /my\\040disk rw shared:1 - xfs /dev/nbd2p1 rw\n\
             31 1 0:40 / /b rw - btrfs /dev/nbd2 rw\n\
             32 1 43:640 / /no rw - ext4 /dev/nbd20 rw\n",
        );
        put(
            root.path(),
            "proc/swaps",
            "Filename Type\n/dev/nbd2p1 partition\n/dev/nbd20 x\n",
        );
        put(root.path(), "sys/block/nbd2/nbd2p1/holders/dm-0", "");
        let held = devices.held_by(2).unwrap();
        let expected = [
            "/dev/dm-0",
            "the mount at /my disk",
            "the mount at /b",
            "swap on /dev/nbd2p1",
        ];
        assert_eq!(held, expected);
    }

    #[test]
    fn a_socket_is_found_by_its_inode_in_its_own_column() {
        let (root, devices) = machine();
        put(
            root.path(),
            "proc/self/net/tcp",
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0F02000A:A1B2 0202000A:2A39 01 00000000:00000000 00:00000000 00000000     0        0 4242 1 0\n",
        );
        put(
            root.path(),
            "proc/self/net/unix",
            "Num       RefCount Protocol Flags    Type St Inode Path\n0000000000000000: 00000003 00000000 00000000 0001 03 777 /run/x\n",
        );
        assert!(devices.has_socket(4242).unwrap());
        assert!(devices.has_socket(777).unwrap());
        assert!(!devices.has_socket(1).unwrap());
    }

    #[test]
    fn only_names_of_nbd_devices_are_numbers() {
        assert_eq!(index("/dev/nbd0"), Some(0));
        assert_eq!(index("nbd12"), Some(12));
        for text in [
            "/dev/nbd",
            "/dev/nbd01",
            "/dev/nbd1p1",
            "nbd+1",
            "sda",
            "/dev/sda",
        ] {
            assert_eq!(index(text), None, "{text}");
        }
    }
}
