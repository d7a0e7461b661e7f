//! Paired comparisons with the peers found on PATH.
//!
//! Timings on a shared machine drift, so nothing is measured by itself: the two sides of a comparison run in turn,
//! and what counts is the median of the ratios, pair by pair. Run it with `cargo xtask bench`.

mod bindings;
mod comparison;
mod heaps;
mod images;
mod machines;
mod network;
mod pairs;
mod processes;
mod program;
mod report;
mod setup;

use anyhow::{Context, Result};
use clap::Parser;
use std::path::PathBuf;

/// Compare nabla with the peers found on PATH, pair by pair.
#[derive(Debug, Parser)]
struct Options {
    /// Pairs of runs for each comparison
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Only comparisons whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Write the results to this file as JSON, too
    #[arg(long)]
    json: Option<PathBuf>,
    /// The static release build of nabla
    #[arg(long)]
    nabla: PathBuf,
    /// The directory of the built test guests
    #[arg(long)]
    guests: PathBuf,
    /// The directory of those for virtual machines
    #[arg(long)]
    hvt_guests: PathBuf,
    /// The directory of the built web server
    #[arg(long)]
    httpd: PathBuf,
    /// The directory of that for virtual machines
    #[arg(long)]
    hvt_httpd: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let guests = [options.guests, options.hvt_guests, options.httpd, options.hvt_httpd];
    let setup = setup::Setup::new(options.nabla, guests)?;
    let mut results = Vec::new();
    for comparison in processes::all()
        .into_iter()
        .chain(machines::all())
        .chain(network::all())
        .chain(images::all())
        .chain(heaps::all())
    {
        if options.only.as_ref().is_some_and(|only| !comparison.name.contains(only)) {
            continue;
        }
        eprintln!("{}...", comparison.name);
        results.push(report::Row::measure(&comparison, &setup, options.pairs)?);
    }
    print!("{}", report::markdown(&results));
    for missing in setup.missing() {
        println!("\n{missing} was not found on PATH; what is compared with it was left out.");
    }
    if let Some(path) = options.json {
        let text = serde_json::to_string_pretty(&results)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
