//! A running guest, as the rest of the program sees it.

use super::{
    control::Control,
    counters::Tally,
    deferred_close::DeferredClose,
    filter::{self, FilterConfig},
    inspect::{Inspector, Watched},
    memory::GuestMemory,
    ring::{Confinement, Doorbell, Ring, Service},
    vcpu::{Vcpu, end_of},
    vm::Machine,
};
use crate::{
    backend::Running,
    confine::descriptors,
    counters::Counters,
    debug::{DebugThread, Debuggee, End, core, thread as debug_thread},
    error::Error,
    exit::ExitStatus,
    step::LaunchStep,
    sys::{
        event::Event,
        lock, own_pid,
        procfs::Stat,
        raw::{check, nr, syscall},
        signals::{BlockedSignals, SIGKILL},
        usage::of_this_thread,
    },
    usage::ResourceUsage,
};
use seccompiler::BpfProgram;
use std::{
    io,
    num::NonZeroU64,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicI32, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
};

/// Enough for the loop; what is not touched is not used.
const THREAD_STACK: usize = 256 << 10;

/// A guest in a virtual machine, whose processor is a thread of this program.
#[derive(Debug)]
pub(super) struct KvmGuest {
    state: Arc<GuestState>,
    thread: Mutex<Option<JoinHandle<()>>>,
    memory: Weak<GuestMemory>,
    debug_thread: Mutex<Option<DebugThread>>,
    filter: FilterConfig,
    landlock_abi: Option<u32>,
    /// The process that may end it: not a fork of it.
    owner: i32,
    /// For a program that ends with the guest.
    deferred_close: Option<DeferredClose>,
}

/// How a guest is to be run.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    pub name: &'a str,
    pub landlock_abi: Option<u32>,
    pub filter: FilterConfig,
    /// Serves its debuggers and core dumps.
    pub debug_thread: Option<DebugThread>,
    /// For a program that ends with the guest.
    pub deferred_close: Option<DeferredClose>,
    /// The network ring, if the guest has one.
    pub ring: Option<(Ring, Arc<Doorbell>)>,
}

/// What the thread and its owner share.
#[derive(Debug)]
pub(super) struct GuestState {
    pub control: Control,
    exit: Event,
    pub tally: Arc<Tally>,
    /// The thread that serves the network ring, 0 when there is none.
    pub network: AtomicI32,
    ending: Mutex<Option<Ending>>,
}

#[derive(Debug)]
struct Ending {
    result: Result<ExitStatus, String>,
    usage: ResourceUsage,
}

impl GuestState {
    pub fn new(tally: Arc<Tally>) -> io::Result<Self> {
        let (control, exit) = (Control::new()?, Event::new()?);
        Ok(Self { control, exit, tally, network: AtomicI32::new(0), ending: Mutex::new(None) })
    }

    pub fn exit_descriptor(&self) -> RawFd {
        self.exit.as_fd().as_raw_fd()
    }

    fn finish(&self, result: Result<ExitStatus, String>, usage: ResourceUsage) {
        *lock(&self.ending) = Some(Ending { result, usage });
        self.control.leave();
        self.exit.set();
    }
}

impl KvmGuest {
    /// Starts the thread. When this returns, it is confined and about to run the guest's first instruction.
    pub(super) fn start(
        setting: Setting<'_>,
        mut vcpu: Vcpu,
        state: Arc<GuestState>,
        memory: &Arc<GuestMemory>,
    ) -> Result<Self, Error> {
        let Setting { name, landlock_abi, filter, debug_thread, deferred_close, ring } = setting;
        let cannot = |step, source| Error::Launch { step, source };
        // A debugger waits for the end.
        let gone = || state.control.debug.end(End::Signal(SIGKILL));
        let program = filter::build(&filter).map_err(|error| {
            gone();
            cannot(LaunchStep::BuildFilter, io::Error::other(error))
        })?;
        let wait = |confined: mpsc::Receiver<_>| {
            confined.recv().unwrap_or_else(|_| Err(io::Error::other("it ended")))
        };
        let name: String = name.chars().filter(|&c| c != '\0').collect();
        if let Some((ring, doorbell)) = ring {
            let (ready, confined) = mpsc::sync_channel(1);
            let service = filter::build_for_network(&filter).map_err(io::Error::other).and_then(|program| {
                let confinement = Confinement { name: format!("{name}-net"), program, landlock_abi };
                let frequency = vcpu.tsc_frequency();
                Service::start(ring, doorbell, frequency, confinement, Arc::clone(&state), ready)
            });
            vcpu.serve_network(service.map_err(|source| {
                gone();
                cannot(LaunchStep::StartThread, source)
            })?);
            // Before the guest can submit anything.
            wait(confined).map_err(|source| {
                gone();
                cannot(LaunchStep::ConfineThread, source)
            })?;
        }
        let (ready, confined) = mpsc::sync_channel(1);
        let theirs = Arc::clone(&state);
        // The thread runs no handler of the host program, and takes no signal from threads that wait for one.
        let blocked = BlockedSignals::all_but_setxid();
        let dedicated = deferred_close.is_some();
        let thread = thread::Builder::new().name(name).stack_size(THREAD_STACK).spawn(move || {
            theirs.control.enter();
            let result = prepare_thread(&program, landlock_abi);
            let failed = result.is_err();
            let _ = ready.send(result);
            drop((ready, program));
            if !failed {
                let machine = run(vcpu, &theirs);
                if dedicated {
                    // The program is about to end, which frees it all faster than doing it one by one.
                    std::mem::forget(machine);
                }
            } else {
                theirs.control.leave();
            }
        });
        drop(blocked);
        let thread = thread.map_err(|source| {
            gone();
            cannot(LaunchStep::StartThread, source)
        })?;
        if let Err(source) = wait(confined) {
            state.control.kill();
            let _ = thread.join();
            gone();
            return Err(cannot(LaunchStep::ConfineThread, source));
        }
        Ok(Self {
            state,
            thread: Mutex::new(Some(thread)),
            memory: Arc::downgrade(memory),
            debug_thread: Mutex::new(debug_thread),
            filter,
            landlock_abi,
            owner: own_pid(),
            deferred_close,
        })
    }
}

fn prepare_thread(filter: &BpfProgram, landlock_abi: Option<u32>) -> io::Result<()> {
    // So that it is woken from its waits as exactly as possible.
    let _ = rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN));
    filter::confine_thread(filter, landlock_abi)
}

/// Runs the guest to its end, and tells that. Returns what is left to be freed: it takes a while, for which nobody has
/// to wait.
fn run(mut vcpu: Vcpu, state: &GuestState) -> Machine {
    let result = catch_unwind(AssertUnwindSafe(|| vcpu.run(&state.control)));
    let result = match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the monitor failed while it served the guest".to_owned()),
    };
    let network = vcpu.end_network();
    let usage = ResourceUsage { max_resident: vcpu.resident(), ..of_this_thread() }.and(network);
    let end = result.as_ref().map_or(End::Signal(SIGKILL), |status| end_of(*status));
    // Disks are closed, and with that unlocked, before anybody hears of the end.
    let machine = vcpu.into_machine();
    // First the debug thread: whoever hears of the end does not wait for it.
    state.control.debug.end(end);
    state.finish(result, usage);
    machine
}

impl Running for KvmGuest {
    fn pid(&self) -> u32 {
        own_pid().cast_unsigned()
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.state.exit.as_fd()
    }

    fn is_supervised(&self) -> bool {
        true
    }

    fn kill(&self) -> io::Result<()> {
        self.state.control.kill();
        Ok(())
    }

    fn pause(&self) -> io::Result<()> {
        self.state.control.pause();
        Ok(())
    }

    fn resume(&self) -> io::Result<()> {
        self.state.control.resume();
        Ok(())
    }

    fn usage(&self) -> io::Result<ResourceUsage> {
        if let Some(ending) = &*lock(&self.state.ending) {
            return Ok(ending.usage);
        }
        let Some(thread) = self.state.control.thread() else { return Ok(ResourceUsage::default()) };
        let of = |thread: i32| Stat::of(format_args!("self/task/{thread}")).map(|stat| stat.usage);
        let resident = self.memory.upgrade().map_or(Ok(0), |memory| memory.resident())?;
        let network = match self.state.network.load(Relaxed) {
            0 => ResourceUsage::default(),
            // It may have ended meanwhile.
            thread => of(thread).unwrap_or_default(),
        };
        Ok(ResourceUsage { max_resident: resident, resident, ..of(thread)?.and(network) })
    }

    fn counters(&self) -> Option<Counters> {
        Some(self.state.tally.counters())
    }

    fn confine_program(&self) -> io::Result<()> {
        let mut kept = filter::descriptors(&self.filter);
        kept.extend([0, 1, 2]);
        kept.extend(self.deferred_close.iter().flat_map(DeferredClose::descriptors));
        kept.sort_unstable();
        kept.dedup();
        let number = |descriptor: RawFd| descriptor.cast_unsigned();
        if descriptors::has_close_range() {
            let ends = kept.iter().skip(1).map(|&fd| number(fd) - 1).chain([u32::MAX]);
            for (first, last) in
                kept.iter().map(|&fd| number(fd) + 1).zip(ends).filter(|(first, last)| first <= last)
            {
                // SAFETY: whatever else this program has open, it has promised to be there for nothing but the guest.
                check(unsafe { syscall!(nr::CLOSE_RANGE, first, last, 0) })?;
            }
        } else {
            descriptors::for_each_open(|descriptor| {
                if kept.binary_search(&descriptor).is_err() {
                    // SAFETY: as above.
                    unsafe { syscall!(nr::CLOSE, descriptor) };
                }
            })?;
        }
        let program = filter::build_for_owner(&self.filter).map_err(io::Error::other)?;
        filter::confine_thread(&program, self.landlock_abi)
    }

    fn collect(&self) -> Result<(ExitStatus, ResourceUsage), Error> {
        let failed = |text: &str| Error::Operation {
            operation: "run the guest",
            source: io::Error::other(text.to_owned()),
        };
        match &*lock(&self.state.ending) {
            Some(Ending { result: Ok(status), usage }) => Ok((*status, *usage)),
            Some(Ending { result: Err(text), .. }) => Err(failed(text)),
            None => Err(failed("its thread has ended without saying why")),
        }
    }

    fn debug_thread(&self) -> &Mutex<Option<DebugThread>> {
        &self.debug_thread
    }

    fn dump_core(&self, directory: &Path, name: &str) -> io::Result<PathBuf> {
        if let Some(thread) = &*lock(&self.debug_thread) {
            return thread.dump_core(directory);
        }
        let memory = self.memory.upgrade().ok_or_else(debug_thread::ended)?;
        let directory = core::CoreDirectory::open(directory)?;
        let mut inspector = Inspector::new(&self.state, &memory, Watched::No);
        let written = core::write_of_running(&directory, name, self.pid(), &mut inspector);
        inspector.let_go()?;
        written
    }

    fn detach(&self) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "it is in a virtual machine, which cannot outlive the program that runs it",
        ))
    }
}

impl Drop for KvmGuest {
    fn drop(&mut self) {
        if self.owner != own_pid() {
            return;
        }
        self.state.control.kill();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}
