//! Programs that are run and timed as a whole.

use anyhow::{Context, Result, bail};
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// A program on PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Runs a program to its successful end, output thrown away. Returns microseconds.
pub fn time<I>(program: &Path, args: I) -> Result<f64>
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let mut command = Command::new(program);
    command
        .args(args.into_iter().map(Into::into))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    let time = start.elapsed();
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(time.as_secs_f64() * 1e6)
}

/// Runs a program to its successful end. Returns what it printed.
pub fn output<I>(program: &Path, args: I) -> Result<String>
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let mut command = Command::new(program);
    command.args(args.into_iter().map(Into::into)).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        bail!("{command:?} failed ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Proportional set size of a process, in KiB.
pub fn proportional_memory(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path} (are you root?)"))?;
    let value =
        text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse().ok());
    value.with_context(|| format!("{path} has no Pss"))
}
