//! `nabla man`.

use crate::output;
use anyhow::Context;
use clap::Args;
use std::{fs, path::PathBuf};

const EXAMPLES: &str = "\
Examples:
  nabla man | man -l -
  nabla man --out ~/.local/share/man/man1";

/// Arguments of `nabla man`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ManArgs {
    /// Write nabla.1, nabla-run.1 and so on into this directory, which is created if need be.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the manual pages of a command, one after the other, or writes them into a directory.
pub fn main(args: &ManArgs, command: clap::Command) -> anyhow::Result<u8> {
    match &args.out {
        Some(directory) => {
            fs::create_dir_all(directory)
                .and_then(|()| clap_mangen::generate_to(command, directory))
                .with_context(|| format!("cannot write manual pages to '{}'", directory.display()))?;
        }
        None => output::print(&all_pages(command)?)?,
    }
    Ok(0)
}

fn all_pages(command: clap::Command) -> anyhow::Result<Vec<u8>> {
    // Gives every subcommand its full name, as `generate_to` does.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    for page in std::iter::once(&command).chain(command.get_subcommands()) {
        clap_mangen::Man::new(page.clone()).render(&mut pages).context("cannot write manual pages")?;
    }
    Ok(pages)
}
