//! Builds whole guests.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod guide;
mod program;
mod programs;
