//! `nabla run`.

mod args;
mod counters;
pub mod device;
pub mod net_spec;
mod network;
mod option;
mod parent;
mod report;
mod signals;

pub use self::{args::RunArgs, option::Stop};

use self::{network::Networks, signals::First};
use crate::pending;
use anyhow::Context;
use nabla_monitor::{
    Console, DEFAULT_MEMORY, GuestBuilder, ImageFile, Isolation, OpenImage, Runtime, Supervision,
};
use std::os::unix::ffi::OsStrExt;

/// Runs a guest and returns the exit status: as the guest's own process where nothing is left to do when it ends,
/// and as its parent where there is, or where the guest is no process.
pub fn main(args: &RunArgs) -> anyhow::Result<u8> {
    let image = ImageFile::open(&args.image)?.parse(args.abi)?;
    // Process 1 of a namespace gets no signal that it has no handler for, and a guest's process has none.
    let is_first = rustix::process::getpid().is_init();
    let is_process = !image.image().abi().needs_kvm();
    let observed =
        args.supervise || args.json_report.is_some() || args.gdb.is_some() || args.dumpcore.is_some();
    if observed || network::needs_parent(args) || (is_first && is_process) {
        return parent::run(args, image);
    }
    let startup = is_first.then(|| First::begin(&args.image)).transpose()?;
    let mut networks = Networks::make(args)?;
    let guest = builder(args, image, &mut networks)?;
    networks.announce(&args.image);
    tracing::info!("becoming the guest's process, unless it needs a virtual machine");
    let guest = guest.exec()?;
    startup.map(First::end).transpose()?;
    guest.confine_program()?;
    let status = parent::stay(&guest, args);
    // This program ends now, and takes along what is left of it.
    std::mem::forget(guest);
    status
}

/// The guest as the command line describes it.
fn builder(args: &RunArgs, image: OpenImage, networks: &mut Networks) -> anyhow::Result<GuestBuilder> {
    let words = networks.arguments(args, &image)?;
    let mut guest = Runtime::new()
        .guest(image)
        .memory(args.mem.unwrap_or(DEFAULT_MEMORY))
        .exec_heap(args.x_exec_heap)
        .huge_pages(args.huge_pages)
        .isolation(isolation(args))
        .args(words.iter().map(|arg| arg.as_bytes()));
    for disk in &args.disk {
        guest = match &disk.name {
            Some(name) => guest.block_device(name, disk.device()),
            None => guest.block(disk.device()),
        };
    }
    for (name, tap) in networks.take_taps() {
        guest = match name {
            Some(name) => guest.net_device(name, tap),
            None => guest.net(tap),
        };
    }
    if let Some(path) = &args.console {
        guest = guest.console(match pending::inherited(path) {
            None => Console::file(path),
            Some(descriptor) => Console::from_fd(
                descriptor.with_context(|| format!("cannot write the console to '{}'", path.display()))?,
            ),
        });
    }
    if let Some(name) = &args.name {
        guest = guest.name(name);
    }
    if args.supervise {
        guest = guest.supervision(Supervision::Full);
    }
    if let Some(directory) = &args.dumpcore {
        guest = guest.core_dumps(directory);
    }
    Ok(guest)
}

fn isolation(args: &RunArgs) -> Isolation {
    let mut isolation = Isolation::default();
    isolation.namespaces = args.isolate;
    isolation.identity = args.user;
    isolation.cgroup.clone_from(&args.cgroup);
    isolation
}
