//! Files and directories of the host: opening them without following links, and names for what is not complete.

pub mod beneath;
pub mod cursor;
pub mod partial;
pub mod threads;
