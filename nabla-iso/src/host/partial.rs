//! Names of files and directories that are not complete, and removing those that a killed program has left.

use super::{beneath::DIRECTORY, cursor::Cursor};
use rustix::{
    fd::{BorrowedFd, OwnedFd},
    fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    mem::MaybeUninit,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process,
};

/// How the names of files end that are not complete.
const PARTIAL: &[u8] = b".partial";
/// What an incomplete file's name has between that of the image and a number.
const MARK: &[u8] = b".nabla-iso-";

/// The directory that a file of this path is in.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

/// Calls `make` with names for an incomplete file until one is free.
pub fn free_name<T>(
    directory: &Path,
    name: &OsStr,
    make: impl Fn(&Path) -> Result<T, Errno>,
) -> Result<(T, PathBuf), Errno> {
    let mut attempt = 0_u32;
    loop {
        let mut temporary = prefix(name);
        temporary.extend_from_slice(format!("{}-{attempt}", process::id()).as_bytes());
        temporary.extend_from_slice(PARTIAL);
        let temporary = directory.join(OsString::from_vec(temporary));
        match make(&temporary) {
            Err(Errno::EXIST) if attempt < u32::MAX => attempt += 1,
            result => return result.map(|made| (made, temporary)),
        }
    }
}

/// How the name of something incomplete begins. A long name is cut, so that there is room for the rest.
fn prefix(name: &OsStr) -> Vec<u8> {
    let name = name.as_bytes();
    let mut prefix = b".".to_vec();
    prefix.extend_from_slice(&name[..name.len().min(200)]);
    prefix.extend_from_slice(MARK);
    prefix
}

/// Removes incomplete files and directories for this name that no running program holds.
pub fn remove_stale(directory: &Path, name: &OsStr) {
    let prefix = prefix(name);
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_bytes().starts_with(&prefix) || !name.as_bytes().ends_with(PARTIAL) {
            continue;
        }
        let path = directory.join(&name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        if let Ok(file) = fs::open(&path, flags, Mode::empty())
            && fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = match file_type(&file) {
                FileType::Directory => remove_tree(&path),
                _ => fs::unlink(&path),
            };
        }
    }
}

/// Removes a directory and everything in it, however deep, with two descriptors.
pub fn remove_tree(path: &Path) -> Result<(), Errno> {
    let root = fs::open(path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    let mut cursor = Cursor::new(root);
    let mut names: Vec<OsString> = Vec::new();
    let mut buffer = vec![MaybeUninit::uninit(); 16 << 10];
    loop {
        match remove_files(cursor.here(), &mut buffer)? {
            Some(directory) => {
                // Its own permissions may be what the image says.
                let _ = fs::chmodat(cursor.here(), &directory, Mode::RWXU, AtFlags::empty());
                cursor.enter(&directory)?;
                names.push(directory);
            }
            None => match names.pop() {
                Some(name) => {
                    cursor.leave()?;
                    fs::unlinkat(cursor.here(), name, AtFlags::REMOVEDIR)?;
                }
                None => break,
            },
        }
    }
    fs::rmdir(path)
}

/// Removes what is in a directory up to the first directory that is not empty, and returns its name.
fn remove_files(
    directory: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
) -> Result<Option<OsString>, Errno> {
    fs::seek(directory, fs::SeekFrom::Start(0))?;
    let mut entries = RawDir::new(directory, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        match fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                return Ok(Some(OsStr::from_bytes(name.to_bytes()).to_owned()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn file_type(file: &OwnedFd) -> FileType {
    fs::fstat(file).map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}
