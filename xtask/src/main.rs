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
  ci                 what must pass before a change lands: formatting, lints, modules, documentation, tests
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
    let Some((command, rest)) = args.split_first() else {
        print!("{HELP}");
        return Ok(());
    };
    match command.as_str() {
        "demo" => demo::demo(),
        "web" => web::web(rest),
        "test" => check::test(rest),
        "bench" => check::bench(rest),
        "install" => install::install(rest),
        "circles" => circles::check(&rest.first().map_or_else(build::workspace, Into::into)),
        "ci" => check::ci(),
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        _ => bail!("there is no command '{command}'; `cargo xtask` lists them"),
    }
}
