//! The command line of `nabla`, and which verb it means.

use crate::{completions, doctor, error, inspect, iso, logging, man, net, output, run};
use clap::{ArgAction, Args, FromArgMatches, Subcommand, error::ErrorKind};
use std::{ffi::OsString, os::unix::ffi::OsStrExt};

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

/// Runs unikernels as confined processes or in virtual machines.
#[derive(Debug, Args)]
#[command(name = "nabla", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Log to standard error what is done: -v steps, -vv their details, -vvv also when and in which thread.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// A verb with its own arguments. `run` is another, which clap does not parse.
#[derive(Debug, Subcommand)]
pub enum Verb {
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
    let result = match words_of_run(args) {
        Some(words) => run::RunArgs::parse(&words).map_err(explain).map(|(args, verbosity)| {
            logging::init(verbosity);
            tracing::debug!(?args, "the command line is understood");
            run::main(&args)
        }),
        None => parse(args).map(|cli| {
            logging::init(cli.verbose);
            tracing::debug!(args = ?cli.verb, "the command line is understood");
            dispatch(cli.verb)
        }),
    };
    match result {
        Ok(result) => result.unwrap_or_else(|error| error::report(&error)),
        Err(error) => usage(&error),
    }
}

/// Parses the command line of another verb than `run`.
fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    command().try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches))
}

/// What clap says where a command line of `nabla run` is not followed.
fn explain(stop: run::Stop) -> clap::Error {
    let mut command = command();
    match stop {
        run::Stop::Help(option) => {
            command.try_get_matches_from(["nabla", "run", option]).expect_err("help is an error to clap")
        }
        run::Stop::Mistake(message) => {
            command.build();
            let run = command.find_subcommand_mut("run").expect("the command has this verb");
            run.error(ErrorKind::ValueValidation, message)
        }
    }
}

/// What the command line says to `nabla run`, -v in front of the verb included; nothing for another verb.
fn words_of_run(args: &[OsString]) -> Option<Vec<OsString>> {
    let is_verbose = |word: &OsString| {
        let letters = word.as_bytes().strip_prefix(b"-").unwrap_or_default();
        word == "--verbose" || (!letters.is_empty() && letters.iter().all(|&letter| letter == b'v'))
    };
    let (_, words) = args.split_first()?;
    let verb = words.iter().position(|word| !is_verbose(word)).filter(|&index| words[index] == "run")?;
    Some([&words[..verb], &words[verb + 1..]].concat())
}

fn dispatch(verb: Verb) -> anyhow::Result<u8> {
    match verb {
        Verb::Inspect(args) => inspect::main(&args),
        Verb::Iso(args) => iso::main(&args),
        Verb::Net(args) => net::main(&args),
        Verb::Doctor(args) => doctor::main(&args),
        Verb::Completions(args) => completions::main(&args, command()),
        Verb::Man(args) => man::main(&args, command()),
    }
}

/// The whole command line as clap knows it.
pub fn command() -> clap::Command {
    Cli::augment_args(clap::Command::new("nabla").subcommand(run::RunArgs::command()))
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
    fn verbosity_counts_on_both_sides_of_the_verb() {
        for (line, expected) in [
            ("nabla run app.nabla", Some(0)),
            ("nabla -v run app.nabla", Some(1)),
            ("nabla --verbose -vv run -v app.nabla -- -v", Some(4)),
            ("nabla -vx run app.nabla", None),
            ("nabla - run app.nabla", None),
            ("nabla -v inspect app.nabla", None),
            ("nabla -v", None),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let run = words_of_run(&words).and_then(|words| run::RunArgs::parse(&words).ok());
            let verbosity = run.map(|(_, verbosity)| verbosity);
            assert_eq!(verbosity, expected, "{line}");
        }
    }

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
                let words: Vec<OsString> = words.iter().map(OsString::from).collect();
                let error = match words_of_run(&words) {
                    Some(words) => run::RunArgs::parse(&words).map_err(explain).err(),
                    None => parse(&words).err(),
                };
                assert!(error.is_none(), "{words:?}: {}", error.unwrap());
            }
        }
    }
}
