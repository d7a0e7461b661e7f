//! Run unikernels: as processes that are confined to nine system calls, or in virtual machines.
//!
//! A guest is an ELF file that was linked with its own library operating system against the Solo5 `spt` or `hvt`
//! ABI. This crate loads it, gives it block devices, network devices and a console, runs and confines it, and tells how
//! it ended. The image says what runs it: an `spt` guest is a process, an `hvt` guest runs in a virtual machine (KVM), as
//! code without privileges.
//!
//! ```no_run
//! use nabla_monitor::{BlockDevice, ByteSize, Console, ExitStatus, Runtime};
//!
//! let runtime = Runtime::new(); // costs nothing, probes nothing
//! let guest = runtime
//!     .guest("app.nabla")
//!     .memory(ByteSize::mib(64))
//!     .block(BlockDevice::new("rootfs.iso").read_only())
//!     .args(["--port", "80"])
//!     .console(Console::pipe())
//!     .start()?; // everything that is wrong is told here, as one sentence
//!
//! let output = guest.wait_with_output()?; // reads the pipe to its end: a guest stops while nobody reads it
//! match output.status {
//!     ExitStatus::Exited(0) => println!("{}", String::from_utf8_lossy(&output.console)),
//!     status => eprintln!("{status}"), // "memory fault (SIGSEGV) at address 0x0 by the instruction at 0x100010"
//! }
//! # Ok::<(), nabla_monitor::Error>(())
//! ```
//!
//! # Life of a guest
//!
//! [`Runtime::guest`] makes a [`GuestBuilder`], which collects settings. [`GuestBuilder::start`] opens and checks everything
//! and returns a [`Guest`].
//!
//! | to | use |
//! | --- | --- |
//! | wait | [`Guest::wait`], [`try_wait`](Guest::try_wait), [`wait_timeout`](Guest::wait_timeout): from any thread, as often as you like |
//! | wait, and have its output | [`Guest::wait_with_output`], or [`GuestBuilder::output`] for all in one |
//! | wait in an event loop | [`Guest::exit_fd`] is readable once the guest has ended; then `try_wait` tells how |
//! | end it | [`Guest::kill`], or drop the [`Guest`] |
//! | let it live on | [`Guest::detach`]: it then outlives the handle and the program |
//! | stop it for a while | [`Guest::pause`], which returns when it stands still; [`resume`](Guest::resume) |
//! | measure | [`Guest::usage`], [`counters`](Guest::counters) (virtual machines) |
//! | see what it has | [`Guest::devices`], [`abi`](Guest::abi), [`pid`](Guest::pid), [`is_supervised`](Guest::is_supervised) |
//! | debug | [`GuestBuilder::gdb`], [`core_dumps`](GuestBuilder::core_dumps), [`Guest::dump_core`] |
//!
//! # How a guest ended
//!
//! [`ExitStatus`] tells an exit status from an abort, a fault (signal, address, instruction), a denied system call (number,
//! name, arguments), a signal that was sent, and want of memory. The details of faults and denied calls come from
//! supervision, which is on by default. [`Supervision::None`] saves about 50 us from start to exit and leaves the kind only.
//!
//! Want of memory is exact for a guest in a cgroup of its own ([`Isolation::cgroup`]). Otherwise it is deduced from the
//! host's count of such kills, which could be about another process that was killed in the same moment.
//!
//! # Consoles
//!
//! | console | what the guest sees |
//! | --- | --- |
//! | [`Console::inherit`], [`null`](Console::null), [`file`](Console::file), [`from_fd`](Console::from_fd) | the descriptor itself |
//! | [`Console::pipe`] | a pipe of 64 KiB. A reader that stalls stops the guest at its next write. A reader that goes away makes the guest's writes fail, which guests ignore |
//! | [`Console::writer`] | a pipe, which one thread of the [`Runtime`] empties into your writer. When `wait` returns, your writer has everything |
//!
//! So `wait` before the pipe was read to its end hangs for a guest that writes more than the pipe holds. Read first, as
//! [`Guest::wait_with_output`] does, or take another console.
//!
//! # Many guests
//!
//! Guests can be started, waited for and killed from many threads. A guest in a process costs this program one
//! descriptor (its pidfd), one more for a pipe, and about 30 KiB of memory of its own. A guest in a virtual machine
//! costs a thread and six descriptors, with the network ring two threads and seven. All process guests of a [`Runtime`]
//! share one supervisor process. Any event loop can wait for thousands, on [`Guest::exit_fd`]. With tokio:
//!
//! ```no_run
//! # struct Interest; impl Interest { const READABLE: Self = Self; }
//! # struct AsyncFd; impl AsyncFd {
//! #     fn with_interest(_: std::os::fd::OwnedFd, _: Interest) -> std::io::Result<Self> { Ok(Self) }
//! # }
//! # fn watch(guest: &nabla_monitor::Guest) -> std::io::Result<AsyncFd> {
//! AsyncFd::with_interest(guest.exit_fd().try_clone_to_owned()?, Interest::READABLE)
//! # }
//! ```
//!
//! `examples/` has programs for it: `run` (one guest), `event_loop` (many), `console` (a writer that marks each line) and
//! `report` (what an image is, what it was given, what it used).
//!
//! # What is promised
//!
//! * Nothing process-wide is touched: no signal handler, no `SIGCHLD`, no environment, no directory, no umask.
//!   Guests are no children of the host program: they are started and reaped by a process of their own, one for
//!   each [`Runtime`], which is invisible to `wait(-1)`. Guests in virtual machines are threads of the host program,
//!   confined one by one; they run no signal handler of it, and are stopped with signal 63, which no handler is installed
//!   for either.
//! * A guest ends when its [`Guest`] is dropped and when the host program ends, however that ends (`kill -9` included),
//!   unless it was [detached](Guest::detach), which guests in virtual machines cannot be. It does not end because the thread
//!   that started it does.
//! * Start-up costs do not depend on the size of the guest's memory, its disks, or the parts of its image that it
//!   does not use.
//! * After a `fork` without exec, the child's copies of a [`Runtime`] and its guests do nothing when dropped. Guests that
//!   the child starts are its own.
//!
//! # Hosts that deny system calls
//!
//! Filters of container engines answer calls that they do not know with EPERM: Docker's of 2018 knows neither `clone3` nor
//! `openat2`, `close_range`, `pidfd_send_signal` or Landlock. `close_range`, `execveat`, `memfd_create`,
//! `pidfd_send_signal`, `statx` and `epoll_pwait2` are done without, and so is Landlock. Guests that are processes take no
//! threads. Without `clone3`, the C library starts a thread only if it is told that there is no such call (ENOSYS). So guests
//! in virtual machines, consoles with a writer and debuggers cannot be had under a filter that answers EPERM. What is denied
//! and needed is named by the error, and by [`host`] (`nabla doctor`).
//!
//! # What to know
//!
//! * The supervisor, and with it the guests, have the limits, the cgroup and the namespaces that the host program had when
//!   it started its first guest from that [`Runtime`]. A change of user is noticed: a new supervisor is started for new
//!   guests. A program that gives up root does so before its first guest; the project's `docs/security.md` says why.
//! * A detached guest becomes a child of the process that adopts orphans. If that is the host program
//!   (`PR_SET_CHILD_SUBREAPER`, or process 1 of a container), the guest is then in its `wait`.
//! * A guest that has ended stays a zombie of the supervisor until its status was collected or its [`Guest`] dropped, so that
//!   [`Guest::pid`] is never another process.
//! * A wait for *any* child with `__WALL` or `__WCLONE` sees the supervisor.
//! * [`ResourceUsage::max_resident`] of a guest that ended *unsupervised* is the kernel's figure, which counts the size of
//!   the host program at the start, as for every child that shares memory until exec.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used)]
#![cfg_attr(not(feature = "gdb"), allow(dead_code, reason = "some of it is for debuggers only"))]
#![cfg_attr(
    not(feature = "gdb"),
    allow(rustdoc::broken_intra_doc_links, reason = "the overview names what that feature adds")
)]

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
    guest::{Guest, Output},
    image::{ImageFile, ImageSource, OpenImage},
    runtime::Runtime,
    spec::{Isolation, Supervision},
    step::LaunchStep,
    usage::ResourceUsage,
};
pub use nabla_core::{Abi, ByteSize, Image, MacAddress, ParseMacError};
pub use nabla_tap::{Tap, TapError, TapErrorKind};

/// The README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
