//! `nabla man`.

use crate::{output, pending::PendingFile};
use anyhow::Context;
use clap::Args;
use std::{fs, io, path::PathBuf};

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
            let write =
                |(name, page): &(String, Vec<u8>)| PendingFile::create(&directory.join(name))?.finish(page);
            fs::create_dir_all(directory)
                .and_then(|()| pages(command, true)?.iter().try_for_each(write))
                .with_context(|| format!("cannot write manual pages to '{}'", directory.display()))?;
        }
        None => {
            let pages = pages(command, false).context("cannot make manual pages")?;
            output::print(&pages.into_iter().flat_map(|(_, page)| page).collect::<Vec<_>>())?;
        }
    }
    Ok(0)
}

/// The names and contents of the pages of a command and its verbs, and of their verbs if `deep`.
fn pages(command: clap::Command, deep: bool) -> io::Result<Vec<(String, Vec<u8>)>> {
    // Gives every subcommand its full name.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let verbs = command.get_subcommands();
    let below = command.get_subcommands().filter(|_| deep).flat_map(clap::Command::get_subcommands);
    let page = |page: &clap::Command| {
        let mut text = Vec::new();
        let page = clap_mangen::Man::new(page.clone());
        page.render(&mut text)?;
        Ok((page.get_filename(), text))
    };
    std::iter::once(&command).chain(verbs).chain(below).map(page).collect()
}
