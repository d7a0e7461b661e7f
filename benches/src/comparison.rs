//! A comparison of two things.

use crate::{pairs::Measured, setup::Setup};
use anyhow::Result;

/// What is compared, and how.
#[derive(Debug)]
pub struct Comparison {
    /// Short and stable.
    pub name: &'static str,
    /// What is measured, on which side.
    pub ours: &'static str,
    pub theirs: &'static str,
    pub unit: &'static str,
    /// The ratio that is promised, if any.
    pub at_most: Option<f64>,
    /// Whether what it takes is there.
    pub is_possible: fn(&Setup) -> bool,
    pub run: fn(&Setup, u32) -> Result<Measured>,
}
