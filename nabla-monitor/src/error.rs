//! Why a guest could not be started or watched.

use crate::{
    device::DeviceError,
    exit::ExitStatus,
    step::{self, LaunchStep},
};
use nabla_core::{Abi, CommandLineError, ImageError, layout::MemoryError};
use std::{io, path::PathBuf};
use thiserror::Error;

/// Why a guest could not be started or watched. A message says what failed on what; [`source`](std::error::Error::source)
/// says why, and [`advice`](Error::advice) what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The image cannot be opened or read.
    #[error("image '{}' cannot be opened", path.display())]
    OpenImage {
        /// Its path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The image is no regular file.
    #[error("image '{}' is not a regular file", path.display())]
    ImageNotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// The image is not one that can be run.
    #[error("image '{}' cannot be run", path.display())]
    Image {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: ImageError,
    },
    /// The image has an ABI that this version does not run.
    #[error(
        "image '{}' cannot be run: its ABI is {abi}, which this version does not run (it runs {})", path.display(), list(supported)
    )]
    UnsupportedAbi {
        /// Its path.
        path: PathBuf,
        /// Its ABI.
        abi: Abi,
        /// Those that are run.
        supported: Vec<Abi>,
    },
    /// The image wants memory that can be written and executed.
    #[error(
        "image '{}' has a segment (program header {index}) that is writable and executable; allow an executable heap if you trust it",
        path.display()
    )]
    WritableExecutable {
        /// Its path.
        path: PathBuf,
        /// Index of the program header.
        index: u16,
    },
    /// The memory size does not suit the image.
    #[error("image '{}' cannot be run with this memory", path.display())]
    Memory {
        /// Its path.
        path: PathBuf,
        /// What does not fit.
        source: MemoryError,
    },
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The guest's arguments.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    /// The console.
    #[error("{}", match path { Some(path) => format!("console file '{}' cannot be opened", path.display()), None => "the console cannot be set up".to_owned() })]
    Console {
        /// The file that it was to be.
        path: Option<PathBuf>,
        /// The system's reason.
        source: io::Error,
    },
    /// No core dump could be written there.
    #[error("core dumps cannot be written to '{}'", path.display())]
    CoreDirectory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The cgroup.
    #[error("cgroup '{}' cannot be used", path.display())]
    Cgroup {
        /// Its path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The identity has an id that the kernel takes for "no change", so that the guest would run as this program does.
    #[error(
        "the guest cannot run as user {uid}, group {gid}: {} stands for no change, and is nobody's id",
        u32::MAX
    )]
    Identity {
        /// The user id.
        uid: u32,
        /// The group id.
        gid: u32,
    },
    /// Supervision was asked for and cannot be had.
    #[error("the guest cannot be supervised")]
    Supervision {
        /// The system's reason.
        source: io::Error,
    },
    /// The guest needs a virtual machine, and there can be none.
    #[error("the guest needs a virtual machine, and {reason}")]
    NoKvm {
        /// Why, and what to do about it.
        reason: String,
    },
    /// Settings for guests that are processes were given for one that is not.
    #[error(
        "namespaces, another identity and a cgroup are for guests that are processes of their own; this one is in a virtual machine, which this program is: put the program there"
    )]
    NotForVirtualMachines,
    /// The guest could not be set up.
    #[error("cannot {step}")]
    Launch {
        /// What was being done.
        step: LaunchStep,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel killed the guest's process before it reached the guest.
    #[error("the guest's process ended while it was set up: {status}")]
    Killed {
        /// How it ended.
        status: ExitStatus,
    },
    /// The process that watches over guests is gone, and with it what it knew.
    #[error("how the guest ended is not known: its supervisor has been killed, and the guest with it")]
    StatusLost,
    /// An operation on a running guest failed.
    #[error("cannot {operation}")]
    Operation {
        /// What was being done.
        operation: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

fn list(abis: &[Abi]) -> String {
    abis.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The kind of an [`enum@Error`], from which a tool makes its exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The image does not exist.
    NotFound,
    /// The image exists and cannot be run.
    NotRunnable,
    /// Anything else.
    Other,
}

impl Error {
    /// Whether the image was not found, cannot be run, or something else is the matter.
    ///
    /// ```
    /// use nabla_monitor::{ErrorKind, Runtime};
    ///
    /// let error = Runtime::new().guest("/no/such/app.nabla").start().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::NotFound);
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::OpenImage { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::OpenImage { .. }
            | Self::ImageNotAFile { .. }
            | Self::Image { .. }
            | Self::UnsupportedAbi { .. }
            | Self::WritableExecutable { .. } => ErrorKind::NotRunnable,
            _ => ErrorKind::Other,
        }
    }

    /// What to do about it, as a part of a sentence, where that is known and the message does not say it.
    ///
    /// ```no_run
    /// use std::error::Error as _;
    ///
    /// if let Err(error) = nabla_monitor::Runtime::new().guest("app.nabla").start() {
    ///     eprint!("{error}");
    ///     let mut cause = error.source();
    ///     while let Some(error) = cause {
    ///         eprint!(": {error}");
    ///         cause = error.source();
    ///     }
    ///     eprintln!(" ({})", error.advice().unwrap_or_default());
    /// }
    /// ```
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Launch { step, source } => step.advice(source),
            Self::Supervision { source } => LaunchStep::Supervise.advice(source),
            Self::Killed { .. } => step::advice_when_killed(),
            _ => None,
        }
    }
}
