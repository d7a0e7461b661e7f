//! What ends the guest.

use alloc::{format, string::String};
use core::{error::Error, fmt};

/// What ends the guest, as a sentence.
pub struct Failure(pub String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("{error}"))
    }
}
