//! What runs guests.

mod kvm;
mod process;

use crate::{
    counters::Counters, debug::DebugThread, error::Error, exit::ExitStatus, spec::GuestSpec,
    usage::ResourceUsage,
};
use nabla_core::Abi;
use std::{
    fmt::Debug,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// A guest that a backend runs.
pub(crate) trait Running: Debug + Send + Sync {
    fn pid(&self) -> u32;
    fn exit_fd(&self) -> BorrowedFd<'_>;
    fn is_supervised(&self) -> bool;
    fn kill(&self) -> io::Result<()>;
    fn pause(&self) -> io::Result<()>;
    fn resume(&self) -> io::Result<()>;
    fn usage(&self) -> io::Result<ResourceUsage>;
    /// The thread that serves its debuggers and core dumps, if it was started with one.
    fn debug_thread(&self) -> &Mutex<Option<DebugThread>>;
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

/// A way to run guests.
pub(crate) trait Backend: Debug + Send + Sync {
    /// The ABIs whose guests it runs.
    fn abis(&self) -> &'static [Abi];

    /// Starts a guest of one of these ABIs.
    fn start(&self, guest: GuestSpec, console: OwnedFd) -> Result<Box<dyn Running>, Error>;

    /// Makes the calling process the guest, where that is possible; otherwise starts it.
    fn exec(&self, guest: GuestSpec, console: OwnedFd) -> Result<Box<dyn Running>, Error> {
        self.start(guest, console)
    }
}

/// All backends, with what the guests of a runtime share.
#[derive(Debug)]
pub(crate) struct Backends([Box<dyn Backend>; 2]);

impl Default for Backends {
    /// Costs nothing, and probes nothing.
    fn default() -> Self {
        Self([Box::<process::ProcessBackend>::default(), Box::new(kvm::KvmBackend)])
    }
}

impl Backends {
    /// The one that runs guests of this ABI.
    pub fn get(&self, abi: Abi) -> Option<&dyn Backend> {
        self.0.iter().map(|backend| &**backend).find(|backend| backend.abis().contains(&abi))
    }

    /// The ABIs whose guests can be run.
    pub fn abis(&self) -> Vec<Abi> {
        self.0.iter().flat_map(|backend| backend.abis()).copied().collect()
    }
}
