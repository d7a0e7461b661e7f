//! Tests, lints and benchmarks.

use crate::{
    build::{self, cargo, describe, run, workspace},
    circles,
};
use anyhow::{Context, Result};
use std::{fs, process::Command};

/// Workspaces of guests and fuzz targets, which `--workspace` does not reach.
const OTHER_WORKSPACES: [&str; 4] = ["guests", "examples/cat", "examples/httpd", "fuzz"];

/// Members of the workspace that are not meant to be published.
const UNPUBLISHED: [&str; 3] = ["nabla-benches", "nabla-testkit", "xtask"];

/// Runs every test, then lists the skipped ones with their reasons.
pub fn test(args: &[String]) -> Result<()> {
    let list = build::target_directory().join("skipped-tests.txt");
    if let Err(error) = fs::remove_file(&list)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("cannot remove {}", list.display()));
    }
    // One test that fails does not keep later crates' from running.
    let result = run(cargo().args(["test", "--workspace", "--no-fail-fast"]).args(args));
    let result = result.and(test_httpd());
    let skipped = fs::read_to_string(&list).unwrap_or_default();
    let mut skipped: Vec<&str> = skipped.lines().collect();
    skipped.sort_unstable();
    skipped.dedup();
    if skipped.is_empty() {
        println!("==> no test was skipped");
    } else {
        println!("==> {} skipped, since this machine lacks something:", skipped.len());
        for line in skipped {
            let (name, reason) = line.split_once('\t').unwrap_or((line, ""));
            println!("      {name}: {reason}");
        }
    }
    result
}

/// The web server's own tests, and those of what it needs of the SDK, which `--workspace` does not reach.
fn test_httpd() -> Result<()> {
    let mut command = cargo();
    command.current_dir(workspace().join("examples/httpd")).args(["test", "--quiet", "--lib"]);
    command.env("CARGO_TARGET_DIR", build::target_directory().join("examples-httpd"));
    let result = run(&mut command);
    let mut sdk = cargo();
    sdk.args(["test", "--quiet", "--package", "nabla-guest"]).args(["--lib", "--features", "tcpip"]);
    result.and(run(&mut sdk))
}

/// Packages every crate that is meant to be published. Not verified: what cargo unpacks for that has the name and version of
/// the last run's, and is taken for it. Steps before this have fetched what it takes.
fn package() -> Command {
    let mut command = cargo();
    command.args(["package", "--workspace", "--no-verify", "--allow-dirty", "--quiet", "--offline"]);
    for name in UNPUBLISHED {
        command.args(["--exclude", name]);
    }
    command
}

/// Builds everything that is compared in release mode and runs the comparison.
pub fn bench(args: &[String]) -> Result<()> {
    let nabla = build::nabla()?;
    let guests = build::guests("guests", "guests", &[])?;
    let hvt_guests = build::guests("guests", "guests-hvt", &["--features", "hvt"])?;
    let httpd = build::guests("examples/httpd", "examples", &[])?;
    let hvt_httpd = build::guests("examples/httpd", "examples-hvt", &["--features", "hvt"])?;
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "--package", "nabla-benches", "--"]);
    command.arg("--httpd").arg(httpd).arg("--hvt-httpd").arg(hvt_httpd);
    command.arg("--nabla").arg(nabla).arg("--guests").arg(guests);
    command.arg("--hvt-guests").arg(hvt_guests).args(args);
    run(&mut command)
}

/// Everything that must pass before a change lands.
pub fn ci() -> Result<()> {
    let mut steps: Vec<Command> = Vec::new();
    let step = |args: &[&str]| {
        let mut command = cargo();
        command.args(args);
        command
    };
    steps.push(step(&["fmt", "--all", "--check"]));
    steps.push(step(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]));
    // What other people's builds see: the smallest crates by themselves.
    steps.push(step(&["clippy", "-p", "nabla-core", "--no-default-features", "--", "-D", "warnings"]));
    let image_only =
        ["-p", "nabla-core", "--no-default-features", "--features", "image", "--", "-D", "warnings"];
    steps.push(step(&[&["clippy"][..], &image_only].concat()));
    steps.push(step(&["clippy", "-p", "nabla-monitor", "--no-default-features", "--", "-D", "warnings"]));
    steps.push(step(&["clippy", "-p", "nabla-guest", "--features", "hvt", "--", "-D", "warnings"]));
    steps.push(step(&["clippy", "-p", "nabla-guest", "--features", "tcpip,hvt", "--", "-D", "warnings"]));
    for other in OTHER_WORKSPACES {
        for tool in [&["fmt", "--check"][..], &["clippy", "--", "-D", "warnings"]] {
            let mut command = cargo();
            command.current_dir(workspace().join(other)).args(tool);
            command.env("CARGO_TARGET_DIR", build::target_directory().join(other.replace('/', "-")));
            steps.push(command);
        }
    }
    let mut docs = step(&["doc", "--workspace", "--no-deps"]);
    docs.env("RUSTDOCFLAGS", "-D warnings");
    steps.push(docs);
    steps.push(package());
    for mut command in steps {
        println!("==> {}", describe(&command));
        run(&mut command)?;
    }
    println!("==> circles of modules");
    circles::check(&workspace())?;
    println!("==> the tests");
    test(&[])
}
