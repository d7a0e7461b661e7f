//! A guest with a parent that waits for it.

use super::{
    RunArgs, builder,
    network::Networks,
    report::Report,
    signals::{self, Signals, Startup},
};
use crate::{error::chain, output};
use anyhow::{Context, bail};
use nabla_monitor::{ExitStatus, GdbListener, Guest, OpenImage};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    path::Path,
    time::{Instant, SystemTime},
};

/// What a run has made, and undoes at its end.
#[derive(Debug, Default)]
struct Made {
    report: Option<Report>,
    networks: Networks,
}

/// Runs a guest, waits for it, and tells how it ended.
pub fn run(args: &RunArgs, image: OpenImage) -> anyhow::Result<u8> {
    // Before anything is changed that would have to be undone: a signal that comes from here on waits.
    let signals = Signals::hold()?;
    let startup = Startup::<Made>::watch(&signals, &args.image)?;
    if let Some(path) = &args.json_report {
        let report = Report::prepare(path, &args.image)?;
        startup.keep(|made| made.report = Some(report));
    }
    let mut networks = Networks::make(args)?;
    let guest = builder(args, image, &mut networks);
    startup.keep(|made| made.networks = networks);
    let mut guest = guest?;
    let mut debugger = None;
    if let Some(place) = &args.gdb {
        let listener = gdb_listener(place)?;
        debugger = Some(listener.to_string());
        guest = guest.gdb(listener);
    }
    let started = (SystemTime::now(), Instant::now());
    let guest = guest.start();
    let Made { report, networks } = startup.end();
    let guest = guest?;
    if let Some(listener) = debugger {
        say(
            args,
            &format!("waiting for a debugger: gdb {} -ex 'target remote {listener}'", args.image.display()),
        );
    }
    networks.announce(&args.image);
    tracing::info!(pid = guest.pid(), supervised = guest.is_supervised(), "the guest runs");
    let interrupted = match wait(&guest, &signals) {
        Ok(interrupted) => interrupted,
        Err(error) => {
            // Dropped, it would be waited for. It ends with this program.
            std::mem::forget(guest);
            return Err(error);
        }
    };
    let status = guest.wait()?;
    let duration = started.1.elapsed();
    networks.release()?;
    // Those that have come were meant for the guest. From now on they end nabla: whoever is to be told may not listen.
    while signals.read().is_some() {}
    signals.release()?;
    // The guest may have come to its own end before the signal's.
    let interrupted = interrupted.filter(|_| matches!(status, ExitStatus::Killed(_)));
    let exit_code = interrupted.map_or_else(|| status.shell_code(), signals::shell_code);
    if let Some(message) = describe(status, interrupted) {
        say(args, &message);
    }
    match guest.core() {
        Ok(None) => {}
        Ok(Some(core)) => say(args, &format!("core dumped to {}", core.display())),
        Err(error) => say(args, &chain(&error)),
    }
    if let Some(report) = report {
        report.finish(&guest, status, interrupted, exit_code, started.0, duration)?;
    }
    Ok(exit_code)
}

/// Says something about the guest.
fn say(args: &RunArgs, message: &str) {
    output::complain(&output::one_line(&format!("nabla: {}: {message}", args.image.display())));
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
        say(args, &message);
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

/// How long a guest that was killed is waited for.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Waits until the guest has ended; kills it on a signal, which is returned then.
fn wait(guest: &Guest, signals: &Signals) -> anyhow::Result<Option<Signal>> {
    let mut interrupted = None;
    loop {
        let mut descriptors = [PollFd::new(guest, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        let patience = interrupted.map(|_| &PATIENCE);
        let ready = rustix::io::retry_on_intr(|| poll(&mut descriptors, patience));
        if ready.context("cannot wait for the guest")? == 0 {
            bail!(
                "the guest was killed and does not end: is its cgroup frozen, or does its disk not answer?"
            );
        }
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
