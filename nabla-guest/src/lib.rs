#![doc = include_str!("../README.md")]
//!
//! # Overview
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
//! * `alloc`: `extern crate alloc;` works, the allocator is in [`heap`]. [`memory()`] tells how much memory the guest has.
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
