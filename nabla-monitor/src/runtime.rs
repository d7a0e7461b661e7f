//! Where guests are started from.

use crate::{backend::Backends, builder::GuestBuilder, device::Consoles, image::ImageSource};
use std::sync::Arc;

/// Where guests are started from.
///
/// Creating one costs nothing and probes nothing. What guests share (the supervisor, the thread that feeds
/// [`Console::writer`](crate::Console::writer)s) is made when the first guest needs it, and goes away with the
/// last guest and the last clone of the runtime. Clones are the same runtime.
#[derive(Debug, Clone, Default)]
pub struct Runtime {
    backends: Arc<Backends>,
    consoles: Arc<Consoles>,
}

impl Runtime {
    /// A new runtime.
    ///
    /// ```
    /// let runtime = nabla_monitor::Runtime::new();
    /// let same = runtime.clone();
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A guest to be configured and started from an image: a path, which is opened by [`GuestBuilder::start`] and not
    /// before, or an [`OpenImage`](crate::OpenImage) or [`ImageFile`](crate::ImageFile).
    ///
    /// ```no_run
    /// use nabla_monitor::{OpenImage, Runtime};
    ///
    /// let runtime = Runtime::new();
    /// let first = runtime.guest("app.nabla").start()?;
    /// let second = runtime.guest(OpenImage::open("other.nabla")?).start()?;
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    pub fn guest(&self, image: impl Into<ImageSource>) -> GuestBuilder {
        GuestBuilder::new(Arc::clone(&self.backends), Arc::clone(&self.consoles), image.into())
    }
}
