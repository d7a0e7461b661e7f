//! Linux, for the rest of this crate: what rustix does not have. Numbers and structures come from the kernel's headers
//! (`linux-raw-sys`).

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("nabla-monitor runs on x86-64 Linux only, for now");

pub mod event;
pub mod futex;
pub mod procfs;
pub mod raw;
pub mod signals;
pub mod usage;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose contents are consistent after every statement: a thread that panicked has left nothing half done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The id of this process. After a fork it is another one.
pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}
