//! The table.

use crate::{comparison::Comparison, setup::Setup};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write;

/// One line of the table. Its JSON form is stable.
#[derive(Debug, Serialize)]
pub struct Row {
    name: &'static str,
    ours: &'static str,
    theirs: &'static str,
    unit: &'static str,
    /// Nothing when the peer is missing.
    result: Option<Figures>,
    /// The ratio that is promised, if any.
    at_most: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Figures {
    ours_median: f64,
    theirs_median: f64,
    ratio_median: f64,
    ratio_lower_quartile: f64,
    ratio_upper_quartile: f64,
}

impl Row {
    pub fn measure(comparison: &Comparison, setup: &Setup, pairs: u32) -> Result<Self> {
        let &Comparison { name, ours, theirs, unit, at_most, is_possible, run } = comparison;
        let result = if is_possible(setup) {
            let measured = run(setup, pairs).with_context(|| format!("comparison '{name}'"))?;
            Some(Figures {
                ours_median: measured.ours,
                theirs_median: measured.theirs,
                ratio_median: measured.ratio,
                ratio_lower_quartile: measured.quartiles.0,
                ratio_upper_quartile: measured.quartiles.1,
            })
        } else {
            None
        };
        Ok(Self { name, ours, theirs, unit, result, at_most })
    }
}

/// All rows as a table.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| comparison | ours | theirs | ours | theirs | ratio (quartiles) | at most |\n| --- | --- | --- | ---: | ---: | ---: | ---: |\n",
    );
    for Row { name, ours, theirs, unit, result, at_most } in rows {
        let limit = at_most.map_or_else(|| "-".to_owned(), |limit| format!("{limit}"));
        let figures = match result {
            None => "- | - | peer missing".to_owned(),
            Some(f) => format!(
                "{:.0} {unit} | {:.0} {unit} | {:.2} ({:.2} to {:.2})",
                f.ours_median,
                f.theirs_median,
                f.ratio_median,
                f.ratio_lower_quartile,
                f.ratio_upper_quartile
            ),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {ours} | {theirs} | {figures} | {limit} |");
    }
    text
}
