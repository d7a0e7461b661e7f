//! A change that the kernel is asked for.

use crate::{
    error::{Error, ErrorKind},
    network::Network,
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;

/// A request that changes something, and how an error calls it.
#[derive(Debug)]
pub(crate) struct Change {
    operation: &'static str,
    object: String,
    message: RouteNetlinkMessage,
    flags: u16,
    missing: Option<Errno>,
}

impl Change {
    /// To do `operation`, a verb, to `object`.
    pub fn new(operation: &'static str, object: String, message: RouteNetlinkMessage) -> Self {
        Self { operation, object, message, flags: 0, missing: None }
    }

    /// Something new is made by it.
    pub fn creating(self) -> Self {
        Self { flags: NLM_F_CREATE | NLM_F_EXCL, ..self }
    }

    /// The kernel says `errno` when the object does not exist (beside ENODEV and ENOENT).
    pub fn missing(self, errno: Errno) -> Self {
        Self { missing: Some(errno), ..self }
    }

    /// Asks for it.
    pub fn apply(self, network: &Network) -> Result<(), Error> {
        network.routing().change(self.message, self.flags).map(|_| ()).map_err(|error| {
            if self.missing.is_some_and(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
                return Error::new(self.operation, self.object, ErrorKind::NotFound);
            }
            Error::system(self.operation, self.object, error)
        })
    }
}
