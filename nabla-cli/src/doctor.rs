//! `nabla doctor`.

use crate::{error::chain, output};
use clap::Args;
use nabla_monitor::host::{self, Check, CheckStatus};
use nabla_net::host as net;
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
    let mut checks: Vec<_> = checks.into_iter().map(Finding::from).collect();
    checks.extend(network());
    if args.json {
        let checks = checks.iter().map(CheckJson::new).collect();
        output::print_json(&DoctorJson { kind: "nabla.doctor", version: 1, can_run, checks })?;
    } else {
        output::print_lines(&text(&checks, can_run))?;
    }
    Ok(u8::from(!can_run))
}

/// Whether guests can run as processes: the check of that name has run one.
fn can_run(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.name == "process" && check.status != CheckStatus::Missing)
}

/// Something that was looked at.
struct Finding {
    name: &'static str,
    status: CheckStatus,
    detail: String,
    fix: Option<String>,
}

impl From<Check> for Finding {
    fn from(check: Check) -> Self {
        Self { name: check.name, status: check.status, detail: check.detail, fix: check.fix }
    }
}

/// What is there for the networks of guests, apart from taps.
fn network() -> [Finding; 3] {
    let finding = |name, status, detail: &str, fix: Option<&str>| Finding {
        name,
        status,
        detail: detail.to_owned(),
        fix: fix.map(str::to_owned),
    };
    let admin = if net::has_net_admin() {
        finding("net-admin", CheckStatus::Ok, "networks can be made (CAP_NET_ADMIN)", None)
    } else {
        finding(
            "net-admin",
            CheckStatus::Limited,
            "only taps that root has prepared can be used, since CAP_NET_ADMIN is missing",
            Some("sudo nabla net create tap0 --owner $USER --address 10.0.0.1/24, and then --net tap0"),
        )
    };
    let adopting = match net::try_adopting() {
        Ok(()) => finding("adopt", CheckStatus::Ok, "guests can be given the interfaces of containers", None),
        Err(error) => {
            let detail = format!("guests cannot be given the interfaces of containers: {}", chain(&error));
            let fix = error.is_not_permitted().then_some("run as root");
            finding("adopt", CheckStatus::Limited, &detail, fix)
        }
    };
    let forwarding = match net::forwarding() {
        net::Forwarding { ipv4: true, ipv6: true } => {
            finding("forwarding", CheckStatus::Ok, &format!("this host forwards IPv4 and IPv6; {NAT}"), None)
        }
        net::Forwarding { ipv4: true, ipv6: false } => finding(
            "forwarding",
            CheckStatus::Ok,
            &format!("this host forwards IPv4, and not IPv6; {NAT}"),
            None,
        ),
        _ => finding(
            "forwarding",
            CheckStatus::Limited,
            "this host forwards no IPv4: guests with --net new reach only the host, and -p still works",
            Some(
                "if guests are to reach other networks: sysctl net.ipv4.ip_forward=1, and NAT: \
                 iptables -t nat -A POSTROUTING -s 198.18.0.0/15 ! -d 198.18.0.0/15 -j MASQUERADE",
            ),
        ),
    };
    [admin, adopting, forwarding]
}

/// What forwarding does not do by itself.
const NAT: &str = "guests with --net new reach other networks if those know the way back, or with NAT: \
    iptables -t nat -A POSTROUTING -s 198.18.0.0/15 ! -d 198.18.0.0/15 -j MASQUERADE";

fn text(checks: &[Finding], can_run: bool) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let mark = match check.status {
            CheckStatus::Ok => "ok",
            CheckStatus::Limited => "limited",
            CheckStatus::Missing => "MISSING",
        };
        let _ = writeln!(text, "{mark:<7}  {:<width$}  {}", check.name, output::one_line(&check.detail));
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "{:<7}  {:<width$}  fix: {}", "", "", output::one_line(fix));
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
    fn new(check: &'a Finding) -> Self {
        let status = match check.status {
            CheckStatus::Ok => "ok",
            CheckStatus::Limited => "limited",
            CheckStatus::Missing => "missing",
        };
        Self { name: check.name, status, detail: &check.detail, fix: check.fix.as_deref() }
    }
}
