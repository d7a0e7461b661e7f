//! `spt` guests: ordinary user code in a confined process.

mod arch;
mod filter;
mod inspect;
mod launch;
mod load;
mod memfd;
mod oom;
mod running;
mod spawn;
mod supervisor;

use self::{
    inspect::Inspector,
    launch::{CONSOLE, FIRST_DEVICE, LAUNCH_FILE, LaunchConfig, LaunchFile, REPORT},
    oom::OomKills,
    running::{ProcessGuest, Watched},
    supervisor::{HOLD_ENDS, HOLD_SIGNALS, Request, Slot, Supervisor},
};
use super::{Backend, Running};
use crate::{
    confine::{descriptors, landlock, namespaces},
    debug::{DebugOptions, DebugThread, Debuggee, Resume},
    error::Error,
    spec::{GuestSpec, LaunchFailure, Supervision},
    step::LaunchStep,
    sys::lock,
};
use nabla_core::Abi;
use rustix::{
    fs::{StatVfsMountFlags, fstatvfs},
    pipe::{PipeFlags, pipe_with},
};
use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
};

/// Runs guests as processes, of which one supervisor is the parent.
#[derive(Debug, Default)]
pub(crate) struct ProcessBackend {
    supervisor: Mutex<Option<Arc<Supervisor>>>,
    oom_kills: Arc<OomKills>,
}

impl Backend for ProcessBackend {
    fn abis(&self) -> &'static [Abi] {
        &[Abi::SptV1, Abi::SptV2]
    }

    fn start(&self, guest: GuestSpec, console: OwnedFd) -> Result<Box<dyn Running>, Error> {
        Ok(Box::new(self.start_process(guest, &console)?))
    }

    fn exec(&self, guest: GuestSpec, console: OwnedFd) -> Result<Box<dyn Running>, Error> {
        // A debugger's side and core dumps need a program besides the guest.
        if guest.debug.is_empty() { Err(exec(&guest, &console)) } else { self.start(guest, console) }
    }
}

impl ProcessBackend {
    /// The supervisor; a new one if there was none, if it was killed, or if this program has changed its user.
    fn supervisor(&self) -> Result<Arc<Supervisor>, (LaunchStep, io::Error)> {
        let mut supervisor = lock(&self.supervisor);
        match &*supervisor {
            Some(running) if running.is_alive() && running.has_our_rights() => Ok(Arc::clone(running)),
            _ => {
                let started = Arc::new(Supervisor::new()?);
                *supervisor = Some(Arc::clone(&started));
                Ok(started)
            }
        }
    }

    fn start_process(&self, mut guest: GuestSpec, console: &OwnedFd) -> Result<ProcessGuest, Error> {
        self.oom_kills.note();
        let debug = std::mem::take(&mut guest.debug);
        let guest = &guest;
        let launch = Launch::new(guest, !debug.is_empty(), None)?;
        let (reader, writer) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| cannot(LaunchStep::CreateReport, errno.into()))?;
        let supervisor = self.supervisor().map_err(|(step, source)| cannot(step, source))?;
        let cgroup = open_cgroup(guest)?;
        let namespaces = if guest.isolation.namespaces { namespaces::clone_flags() } else { 0 };
        let cgroup_descriptor = cgroup.as_ref().map(AsFd::as_fd);
        let descriptors = launch.descriptors(guest, console.as_fd(), writer.as_fd(), cgroup_descriptor);

        let slot = Arc::new(Slot::new());
        let trace = guest.supervision != Some(Supervision::None) || !debug.is_empty();
        let must_trace = guest.supervision == Some(Supervision::Full) || !debug.is_empty();
        if !debug.is_empty() {
            let signals = if debug.stops_at_entry() { HOLD_SIGNALS } else { 0 };
            slot.hold.store(HOLD_ENDS | signals, SeqCst);
        }
        let mut request = Request::new(&slot, namespaces, trace, must_trace);
        let pidfd =
            supervisor.start(&mut request, &descriptors).map_err(|(step, source)| cannot(step, source))?;
        if let Some(error) = request.trace_refused {
            tracing::warn!(%error, "the guest cannot be supervised: faults and denied calls will lack details");
        }
        drop(writer);
        let thread = start_debugging(guest, debug, &supervisor, &slot, request.pid);
        let running = ProcessGuest::new(Watched {
            pid: request.pid,
            pidfd,
            supervisor,
            slot,
            oom_kills: Arc::clone(&self.oom_kills),
            cgroup: guest.isolation.cgroup.clone(),
            memory: guest.memory.as_u64(),
        });
        running.set_debug_thread(thread.map_err(|source| cannot(LaunchStep::AttachDebugger, source))?);
        launch.await_report(&reader, &running)?;
        Ok(running)
    }
}

/// Starts the guest's debug thread, if it needs one. It takes the guest through its launcher.
fn start_debugging(
    guest: &GuestSpec,
    debug: DebugOptions,
    supervisor: &Arc<Supervisor>,
    slot: &Arc<Slot>,
    pid: i32,
) -> io::Result<Option<DebugThread>> {
    if debug.is_empty() {
        return Ok(None);
    }
    let inspector = Inspector::new(supervisor, slot, pid, guest.memory.as_u64())?;
    let entry = guest.image.image().entry();
    let debugged = debug.stops_at_entry();
    DebugThread::start(debug, &guest.name, pid.cast_unsigned(), inspector, move |inspector| {
        if debugged { inspector.step_to(entry) } else { inspector.resume(Resume::Continue { signal: None }) }
    })
    .map(Some)
}

/// Makes the calling process the guest.
fn exec(guest: &GuestSpec, console: &OwnedFd) -> Error {
    let result = (|| {
        let LaunchFailure { prefix, status } = &guest.launch_failure;
        let prefix = prefix.clone().unwrap_or_else(|| format!("nabla: {}: ", guest.name));
        let launch = Launch::new(guest, false, Some((&prefix, *status)))?;
        let report: OwnedFd = match io::stderr().as_fd().try_clone_to_owned() {
            Ok(report) => report,
            Err(_) => null_device()?,
        };
        let cgroup = open_cgroup(guest)?;
        if guest.isolation.namespaces {
            namespaces::enter().map_err(|source| cannot(LaunchStep::CreateNamespaces, source))?;
        }
        let cgroup = cgroup.as_ref().map(AsFd::as_fd);
        let arranged = launch.descriptors(guest, console.as_fd(), report.as_fd(), cgroup);
        if !descriptors::has_close_range() {
            descriptors::close_at_exec().map_err(|errno| cannot(LaunchStep::CloseInherited, errno.into()))?;
        }
        let (step, source) = spawn::execute(&arranged);
        Ok(cannot(step, source))
    })();
    match result {
        Ok(error) | Err(error) => error,
    }
}

fn null_device() -> Result<OwnedFd, Error> {
    let file = OpenOptions::new().write(true).open("/dev/null");
    Ok(file.map_err(|source| cannot(LaunchStep::CreateReport, source))?.into())
}

fn cannot(step: LaunchStep, source: io::Error) -> Error {
    match step {
        LaunchStep::Supervise => Error::Supervision { source },
        _ => Error::Launch { step, source },
    }
}

fn open_cgroup(guest: &GuestSpec) -> Result<Option<OwnedFd>, Error> {
    let Some(path) = &guest.isolation.cgroup else { return Ok(None) };
    let file = OpenOptions::new().write(true).open(path.join("cgroup.procs"));
    Ok(Some(file.map_err(|source| Error::Cgroup { path: path.clone(), source })?.into()))
}

/// The launcher's file, ready to be executed.
struct Launch {
    file: OwnedFd,
    steps: Vec<LaunchStep>,
}

impl Launch {
    fn new(guest: &GuestSpec, inspected: bool, as_text: Option<(&str, u8)>) -> Result<Self, Error> {
        // On a mount with noexec, a file can be read but not mapped executable.
        let map_image = fstatvfs(&guest.image).is_ok_and(|fs| !fs.f_flag.contains(StatVfsMountFlags::NOEXEC));
        let LaunchFile { bytes, steps } = launch::build(&LaunchConfig {
            image: guest.image.image(),
            map_image,
            devices: &guest.devices,
            command_line: &guest.command_line,
            memory: guest.memory.as_u64(),
            exec_heap: guest.exec_heap,
            huge_pages: guest.huge_pages,
            dumpable: guest.dumpable || inspected,
            closes_inherited: descriptors::has_close_range(),
            joins_cgroup: guest.isolation.cgroup.is_some(),
            name: &guest.name,
            // A program on a command line dies when the next one in the pipeline does; a guest of a host program
            // does not die because its reader has gone.
            die_on_broken_pipe: as_text.is_some(),
            landlock_abi: landlock::abi(),
            identity: guest.isolation.identity,
            as_text,
        })
        .map_err(|error| cannot(LaunchStep::BuildFilter, io::Error::other(error)))?;
        let file = memfd::executable(&bytes).map_err(|source| cannot(LaunchStep::CreateLauncher, source))?;
        Ok(Self { file, steps })
    }

    /// The descriptors in the order of their numbers; see [`launch`].
    fn descriptors<'a>(
        &'a self,
        guest: &'a GuestSpec,
        console: BorrowedFd<'a>,
        report: BorrowedFd<'a>,
        cgroup: Option<BorrowedFd<'a>>,
    ) -> Vec<BorrowedFd<'a>> {
        const { assert!(LAUNCH_FILE == 0 && CONSOLE == 1 && REPORT == 2 && FIRST_DEVICE == 3) };
        let devices = guest.devices.iter().map(AsFd::as_fd);
        [self.file.as_fd(), console, report]
            .into_iter()
            .chain(devices)
            .chain([guest.image.as_fd()])
            .chain(cgroup)
            .collect()
    }

    /// Waits until the guest is about to run, or the launcher says why not.
    fn await_report(&self, reader: &OwnedFd, running: &ProcessGuest) -> Result<(), Error> {
        let mut report = [0_u8; 16];
        let mut length = 0;
        while length < report.len() {
            match rustix::io::retry_on_intr(|| rustix::io::read(reader, &mut report[length..])) {
                Ok(0) => break,
                Ok(n) => length += n,
                Err(errno) => return Err(cannot(LaunchStep::ReadReport, errno.into())),
            }
            if length == 1 {
                return Ok(());
            }
        }
        if length != 16 {
            let (status, _) = Running::collect(running)?;
            return Err(Error::Killed { status });
        }
        let word = |at: usize| <[u8; 8]>::try_from(&report[at..at + 8]).map_or(0, i64::from_le_bytes);
        let step = usize::try_from(word(0)).ok().and_then(|index| self.steps.get(index).copied());
        let step = step.unwrap_or(LaunchStep::ExecuteLauncher);
        let result = word(8);
        let source = match i32::try_from(-result) {
            Ok(errno @ 1..=4095) => io::Error::from_raw_os_error(errno),
            _ => io::Error::other(format!("the system call returned {result:#x} (has the image changed?)")),
        };
        Err(cannot(step, source))
    }
}
