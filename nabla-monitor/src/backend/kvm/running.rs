//! A running guest, as the rest of the program sees it.

use super::{
    control::Control,
    counters::Tally,
    filter::{self, FilterConfig},
    inspect::{Inspector, Watched},
    keeper::Keeper,
    memory::GuestMemory,
    ring::{Bell, Confinement, Ring, Service},
    vcpu::{Vcpu, end_of},
    vm::Machine,
};
use crate::{
    backend::Running,
    counters::Counters,
    debug::{DebugThread, Debuggee, End, core, thread as debug_thread},
    error::Error,
    exit::{ExitStatus, SIGKILL},
    step::LaunchStep,
    sys,
    usage::ResourceUsage,
};
use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};
use seccompiler::BpfProgram;
use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicI32, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Enough for the loop; what is not touched is not used.
const THREAD_STACK: usize = 256 << 10;

/// A guest in a virtual machine, whose processor is a thread of this program.
#[derive(Debug)]
pub(super) struct KvmGuest {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    memory: Weak<GuestMemory>,
    debug_thread: Mutex<Option<DebugThread>>,
    filter: FilterConfig,
    landlock_abi: Option<u32>,
    /// The process that may end it: not a fork of it.
    owner: i32,
    /// For a program that ends with the guest.
    keeper: Option<Keeper>,
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
    pub keeper: Option<Keeper>,
    /// The network ring, if the guest has one.
    pub ring: Option<(Ring, Arc<Bell>)>,
}

/// What the thread and its owner share.
#[derive(Debug)]
pub(super) struct Shared {
    pub control: Control,
    exit: OwnedFd,
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

impl Shared {
    pub fn new(tally: Arc<Tally>) -> io::Result<Self> {
        let exit = eventfd(0, EventfdFlags::CLOEXEC)?;
        let control = Control::new()?;
        Ok(Self { control, exit, tally, network: AtomicI32::new(0), ending: Mutex::new(None) })
    }

    pub fn exit_descriptor(&self) -> RawFd {
        self.exit.as_raw_fd()
    }

    fn finish(&self, result: Result<ExitStatus, String>, usage: ResourceUsage) {
        *lock(&self.ending) = Some(Ending { result, usage });
        self.control.leave();
        let _ = rustix::io::write(&self.exit, &1_u64.to_ne_bytes());
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

impl KvmGuest {
    /// Starts the thread. When this returns, it is confined and about to run the guest's first instruction.
    pub(super) fn start(
        setting: Setting<'_>,
        mut vcpu: Vcpu,
        shared: Arc<Shared>,
        memory: &Arc<GuestMemory>,
    ) -> Result<Self, Error> {
        let Setting { name, landlock_abi, filter, debug_thread, keeper, ring } = setting;
        let cannot = |step, source| Error::Launch { step, source };
        // Whoever wants to look into it waits for its end.
        let gone = || shared.control.port.end(End::Signal(SIGKILL));
        let program = filter::build(&filter).map_err(|error| {
            gone();
            cannot(LaunchStep::BuildFilter, io::Error::other(error))
        })?;
        // One for each thread.
        let (ready, confined) = mpsc::sync_channel(2);
        let name: String = name.chars().filter(|&c| c != '\0').collect();
        let threads = 1 + usize::from(ring.is_some());
        if let Some((ring, bell)) = ring {
            let service = filter::build_for_network(&filter).map_err(io::Error::other).and_then(|program| {
                let confinement = Confinement { name: format!("{name}-net"), program, landlock_abi };
                let frequency = vcpu.tsc_frequency();
                Service::start(ring, bell, frequency, confinement, Arc::clone(&shared), ready.clone())
            });
            vcpu.serve_network(service.map_err(|source| {
                gone();
                cannot(LaunchStep::StartThread, source)
            })?);
        }
        let theirs = Arc::clone(&shared);
        // The thread runs no handler of the host program, and takes no signal from those who wait for one.
        let blocked = sys::BlockedSignals::all_but_setxid();
        let dedicated = keeper.is_some();
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
        let wait = || confined.recv().unwrap_or_else(|_| Err(io::Error::other("it ended")));
        if let Err(source) = (0..threads).try_for_each(|_| wait()) {
            shared.control.kill();
            let _ = thread.join();
            gone();
            return Err(cannot(LaunchStep::ConfineThread, source));
        }
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
            memory: Arc::downgrade(memory),
            debug_thread: Mutex::new(debug_thread),
            filter,
            landlock_abi,
            owner: own_pid(),
            keeper,
        })
    }
}

fn prepare_thread(filter: &BpfProgram, landlock_abi: Option<u32>) -> io::Result<()> {
    const PR_SET_TIMERSLACK: u64 = 29;
    // SAFETY: changes only how exactly the calling thread is woken from its waits.
    unsafe { sys::syscall(sys::nr::PRCTL, [PR_SET_TIMERSLACK, 1, 0, 0, 0, 0]) };
    filter::confine_thread(filter, landlock_abi)
}

/// Runs the guest to its end, and tells that. Returns what is left to be freed: it takes a while, for which nobody has to
/// wait.
fn run(mut vcpu: Vcpu, shared: &Shared) -> Machine {
    let result = catch_unwind(AssertUnwindSafe(|| vcpu.run(&shared.control)));
    let result = match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the monitor failed while it served the guest".to_owned()),
    };
    let network = vcpu.end_network();
    let usage = thread_usage(vcpu.resident()).and(network);
    let end = result.as_ref().map_or(End::Signal(SIGKILL), |status| end_of(*status));
    // Disks are closed, and with that unlocked, before anybody hears of the end.
    let machine = vcpu.into_machine();
    shared.finish(result, usage);
    shared.control.port.end(end);
    machine
}

/// What the calling thread has used.
pub(super) fn thread_usage(max_resident: u64) -> ResourceUsage {
    const GETRUSAGE: u64 = 98;
    const RUSAGE_THREAD: u64 = 1;
    // `struct rusage`: two times of two words each, then fourteen counters.
    let mut usage = [0_i64; 18];
    // SAFETY: the buffer has the size of a rusage.
    unsafe { sys::syscall(GETRUSAGE, [RUSAGE_THREAD, usage.as_mut_ptr() as u64, 0, 0, 0, 0]) };
    let time = |seconds: i64, micros: i64| {
        Duration::from_secs(seconds.unsigned_abs()) + Duration::from_micros(micros.unsigned_abs())
    };
    ResourceUsage {
        user_time: time(usage[0], usage[1]),
        system_time: time(usage[2], usage[3]),
        max_resident,
        resident: 0,
        minor_faults: usage[8].unsigned_abs(),
        major_faults: usage[9].unsigned_abs(),
    }
}

impl Running for KvmGuest {
    fn pid(&self) -> u32 {
        own_pid().cast_unsigned()
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.shared.exit.as_fd()
    }

    fn is_supervised(&self) -> bool {
        true
    }

    fn kill(&self) -> io::Result<()> {
        self.shared.control.kill();
        Ok(())
    }

    fn pause(&self) -> io::Result<()> {
        self.shared.control.pause();
        Ok(())
    }

    fn resume(&self) -> io::Result<()> {
        self.shared.control.resume();
        Ok(())
    }

    fn usage(&self) -> io::Result<ResourceUsage> {
        if let Some(ending) = &*lock(&self.shared.ending) {
            return Ok(ending.usage);
        }
        let Some(thread) = self.shared.control.thread() else { return Ok(ResourceUsage::default()) };
        let of = |thread| {
            fs::read_to_string(format!("/proc/self/task/{thread}/stat")).map(|stat| parse_stat(&stat))
        };
        let resident = self.memory.upgrade().map_or(Ok(0), |memory| memory.resident())?;
        let network = match self.shared.network.load(Relaxed) {
            0 => ResourceUsage::default(),
            // It may have ended meanwhile.
            thread => of(thread).unwrap_or_default(),
        };
        Ok(ResourceUsage { max_resident: resident, resident, ..of(thread)?.and(network) })
    }

    fn counters(&self) -> Option<Counters> {
        Some(self.shared.tally.counters())
    }

    fn confine_program(&self) -> io::Result<()> {
        let cannot_close = |errno: Errno| -> io::Error { errno.into() };
        let mut kept = filter::descriptors(&self.filter);
        kept.extend([0, 1, 2]);
        kept.extend(self.keeper.iter().flat_map(Keeper::descriptors));
        kept.sort_unstable();
        kept.dedup();
        let number = |descriptor: RawFd| descriptor.cast_unsigned();
        let ends = kept.iter().skip(1).map(|&fd| number(fd)).chain([u32::MAX]);
        for (&kept, end) in kept.iter().zip(ends) {
            let first = number(kept) + 1;
            // The last range has no end of its own.
            let last = if end == u32::MAX { end } else { end - 1 };
            if first <= last {
                let range = [u64::from(first), u64::from(last), 0, 0, 0, 0];
                // SAFETY: whatever else this program has open, it has promised to be there for the guest alone.
                sys::check(unsafe { sys::syscall(sys::nr::CLOSE_RANGE, range) }).map_err(cannot_close)?;
            }
        }
        let program = filter::build_for_owner(&self.filter).map_err(io::Error::other)?;
        filter::confine_thread(&program, self.landlock_abi)
    }

    fn collect(&self) -> Result<(ExitStatus, ResourceUsage), Error> {
        let failed = |text: &str| Error::Operation {
            operation: "run the guest",
            source: io::Error::other(text.to_owned()),
        };
        match &*lock(&self.shared.ending) {
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
        let mut inspector = Inspector::new(&self.shared, &memory, Watched::No);
        let written = core::write_of_running(directory, name, self.pid(), &mut inspector);
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
        self.shared.control.kill();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

/// The times and faults in `/proc/self/task/TID/stat`.
fn parse_stat(stat: &str) -> ResourceUsage {
    // The name, in parentheses, may contain anything; fields are counted from behind it.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let time = |used: u64| Duration::from_nanos(used.saturating_mul(1_000_000_000 / ticks));
    ResourceUsage {
        user_time: time(field(14)),
        system_time: time(field(15)),
        minor_faults: field(10),
        major_faults: field(12),
        ..ResourceUsage::default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
