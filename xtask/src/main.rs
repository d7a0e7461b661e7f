//! The project's own commands. `cargo xtask` without arguments lists them.

mod build;
mod check;
mod circles;
mod demo;
mod install;
mod web;

use anyhow::{Result, bail};
use std::{env, process::ExitCode};

const HELP: &str = "\
The project's own commands.

Usage: cargo xtask COMMAND

Commands:
  demo               build a guest and a disk for it, show the `nabla run` line, and run it
  web [DIR] [--hvt] [ARGS...]
                     build the web server, and serve the files in DIR (a page by default) from a guest with a network of
                     its own; takes root, or --net TAP,address=IP/PREFIX; ARGS go to `nabla run`
  test [ARGS...]     run every test; ARGS go to `cargo test`
  bench [ARGS...]    compare with the peers found on PATH; prints a table of ratios (--help for more)
  install [--root DIR] [--solo5-names]
                     build the static `nabla` and put it into DIR/bin (default: cargo's directory); with
                     --solo5-names also as solo5-spt and solo5-elftool
  circles [DIR]      look for modules that use each other in the crates of this workspace, or of that in DIR
  ci                 what must pass before a change lands: formatting, lints, modules, documentation,
                     packages, tests
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let Some((command, rest)) = args.split_first().filter(|_| !asks_for_help(args)) else {
        print!("{HELP}");
        return Ok(());
    };
    match command.as_str() {
        "demo" | "ci" if !rest.is_empty() => bail!("{command} takes no arguments"),
        "demo" => demo::demo(),
        "web" => web::web(rest),
        "test" => check::test(rest),
        "bench" => check::bench(rest),
        "install" => install::install(rest),
        "circles" => circles::check(&rest.first().map_or_else(build::workspace, Into::into)),
        "ci" => check::ci(),
        _ => bail!("there is no command '{command}'; `cargo xtask` lists them"),
    }
}

/// Whether the help is asked for, and nothing is to be done. `bench` has one of its own.
fn asks_for_help(args: &[String]) -> bool {
    let mut words = args.iter().map(String::as_str).take_while(|word| *word != "--").peekable();
    match words.peek() {
        Some(&"help") => true,
        Some(&"bench") => false,
        _ => words.any(|word| matches!(word, "-h" | "--help")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_of_every_command_is_shown_before_it_does_anything() {
        for (line, expected) in [
            ("help", true),
            ("--help", true),
            ("install --help", true),
            ("install --solo5-names -h", true),
            ("ci --help", true),
            ("test --help", true),
            ("test -- --help", false),
            ("bench --help", false),
            ("install help", false),
            ("install", false),
        ] {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(asks_for_help(&args), expected, "{line}");
        }
    }

    #[test]
    fn unknown_arguments_are_errors() {
        for line in ["demo x", "ci --fast", "install --prefix /tmp", "nonsense"] {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert!(run(&args).is_err(), "{line}");
        }
    }
}
