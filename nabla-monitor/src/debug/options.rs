//! The debugging that was asked for when a guest is started.

use super::core::CoreDirectory;
#[cfg(feature = "gdb")]
use super::gdb;

/// The debugging that was asked for: gdb, core dumps.
#[derive(Debug, Default)]
pub struct DebugOptions {
    /// Where a core is to be written to when it ends by a crash.
    pub cores: Option<CoreDirectory>,
    /// Where debuggers connect to.
    #[cfg(feature = "gdb")]
    pub gdb: Option<gdb::GdbListener>,
    /// A line about each device.
    pub devices: Vec<String>,
}

impl DebugOptions {
    /// Whether neither a debugger nor a core is wanted.
    pub fn is_empty(&self) -> bool {
        self.cores.is_none() && !self.stops_at_entry()
    }

    /// Whether the guest waits at its first instruction.
    pub fn stops_at_entry(&self) -> bool {
        #[cfg(feature = "gdb")]
        return self.gdb.is_some();
        #[cfg(not(feature = "gdb"))]
        return false;
    }
}
