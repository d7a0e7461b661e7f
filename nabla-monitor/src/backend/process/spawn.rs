//! The last steps before the launcher: in a guest's new process, or in a process that becomes the guest.

use super::launch::LAUNCH_FILE;
use crate::{
    step::LaunchStep,
    sys::raw::{check, nr, syscall},
};
use linux_raw_sys::general::{AT_EMPTY_PATH, F_DUPFD_CLOEXEC};
use rustix::io::Errno;
use std::{
    ffi::c_void,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// A descriptor of this process and the number that it gets in the guest's.
#[derive(Debug, Clone, Copy)]
pub struct Move {
    source: i32,
    target: i32,
}

impl Move {
    pub const fn from_raw(source: i32, target: i32) -> Self {
        Self { source, target }
    }
}

/// What [`become_launcher`] has to do. It only uses what is here and its stack.
#[derive(Debug)]
pub struct Child {
    /// Targets are 0, 1, 2 and so on without a gap.
    pub moves: *mut Move,
    pub move_count: i32,
}

/// Executes the launcher in this process, with `descriptors` as 0, 1, 2 and so on. Returns only when that failed,
/// and then descriptors may be arranged for the guest already.
pub fn execute(descriptors: &[BorrowedFd<'_>]) -> (LaunchStep, io::Error) {
    let mut moves: Vec<Move> =
        (0..).zip(descriptors).map(|(target, fd)| Move::from_raw(fd.as_raw_fd(), target)).collect();
    let child =
        Child { moves: moves.as_mut_ptr(), move_count: i32::try_from(moves.len()).unwrap_or(i32::MAX) };
    // SAFETY: `moves` is valid. Moving descriptors takes them from their owners in this program, which is what
    // the caller wants: nothing of this program goes on.
    let (step, errno) = unsafe { become_launcher(&child) };
    (step, errno.into())
}

/// Moves the descriptors and executes the launcher. Returns what failed.
///
/// Keeps the rules of [`super::supervisor`]: no allocation, no thread-local storage.
///
/// # Safety
///
/// `child` must be valid, and the process one whose descriptors may be rearranged.
pub unsafe fn become_launcher(child: &Child) -> (LaunchStep, Errno) {
    let Child { moves, move_count } = *child;
    // SAFETY: see above; every pointer passed is valid, and strings end with a NUL.
    unsafe {
        // First out of the way, then into place, so that no target overwrites a source. The copies lie above
        // every target, and go away with exec.
        let mut entry = moves;
        for _ in 0..move_count {
            if (*entry).source < move_count {
                match check(syscall!(nr::FCNTL, (*entry).source, F_DUPFD_CLOEXEC, move_count)) {
                    Ok(fd) => (*entry).source = i32::try_from(fd).unwrap_or(-1),
                    Err(errno) => return (LaunchStep::ArrangeDescriptors, errno),
                }
            }
            entry = entry.wrapping_add(1);
        }
        let mut entry = moves;
        for _ in 0..move_count {
            if let Err(errno) = check(syscall!(nr::DUP3, (*entry).source, (*entry).target, 0)) {
                return (LaunchStep::ArrangeDescriptors, errno);
            }
            entry = entry.wrapping_add(1);
        }
        let empty = c"".as_ptr();
        let arguments = [empty, ptr::null()];
        let environment = [ptr::null::<c_void>()];
        let result = syscall!(
            nr::EXECVEAT,
            LAUNCH_FILE,
            empty,
            arguments.as_ptr(),
            environment.as_ptr(),
            AT_EMPTY_PATH
        );
        if matches!(check(result), Err(Errno::PERM | Errno::NOSYS)) {
            // Where that call is denied, by another name. Should it fail as well, what is said is about the first.
            const _: () = assert!(LAUNCH_FILE == 0);
            syscall!(nr::EXECVE, c"/proc/self/fd/0".as_ptr(), arguments.as_ptr(), environment.as_ptr());
        }
        (LaunchStep::ExecuteLauncher, Errno::from_raw_os_error(i32::try_from(-result).unwrap_or(0)))
    }
}
