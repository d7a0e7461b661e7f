//! What runs guests.

pub(crate) mod kvm;
pub(crate) mod process;

use crate::{
    config::{Isolation, LaunchFailure, Supervision},
    counters::Counters,
    debug::overseer::{Overseer, Plan},
    device::Attached,
    error::Error,
    exit::ExitStatus,
    guest::ResourceUsage,
    image::OpenImage,
    runtime::Runtime,
};
use nabla_core::{Abi, ByteSize, CommandLine};
use std::{
    fmt::Debug,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// A guest with everything opened and checked.
#[derive(Debug)]
pub(crate) struct Prepared {
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
    /// The program is there for this guest and ends with it.
    pub alone: bool,
    pub inside: Plan,
}

/// A guest that a backend runs.
pub(crate) trait Running: Debug + Send + Sync {
    fn pid(&self) -> u32;
    fn exit_fd(&self) -> BorrowedFd<'_>;
    fn is_supervised(&self) -> bool;
    fn kill(&self) -> io::Result<()>;
    fn pause(&self) -> io::Result<()>;
    fn resume(&self) -> io::Result<()>;
    fn usage(&self) -> io::Result<ResourceUsage>;
    /// Who looks after it, if it was started so. Taken when the guest has ended.
    fn overseer(&self) -> &Mutex<Option<Overseer>>;
    /// Writes a core of the guest as it is now.
    fn dump_core(&self, directory: &Path, name: &str) -> io::Result<PathBuf>;
    /// What was counted, where anybody stands between guest and kernel.
    fn counters(&self) -> Option<Counters> {
        None
    }
    /// Takes from the calling thread what it does not need to wait for the guest, and closes all other descriptors of
    /// the program.
    fn confine_program(&self) -> io::Result<()> {
        Ok(())
    }
    /// Takes the status of a guest that has ended. Called once.
    fn collect(&self) -> Result<(ExitStatus, ResourceUsage), Error>;
    /// Lets the guest live on. Otherwise dropping this kills it, and waits until it is gone.
    fn detach(&self) -> io::Result<()>;
}

/// Whether any backend runs guests of this ABI.
pub(crate) fn check_abi(abi: Abi, path: &Path) -> Result<(), Error> {
    match abi {
        Abi::SptV1 | Abi::SptV2 | Abi::HvtV1 | Abi::HvtV2 => Ok(()),
        _ => Err(Error::UnsupportedAbi { path: path.to_owned(), abi }),
    }
}

/// Starts a guest whose ABI [`check_abi`] let through.
pub(crate) fn start(
    runtime: &Runtime,
    mut guest: Prepared,
    console: OwnedFd,
) -> Result<Box<dyn Running>, Error> {
    if guest.image.image().abi().needs_kvm() {
        return Ok(Box::new(kvm::start(runtime, guest, console)?));
    }
    Ok(Box::new(process::start(runtime, &mut guest, &console)?))
}

/// Whether the calling process can become this guest.
pub(crate) fn can_exec(guest: &Prepared) -> bool {
    !guest.image.image().abi().needs_kvm()
}

/// Makes the calling process the guest, for which [`can_exec`] holds.
pub(crate) fn exec(runtime: &Runtime, guest: &Prepared, console: &OwnedFd) -> Error {
    process::exec(runtime, guest, console)
}
