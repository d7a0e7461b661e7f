//! What goes into an image: directories, tar streams, and entries that a program adds.

pub(crate) mod blob;
pub(crate) mod entry;
pub(crate) mod filter;
pub(crate) mod layer;
pub(crate) mod open;
pub(crate) mod path;
pub(crate) mod spool;
pub(crate) mod text;
pub(crate) mod tree;
pub(crate) mod walk;
