//! The host side of a guest's devices.

mod block;
mod console;
mod net;

pub(crate) use block::OpenDisk;
pub use block::{Disk, DiskError, DiskErrorKind};
pub use console::{Console, ConsoleReader};
pub(crate) use console::{ConsolePoller, Drained};
pub(crate) use net::OpenTap;
pub use net::{Tap, TapError, TapErrorKind};
