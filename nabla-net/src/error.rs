//! What can go wrong, said so that it can be put right.

use rustix::io::Errno;
use std::{fmt, io};

/// Something could not be done to something: the message says what, to what, why, and what helps.
#[derive(Debug)]
pub struct Error {
    /// What was to be done, as a verb.
    pub operation: &'static str,
    /// What it was to be done to.
    pub object: String,
    /// Why it failed.
    pub kind: ErrorKind,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.object, self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The kind's own text is in this one's.
        std::error::Error::source(&self.kind)
    }
}

/// Why something failed; see [`Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It does not exist.
    #[error("it does not exist")]
    NotFound,
    /// It exists already.
    #[error("it exists already; delete it, or choose another name")]
    Exists,
    /// Somebody uses it.
    #[error("it is in use by another guest or program")]
    Busy,
    /// The kernel does not let this program.
    #[error(
        "not permitted; that takes {needs} in the user namespace that owns the network namespace, which root has"
    )]
    NotPermitted {
        /// The capability that it takes.
        needs: &'static str,
    },
    /// It belongs to another user.
    #[error(
        "it belongs to another user, and opening it all the same takes CAP_NET_ADMIN; let root give it to you with: nabla net create NAME --owner USER"
    )]
    NotOwner,
    /// No interface can be called that.
    #[error(
        "no interface can be called that: a name has 1 to 15 characters, without '/', ':', '%' and spaces"
    )]
    Name,
    /// The kernel was built without it, or its module is missing.
    #[error("this kernel does not have it; it needs {needs}")]
    Unsupported {
        /// The option or the module of the kernel.
        needs: &'static str,
    },
    /// It is an interface of another kind.
    #[error("it is no {expected}")]
    Kind {
        /// What it should be.
        expected: &'static str,
    },
    /// A tap's own reason.
    #[error(transparent)]
    Tap(nabla_tap::TapErrorKind),
    /// Another reason, in words.
    #[error("{0}")]
    Other(String),
    /// The system's reason.
    #[error("the system refuses it")]
    System(#[source] io::Error),
}

impl Error {
    pub(crate) fn new(operation: &'static str, object: impl Into<String>, kind: ErrorKind) -> Self {
        Self { operation, object: object.into(), kind }
    }

    /// For an operation on a network, which takes CAP_NET_ADMIN.
    pub(crate) fn system(operation: &'static str, object: impl Into<String>, error: io::Error) -> Self {
        let kind = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::PERM | Errno::ACCESS) => ErrorKind::NotPermitted { needs: "CAP_NET_ADMIN" },
            Some(Errno::NODEV | Errno::NOENT) => ErrorKind::NotFound,
            Some(Errno::EXIST) => ErrorKind::Exists,
            Some(Errno::BUSY) => ErrorKind::Busy,
            _ => ErrorKind::System(error),
        };
        Self::new(operation, object, kind)
    }

    /// Whether it failed because something does not exist.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// assert!(network.link("eth0").unwrap_err().is_not_found());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self.kind, ErrorKind::NotFound)
    }

    /// Whether it failed because something exists already.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let _bridge = network.create_bridge("br0")?;
    /// assert!(network.create_bridge("br0").unwrap_err().is_exists());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn is_exists(&self) -> bool {
        matches!(self.kind, ErrorKind::Exists)
    }

    /// Whether it failed for want of a permission.
    ///
    /// ```
    /// use nabla_net::Network;
    ///
    /// match Network::isolated() {
    ///     Ok(network) => assert!(network.link("lo").is_ok()),
    ///     Err(error) if error.is_not_permitted() => println!("{error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn is_not_permitted(&self) -> bool {
        matches!(self.kind, ErrorKind::NotPermitted { .. } | ErrorKind::NotOwner)
    }
}
