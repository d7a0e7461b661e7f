//! Guards: what was made or changed, and how that is undone.

use crate::{change::Change, error::Error, network::Network};
use std::ops::Deref;

/// Something that was made or changed in a network, and is undone when this is dropped.
///
/// ```
/// # if !nabla_testkit::need::root() { return Ok(()) }
/// let network = nabla_net::Network::isolated()?;
/// let kept = network.create_bridge("kept")?.keep();
/// let released = network.create_bridge("released")?;
/// released.release()?;
/// assert!(network.link(&kept.name).is_ok() && network.link("released").is_err());
/// # Ok::<(), nabla_net::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it undoes what was done"]
pub struct Owned<T> {
    /// Only `keep` and `release` take it out, and they consume this.
    what: T,
    undo: Vec<Undo>,
}

/// How something is undone. Interfaces are meant by their index, which no other one gets while the machine runs.
#[derive(Debug)]
pub(crate) struct Undo {
    pub network: Network,
    pub change: Change,
    /// What is to be changed when it is not undone.
    pub when_kept: Option<Change>,
}

impl<T> Owned<T> {
    pub(crate) fn new(what: T, network: &Network, change: Change) -> Self {
        Self { what, undo: vec![Undo { network: network.clone(), change, when_kept: None }] }
    }

    /// Makes this change when it is kept.
    pub(crate) fn when_kept(mut self, change: Change) -> Self {
        if let Some(undo) = self.undo.last_mut() {
            undo.when_kept = Some(change);
        }
        self
    }

    /// Something for which there is nothing to undo.
    pub(crate) const fn nothing(what: T) -> Self {
        Self { what, undo: Vec::new() }
    }

    /// The same about something else.
    pub(crate) fn map<U>(mut self, change: impl FnOnce(&T) -> U) -> Owned<U> {
        let undo = std::mem::take(&mut self.undo);
        Owned { what: change(&self.what), undo }
    }

    /// Undoes what belongs to another one before what belongs to this.
    pub(crate) fn with<U>(mut self, mut other: Owned<U>) -> Self {
        self.undo.append(&mut other.undo);
        self
    }

    /// Undoes it now. What is gone already is no error.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let bridge = network.create_bridge("br0")?;
    /// network.delete_link("br0")?;
    /// bridge.release()?; // Nothing is left to be undone.
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The first error. The rest has been undone as far as possible.
    pub fn release(mut self) -> Result<(), Error> {
        self.undo_all()
    }

    /// Leaves it as it is. Interfaces that were made lose the mark of their owner, so that they are no garbage when this
    /// program has ended; redirections cannot lose it.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// network.create_bridge("br0")?.keep();
    /// assert!(network.link("br0")?.is_kept());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    pub fn keep(mut self) -> T
    where
        T: Clone,
    {
        for undo in self.undo.drain(..) {
            if let Some(change) = undo.when_kept
                && let Err(error) = change.apply(&undo.network)
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "an interface that is to stay cannot be marked"
                );
            }
        }
        self.what.clone()
    }

    fn undo_all(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        while let Some(undo) = self.undo.pop() {
            match undo.change.apply(&undo.network) {
                // It is undone already: by somebody else, or by the end of what it was done to.
                Err(error) if error.is_not_found() => {}
                undone => result = result.and(undone),
            }
        }
        result
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.what
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if let Err(error) = self.undo_all() {
            tracing::warn!(error = &error as &dyn std::error::Error, "something could not be undone");
        }
    }
}
