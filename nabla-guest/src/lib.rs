//! Write Nabla and Solo5 guests in Rust.
//!
//! A guest is a freestanding program: it has no operating system below it, only a monitor that offers a
//! console, two clocks, block devices and network devices. This crate is everything such a program needs, on
//! the stable toolchain, with no target to install and no other dependency. What it builds is an ELF file
//! that follows the public Solo5 ABI, version 2, and runs under `nabla run` as well as under Solo5's own
//! tenders.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! use nabla_guest::{Block, println};
//!
//! nabla_guest::entry!(main, block "storage");
//!
//! fn main() -> Result<(), nabla_guest::Error> {
//!     let disk = Block::acquire("storage")?;
//!     let mut start = [0; 16];
//!     disk.read_at(0, &mut start)?;
//!     println!("{} bytes, starting with {start:02x?}", disk.capacity());
//!     Ok(())
//! }
//! ```
//!
//! The crate that contains this needs three more things:
//!
//! * this dependency: `nabla-guest = { version = "0.1", path = ".." }`;
//! * `panic = "abort"` in `[profile.dev]` and `[profile.release]`;
//! * a build script of one line, which gives the linker what this crate's own build script has prepared:
//!
//!   ```ignore
//!   fn main() {
//!       println!("cargo::rustc-link-arg-bins=@{}", std::env::var("DEP_NABLA_GUEST_LINK_ARGS").unwrap());
//!   }
//!   ```
//!
//! # What there is
//!
//! * [`entry!`]: the entry point, and the devices that the guest wants.
//! * [`print!`], [`println!`]: the console. A panic prints its message there and aborts the guest.
//! * [`exit`], [`abort`], [`ExitCode`], [`Termination`]: the end.
//! * [`args()`], [`command_line`]: what the guest was started with.
//! * [`time`]: the monotonic and the wall clock, sleeping.
//! * [`Block`], [`Net`]: devices by name.
//! * `fs`, a feature: a read-only file system on a block device.
//! * `tcpip`, a feature: TCP/IP over a network device.
//! * [`poll()`], [`yield_until`], [`yield_forever`]: waiting for frames and for time.
//! * `alloc`: `extern crate alloc;` works, the allocator is in [`heap`]. [`memory()`] tells what there is.
//! * [`set_tls_base`]: for runtimes that bring their own thread-local storage.
//!
//! # Features
//!
//! * `spt` (default): the guest runs as a process that may make nine system calls.
//! * `hvt`: the guest runs as a virtual machine. When both features are on, `hvt` wins, so that
//!   `--features nabla-guest/hvt` is all it takes to build any guest for it.
//! * `fs`: read-only file systems on block devices (ISO 9660 with Rock Ridge), by `nabla-iso`.
//! * `tcpip`: TCP/IP over network devices, with static addresses or DHCP, by smoltcp.
//!
//! # One thread
//!
//! A guest has one thread, no interrupts and no signals. Nothing here takes a lock, and nothing here may be
//! called by anything but that thread.
#![cfg_attr(not(test), no_std)]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("guests are built with the target x86_64-unknown-linux-gnu");
#[cfg(not(any(feature = "spt", feature = "hvt")))]
compile_error!("choose a binding: the feature `spt` (default) or `hvt`");

#[cfg(any(feature = "fs", feature = "tcpip"))]
extern crate alloc;

mod args;
mod block;
mod boot;
pub mod console;
mod entry;
mod error;
mod event;
#[cfg(feature = "fs")]
pub mod fs;
pub mod heap;
mod manifest;
mod mem;
mod memory;
mod net;
mod note;
mod panic;
mod start;
mod sys;
#[cfg(feature = "tcpip")]
pub mod tcpip;
pub mod time;
mod tls;

pub use crate::{
    args::{Args, args, command_line},
    block::{Block, BlockError},
    boot::AcquireError,
    error::Error,
    event::{ReadySet, poll, yield_forever, yield_until},
    memory::{Memory, memory},
    net::{Net, NetError},
    start::{ExitCode, Termination, abort, exit},
    tls::set_tls_base,
};

/// What [`entry!`] expands to. Not part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::{
        boot::BootInfo,
        heap::GlobalHeap,
        manifest::{DeclaredDevice, ManifestNote},
        note::{AbiNote, INTERP, OpenBsdNote},
        panic::panic,
        start::start,
    };
    pub use nabla_core::abi::mft::{TYPE_BLOCK, TYPE_NET};
}
