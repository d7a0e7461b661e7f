//! An executable file that is nowhere in a directory.

use crate::sys::raw::{check, nr, syscall};
use linux_raw_sys::general::{RLIMIT_FSIZE, rlimit64};
use rustix::{
    fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
};

/// A file with these bytes that can be executed and no longer changed.
pub(crate) fn executable(bytes: &[u8]) -> io::Result<OwnedFd> {
    // The kernel does not refuse what is over the limit, it sends SIGXFSZ, which would end the host program.
    // Where that call is denied, the launcher says so.
    if file_size_limit().is_ok_and(|limit| limit < bytes.len() as u64) {
        let text = format!("the limit on file sizes is below {} bytes (ulimit -f)", bytes.len());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    match create() {
        Ok(file) => {
            let mut file = File::from(file);
            file.write_all(bytes)?;
            let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
            rustix::fs::fcntl_add_seals(&file, seals)?;
            Ok(file.into())
        }
        // vm.memfd_noexec = 2 forbids executable ones.
        Err(Errno::ACCESS | Errno::PERM | Errno::NOSYS) => temporary(bytes),
        Err(errno) => Err(errno.into()),
    }
}

/// The limit on file sizes in bytes; `u64::MAX` means none. (That of `rustix` panics where the call is denied.)
fn file_size_limit() -> Result<u64, Errno> {
    let mut limit = rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: asks for this process's limit, which is written to `limit`.
    let result = unsafe { syscall!(nr::PRLIMIT64, 0, RLIMIT_FSIZE, 0, &raw mut limit) };
    check(result).map(|_| limit.rlim_cur)
}

fn create() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // With vm.memfd_noexec = 1, one that shall be executable has to say so; kernels before 6.3 do not know the word.
    match rustix::fs::memfd_create("nabla-launcher", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create("nabla-launcher", flags),
        other => other,
    }
}

/// The same as a file without a name in the first directory that allows it.
fn temporary(bytes: &[u8]) -> io::Result<OwnedFd> {
    let directories = [std::env::temp_dir(), PathBuf::from("/dev/shm"), PathBuf::from("/var/tmp")];
    let mut last = io::Error::from(Errno::ACCESS);
    for directory in directories {
        match temporary_in(&directory, bytes) {
            Ok(file) => return Ok(file),
            Err(error) => last = error,
        }
    }
    Err(io::Error::new(
        last.kind(),
        format!(
            "memfd_create is denied (by vm.memfd_noexec or a system call filter), and no temporary directory allows to execute a file ({last})"
        ),
    ))
}

fn temporary_in(directory: &std::path::Path, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(directory, flags, Mode::RWXU)?);
    if rustix::fs::fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(io::Error::from(Errno::ACCESS));
    }
    file.write_all(bytes)?;
    // A file that is open for writing cannot be executed.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn both_kinds_can_be_executed() {
        let program = std::fs::read("/bin/true").unwrap();
        for file in [executable(&program).unwrap(), temporary(&program).unwrap()] {
            let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
            assert!(Command::new(path).status().unwrap().success());
        }
    }

    #[test]
    fn sealed_file_cannot_be_written() {
        let mut file = File::from(executable(b"x").unwrap());
        assert!(file.write_all(b"y").is_err());
        assert!(file.set_len(0).is_err());
    }
}
