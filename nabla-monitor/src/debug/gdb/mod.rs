//! Debugging a guest with gdb, over its remote serial protocol.

mod hardware;
mod listener;
mod session;
mod target;

pub use listener::GdbListener;

use self::session::Outcome;
use super::{Resume, Stop, thread::Task};
use std::{io, os::fd::AsFd};

/// Serves debuggers, one after the other, until the guest has ended. It stands still at its first instruction until
/// the first one has connected.
pub(super) fn serve(task: &mut Task, listener: &GdbListener) -> io::Result<()> {
    let mut awaited = true;
    loop {
        let stop = match task.look()? {
            Some(Stop::Ended(_)) => return Ok(()),
            Some(stop) if !awaited || matches!(stop, Stop::Ending(_)) => {
                task.guest.resume(stop.undisturbed())?;
                None
            }
            stop => stop,
        };
        let Some(connection) = listener.accept()? else {
            if !task.wait(&[listener.as_fd()])? {
                return Ok(());
            }
            continue;
        };
        if stop.is_none() && matches!(task.guest.stop_now()?, Stop::Ended(_)) {
            return Ok(());
        }
        awaited = false;
        match session::run(task, connection)? {
            Outcome::Ended => return Ok(()),
            Outcome::Left => {
                // Whatever it stands still for was the debugger's affair.
                if let Some(stop) = task.guest.stop()?
                    && !matches!(stop, Stop::Ended(_))
                {
                    let how = match stop {
                        Stop::Signal(_) => stop.undisturbed(),
                        _ => Resume::Continue { signal: None },
                    };
                    task.guest.resume(how)?;
                }
            }
        }
    }
}
