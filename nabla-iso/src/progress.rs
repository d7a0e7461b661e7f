//! Progress reports.

use crate::error::Error;
use std::{fmt, ops::ControlFlow};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Directories and tar streams are read.
    Scanning,
    /// Contents of files of the same size are compared.
    Comparing,
    /// The image, or what it unpacks to, is written.
    Writing,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Files that are done; entries found so far, while scanning.
    pub files: u64,
    /// Of how many; zero while scanning.
    pub files_total: u64,
    /// Bytes that are done.
    pub bytes: u64,
    /// Of how many; zero while scanning.
    pub bytes_total: u64,
}

/// Called with the progress, from any thread; [`ControlFlow::Break`] ends the work with [`Error::Cancelled`].
type Callback = Box<dyn Fn(Progress) -> ControlFlow<()> + Send + Sync>;

/// A callback, or none.
#[derive(Default)]
pub(crate) struct Reporter(Option<Callback>);

impl Reporter {
    pub fn new(callback: impl Fn(Progress) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(callback)))
    }

    pub fn report(&self, progress: Progress) -> Result<(), Error> {
        match &self.0 {
            Some(callback) if callback(progress).is_break() => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Reporter(..)" } else { "Reporter(none)" })
    }
}
