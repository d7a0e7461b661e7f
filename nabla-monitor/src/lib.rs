//! Run unikernels: as processes that are confined to eight system calls, or in virtual machines.
//!
//! A guest is an ELF file that was linked with its own library operating system against the Solo5 `spt` or `hvt`
//! ABI. This crate loads it, gives it disks, network interfaces and a console, runs and confines it, and tells how it
//! ended. The image says what runs it: `spt` guests are processes, `hvt` guests are in virtual machines (KVM), as
//! code without privileges.
//!
//! ```no_run
//! use nabla_monitor::{ByteSize, Console, ExitStatus, Runtime};
//!
//! let runtime = Runtime::new();
//! let guest = runtime
//!     .guest("app.nabla")
//!     .memory(ByteSize::mib(64))
//!     .block("rootfs.iso")
//!     .args(["--port", "80"])
//!     .console(Console::inherit())
//!     .start()?;
//! match guest.wait()? {
//!     ExitStatus::Exited(code) => println!("the guest exited with status {code}"),
//!     other => println!("the guest was {other}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! * Nothing process-wide is touched: no signal handler, no `SIGCHLD`, no environment, no directory, no umask.
//!   Guests are no children of the host program: they are started and reaped by a process of their own, one for
//!   each [`Runtime`], which is invisible to `wait(-1)` (though not to a wait for any child with `__WALL` or
//!   `__WCLONE`). Guests in virtual machines are threads of the host program, confined one by one; they run no
//!   signal handler of it, and are stopped with signal 63, which no handler is installed for either.
//! * A guest ends when its [`Guest`] is dropped and when the host program ends, however that ends, unless it was
//!   [detached](Guest::detach), which guests in virtual machines cannot be. It does not end because the thread that started it does.
//! * Start-up costs do not depend on the size of the guest's memory, its disks, or the parts of its image that it
//!   does not use.
//! * Many guests can be started, waited for and killed from many threads. [`Guest::exit_fd`] lets any event loop
//!   wait for thousands.
//! * After a `fork` without exec, the child's copies of a [`Runtime`] and its guests do nothing when dropped.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used)]
#![cfg_attr(not(feature = "gdb"), allow(dead_code, reason = "some of it is for debuggers alone"))]

mod backend;
mod builder;
mod confine;
mod counters;
mod debug;
mod device;
mod elf_writer;
mod error;
mod exit;
mod guest;
pub mod host;
mod image;
mod probe;
mod runtime;
mod spec;
mod step;
mod sys;
mod syscall_names;
mod usage;

#[cfg(feature = "gdb")]
pub use crate::debug::gdb::GdbListener;
pub use crate::{
    builder::{DEFAULT_MEMORY, GuestBuilder},
    confine::Identity,
    counters::{Counters, DeviceCounters, Exits, Hypercalls},
    device::{
        BlockDevice, BlockError, BlockErrorKind, BlockInfo, Console, ConsoleReader, DEFAULT_BLOCK_SIZE,
        DeviceError, DeviceInfo, DeviceProperties, NetDevice, NetInfo,
    },
    error::{Error, ErrorKind},
    exit::{
        BadHypercall, Denied, DeniedCall, ExitStatus, Fault, HypercallMistake, SyscallEntry,
        UnsupportedInstruction, signal_name,
    },
    guest::Guest,
    image::{ImageFile, ImageSource, OpenImage},
    runtime::Runtime,
    spec::{Isolation, Supervision},
    step::LaunchStep,
    usage::ResourceUsage,
};
pub use nabla_core::{Abi, ByteSize, Image, MacAddress, ParseMacError};
pub use nabla_tap::{Tap, TapError, TapErrorKind};
