//! Namespaces of their own for a guest's process: mount, network, IPC, UTS, cgroup. Not PID: the process could not ask to
//! be supervised from there, and the system call filter leaves it no call that takes a pid.

use rustix::{
    process::geteuid,
    thread::{UnshareFlags, unshare_unsafe},
};

/// Those of a process that shares no namespace with the host. Without root this takes a user namespace, in which the
/// process is nobody.
fn flags() -> UnshareFlags {
    let own = UnshareFlags::NEWNS
        | UnshareFlags::NEWCGROUP
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWNET;
    if geteuid().is_root() { own } else { own | UnshareFlags::NEWUSER }
}

/// The flags of clone for such a process.
pub fn clone_flags() -> u32 {
    flags().bits()
}

/// Takes the calling process into namespaces of its own.
pub fn enter() -> std::io::Result<()> {
    // SAFETY: descriptors stay shared. The process is about to become a guest and has no use for the host's namespaces.
    Ok(unsafe { unshare_unsafe(flags()) }?)
}
