//! Where guests are started from.

use crate::{
    backend::process::supervisor::Supervisor,
    config::GuestBuilder,
    confine::landlock,
    device::{ConsolePoller, Drained},
    host,
    image::ImageSource,
};
use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Where guests are started from.
///
/// Creating one costs nothing and probes nothing. What guests share (the supervisor, the thread that feeds
/// [`Console::writer`](crate::Console::writer)s) is made when the first guest needs it, and goes away with the
/// last guest and the last clone of the runtime. Clones are the same runtime.
#[derive(Debug, Clone, Default)]
pub struct Runtime(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    supervisor: Mutex<Option<Arc<Supervisor>>>,
    consoles: Mutex<Option<ConsolePoller>>,
    landlock: OnceLock<Option<u32>>,
    /// How many processes the kernel had killed for want of memory when this was last looked at.
    oom_kills: Mutex<Option<u64>>,
}

impl Runtime {
    /// A new runtime.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A guest to be configured and started from an image: a path, which is opened by [`GuestBuilder::start`] and not
    /// before, or an [`OpenImage`](crate::OpenImage) or [`ImageFile`](crate::ImageFile).
    pub fn guest(&self, image: impl Into<ImageSource>) -> GuestBuilder {
        GuestBuilder::new(self.clone(), image.into())
    }

    pub(crate) fn landlock_abi(&self) -> Option<u32> {
        *self.0.landlock.get_or_init(landlock::abi)
    }

    /// The supervisor; a new one if there was none, if somebody killed it, or if this program has changed its user.
    pub(crate) fn supervisor(&self) -> io::Result<Arc<Supervisor>> {
        let mut supervisor = lock(&self.0.supervisor);
        match &*supervisor {
            Some(running) if running.is_alive() && running.has_our_rights() => Ok(Arc::clone(running)),
            _ => {
                let started = Arc::new(Supervisor::new()?);
                *supervisor = Some(Arc::clone(&started));
                Ok(started)
            }
        }
    }

    pub(crate) fn feed(&self, reader: OwnedFd, writer: Box<dyn Write + Send>) -> io::Result<Drained> {
        let mut consoles = lock(&self.0.consoles);
        match &*consoles {
            Some(poller) => poller.add(reader, writer),
            None => consoles.insert(ConsolePoller::new()?).add(reader, writer),
        }
    }

    /// Remembers how often the kernel has killed for want of memory, if nobody did so far.
    pub(crate) fn note_oom_kills(&self) {
        let mut known = lock(&self.0.oom_kills);
        if known.is_none() {
            *known = host::oom_kills();
        }
    }

    /// Whether the kernel has killed something for want of memory since this was last asked.
    pub(crate) fn oom_kill_happened(&self) -> bool {
        let mut known = lock(&self.0.oom_kills);
        let now = host::oom_kills();
        let happened = matches!((*known, now), (Some(before), Some(now)) if now > before);
        *known = now;
        happened
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is consistent after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
