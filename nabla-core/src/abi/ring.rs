//! The network ring of `hvt` guests since Solo5 0.11 (`hvt_ring.h`).
//!
//! One ring serves every network device: [`SIZE`] submissions from the guest and as many commits from the
//! host, each direction with a single producer and a single consumer.

use core::mem::{offset_of, size_of};

/// Entries each way.
pub const SIZE: usize = 1024;
/// Largest frame in bytes that guests send through the ring; longer ones come by hypercall.
pub const BUFFER_SIZE: usize = 2048;
/// [`Entry::operation`]: send a frame.
pub const OP_NET_WRITE: u32 = 1;
/// [`Entry::operation`]: receive a frame.
pub const OP_NET_READ: u32 = 2;

/// A submission, written by the guest.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Entry {
    /// `OP_*`.
    pub operation: u32,
    /// Manifest index.
    pub handle: u32,
    /// Guest-physical address of the frame.
    pub data: u64,
    /// Bytes.
    pub len: u32,
    /// Returned in the commit.
    pub id: u32,
    /// Zero.
    pub reserved: u64,
}

/// A completion, written by the host.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Commit {
    /// From the submission.
    pub id: u32,
    /// `R_*` of [`super::hvt`].
    pub ret: i32,
    /// Bytes received.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
}

/// The whole ring. The guest writes the first cache line, the host the second.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    /// Submissions produced (guest).
    pub ent_tail: u32,
    /// Commits consumed (guest).
    pub com_head: u32,
    /// Fills the line.
    pub padding0: [u8; 56],
    /// Submissions consumed (host).
    pub ent_head: u32,
    /// Commits produced (host).
    pub com_tail: u32,
    /// Nonzero when the host sleeps and wants a kick (host).
    pub needs_kick: u32,
    /// Fills the line.
    pub padding1: [u8; 52],
    /// Submissions.
    pub entries: [Entry; SIZE],
    /// Commits.
    pub commits: [Commit; SIZE],
}

const _: () = {
    assert!(size_of::<Entry>() == 32);
    assert!(size_of::<Commit>() == 16);
    assert!(offset_of!(Ring, ent_head) == 64);
    assert!(offset_of!(Ring, needs_kick) == 72);
    assert!(offset_of!(Ring, entries) == 128);
    assert!(offset_of!(Ring, commits) == 128 + 32 * SIZE);
    assert!(size_of::<Ring>() == 49280);
};
