//! How other threads kill, pause and resume a guest's vcpu, and have it stop for a debugger.
//!
//! A request sets what is wanted, makes the wake descriptor readable (for a processor that waits in a hypercall),
//! and sends the thread a signal (for one that runs guest code). The signal is blocked in that thread; only
//! `KVM_RUN` lets it through, by its own mask, and then returns instead of running any handler. So no handler is
//! installed, and a signal that comes too early makes the next `KVM_RUN` return at once.

use super::inspect::DebugChannel;
use crate::{
    exit::HypercallMistake,
    sys::{event::Event, lock, signals},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// The signal: a real-time one that nothing is known to use. The C library hands out 34 to 64.
pub const KICK: i32 = 63;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Run,
    Pause,
    Kill,
}

/// See the module.
#[derive(Debug)]
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
    wake: Event,
    /// Where it stops for a debugger.
    pub debug: DebugChannel,
}

#[derive(Debug)]
struct State {
    wanted: Wanted,
    /// The thread has stopped for a pause.
    paused: bool,
    /// The thread, as long as it runs.
    thread: Option<i32>,
    ended: bool,
    /// What it is ended for, found by another thread than its own.
    mistake: Option<HypercallMistake>,
}

impl Control {
    pub fn new() -> io::Result<Self> {
        let state = State { wanted: Wanted::Run, paused: false, thread: None, ended: false, mistake: None };
        Ok(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            wake: Event::new()?,
            debug: DebugChannel::new()?,
        })
    }

    /// Readable when the thread should [attend](Self::attend).
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The calling thread is the processor from now on.
    pub fn enter(&self) {
        self.lock().thread = Some(rustix::thread::gettid().as_raw_nonzero().get());
    }

    /// The processor has ended. No signal is sent to it from now on.
    pub fn leave(&self) {
        let mut state = self.lock();
        state.thread = None;
        state.ended = true;
        state.paused = false;
        drop(state);
        self.changed.notify_all();
    }

    /// Called by the thread after it was woken: blocks as long as a pause is wanted, or until a debugger wants the
    /// guest to stop, after which this is to be called again. False when the guest is to end.
    pub fn attend(&self) -> bool {
        self.clear_kick();
        let mut state = self.lock();
        while state.wanted == Wanted::Pause {
            state.paused = true;
            self.changed.notify_all();
            if self.debug.wants_stop() {
                return true;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.paused = false;
        let go_on = state.wanted != Wanted::Kill;
        drop(state);
        self.changed.notify_all();
        go_on
    }

    /// Takes back what has woken the calling thread, which looks at everything that may be wanted after this, and not
    /// before.
    pub fn clear_kick(&self) {
        self.wake.clear();
        signals::take_pending(KICK);
    }

    /// Ends the guest. Does not wait for it.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.wanted = Wanted::Kill;
        self.kick(&state);
        drop(state);
        self.debug.close();
        self.changed.notify_all();
    }

    /// Ends the guest for something that it did beside its processor: in the network ring.
    pub fn end_for(&self, mistake: HypercallMistake) {
        self.lock().mistake.get_or_insert(mistake);
        self.kill();
    }

    /// See [`end_for`](Self::end_for).
    pub fn mistake(&self) -> Option<HypercallMistake> {
        self.lock().mistake
    }

    /// Pauses the guest, and returns when it has stopped or ended.
    pub fn pause(&self) {
        let mut state = self.lock();
        if state.wanted == Wanted::Run {
            state.wanted = Wanted::Pause;
            self.kick(&state);
        }
        let moving = |state: &mut State| state.wanted == Wanted::Pause && !state.paused && !state.ended;
        drop(self.changed.wait_while(state, moving));
    }

    /// Lets it go on, and returns when it does.
    pub fn resume(&self) {
        let mut state = self.lock();
        if state.wanted == Wanted::Pause {
            state.wanted = Wanted::Run;
        }
        self.changed.notify_all();
        let still = |state: &mut State| state.wanted == Wanted::Run && state.paused && !state.ended;
        drop(self.changed.wait_while(state, still));
    }

    /// Has the thread see that a debugger wants it to stop.
    pub fn wake_up(&self) {
        self.kick(&self.lock());
        self.changed.notify_all();
    }

    /// The thread's id, as long as it runs.
    pub fn thread(&self) -> Option<i32> {
        self.lock().thread
    }

    fn kick(&self, state: &State) {
        self.wake.set();
        let Some(thread) = state.thread else { return };
        // SAFETY: the signal goes to a thread of this program that has it blocked and has not ended: it takes
        // the lock, which is held here, before it does.
        unsafe { signals::send_to_thread(thread, KICK) };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
