//! A virtual machine with one processor: what KVM has to be told before a guest can run.

use super::{
    arch::{self, Table},
    control::KICK,
    memory::GuestMemory,
};
use crate::{
    error::Error,
    step::LaunchStep,
    sys::{
        lock,
        signals::{self, BlockedSignals, SETXID},
    },
};
use kvm_bindings::{
    CpuId, KVM_CAP_DISABLE_QUIRKS2, KVM_MAX_CPUID_ENTRIES, KVM_X86_QUIRK_FIX_HYPERCALL_INSN, KVMIO, Msrs,
    kvm_dtable, kvm_enable_cap, kvm_msr_entry, kvm_regs, kvm_segment, kvm_signal_mask, kvm_sregs,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VcpuFd, VmFd};
use nabla_core::abi::hvt;
use rustix::io::Errno;
use std::{
    fmt, io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Arc, Mutex, OnceLock},
    thread,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::{eventfd::EventFd, ioctl::ioctl_with_ref, ioctl_iow_nr};

ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, kvm_signal_mask);

/// The memory slots.
const GUEST_SLOT: u32 = 0;
const MONITOR_SLOT: u32 = 1;
/// `IA32_LSTAR`: where `syscall` goes.
const LSTAR: u32 = 0xc000_0082;

/// A virtual machine that is ready to run. Dropping it frees everything.
pub struct Machine {
    pub vcpu: VcpuFd,
    /// Frequency of the time stamp counter in Hz.
    pub tsc_frequency: u64,
    /// Whether the guest can wake the host's side of the network ring.
    pub has_doorbell: bool,
    // In the order in which they are dropped: the machine before the memory that it uses.
    vm: VmFd,
    monitor: GuestMemoryMmap,
    pub memory: Arc<GuestMemory>,
}

/// How a machine starts.
#[derive(Debug)]
pub struct Start<'a> {
    pub page_tables: &'a [u8],
    /// Address of the first instruction.
    pub entry: u64,
    /// What that finds in rdi.
    pub argument: u64,
    /// What the guest's writes to the port of the network ring's doorbell make readable.
    pub doorbell: Option<&'a EventFd>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("memory", &self.memory).finish_non_exhaustive()
    }
}

fn cannot(step: LaunchStep) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |error| Error::Launch { step, source: io::Error::from_raw_os_error(error.errno()) }
}

/// Opens `/dev/kvm` and checks that it is one that guests can be run with.
pub fn open() -> Result<Kvm, Error> {
    let no = |reason: String| Error::NoKvm { reason };
    let kvm = Kvm::new().map_err(|error| no(reason_of(error.errno())))?;
    let version = kvm.get_api_version();
    if version != 12 {
        return Err(no(format!(
            "/dev/kvm is not KVM, or one with another interface (version {version}, not 12)"
        )));
    }
    for (cap, name) in [
        (Cap::UserMemory, "user memory"),
        (Cap::ExtCpuid, "extended CPUID"),
        (Cap::SyncRegs, "synchronised registers"),
        (Cap::GetTscKhz, "the frequency of the time stamp counter"),
    ] {
        if !kvm.check_extension(cap) {
            return Err(no(format!("this kernel's KVM lacks {name}: a newer kernel is needed")));
        }
    }
    Ok(kvm)
}

fn reason_of(errno: i32) -> String {
    let error = io::Error::from_raw_os_error(errno);
    match Errno::from_raw_os_error(errno) {
        Errno::NOENT => "there is no /dev/kvm here: load the module (modprobe kvm_intel or kvm_amd), or switch virtualisation on in the firmware or in the cloud's settings".to_owned(),
        Errno::ACCESS | Errno::PERM => match rustix::fs::stat("/dev/kvm") {
            Ok(stat) if stat.st_gid == 0 => "you may not use /dev/kvm, which is root's alone: give it a group (chgrp kvm /dev/kvm && chmod 660 /dev/kvm), join that (usermod -aG kvm $USER) and log in again".to_owned(),
            _ => "you may not use /dev/kvm: join the group that owns it (usermod -aG kvm $USER) and log in again".to_owned(),
        },
        Errno::NODEV | Errno::NXIO => "/dev/kvm is there and this processor does not support it, or virtualisation is switched off in the firmware".to_owned(),
        _ => format!("/dev/kvm cannot be opened: {error}"),
    }
}

/// Does something, and meanwhile asks the kernel for the processor's features if they are not known yet: where `cpuid`
/// leaves the processor, that takes as long as all the rest of a start.
pub fn while_asking_for_features<T>(kvm: &Kvm, something: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        if CPUID.get().is_none() {
            // It inherits that signals are blocked, so that no handler of the host program runs in it. Where there can
            // be no thread, the features are asked for in their turn.
            let _blocked = BlockedSignals::all_but_setxid();
            let _ = thread::Builder::new().spawn_scoped(scope, || supported_cpuid(kvm).is_ok());
        }
        something()
    })
}

impl Machine {
    /// A machine with this memory, with the stack at the end of it.
    pub fn new(kvm: &Kvm, memory: Arc<GuestMemory>, start: &Start<'_>) -> Result<Self, Error> {
        let vm = create_vm(kvm)?;
        let quirks = kvm_enable_cap {
            cap: KVM_CAP_DISABLE_QUIRKS2,
            args: [u64::from(KVM_X86_QUIRK_FIX_HYPERCALL_INSN), 0, 0, 0],
            ..Default::default()
        };
        // Older kernels lack it, and replace `vmcall` by `vmmcall` in the guest's (private) text then.
        let _ = vm.enable_cap(&quirks);
        // Where the kernel cannot do it, there is no ring.
        let port = IoEventAddress::Pio(hvt::RING_KICK_PORT.into());
        let has_doorbell =
            start.doorbell.is_some_and(|doorbell| vm.register_ioevent(doorbell, &port, NoDatamatch).is_ok());
        let monitor = monitor_memory(start.page_tables, has_doorbell)?;
        add_slot(&vm, GUEST_SLOT, 0, memory.length(), memory.host_address() as u64)?;
        let host = monitor.get_host_address(GuestAddress(arch::MONITOR_BASE)).map_err(no_memory)?;
        let size = arch::PAGE_TABLES - arch::MONITOR_BASE + start.page_tables.len() as u64;
        add_slot(&vm, MONITOR_SLOT, arch::MONITOR_BASE, size, host as u64)?;

        let vcpu = vm.create_vcpu(0).map_err(cannot(LaunchStep::CreateVcpu))?;
        let cpuid = supported_cpuid(kvm)?;
        vcpu.set_cpuid2(cpuid).map_err(cannot(LaunchStep::SetFeatures))?;
        let tsc_frequency = tsc_frequency(&vcpu)?;
        set_registers(
            &vcpu,
            has_umip(cpuid),
            &initial_registers(start.entry, start.argument, memory.size()),
        )?;
        set_signal_mask(&vcpu)?;
        Ok(Self { vcpu, tsc_frequency, has_doorbell, vm, monitor, memory })
    }

    /// The descriptors of the virtual machine and its processor.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        // SAFETY: they are open for as long as the machine is, which is borrowed.
        [self.vcpu.as_raw_fd(), self.vm.as_raw_fd()].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Bytes of guest memory that are in use. Does not look at what the guest has never touched.
    pub fn resident(&self) -> io::Result<u64> {
        let entry = |offset| self.monitor.read_obj::<u64>(GuestAddress(arch::PAGE_TABLES + offset)).ok();
        self.memory.resident_among(&arch::accessed(self.memory.length(), entry))
    }

    /// `N` words of the stack that exceptions push their frames on.
    pub fn stack_words<const N: usize>(&self, address: u64) -> Option<[u64; N]> {
        let size = size_of::<[u64; N]>() as u64;
        if address < arch::STACK_TOP - 0x1000 || address > arch::STACK_TOP - size {
            return None;
        }
        let mut bytes = vec![0; size_of::<[u64; N]>()];
        self.monitor.read_slice(&mut bytes, GuestAddress(address)).ok()?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some(words)
    }
}

fn create_vm(kvm: &Kvm) -> Result<VmFd, Error> {
    // A signal of the host program interrupts this.
    for _ in 0..100 {
        match kvm.create_vm() {
            Err(error) if error.errno() == Errno::INTR.raw_os_error() => {}
            result => return result.map_err(cannot(LaunchStep::CreateMachine)),
        }
    }
    kvm.create_vm().map_err(cannot(LaunchStep::CreateMachine))
}

fn no_memory(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Launch { step: LaunchStep::CreatePageTables, source: io::Error::other(error) }
}

fn monitor_memory(page_tables: &[u8], doorbell: bool) -> Result<GuestMemoryMmap, Error> {
    let pages = arch::monitor_pages(doorbell);
    let size = pages.len() + page_tables.len();
    let memory =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(arch::MONITOR_BASE), size)]).map_err(no_memory)?;
    memory.write_slice(&pages, GuestAddress(arch::MONITOR_BASE)).map_err(no_memory)?;
    memory.write_slice(page_tables, GuestAddress(arch::PAGE_TABLES)).map_err(no_memory)?;
    Ok(memory)
}

fn add_slot(vm: &VmFd, slot: u32, address: u64, size: u64, host: u64) -> Result<(), Error> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: address,
        memory_size: size,
        userspace_addr: host,
    };
    // SAFETY: the range is a mapping that `Machine` owns, and drops after the virtual machine. The guest and this
    // program share it; nothing here takes references to what is in it.
    unsafe { vm.set_user_memory_region(region) }.map_err(cannot(LaunchStep::SetMachineMemory))
}

static CPUID: OnceLock<CpuId> = OnceLock::new();
static ASKING: Mutex<()> = Mutex::new(());

/// What KVM can show a guest of this processor. It takes the kernel a good part of a start to find out, and never
/// changes.
fn supported_cpuid(kvm: &Kvm) -> Result<&'static CpuId, Error> {
    // A second thread waits for the first instead of asking, too.
    let _asking = lock(&ASKING);
    if let Some(known) = CPUID.get() {
        return Ok(known);
    }
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(cannot(LaunchStep::QueryFeatures))?;
    Ok(CPUID.get_or_init(|| cpuid))
}

fn has_umip(cpuid: &CpuId) -> bool {
    const UMIP: u32 = 1 << 2;
    cpuid.as_slice().iter().any(|leaf| leaf.function == 7 && leaf.index == 0 && leaf.ecx & UMIP != 0)
}

fn tsc_frequency(vcpu: &VcpuFd) -> Result<u64, Error> {
    match vcpu.get_tsc_khz() {
        Ok(khz) if khz > 0 => Ok(u64::from(khz) * 1000),
        Err(error) if error.errno() != Errno::IO.raw_os_error() => {
            Err(cannot(LaunchStep::QueryFeatures)(error))
        }
        _ => Err(Error::NoKvm {
            reason:
                "this host's time stamp counter is unstable, which guests keep time by (see tsc in dmesg)"
                    .to_owned(),
        }),
    }
}

fn initial_registers(entry: u64, argument: u64, memory: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rdi: argument,
        // What a function sees that was called with an aligned stack.
        rsp: memory - 8,
        rflags: super::cpu::flags::FIXED,
        ..Default::default()
    }
}

fn segment(selector: u16, kind: u8, long: bool) -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        dpl: 3,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

/// Code of ring 3.
pub fn user_code() -> kvm_segment {
    segment(arch::USER_CS, 11, true)
}

/// Data of ring 3.
pub fn user_data() -> kvm_segment {
    segment(arch::USER_DS, 3, false)
}

fn set_registers(vcpu: &VcpuFd, umip: bool, regs: &kvm_regs) -> Result<(), Error> {
    let table = |Table { base, limit }| kvm_dtable { base, limit, ..Default::default() };
    let failed = LaunchStep::SetRegisters;
    let old = vcpu.get_sregs().map_err(cannot(failed))?;
    let data = user_data();
    let task = kvm_segment {
        base: arch::MONITOR_TSS.base,
        limit: u32::from(arch::MONITOR_TSS.limit),
        selector: arch::TSS_SELECTOR,
        type_: 11,
        present: 1,
        ..Default::default()
    };
    let sregs = kvm_sregs {
        cs: user_code(),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: task,
        gdt: table(arch::MONITOR_GDT),
        idt: table(arch::MONITOR_IDT),
        cr0: arch::CR0,
        cr3: arch::PAGE_TABLES,
        cr4: if umip { arch::CR4 | arch::CR4_UMIP } else { arch::CR4 },
        efer: arch::EFER,
        ..old
    };
    vcpu.set_sregs(&sregs).map_err(cannot(failed))?;
    vcpu.set_regs(regs).map_err(cannot(failed))?;
    let entry = kvm_msr_entry { index: LSTAR, data: arch::SYSCALL_TRAP, ..Default::default() };
    let msrs = Msrs::from_entries(&[entry]).map_err(no_memory)?;
    vcpu.set_msrs(&msrs).map_err(cannot(failed))?;
    Ok(())
}

/// While guest code runs, only the kick gets through, and what the C library needs.
fn set_signal_mask(vcpu: &VcpuFd) -> Result<(), Error> {
    #[repr(C)]
    struct SignalMask {
        length: u32,
        /// 8 bytes, not aligned as a number.
        blocked: [u8; 8],
    }
    let blocked = !signals::set([KICK, SETXID]);
    let mask = SignalMask { length: 8, blocked: blocked.to_ne_bytes() };
    // SAFETY: this is `struct kvm_signal_mask` with a set of 8 bytes after its length, which the kernel copies.
    match unsafe { ioctl_with_ref(vcpu, KVM_SET_SIGNAL_MASK(), &mask) } {
        0 => Ok(()),
        _ => Err(Error::Launch { step: LaunchStep::SetRegisters, source: io::Error::last_os_error() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_for_no_machine_says_what_to_do() {
        for (errno, text) in [
            (Errno::NOENT, "modprobe kvm_intel"),
            (Errno::ACCESS, "usermod -aG kvm $USER"),
            (Errno::PERM, "usermod -aG kvm $USER"),
            (Errno::NODEV, "switched off in the firmware"),
            (Errno::MFILE, "cannot be opened: Too many open files"),
        ] {
            let error = Error::NoKvm { reason: reason_of(errno.raw_os_error()) }.to_string();
            assert!(error.starts_with("the guest needs a virtual machine, and "), "{error}");
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn segments_are_those_of_ring_3() {
        for segment in [user_code(), user_data()] {
            assert_eq!((segment.dpl, segment.selector & 3, segment.present, segment.base), (3, 3, 1, 0));
        }
        assert_eq!((user_code().l, user_code().db, user_data().l), (1, 0, 0));
    }
}
