//! `nabla completions`.

use crate::output;
use clap::Args;
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  nabla completions bash > ~/.local/share/bash-completion/completions/nabla
  nabla completions fish > ~/.config/fish/completions/nabla.fish
  nabla completions zsh > ~/.zfunc/_nabla";

/// Arguments of `nabla completions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Prints a completion script for a command.
pub fn main(args: &CompletionsArgs, mut command: clap::Command) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "nabla", &mut script);
    output::print(&script)?;
    Ok(0)
}
