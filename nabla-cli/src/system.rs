//! The system calls that need `unsafe`.

use nix::{
    libc,
    sys::signal::{SigHandler, Signal, signal as signal_action},
};
use std::{
    ffi::{CStr, OsStr, OsString, c_char, c_int},
    io,
    mem::MaybeUninit,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    ptr,
};

/// Does what the rest of the program expects to be done before it starts, and returns the command line.
///
/// Writing to a pipe without a reader is an error from now on, not a signal. The first three descriptors are
/// open: otherwise a file that is opened could become the guest's output.
///
/// # Safety
///
/// `words` points to at least `count` pointers to C strings.
pub unsafe fn start(count: c_int, words: *const *const c_char) -> Vec<OsString> {
    // SAFETY: no handler is installed that could run anything.
    let _ = unsafe { signal_action(Signal::SIGPIPE, SigHandler::SigIgn) };
    for descriptor in 0..3 {
        // SAFETY: only asks for the flags of a descriptor, and opens a file without owning it: it gets the lowest
        // free number, which is this one, and stays open.
        unsafe {
            if libc::fcntl(descriptor, libc::F_GETFD) < 0 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the caller promises it.
    let word = |index| unsafe { CStr::from_ptr(*words.add(index)) };
    (0..count).map(|index| OsStr::from_bytes(word(index).to_bytes()).to_owned()).collect()
}

/// A copy of the descriptor `number` that this program was started with, closed on exec.
pub fn inherited_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes any number, and this command only asks for flags.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // What this program has opened itself is closed on exec; what it was started with is not, or it would not be here.
    if flags >= 0 && flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: fcntl takes any number, and this command makes a new descriptor or fails.
    let descriptor = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it has just been made, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Ends this program with 128 + N from now on when signal N comes.
pub fn exit_on(signal: Signal) -> nix::Result<()> {
    extern "C" fn exit(signal: c_int) {
        // SAFETY: ends the program at once, which a handler may do.
        unsafe { libc::_exit(128 + signal) }
    }
    // SAFETY: the handler calls nothing but a function that is safe in handlers.
    unsafe { signal_action(signal, SigHandler::Handler(exit)) }.map(drop)
}

/// Whether this program was started with the signal ignored, as under `nohup`.
pub fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action, sigaction only writes the old one to the structure that it is given.
    let result = unsafe { libc::sigaction(signal as i32, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: the call succeeded, so the structure was written.
    result == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write, os::fd::AsRawFd};

    #[test]
    fn descriptor_that_is_not_open_is_an_error() {
        assert!(inherited_descriptor(99_999).is_err());
        assert!(inherited_descriptor(-1).is_err());
    }

    #[test]
    fn copy_of_a_descriptor_is_the_same_file() {
        let file = fs::File::options().write(true).open("/dev/null").unwrap();
        assert!(inherited_descriptor(file.as_raw_fd()).is_err(), "it was opened here");
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        let mut copy = fs::File::from(inherited_descriptor(file.as_raw_fd()).unwrap());
        assert_ne!(copy.as_raw_fd(), file.as_raw_fd());
        copy.write_all(b"x").unwrap();
    }

    #[test]
    fn arguments_are_copied() {
        let words = [c"nabla".as_ptr(), c"".as_ptr(), c"\xff".as_ptr(), ptr::null()];
        // SAFETY: there are three strings.
        let args = unsafe { start(3, words.as_ptr()) };
        assert_eq!(args, ["nabla".as_ref(), "".as_ref(), OsStr::from_bytes(b"\xff")]);
    }

    #[test]
    fn terminate_is_not_ignored_and_the_broken_pipe_is() {
        assert!(!is_ignored(Signal::SIGTERM));
        assert!(is_ignored(Signal::SIGPIPE));
    }
}
