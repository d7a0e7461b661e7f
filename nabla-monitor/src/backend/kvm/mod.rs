//! `hvt` guests: ring-3 code in a virtual machine of one processor, which is a thread of this program.

mod arch;
mod control;
mod counters;
mod cpu;
mod devices;
mod emulate;
mod filter;
mod hypercall;
mod inspect;
mod keeper;
mod memory;
mod reservation;
mod running;
mod vcpu;
mod vm;

use self::{
    counters::Tally,
    devices::Devices,
    filter::FilterConfig,
    inspect::{Inspector, Watched},
    keeper::Keeper,
    memory::{GuestMemory, MemoryOptions},
    running::{KvmGuest, Setting, Shared},
    vcpu::Vcpu,
    vm::Machine,
};
use super::Prepared;
use crate::{config::Isolation, error::Error, runtime::Runtime};
use nabla_core::layout;
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

/// Whether virtual machines can be had here.
pub(crate) fn check() -> Result<(), Error> {
    vm::open().map(|_| ())
}

/// Starts a guest in a virtual machine of its own.
pub(crate) fn start(runtime: &Runtime, guest: Prepared, console: OwnedFd) -> Result<KvmGuest, Error> {
    if guest.isolation != Isolation::default() {
        return Err(Error::NotForVirtualMachines);
    }
    let cannot = |step: &str, source: io::Error| {
        let hint = crate::host::launch_hint(&source, step);
        Error::Launch { step: step.to_owned(), source, hint }
    };
    let size = guest.memory.as_u64();
    let boot_info = layout::hvt::BOOT_INFO_BASE;
    let kvm = vm::open()?;
    let (machine, memory) = vm::while_asking_for_features(&kvm, || {
        let regions = memory::regions(&guest.image, size, guest.exec_heap);
        let page_tables = arch::page_tables(&regions);
        let options = MemoryOptions { huge_pages: guest.huge_pages, dumpable: guest.dumpable };
        let memory = GuestMemory::new(size, regions, options).map_err(|e| cannot("get guest memory", e))?;
        memory.load(&guest.image, &guest.file).map_err(|e| cannot("load the image", e))?;
        let memory = Arc::new(memory);
        let machine = Machine::new(&kvm, Arc::clone(&memory), &page_tables, guest.image.entry(), boot_info)?;
        Ok::<_, Error>((machine, memory))
    })?;
    drop(kvm);

    let manifest = devices::manifest(guest.image.manifest(), &guest.devices);
    let area = layout::hvt::boot_area(
        size,
        guest.image.end(),
        machine.tsc_frequency,
        &manifest,
        &guest.command_line,
        None,
    );
    memory.place(area.address, &area.bytes).map_err(|e| cannot("write boot info", e))?;

    let tally = Arc::new(Tally::new(guest.image.manifest(), machine.tsc_frequency));
    let shared = Arc::new(Shared::new(Arc::clone(&tally)).map_err(|e| cannot("make event descriptors", e))?);
    let mut devices = Devices::new(guest.devices, console, &shared.control, tally)
        .map_err(|e| cannot("set up the devices", e))?;
    devices.ends_with_reader = guest.alone;
    // Without it the program ends as slowly as it would anyway.
    let keeper = guest.alone.then(|| Keeper::new(machine.descriptors()).ok()).flatten();
    let [vcpu, vm] = machine.descriptors().map(|descriptor| descriptor.as_raw_fd());
    let filter = FilterConfig {
        vcpu,
        vm,
        exit: shared.exit_descriptor(),
        wake: shared.control.wake().as_raw_fd(),
        look: shared.control.port.event().as_raw_fd(),
        devices: devices.descriptors(),
    };
    let overseer = if guest.inside.is_empty() {
        None
    } else {
        let watched = if guest.inside.stops_at_entry() { Watched::Traps } else { Watched::End };
        let inspector = Inspector::new(&shared, &memory, watched);
        let overseer = guest.inside.start(&guest.name, std::process::id(), inspector, |_| Ok(()));
        Some(overseer.map_err(|e| cannot("start a thread that looks into the guest", e))?)
    };
    let vcpu = Vcpu::new(machine, devices);
    let landlock_abi = runtime.landlock_abi();
    let setting = Setting { name: &guest.name, landlock_abi, filter, overseer, keeper };
    KvmGuest::start(setting, vcpu, shared, &memory)
}
