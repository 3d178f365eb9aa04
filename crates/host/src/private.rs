//! Small files that must be whole and private: written beside, synced, put in place, the folder synced.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::disk::{Disk, Mode};

/// Replaces the file at `path`, or makes it (mode 0600). After a crash the old content is there or the new, whole.
/// Blocks. On an error it is unknown which of them is there.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(disk, path, bytes)?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(folder_of(path))
}

/// Makes the file at `path` (mode 0600), or nothing; `AlreadyExists` if it is there. Blocks.
pub fn create(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(disk, path, bytes)?;
    // A link, unlike a rename, never replaces what is there.
    let linked = disk.link(&temporary, path);
    let removed = disk.remove(&temporary);
    linked?;
    removed?;
    disk.sync_dir(folder_of(path))
}

/// Makes a folder (mode 0700) and those above it that are missing, and does not return before their names are on
/// the disk: what is synced in a folder is lost with a folder that was not. One that is there already may be left
/// from a start that did not come so far, so its name is synced too. Blocks.
pub fn create_dirs(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let mut missing = vec![path];
    let above = path.ancestors().skip(1);
    for folder in above.take_while(|folder| !folder.as_os_str().is_empty()) {
        if disk.kind(folder)?.is_some() {
            break;
        }
        missing.push(folder);
    }
    for folder in missing.into_iter().rev() {
        match disk.create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        sync_name(disk, folder)?;
    }
    Ok(())
}

/// Syncs the folder that `path` is in, and with it the name. Blocks.
pub fn sync_name(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    if path.parent().is_none() {
        return Ok(());
    }
    match disk.sync_dir(folder_of(path)) {
        // A folder that may be searched and not read cannot be synced by its user, nor one of a file system that
        // knows no such thing.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// The whole of a file that is at most `len_max` bytes; `InvalidData` if it is longer. Blocks.
pub fn read(disk: &dyn Disk, path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Mode::Read)?;
    let len = file.len()?;
    if len > len_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{len} bytes, {len_max} at most"),
        ));
    }
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// The folder that `path` is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Writes `bytes` to a file beside `path`, synced; what an earlier attempt left there is gone.
fn write_beside(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = folder_of(path).join(name);
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(&temporary, Mode::New)?;
    file.write_at(0, bytes)?;
    file.sync_all()?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::disk::OsDisk;

    #[test]
    fn a_private_file_is_whole_private_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        create(&OsDisk, &path, b"one").unwrap();
        let error = create(&OsDisk, &path, b"two").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&OsDisk, &path, 3).unwrap(), b"one");
        replace(&OsDisk, &path, b"three").unwrap();
        assert_eq!(read(&OsDisk, &path, 5).unwrap(), b"three");
        assert!(read(&OsDisk, &path, 4).is_err());
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names: Vec<_> = OsDisk.list(dir.path()).unwrap();
        assert_eq!(names.len(), 1, "no leftovers: {names:?}");
    }

    #[test]
    fn folders_that_are_there_are_made_again_without_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        create_dirs(&OsDisk, &path).unwrap();
        // Again, and where nothing is missing.
        create_dirs(&OsDisk, &path).unwrap();
        create_dirs(&OsDisk, Path::new("src")).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
