//! `hvt` guests: ring-3 code in a virtual machine of one processor, which is a thread of this program.

mod arch;
mod control;
mod counters;
mod cpu;
mod deferred_close;
mod devices;
mod emulate;
mod filter;
mod hypercall;
mod inspect;
mod memory;
mod reservation;
mod ring;
mod running;
mod vcpu;
mod vm;

use self::{
    counters::Tally,
    deferred_close::DeferredClose,
    devices::Devices,
    filter::FilterConfig,
    inspect::{Inspector, Watched},
    memory::{GuestMemory, MemoryOptions},
    ring::{Doorbell, Ring},
    running::{GuestState, KvmGuest, Setting},
    vcpu::Vcpu,
    vm::{Machine, Start},
};
use super::{Backend, Running};
use crate::{
    confine::landlock,
    debug::DebugThread,
    device,
    error::Error,
    spec::{GuestSpec, Isolation},
    step::LaunchStep,
};
use nabla_core::{Abi, abi::hvt, layout};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

/// Runs guests in virtual machines of this program.
#[derive(Debug)]
pub(crate) struct KvmBackend;

impl Backend for KvmBackend {
    fn abis(&self) -> &'static [Abi] {
        &[Abi::HvtV1, Abi::HvtV2]
    }

    fn start(&self, guest: GuestSpec, console: OwnedFd) -> Result<Box<dyn Running>, Error> {
        Ok(Box::new(start(guest, console)?))
    }
}

fn start(guest: GuestSpec, console: OwnedFd) -> Result<KvmGuest, Error> {
    if guest.isolation != Isolation::default() {
        return Err(Error::NotForVirtualMachines);
    }
    let cannot = |step: LaunchStep, source: io::Error| Error::Launch { step, source };
    let image = guest.image.image();
    let size = guest.memory.as_u64();
    let boot_info = layout::hvt::BOOT_INFO_BASE;
    let cannot_make_events = |error| cannot(LaunchStep::CreateEvents, error);
    let doorbell =
        takes_ring(&guest).then(Doorbell::new).transpose().map_err(cannot_make_events)?.map(Arc::new);
    let ring_bytes = if doorbell.is_some() { ring::BYTES } else { 0 };
    let kvm = vm::open()?;
    let (machine, memory) = vm::while_asking_for_features(&kvm, || {
        let regions = memory::regions(image, size, ring_bytes, guest.exec_heap);
        let page_tables = arch::page_tables(&regions);
        let options = MemoryOptions { huge_pages: guest.huge_pages, dumpable: guest.dumpable, ring_bytes };
        let memory = GuestMemory::new(size, regions, options)
            .map_err(|e| cannot(LaunchStep::MapMemory(guest.memory), e))?;
        memory.load(image, &guest.image).map_err(|e| cannot(LaunchStep::LoadImage, e))?;
        let memory = Arc::new(memory);
        let start = Start {
            page_tables: &page_tables,
            entry: image.entry(),
            argument: boot_info,
            doorbell: doorbell.as_deref().map(Doorbell::event),
        };
        let machine = Machine::new(&kvm, Arc::clone(&memory), &start)?;
        Ok::<_, Error>((machine, memory))
    })?;
    drop(kvm);
    let doorbell = doorbell.filter(|_| machine.has_doorbell);

    let manifest = device::fill_in(image.manifest(), &guest.devices, |_| -1);
    let area = layout::hvt::boot_area(
        size,
        image.end(),
        machine.tsc_frequency,
        &manifest,
        &guest.command_line,
        doorbell.is_some().then_some(size),
    );
    memory.place(area.address, &area.bytes).map_err(|e| cannot(LaunchStep::CopyBootInfo, e))?;

    let tally = Arc::new(Tally::new(image.manifest(), machine.tsc_frequency));
    let state = Arc::new(GuestState::new(Arc::clone(&tally)).map_err(cannot_make_events)?);
    let mut devices = Devices::new(guest.devices, console, &state.control, Arc::clone(&tally))
        .map_err(|e| cannot(LaunchStep::CreateDevices, e))?;
    devices.ends_with_reader = guest.dedicated;
    // Without it the program ends as slowly as it would anyway.
    let deferred_close = guest.dedicated.then(|| DeferredClose::new(machine.descriptors()).ok()).flatten();
    let [vcpu, vm] = machine.descriptors().map(|descriptor| descriptor.as_raw_fd());
    let filter = FilterConfig {
        vcpu,
        vm,
        exit: state.exit_descriptor(),
        wake: state.control.wake().as_raw_fd(),
        debug: state.control.debug.event().as_raw_fd(),
        doorbell: doorbell.as_ref().map(|doorbell| doorbell.event().as_raw_fd()),
        devices: devices.descriptors(),
    };
    let debug_thread = if guest.debug.is_empty() {
        None
    } else {
        let watched = if guest.debug.stops_at_entry() { Watched::Traps } else { Watched::End };
        let inspector = Inspector::new(&state, &memory, watched);
        let thread = DebugThread::start(guest.debug, &guest.name, std::process::id(), inspector, |_| Ok(()));
        Some(thread.map_err(|e| cannot(LaunchStep::AttachDebugger, e))?)
    };
    let ring = doorbell
        .and_then(|doorbell| Some((Ring::new(Arc::clone(&memory), devices.nets(), tally)?, doorbell)));
    let vcpu = Vcpu::new(machine, devices);
    let landlock_abi = landlock::abi();
    let setting = Setting { name: &guest.name, landlock_abi, filter, debug_thread, deferred_close, ring };
    KvmGuest::start(setting, vcpu, state, &memory)
}

/// Whether to offer a guest the network ring: one that has a network interface, may know rings, leaves room for one
/// below 4 GiB, and has a processor besides its own. On a single one, guests that wait for the ring by looking at it,
/// as those of Solo5 do, would keep from running whom they wait for.
fn takes_ring(guest: &GuestSpec) -> bool {
    let has_net = guest.devices.iter().any(|device| device.access().is_frames());
    let fits = guest.memory.as_u64().checked_add(ring::BYTES).is_some_and(|end| end <= hvt::MEMORY_MAX);
    let processors = || rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    has_net && guest.image.image().abi() == Abi::HvtV2 && fits && processors() > 1
}
