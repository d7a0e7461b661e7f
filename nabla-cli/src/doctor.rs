//! `nabla doctor`.

use crate::output;
use clap::Args;
use nabla_monitor::host::{self, Check, CheckStatus};
use serde::Serialize;
use std::fmt::Write;

const EXAMPLES: &str = "\
Examples:
  nabla doctor
  nabla doctor --json

Exit status: 0 when guests can run as processes, 1 when they cannot, 125 when nabla itself failed.";

/// Arguments of `nabla doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints what this host can run. The exit status is 1 when that is nothing.
pub fn main(args: &DoctorArgs) -> anyhow::Result<u8> {
    let checks = host::checks();
    let can_run = can_run(&checks);
    if args.json {
        let checks = checks.iter().map(CheckJson::new).collect();
        output::print_json(&DoctorJson { kind: "nabla.doctor", version: 1, can_run, checks })?;
    } else {
        output::print(text(&checks, can_run).as_bytes())?;
    }
    Ok(u8::from(!can_run))
}

/// Whether guests can run as processes: the check of that name has run one.
fn can_run(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.name == "process" && check.status != CheckStatus::Missing)
}

fn text(checks: &[Check], can_run: bool) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let mark = match check.status {
            CheckStatus::Ok => "ok",
            CheckStatus::Limited => "limited",
            CheckStatus::Missing => "MISSING",
        };
        let _ = writeln!(text, "{mark:<7}  {:<width$}  {}", check.name, check.detail);
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "{:<7}  {:<width$}  fix: {fix}", "", "");
        }
    }
    let verdict = if can_run { "Guests can run here." } else { "Guests cannot run here." };
    let _ = writeln!(text, "\n{verdict}");
    text
}

/// The JSON form is described in docs/cli.md.
#[derive(Debug, Serialize)]
struct DoctorJson<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    can_run: bool,
    checks: Vec<CheckJson<'a>>,
}

#[derive(Debug, Serialize)]
struct CheckJson<'a> {
    name: &'static str,
    status: &'static str,
    detail: &'a str,
    fix: Option<&'a str>,
}

impl<'a> CheckJson<'a> {
    fn new(check: &'a Check) -> Self {
        let status = match check.status {
            CheckStatus::Ok => "ok",
            CheckStatus::Limited => "limited",
            CheckStatus::Missing => "missing",
        };
        Self { name: check.name, status, detail: &check.detail, fix: check.fix.as_deref() }
    }
}
