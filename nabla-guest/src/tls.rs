//! The thread pointer.

use crate::sys;

/// Sets the base of FS, the thread pointer of x86-64.
///
/// Neither this crate nor what rustc compiles for a guest uses FS; it is for runtimes that bring their own
/// thread-local storage. Under `hvt` it is a `wrmsr`, for which the guest must be in ring 0 or its monitor
/// emulate the instruction.
///
/// # Panics
///
/// When `base` is not a canonical address of user space.
///
/// # Safety
///
/// Everything that the program reaches through FS must be at `base` for as long as it is set.
pub unsafe fn set_tls_base(base: *mut ()) {
    // SAFETY: the caller vouches for the base.
    unsafe { sys::set_tls_base(base) };
}
