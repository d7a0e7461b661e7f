//! The host side of a guest's devices.

mod attached;
mod block;
mod console;
mod net;

pub(crate) use attached::{Access, Attached, DeviceSource, OpenDevice, attach, fill_in};
pub use attached::{DeviceError, DeviceInfo, DeviceProperties};
pub use block::{BlockDevice, BlockError, BlockErrorKind, BlockInfo, DEFAULT_BLOCK_SIZE};
pub use console::{Console, ConsoleReader};
pub(crate) use console::{Consoles, Drained};
pub use net::{NetDevice, NetInfo};
