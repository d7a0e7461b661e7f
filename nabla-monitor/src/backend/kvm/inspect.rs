//! Debugging a guest in a virtual machine.
//!
//! The vcpu's thread is the only one that talks to KVM. At a stop it leaves the registers in the channel, waits in
//! [`DebugChannel::stand`], and takes the registers from there when it goes on.

use super::memory::GuestMemory;
use crate::debug::{Debuggee, End, FloatRegisters, HardwareBreakpoint, Pagemap, Registers, Resume, Stop};
use crate::sys::{event::Event, lock};
use nabla_core::elf::PageRange;
use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// By which the vcpu's thread and a debugger talk.
#[derive(Debug)]
pub struct DebugChannel {
    state: Mutex<State>,
    changed: Condvar,
    event: Event,
    /// A debugger wants the guest to stop.
    interrupt: AtomicBool,
}

/// What the processor has, as it is exchanged at a stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context {
    pub registers: Registers,
    pub float: FloatRegisters,
}

/// What a guest stops for by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Watched {
    #[default]
    No,
    /// Its end.
    End,
    /// Traps, too.
    Traps,
}

#[derive(Debug, Default)]
struct State {
    watched: Watched,
    stop: Option<Stop>,
    context: Context,
    resume: Option<Resume>,
    breakpoints: Vec<HardwareBreakpoint>,
    /// The guest stops for no debugger any more.
    closed: bool,
}

/// How the processor goes on.
#[derive(Debug, Clone)]
pub struct Order {
    pub context: Context,
    pub step: bool,
    pub breakpoints: Vec<HardwareBreakpoint>,
}

impl DebugChannel {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            event: Event::new()?,
            interrupt: AtomicBool::new(false),
        })
    }

    /// What the processor writes to.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// What it shall stop for.
    pub fn watched(&self) -> Watched {
        let state = self.lock();
        if state.closed { Watched::No } else { state.watched }
    }

    /// Whether a debugger wants the guest to stop.
    pub fn wants_stop(&self) -> bool {
        self.interrupt.load(Relaxed)
    }

    /// Stops the vcpu until it is told how to go on. `None` when there is no debugger any more.
    pub fn stand(&self, stop: Stop, context: Context) -> Option<Order> {
        let mut state = self.lock();
        self.interrupt.store(false, Relaxed);
        if state.closed {
            return None;
        }
        state.stop = Some(stop);
        state.context = context;
        state.resume = None;
        self.tell();
        let mut state = self
            .changed
            .wait_while(state, |state| state.resume.is_none() && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.stop = None;
        let how = state.resume.take();
        Some(Order {
            context: state.context,
            step: how == Some(Resume::Step),
            breakpoints: if state.closed { Vec::new() } else { state.breakpoints.clone() },
        })
    }

    /// The guest has ended.
    pub fn end(&self, end: End) {
        let mut state = self.lock();
        state.stop = Some(Stop::Ended(end));
        state.closed = true;
        drop(state);
        self.tell();
    }

    /// The guest does not stop for a debugger from now on.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn tell(&self) {
        self.event.set();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Inspector {
    state: Arc<super::running::GuestState>,
    memory: Arc<GuestMemory>,
    /// Of this program.
    pagemap: Pagemap,
}

impl Inspector {
    /// From now on the guest stops for this. One that has not run yet stops at once where it is to stop for traps.
    pub fn new(state: &Arc<super::running::GuestState>, memory: &Arc<GuestMemory>, watched: Watched) -> Self {
        state.control.debug.lock().watched = watched;
        state.control.debug.interrupt.store(watched == Watched::Traps, Relaxed);
        Self { state: Arc::clone(state), memory: Arc::clone(memory), pagemap: Pagemap::of("self") }
    }

    fn channel(&self) -> &DebugChannel {
        &self.state.control.debug
    }

    fn standing(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.channel().lock();
        match state.stop {
            Some(Stop::Ended(_)) => Err(crate::debug::thread::ended()),
            Some(_) => Ok(state),
            None => Err(io::Error::other("the guest runs")),
        }
    }
}

impl Debuggee for Inspector {
    fn registers(&mut self) -> io::Result<Registers> {
        Ok(self.standing()?.context.registers)
    }

    fn set_registers(&mut self, registers: &Registers) -> io::Result<()> {
        self.standing()?.context.registers = *registers;
        Ok(())
    }

    fn float_registers(&mut self) -> io::Result<FloatRegisters> {
        Ok(self.standing()?.context.float)
    }

    fn set_float_registers(&mut self, registers: &FloatRegisters) -> io::Result<()> {
        self.standing()?.context.float = *registers;
        Ok(())
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(self.memory.peek(address, bytes))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.place(address, bytes)
    }

    fn regions(&mut self) -> io::Result<Vec<PageRange>> {
        Ok(self.memory.regions().to_vec())
    }

    fn touched(&mut self, part: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        self.pagemap.touched(self.memory.host_address() as u64, part)
    }

    fn set_hardware_breakpoints(&mut self, breakpoints: &[HardwareBreakpoint]) -> io::Result<()> {
        self.standing()?.breakpoints = breakpoints.to_vec();
        Ok(())
    }

    fn has_hardware_breakpoints(&self) -> Option<bool> {
        // Not every hypervisor gives guests debug registers that do something.
        None
    }

    fn resume(&mut self, how: Resume) -> io::Result<()> {
        let mut state = self.channel().lock();
        if !matches!(state.stop, Some(Stop::Ended(_)) | None) {
            state.stop = None;
            state.resume = Some(how);
            drop(state);
            self.channel().changed.notify_all();
        }
        Ok(())
    }

    fn interrupt(&mut self) -> io::Result<()> {
        let state = self.channel().lock();
        if state.stop.is_none() {
            self.channel().interrupt.store(true, Relaxed);
            drop(state);
            self.state.control.wake_up();
        }
        Ok(())
    }

    fn events(&self) -> [BorrowedFd<'_>; 2] {
        // It is the same program that tells.
        [self.channel().event.as_fd(); 2]
    }

    fn is_kept(&self) -> bool {
        !self.channel().lock().closed
    }

    fn stop(&mut self) -> io::Result<Option<Stop>> {
        let channel = self.channel();
        let state = channel.lock();
        channel.event.clear();
        let stop = state.stop;
        drop(state);
        if matches!(stop, Some(Stop::Ended(_))) {
            // Readable from now on, for all who look.
            channel.tell();
        }
        Ok(stop)
    }

    fn kill(&mut self) -> io::Result<()> {
        self.channel().close();
        self.state.control.kill();
        Ok(())
    }

    fn counters(&mut self) -> io::Result<String> {
        let (counters, resident) = (self.state.tally.counters(), self.memory.resident()?);
        Ok(format!("{counters:#?}\nresident: {} KiB", resident >> 10))
    }

    fn let_go(&mut self) -> io::Result<()> {
        let mut state = self.channel().lock();
        state.watched = Watched::No;
        self.channel().interrupt.store(false, Relaxed);
        state.breakpoints.clear();
        if state.stop.take().is_some() {
            state.resume = Some(Resume::Continue { signal: None });
        }
        drop(state);
        self.channel().changed.notify_all();
        Ok(())
    }
}
