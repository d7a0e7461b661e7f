//! The thread that does what a guest submits to its network ring.
//!
//! It sleeps until the guest rings the doorbell (an ioeventfd: the guest's processor is not left for that). When it has
//! just had work and more tends to come soon, it looks for that a little while before it sleeps: `patience`, which
//! grows when a sleep turns out to have been short, and is nothing as soon as one was not. A guest that waits for the
//! network costs nothing.

use super::Ring;
use crate::{
    backend::kvm::{control::Control, counters::ticks, filter, running::GuestState},
    sys::{signals::BlockedSignals, usage::of_this_thread},
    usage::ResourceUsage,
};
use seccompiler::BpfProgram;
use std::{
    hint, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    thread::{self, JoinHandle},
};
use vmm_sys_util::eventfd::EventFd;

/// The longest time to look for work instead of sleeping, as a part of a second: 20 microseconds. A sleep and being
/// woken cost about as much.
const MOST_PATIENCE: u64 = 50_000;
const THREAD_STACK: usize = 128 << 10;

/// By which the guest's processor, or who stops the thread, wakes it.
#[derive(Debug)]
pub struct Doorbell {
    event: EventFd,
    stop: AtomicBool,
}

impl Doorbell {
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: EventFd::new(vmm_sys_util::eventfd::EFD_CLOEXEC)?, stop: AtomicBool::new(false) })
    }

    /// Readable when the guest has rung.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Waits until the guest rings.
    fn wait(&self) {
        // The thread has all signals blocked, and the descriptor is nothing that fails.
        let _ = self.event.read();
    }
}

/// The thread. It ends, and has done everything that was submitted, when this is dropped.
#[derive(Debug)]
pub struct Service {
    doorbell: Arc<Doorbell>,
    thread: Option<JoinHandle<ResourceUsage>>,
}

impl Service {
    /// Starts it. `ready` is told when it is confined, or why it is not. `frequency` is that of the time stamp
    /// counter in Hz.
    pub fn start(
        ring: Ring,
        doorbell: Arc<Doorbell>,
        frequency: u64,
        confinement: Confinement,
        state: Arc<GuestState>,
        ready: mpsc::SyncSender<io::Result<()>>,
    ) -> io::Result<Self> {
        let theirs = Arc::clone(&doorbell);
        // It runs no handler of the host program, and takes no signal from threads that wait for one.
        let _blocked = BlockedSignals::all_but_setxid();
        let builder = thread::Builder::new().name(confinement.name.clone()).stack_size(THREAD_STACK);
        let thread = builder.spawn(move || {
            state.network.store(rustix::thread::gettid().as_raw_nonzero().get(), Relaxed);
            let result = filter::confine_thread(&confinement.program, confinement.landlock_abi);
            let failed = result.is_err();
            let _ = ready.send(result);
            drop((ready, confinement));
            if !failed {
                let control = &state.control;
                let work = AssertUnwindSafe(|| run(ring, &theirs, frequency / MOST_PATIENCE, control));
                if catch_unwind(work).is_err() {
                    control.kill();
                }
            }
            state.network.store(0, Relaxed);
            ResourceUsage { max_resident: 0, ..of_this_thread() }
        })?;
        Ok(Self { doorbell, thread: Some(thread) })
    }

    /// Ends it, and returns what it has used.
    pub fn stop(&mut self) -> ResourceUsage {
        let Some(thread) = self.thread.take() else { return ResourceUsage::default() };
        self.doorbell.stop.store(true, SeqCst);
        let _ = self.doorbell.event.write(1);
        thread.join().unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What confines the thread.
#[derive(Debug)]
pub struct Confinement {
    pub name: String,
    pub program: BpfProgram,
    pub landlock_abi: Option<u32>,
}

/// Works until it is stopped, or the guest has made a mistake.
fn run(mut ring: Ring, doorbell: &Doorbell, most: u64, control: &Control) {
    let mut patience = 0;
    let work = |ring: &mut Ring| match ring.work() {
        Ok(count) => Some(count > 0),
        Err(mistake) => {
            control.end_for(mistake);
            None
        }
    };
    loop {
        // Before looking at the ring: what was submitted before the stop is done.
        let stopped = doorbell.stop.load(SeqCst);
        let Some(worked) = work(&mut ring) else { return };
        if stopped {
            return;
        }
        if worked || is_coming(&ring, doorbell, patience) {
            continue;
        }
        if !ring.want_doorbell(true) {
            let since = ticks();
            doorbell.wait();
            patience = next_patience(patience, ticks().wrapping_sub(since), most);
        }
        ring.want_doorbell(false);
    }
}

/// Looks for work for some time, in ticks.
fn is_coming(ring: &Ring, doorbell: &Doorbell, patience: u64) -> bool {
    let since = ticks();
    while ticks().wrapping_sub(since) < patience {
        if ring.has_work() || doorbell.stop.load(Relaxed) {
            return true;
        }
        hint::spin_loop();
    }
    false
}

/// How long to look for work the next time, after a sleep; all in ticks.
fn next_patience(patience: u64, slept: u64, most: u64) -> u64 {
    if slept > most { 0 } else { (patience * 2).clamp(most / 8, most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_with_short_sleeps_and_ends_with_a_long_one() {
        let mut patience = 0;
        for _ in 0..10 {
            patience = next_patience(patience, 100, 1000);
            assert!((125..=1000).contains(&patience), "{patience}");
        }
        assert_eq!(patience, 1000);
        assert_eq!(next_patience(patience, 1001, 1000), 0);
    }
}
