//! Hardware breakpoints, also where the processor has none.
//!
//! Not every hypervisor gives its guests debug registers that work. Whether they do is found out at the first
//! resumption that needs them: with a breakpoint on the next instruction and a step at once, either is reported. Where
//! they do not work, the guest is stepped, and looked at after each instruction: slow, and right, but for reads, which
//! cannot be seen so.

use super::super::{Debuggee, HardwareBreakpoint, Resume, Stop, Watch};
use std::io;

/// Of DR6: the first breakpoint was hit; a step was done.
const FIRST_HIT: u64 = 1;
const STEP_DONE: u64 = 1 << 14;

/// See the module.
#[derive(Debug)]
pub struct Hardware {
    breakpoints: Vec<HardwareBreakpoint>,
    /// Whether the processor heeds them; `None` before that is known.
    works: Option<bool>,
    state: State,
    /// What was at each of them when the guest was last seen.
    seen: Vec<[u8; 8]>,
    /// A guest that is being stepped is to stop.
    interrupted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The processor heeds them.
    Plain,
    /// A first step shows whether breakpoints work; what was wanted follows.
    Probing(Resume),
    /// Step by step.
    Stepping(Resume),
}

/// What a stop was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing that a debugger asked for: the guest runs again.
    GoesOn,
    /// The step that was wanted.
    Step,
    /// It was told to stop.
    Interrupted,
    Hit(HardwareBreakpoint),
}

impl Hardware {
    pub fn new(works: Option<bool>) -> Self {
        Self { breakpoints: Vec::new(), works, state: State::Plain, seen: Vec::new(), interrupted: false }
    }

    pub fn breakpoints(&self) -> &[HardwareBreakpoint] {
        &self.breakpoints
    }

    /// Replaces them. The guest has been given them, too.
    pub fn set(&mut self, breakpoints: Vec<HardwareBreakpoint>) {
        self.breakpoints = breakpoints;
    }

    /// The guest is to stop. Between two steps it stands still already.
    pub fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// Lets the guest go on.
    pub fn resume(&mut self, how: Resume, guest: &mut dyn Debuggee) -> io::Result<()> {
        self.state = State::Plain;
        self.interrupted = false;
        if self.breakpoints.is_empty() || self.works == Some(true) {
            return guest.resume(how);
        }
        self.seen = self.look(guest)?;
        if self.works.is_none() {
            let address = guest.registers()?.rip;
            guest.set_hardware_breakpoints(&[HardwareBreakpoint {
                address,
                length: 1,
                watch: Watch::Execute,
            }])?;
            self.state = State::Probing(how);
        } else {
            self.state = State::Stepping(how);
        }
        guest.resume(Resume::Step)
    }

    /// Looks at a stop; `None` when it has nothing to do with breakpoints.
    pub fn stopped(&mut self, stop: Stop, guest: &mut dyn Debuggee) -> io::Result<Option<Found>> {
        let state = std::mem::replace(&mut self.state, State::Plain);
        let how = match (state, stop) {
            (State::Probing(how), Stop::Trap { software: false, status }) => {
                let works = status & FIRST_HIT != 0;
                self.works = Some(works);
                guest.set_hardware_breakpoints(if works { &self.breakpoints } else { &[] })?;
                if works {
                    // The instruction has not been executed.
                    guest.resume(how)?;
                    return Ok(Some(Found::GoesOn));
                }
                how
            }
            (State::Stepping(how), Stop::Trap { software: false, status }) if status & STEP_DONE != 0 => how,
            (State::Probing(_), _) => {
                guest.set_hardware_breakpoints(&self.breakpoints)?;
                return Ok(None);
            }
            _ => return Ok(None),
        };
        if let Some(hit) = self.hit(guest)? {
            return Ok(Some(Found::Hit(hit)));
        }
        if how == Resume::Step {
            return Ok(Some(Found::Step));
        }
        if self.interrupted {
            return Ok(Some(Found::Interrupted));
        }
        self.state = State::Stepping(how);
        guest.resume(Resume::Step)?;
        Ok(Some(Found::GoesOn))
    }

    fn hit(&mut self, guest: &mut dyn Debuggee) -> io::Result<Option<HardwareBreakpoint>> {
        let now = self.look(guest)?;
        let before = std::mem::replace(&mut self.seen, now);
        let at = guest.registers()?.rip;
        let changed = |index: usize| before.get(index) != self.seen.get(index);
        let hit = self.breakpoints.iter().enumerate().find(|&(index, breakpoint)| match breakpoint.watch {
            Watch::Execute => breakpoint.address == at,
            Watch::Write | Watch::Access => changed(index),
        });
        Ok(hit.map(|(_, breakpoint)| *breakpoint))
    }

    /// What is at each breakpoint.
    fn look(&self, guest: &mut dyn Debuggee) -> io::Result<Vec<[u8; 8]>> {
        let mut seen = Vec::with_capacity(self.breakpoints.len());
        for breakpoint in &self.breakpoints {
            let mut bytes = [0; 8];
            if breakpoint.watch != Watch::Execute {
                guest.read(breakpoint.address, &mut bytes[..usize::from(breakpoint.length)])?;
            }
            seen.push(bytes);
        }
        Ok(seen)
    }
}
