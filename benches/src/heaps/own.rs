//! The SDK's heap, out of its sources: the crate itself is for guests, and brings what a host program must not have.

#[path = "../../../nabla-guest/src/heap/class.rs"]
mod class;
#[path = "../../../nabla-guest/src/heap/region.rs"]
mod region;
#[path = "../../../nabla-guest/src/heap/segregated.rs"]
#[expect(dead_code, reason = "a guest asks for more, of which nothing is compared")]
mod segregated;

pub use segregated::Heap;
