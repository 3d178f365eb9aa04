//! The VFS itself: C calls on one side, [`host::Disk`] on the other.
//!
//! Unsafe, since SQLite hands raw pointers in. Sound, since: a `Registered` owns what its `sqlite3_vfs` points to and
//! takes it from SQLite's list before it is freed (its user drops connections first, as its documentation says); SQLite
//! gives each `sqlite3_file` that `xOpen` filled to one connection's calls, one at a time, and to `xClose` once.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, OsStr, c_char, c_int, c_void},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    ptr,
    sync::Arc,
};

use host::{Disk, Entropy, File, Mode, private::folder_of};
use rusqlite::ffi;

use crate::memory::{Handle, Memories};

/// Longest path, in bytes.
const PATH_LEN_MAX: c_int = 512;
/// What is written whole or not at all, in bytes.
const SECTOR_LEN: c_int = 512;

/// A VFS that SQLite knows, until this is dropped. Drop every connection that uses it first.
pub struct Registered {
    name: CString,
    vfs: *mut ffi::sqlite3_vfs,
}

// SAFETY: SQLite's list of VFSs has a lock of its own, and what the VFS points to is `Sync`.
unsafe impl Send for Registered {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Registered {}

/// What the VFS works on.
struct Ground {
    disk: Arc<dyn Disk>,
    entropy: Arc<dyn Entropy>,
    memories: Memories,
    /// SQLite keeps the pointer.
    name: CString,
}

/// What SQLite calls a file: the beginning is SQLite's, the rest is ours.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    state: *mut FileState,
}

struct FileState {
    file: Arc<dyn File>,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// The folder is to be synced with the first sync: a journal whose name is lost is a lost journal.
    sync_folder: bool,
    delete_on_close: bool,
    /// What it shares with other connections to the file; a database's alone has it.
    shared: Option<Handle>,
}

/// Makes `disk` known to SQLite under `name`; SQLite's own random numbers (the salts of a write-ahead log) come from
/// `entropy`, so that a run can be replayed: they begin anew with this call, in the whole process.
///
/// # Panics
/// If `name` holds a zero byte or SQLite refuses it.
pub fn register(name: &str, disk: Arc<dyn Disk>, entropy: Arc<dyn Entropy>) -> Registered {
    let name = CString::new(name).expect("a name without a zero byte");
    let mut seed = [0; 4];
    entropy.fill(&mut seed);
    // SAFETY: the call takes a number, not 0, and a database or none; SQLite locks its generator.
    unsafe {
        ffi::sqlite3_test_control(
            ffi::SQLITE_TESTCTRL_PRNG_SEED,
            c_int::from_ne_bytes(seed) | 1,
            ptr::null_mut::<ffi::sqlite3>(),
        );
    }
    let ground = Box::into_raw(Box::new(Ground {
        disk,
        entropy,
        memories: Memories::default(),
        name: name.clone(),
    }));
    let vfs = Box::into_raw(Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: c_int::try_from(size_of::<OpenFile>()).expect("a few words"),
        mxPathname: PATH_LEN_MAX,
        pNext: ptr::null_mut(),
        // SAFETY: made above and freed after the VFS is taken out of SQLite's list.
        zName: unsafe { (*ground).name.as_ptr() },
        pAppData: ground.cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(get_last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // SAFETY: `vfs` is whole and lives until `Registered` is dropped.
    let registered = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
    assert_eq!(registered, ffi::SQLITE_OK, "SQLite takes a VFS");
    Registered { name, vfs }
}

impl Registered {
    /// Its name, for `Connection::open_with_flags_and_vfs`.
    pub fn name(&self) -> &CStr {
        &self.name
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: registered by `register`, which made both boxes; no connection uses them any more.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.vfs);
            drop(Box::from_raw((*self.vfs).pAppData.cast::<Ground>()));
            drop(Box::from_raw(self.vfs));
        }
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The unix VFS says `SQLITE_FULL` of a write alone: a sync that fails for want of space is a failed sync, and a
/// database that took it for a full disk would call a commit refused that may be on the disk.
fn done(result: io::Result<()>, failed: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) if failed == ffi::SQLITE_IOERR_WRITE && is_full(&error) => ffi::SQLITE_FULL,
        Err(_) => failed,
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}

/// # Safety
/// `vfs` is one that `register` made.
unsafe fn ground<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a Ground {
    // SAFETY: `register` put it there; it lives as long as the VFS.
    unsafe { &*(*vfs).pAppData.cast::<Ground>() }
}

/// # Safety
/// `file` was filled by `open` and not closed.
unsafe fn state<'a>(file: *mut ffi::sqlite3_file) -> &'a mut FileState {
    // SAFETY: `open` put it there; SQLite uses a file from one call at a time.
    unsafe { &mut *(*file.cast::<OpenFile>()).state }
}

/// # Safety
/// `path` is a C string.
unsafe fn path_of(path: *const c_char) -> PathBuf {
    // SAFETY: as the caller says.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn offset(at: ffi::sqlite3_int64) -> u64 {
    u64::try_from(at).expect("SQLite asks for no place before a file")
}

fn length(len: c_int) -> usize {
    usize::try_from(len).expect("SQLite asks for no negative length")
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's promises for xOpen; `pMethods` must be null where the file is not to be closed.
    unsafe {
        (*file).pMethods = ptr::null();
        let ground = ground(vfs);
        if name.is_null() {
            // A temporary file: the databases under test spill nothing (temp_store = MEMORY).
            return ffi::SQLITE_CANTOPEN;
        }
        let path = path_of(name);
        let created = flags & ffi::SQLITE_OPEN_CREATE != 0;
        let mode = if flags & ffi::SQLITE_OPEN_READONLY != 0 {
            Mode::Read
        } else if flags & ffi::SQLITE_OPEN_EXCLUSIVE != 0 {
            Mode::New
        } else if created {
            Mode::Create
        } else {
            Mode::Write
        };
        let opened = match ground.disk.open(&path, mode) {
            Ok(opened) => opened,
            Err(_) => return ffi::SQLITE_CANTOPEN,
        };
        let journal = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL;
        let state = FileState {
            file: opened,
            disk: Arc::clone(&ground.disk),
            sync_folder: created && flags & journal != 0,
            delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
            shared: (flags & ffi::SQLITE_OPEN_MAIN_DB != 0).then(|| ground.memories.join(&path)),
            path,
        };
        (*file.cast::<OpenFile>()).state = Box::into_raw(Box::new(state));
        (*file).pMethods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes what was opened, once.
    let state = unsafe { Box::from_raw((*file.cast::<OpenFile>()).state) };
    if state.delete_on_close {
        return done(state.disk.remove(&state.path), ffi::SQLITE_IOERR_CLOSE);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    len: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite gives a buffer of that length, and an open file.
    let (state, buffer) = unsafe {
        (
            state(file),
            std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length(len)),
        )
    };
    let at = offset(at);
    let read = state.file.len().and_then(|end| {
        let there = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
        let (read, rest) = buffer.split_at_mut(there.min(length(len)));
        // Past the end there is nothing to ask for, not even nothing.
        if !read.is_empty() {
            state.file.read_at(at, read)?;
        }
        // SQLite's documentation: the rest must be zeroed, or the database may be damaged.
        rest.fill(0);
        Ok(rest.is_empty())
    });
    match read {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(_) => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    len: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite gives that many bytes, and an open file.
    let (state, bytes) = unsafe {
        (
            state(file),
            std::slice::from_raw_parts(bytes.cast::<u8>(), length(len)),
        )
    };
    done(
        state.file.write_at(offset(at), bytes),
        ffi::SQLITE_IOERR_WRITE,
    )
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: ffi::sqlite3_int64) -> c_int {
    // SAFETY: an open file.
    let state = unsafe { state(file) };
    done(state.file.set_len(offset(len)), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: an open file.
    let state = unsafe { state(file) };
    if state.file.sync_data().is_err() {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    if std::mem::take(&mut state.sync_folder) {
        // As the unix VFS: it does not look at the outcome. A store that relies on the name must see to it itself.
        let _ = state.disk.sync_dir(folder_of(&state.path));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    size: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: an open file, and a place for the answer.
    let len = unsafe { state(file) }.file.len();
    match len.map(ffi::sqlite3_int64::try_from) {
        Ok(Ok(len)) => {
            // SAFETY: as above.
            unsafe { *size = len };
            ffi::SQLITE_OK
        }
        _ => ffi::SQLITE_IOERR_FSTAT,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    let shared = unsafe { state(file) }.shared.as_mut();
    if shared.is_none_or(|handle| handle.lock(level)) {
        ffi::SQLITE_OK
    } else {
        ffi::SQLITE_BUSY
    }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    if let Some(handle) = &mut unsafe { state(file) }.shared {
        handle.unlock(level);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: an open file, and a place for the answer.
    unsafe {
        let reserved = state(file).shared.as_ref().is_some_and(Handle::is_reserved);
        *held = c_int::from(reserved);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    len: c_int,
    extend: c_int,
    mapped: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open database, and a place for the answer. The memory lives until the last connection is closed,
    // and SQLite shares it between threads as it would share a mapping between processes.
    unsafe {
        let Some(handle) = &mut state(file).shared else {
            return ffi::SQLITE_IOERR_SHMMAP;
        };
        *mapped = handle
            .map(length(region), length(len), extend != 0)
            .cast::<c_void>();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: an open database.
    let Some(handle) = &mut unsafe { state(file) }.shared else {
        return ffi::SQLITE_IOERR_SHMLOCK;
    };
    let slots = length(first)..length(first) + length(count);
    let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        handle.shm_unlock(slots);
    } else if !handle.shm_lock(slots, exclusive) {
        return ffi::SQLITE_BUSY;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: an open database.
    if let Some(handle) = &mut unsafe { state(file) }.shared {
        handle.unmap();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_LEN
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn delete(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_folder: c_int,
) -> c_int {
    // SAFETY: SQLite's promises for xDelete.
    let (ground, path) = unsafe { (ground(vfs), path_of(name)) };
    match ground.disk.remove(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return ffi::SQLITE_IOERR_DELETE_NOENT;
        }
        Err(_) => return ffi::SQLITE_IOERR_DELETE,
        Ok(()) => {}
    }
    if sync_folder != 0 {
        return done(
            ground.disk.sync_dir(folder_of(&path)),
            ffi::SQLITE_IOERR_DIR_FSYNC,
        );
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    answer: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's promises for xAccess.
    let (ground, path) = unsafe { (ground(vfs), path_of(name)) };
    let there = match ground.disk.kind(&path) {
        Ok(found) => found.is_some(),
        Err(_) => return ffi::SQLITE_IOERR_ACCESS,
    };
    // As the unix VFS: an empty file does not exist, to who asks whether there is a journal to roll back.
    let counts =
        there && (flags != ffi::SQLITE_ACCESS_EXISTS || !is_empty(ground.disk.as_ref(), &path));
    // SAFETY: a place for the answer.
    unsafe { *answer = c_int::from(counts) };
    ffi::SQLITE_OK
}

fn is_empty(disk: &dyn Disk, path: &Path) -> bool {
    disk.open(path, Mode::Read)
        .and_then(|file| file.is_empty())
        .unwrap_or(false)
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    len: c_int,
    full: *mut c_char,
) -> c_int {
    // SAFETY: SQLite gives a C string and a place of `len` bytes.
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        if bytes.len() > length(len) {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(bytes.as_ptr().cast(), full, bytes.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(
    vfs: *mut ffi::sqlite3_vfs,
    len: c_int,
    bytes: *mut c_char,
) -> c_int {
    // SAFETY: SQLite gives a place of `len` bytes.
    unsafe {
        let bytes = std::slice::from_raw_parts_mut(bytes.cast::<u8>(), length(len));
        ground(vfs).entropy.fill(bytes);
    }
    len
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    // Nobody else has the database, so nothing is waited for.
    micros
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, days: *mut f64) -> c_int {
    // SAFETY: a place for the answer. The epoch of 1970 as a Julian day: nothing under test asks SQLite for a time.
    unsafe { *days = 2_440_587.5 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(
    _: *mut ffi::sqlite3_vfs,
    millis: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: as in `current_time`, in milliseconds.
    unsafe { *millis = 210_866_760_000_000 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn get_last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}
