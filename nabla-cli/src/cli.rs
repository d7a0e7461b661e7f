//! The command line of `nabla`, and which verb it means.

use crate::{completions, doctor, error, inspect, iso, logging, man, net, output, run};
use clap::{ArgAction, CommandFactory, Parser, Subcommand, error::ErrorKind};
use std::ffi::OsString;

const EXAMPLES: &str = "\
Examples:
  # run a guest on this terminal
  nabla run app.nabla
  # with 64 MiB of memory, its disk and its network interface, and two arguments
  nabla run app.nabla --mem 64M --disk disk.img --net tap0 -- --port 80
  # a web server with a network of its own, as root
  nabla run httpd.nabla --disk rootfs.iso --net new -p 8080:80
  # what the guest is and needs
  nabla inspect app.nabla
  # what this host can run, and how to fix the rest
  nabla doctor

Exit status: the guest's own; 125 when nabla itself failed, 126 when the image cannot be run, 127 when it does \
not exist, 128+N when signal N ended the guest.

Called as solo5-spt, solo5-hvt or solo5-elftool, through a link for example, it takes the command lines of those programs.";

/// Runs unikernels as processes that are confined to a handful of system calls.
#[derive(Debug, Parser)]
#[command(name = "nabla", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Log to standard error what is done: -v steps, -vv details, -vvv everything.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A verb with its own arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a guest.
    Run(Box<run::RunArgs>),
    /// Tell what an image is, what it needs, and what is unusual about it.
    Inspect(inspect::InspectArgs),
    /// Make and read images of file systems (ISO 9660), such as disks of guests.
    Iso(iso::IsoArgs),
    /// Make, list and clean up the networks of guests.
    Net(net::NetArgs),
    /// Tell what this host can run, and what to do about the rest.
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
    /// Print the manual pages, or write them into a directory.
    Man(man::ManArgs),
}

/// Does what the command line says and returns the exit status.
pub fn main(args: &[OsString]) -> u8 {
    // clap takes longer to get ready than most guests take to start.
    let result = match run::fast::parse(args) {
        Some(run_args) => run::main(&run_args),
        None => match Cli::try_parse_from(args) {
            Ok(cli) => {
                logging::init(cli.verbose);
                dispatch(cli.command)
            }
            Err(error) => return usage(&error),
        },
    };
    result.unwrap_or_else(|error| error::report(&error))
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => run::main(&args),
        Command::Inspect(args) => inspect::main(&args),
        Command::Iso(args) => iso::main(&args),
        Command::Net(args) => net::main(&args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Completions(args) => completions::main(&args),
        Command::Man(args) => man::main(&args),
    }
}

/// The whole command line as clap knows it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Prints help where it was asked for, and what is wrong with the command line where not.
fn usage(error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::print(text.as_bytes()).map_or_else(|error| error::report(&error), |()| 0)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::complain(&text);
            error::FAILED
        }
        _ => {
            output::complain(&format!("nabla: {}", text.strip_prefix("error: ").unwrap_or(&text)));
            error::FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_consistent() {
        command().debug_assert();
    }

    /// Every example in a help text, as words, without what is for the shell.
    fn examples(command: &clap::Command) -> Vec<Vec<String>> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        help.lines()
            .filter_map(|line| line.strip_prefix("  "))
            .filter(|line| line.starts_with("nabla "))
            .map(|line| {
                let line = line.split(['|', '>']).next().unwrap_or(line);
                line.split_whitespace().map(str::to_owned).collect()
            })
            .collect()
    }

    #[test]
    fn examples_of_every_help_parse() {
        let command = command();
        let verbs = std::iter::once(&command).chain(command.get_subcommands());
        let below = command.get_subcommands().flat_map(clap::Command::get_subcommands);
        for (command, may_lack) in verbs.map(|verb| (verb, false)).chain(below.map(|verb| (verb, true))) {
            let examples = examples(command);
            assert!(may_lack || !examples.is_empty(), "{} has no examples", command.get_name());
            for words in examples {
                let parsed = Cli::try_parse_from(&words);
                assert!(parsed.is_ok(), "{}: {}", words.join(" "), parsed.unwrap_err());
            }
        }
    }
}
