//! Building things with cargo.

use anyhow::{Context, Result, bail};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The target triple, named so that flags for the program do not apply to build scripts and macros.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// A static program at a fixed address starts in half the time of a dynamic one.
const STATIC_FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// The workspace's directory.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The directory for build products.
pub fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// `cargo`, to be run in the workspace's directory.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Runs a command and makes its failure an error.
pub fn run(command: &mut Command) -> Result<()> {
    let what = describe(command);
    let status = command.status().with_context(|| format!("cannot start {what}"))?;
    if !status.success() {
        bail!("{what} failed ({status})");
    }
    Ok(())
}

/// A command as one would type it.
pub fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = [program].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Builds the static release `nabla` and returns its path.
pub fn nabla() -> Result<PathBuf> {
    run(cargo()
        .args(["build", "--release", "--package", "nabla-cli", "--target", TRIPLE])
        .env("RUSTFLAGS", STATIC_FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
    Ok(target_directory().join(TRIPLE).join("release/nabla"))
}

/// Builds the guests in the workspace `source` into `target/NAME` and returns where they are.
pub fn guests(source: &str, name: &str, options: &[&str]) -> Result<PathBuf> {
    let target = target_directory().join(name);
    let manifest = workspace().join(source).join("Cargo.toml");
    run(cargo()
        .args(["build", "--release"])
        .args(options)
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
    Ok(target.join("release"))
}
