//! The host's side of the network ring: what the guest has submitted, frame by frame.
//!
//! The ring is memory that the guest may write anywhere at any time. So nothing of what the host has to know is
//! read from it: the host's own indices are here, and what it writes to the ring is for the guest alone. Of the
//! guest's, there is one index that counts, `ent_tail`. It says how many submissions there are, and more than the
//! ring has places for end the guest. `com_head` is not looked at: a guest that does not take its commits loses them.
//! Every submission is copied once, then checked, then done.
//!
//! Source: `hvt_ring.h` and `hvt_module_net.c` of Solo5 0.12.

mod service;

pub use service::{Confinement, Doorbell, Service};

use super::{
    counters::{Direction, Tally},
    devices::{self, Nets},
    memory::{Access, BadAccess, GuestMemory},
};
use crate::exit::HypercallMistake;
use nabla_core::abi::{
    PAGE_SIZE,
    hvt::R_EINVAL,
    ring::{Commit, Entry, OP_NET_READ, OP_NET_WRITE, Ring as Layout, SIZE},
};
use std::{
    mem::offset_of,
    sync::{
        Arc,
        atomic::{
            Ordering::{Acquire, Release, SeqCst},
            fence,
        },
    },
};
use vm_memory::{Bytes, VolatileSlice};
use zerocopy::IntoBytes;

/// Bytes of a ring, in whole pages.
pub const BYTES: u64 = (size_of::<Layout>() as u64).next_multiple_of(PAGE_SIZE);
/// Places each way, as a number of the ring's indices.
const PLACES: u32 = 1024;
const _: () = assert!(PLACES as usize == SIZE);

/// A ring, in the memory after the guest's own.
#[derive(Debug)]
pub struct Ring {
    memory: Arc<GuestMemory>,
    nets: Nets,
    tally: Arc<Tally>,
    /// Submissions that were done.
    done: u32,
    /// Commits that were made.
    commits: u32,
}

impl Ring {
    /// The ring of a memory that has [`BYTES`] after its end; `None` when it has not.
    pub fn new(memory: Arc<GuestMemory>, nets: Nets, tally: Arc<Tally>) -> Option<Self> {
        memory.ring().filter(|ring| ring.len() as u64 == BYTES)?;
        Some(Self { memory, nets, tally, done: 0, commits: 0 })
    }

    /// Whether the guest has submitted anything, or pretends to.
    pub fn has_work(&self) -> bool {
        self.load(offset_of!(Layout, ent_tail)) != self.done
    }

    /// Has the guest ring, or not ring, when there is something to do. Returns whether there is already.
    pub fn want_doorbell(&self, wanted: bool) -> bool {
        self.store(offset_of!(Layout, needs_kick), wanted.into());
        // The guest stores its index and then looks whether the doorbell is wanted; here it is the other way round, so
        // that one of both sees the other's.
        fence(SeqCst);
        self.has_work()
    }

    /// Does what there is to be done now, which is not more than the ring has places. Returns how much that was.
    pub fn work(&mut self) -> Result<u32, HypercallMistake> {
        let tail = self.load(offset_of!(Layout, ent_tail));
        let waiting = tail.wrapping_sub(self.done);
        if waiting > PLACES {
            return Err(HypercallMistake::Ring { submitted: waiting });
        }
        for _ in 0..waiting {
            let entry = self.entry();
            self.perform(&entry).map_err(|BadAccess { address, .. }| HypercallMistake::Memory { address })?;
            self.done = self.done.wrapping_add(1);
            self.store(offset_of!(Layout, ent_head), self.done);
        }
        Ok(waiting)
    }

    /// A copy of the next submission.
    fn entry(&self) -> Entry {
        let mut entry = Entry::default();
        let place = offset_of!(Layout, entries) + size_of::<Entry>() * place(self.done);
        self.part(place, size_of::<Entry>()).copy_to(entry.as_mut_bytes());
        entry
    }

    fn perform(&mut self, entry: &Entry) -> Result<(), BadAccess> {
        let net = self.nets.get(entry.handle.into());
        let bytes = |access| self.memory.slice(entry.data, entry.len.into(), access);
        match (entry.operation, net) {
            (OP_NET_WRITE, Some(net)) => {
                let ret = devices::send(net, &bytes(Access::Read)?);
                // The guest does not hear of it, as on any wire.
                self.tally.device(entry.handle.into(), Direction::Write, entry.len.into(), ret);
            }
            (OP_NET_READ, Some(net)) => {
                let (ret, length) = devices::receive(net, &bytes(Access::Write)?);
                self.tally.device(entry.handle.into(), Direction::Read, length, ret);
                let len = u32::try_from(length).unwrap_or(entry.len);
                self.commit(Commit { id: entry.id, ret, len, reserved: 0 });
            }
            (OP_NET_READ, None) => {
                self.commit(Commit { id: entry.id, ret: R_EINVAL, len: 0, reserved: 0 });
            }
            // Writes to no device, and what is unknown, have no commit.
            _ => {}
        }
        Ok(())
    }

    fn commit(&mut self, commit: Commit) {
        let place = offset_of!(Layout, commits) + size_of::<Commit>() * place(self.commits);
        self.part(place, size_of::<Commit>()).copy_from(commit.as_bytes());
        self.commits = self.commits.wrapping_add(1);
        self.store(offset_of!(Layout, com_tail), self.commits);
    }

    /// Bytes of the ring.
    fn part(&self, offset: usize, length: usize) -> VolatileSlice<'_> {
        let ring = self.memory.ring().and_then(|ring| ring.subslice(offset, length).ok());
        // `Ring::new` has made sure of the whole.
        ring.expect("the ring is as long as its layout")
    }

    /// An index of the guest's, and with it what was written before it.
    fn load(&self, offset: usize) -> u32 {
        // Nothing is there, where there is no such index.
        self.part(offset, 4).load(0, Acquire).unwrap_or(self.done)
    }

    /// Tells the guest an index, and with it what was written before it.
    fn store(&self, offset: usize, value: u32) {
        let stored = self.part(offset, 4).store(value, 0, Release);
        debug_assert!(stored.is_ok(), "the ring's indices are aligned");
    }
}

/// The place that an index means.
fn place(index: u32) -> usize {
    index as usize % SIZE
}

#[cfg(test)]
mod tests;
