//! Namespaces of their own for a guest's process: mount, network, IPC, UTS, cgroup. Not PID: the process could not ask to
//! be supervised from there, and the system call filter leaves it no call that takes a pid.

const CLONE_NEWNS: u64 = 0x0002_0000;
const CLONE_NEWCGROUP: u64 = 0x0200_0000;
const CLONE_NEWUTS: u64 = 0x0400_0000;
const CLONE_NEWIPC: u64 = 0x0800_0000;
const CLONE_NEWUSER: u64 = 0x1000_0000;
const CLONE_NEWNET: u64 = 0x4000_0000;

/// The flags of clone for a process that shares no namespace with the host. Without root this takes a user
/// namespace, in which the process is nobody.
pub fn clone_flags(root: bool) -> u64 {
    let flags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET;
    if root { flags } else { flags | CLONE_NEWUSER }
}

/// Takes the calling process into namespaces of its own.
pub fn enter() -> std::io::Result<()> {
    const UNSHARE: u64 = 272;
    let flags = clone_flags(rustix::process::geteuid().is_root());
    // SAFETY: the process is about to become a guest and has no use for the host's namespaces.
    let result = unsafe { crate::sys::syscall(UNSHARE, [flags, 0, 0, 0, 0, 0]) };
    crate::sys::check(result)?;
    Ok(())
}
