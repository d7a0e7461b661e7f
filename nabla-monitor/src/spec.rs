//! What a backend is given to run: a guest with its image, devices and settings, all opened and checked.

use crate::{confine::Identity, debug::DebugOptions, device::Attached, image::OpenImage};
use nabla_core::{ByteSize, CommandLine};
use std::path::PathBuf;

/// How closely a guest is watched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Supervision {
    /// Not closely: only the wait status is known, which tells a fault's signal but not its address, and that a
    /// call was denied but not which.
    None,
    /// By ptrace, which tells all of it. Costs some 50 us from start to exit, and nothing in between.
    #[default]
    Full,
}

/// More confinement of a guest's process. All off by default: the system call filter already denies every call that
/// could get through them, and they cost milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Isolation {
    /// Mount, network, IPC, UTS and cgroup namespaces of its own; without root also a user namespace.
    pub namespaces: bool,
    /// Another user and group. Takes root.
    pub identity: Option<Identity>,
    /// The directory of a cgroup (v1 or v2) that exists, and in which nothing but the guest is.
    pub cgroup: Option<PathBuf>,
}

/// How a launcher that has taken the place of the program tells that it failed.
#[derive(Debug, Clone)]
pub(crate) struct LaunchFailure {
    pub prefix: Option<String>,
    pub status: u8,
}

/// A guest with everything opened and checked.
#[derive(Debug)]
pub(crate) struct GuestSpec {
    pub image: OpenImage,
    pub command_line: CommandLine,
    pub memory: ByteSize,
    /// In the order of the manifest.
    pub devices: Vec<Attached>,
    pub name: String,
    pub supervision: Option<Supervision>,
    pub exec_heap: bool,
    pub huge_pages: bool,
    pub dumpable: bool,
    pub isolation: Isolation,
    pub launch_failure: LaunchFailure,
    /// The program is dedicated to this guest, and ends with it.
    pub dedicated: bool,
    pub debug: DebugOptions,
}
