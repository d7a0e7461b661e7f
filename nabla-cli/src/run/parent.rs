//! A guest with a parent that waits for it.

use super::{RunArgs, builder, network::Networks, report::Report};
use crate::{output, system};
use anyhow::Context;
use nabla_monitor::{ExitStatus, GdbListener, Guest};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    path::Path,
    time::{Instant, SystemTime},
};

/// Runs a guest, waits for it, and tells how it ended.
pub fn run(args: &RunArgs) -> anyhow::Result<u8> {
    // Before anything is changed that would have to be undone: a signal that comes from here on waits.
    let mask = SignalMask::block()?;
    // First, since it takes descriptors by their numbers, which nothing that is opened here must have.
    let mut networks = Networks::make(args)?;
    let mut guest = builder(args, &mut networks)?;
    let mut debugger = None;
    if let Some(place) = &args.gdb {
        let listener = gdb_listener(place)?;
        debugger = Some(listener.to_string());
        guest = guest.gdb(listener);
    }
    let report = args.json_report.as_deref().map(|path| Report::prepare(path, &args.image)).transpose()?;
    let signals = mask.open()?;
    let started = (SystemTime::now(), Instant::now());
    let guest = guest.start()?;
    if let Some(listener) = debugger {
        let image = args.image.display();
        output::complain(&output::one_line(&format!(
            "nabla: {image}: waiting for a debugger: gdb {image} -ex 'target remote {listener}'"
        )));
    }
    networks.announce(&args.image);
    tracing::info!(pid = guest.pid(), supervised = guest.is_supervised(), "the guest runs");
    let interrupted = wait(&guest, &signals)?;
    let status = guest.wait()?;
    let duration = started.1.elapsed();
    networks.release()?;
    // The guest may have come to its own end before the signal's.
    let interrupted = interrupted.filter(|_| matches!(status, ExitStatus::Killed(_)));
    let exit_code = match interrupted {
        Some(signal) => u8::try_from(128 + signal as i32).unwrap_or(u8::MAX),
        None => status.shell_code(),
    };
    if let Some(message) = describe(status, interrupted) {
        output::complain(&output::one_line(&format!("nabla: {}: {message}", args.image.display())));
    }
    match guest.core() {
        Ok(None) => {}
        Ok(Some(core)) => {
            let text = format!("nabla: {}: core dumped to {}", args.image.display(), core.display());
            output::complain(&output::one_line(&text));
        }
        Err(error) => {
            let error = anyhow::Error::from(error);
            output::complain(&output::one_line(&format!("nabla: {}: {error:#}", args.image.display())));
        }
    }
    if let Some(report) = report {
        report.finish(&guest, status, interrupted, exit_code, started.0, duration)?;
    }
    Ok(exit_code)
}

/// A path has a slash, an address has none.
pub fn gdb_listener(place: &Path) -> anyhow::Result<GdbListener> {
    let listener = match place.to_str() {
        Some(address) if !address.contains('/') => GdbListener::tcp(address),
        _ => GdbListener::unix(place),
    };
    listener.with_context(|| {
        format!(
            "debuggers cannot be waited for at '{}' (ADDRESS:PORT, or the path of a socket)",
            place.display()
        )
    })
}

/// Waits for a guest that this program is. Signals end both, as they end any program.
pub fn stay(guest: &Guest, args: &RunArgs) -> anyhow::Result<u8> {
    let status = guest.wait()?;
    // A program in a pipeline whose reader has had enough says nothing about it.
    let said = status != ExitStatus::Killed(Signal::SIGPIPE as i32);
    if let Some(message) = describe(status, None).filter(|_| said) {
        output::complain(&output::one_line(&format!("nabla: {}: {message}", args.image.display())));
    }
    Ok(status.shell_code())
}

/// What is to be said about an end; nothing when the guest just exited.
fn describe(status: ExitStatus, interrupted: Option<Signal>) -> Option<String> {
    match (status, interrupted) {
        (ExitStatus::Exited(_), _) => None,
        (_, Some(signal)) => Some(format!("killed because nabla received {signal}")),
        (status, None) => Some(status.to_string()),
    }
}

/// Waits until the guest has ended; kills it on a signal, which is returned then.
fn wait(guest: &Guest, signals: &Signals) -> anyhow::Result<Option<Signal>> {
    let mut interrupted = None;
    loop {
        let mut descriptors = [PollFd::new(guest, PollFlags::IN), PollFd::new(&signals.0, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut descriptors, None)).context("cannot wait for the guest")?;
        if let Some(signal) = signals.read() {
            tracing::info!(%signal, "ending the guest");
            interrupted.get_or_insert(signal);
            guest.kill()?;
        }
        if !descriptors[0].revents().is_empty() {
            return Ok(interrupted);
        }
    }
}

/// The signals that end the guest, held back.
struct SignalMask(SigSet);

impl SignalMask {
    fn block() -> anyhow::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
            // A shell ignores some for its background jobs, and nohup SIGHUP; blocking would bring them back.
            if !system::is_ignored(signal) {
                set.add(signal);
            }
        }
        set.thread_block().context("cannot hold signals back")?;
        Ok(Self(set))
    }

    fn open(&self) -> anyhow::Result<Signals> {
        let descriptor = SignalFd::with_flags(&self.0, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        descriptor.map(Signals).context("cannot watch for signals")
    }
}

/// The signals that end the guest, as a descriptor instead of handlers.
struct Signals(SignalFd);

impl Signals {
    fn read(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok()??;
        i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
    }
}
