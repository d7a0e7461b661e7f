//! Networks as the kernel has them: in namespaces that each test makes for itself.

mod adopt;
mod cleanup;
mod common;
mod config;
mod forward;
