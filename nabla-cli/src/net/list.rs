//! `nabla net list`.

use crate::output;
use clap::Args;
use nabla_net::{Address, Link, Network};
use serde::Serialize;
use std::{fmt::Write, path::PathBuf};

const EXAMPLES: &str = "\
Examples:
  nabla net list
  nabla net list --json --netns /run/netns/pod";

/// Arguments of `nabla net list`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ListArgs {
    /// The network namespace.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct ListJson {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    interfaces: Vec<InterfaceJson>,
}

/// An interface; described in docs/cli.md.
#[derive(Debug, Serialize)]
pub struct InterfaceJson {
    name: String,
    index: u32,
    kind: &'static str,
    mac: Option<String>,
    mtu: u32,
    up: bool,
    running: bool,
    bridge: Option<String>,
    addresses: Vec<String>,
    state: Option<&'static str>,
    pid: Option<u32>,
    adopted: bool,
}

/// Describes an interface.
pub fn interface(network: &Network, link: &Link, addresses: &[Address]) -> InterfaceJson {
    let owner = link.owner();
    let state = match owner {
        Some(owner) if owner.is_alive() => Some("in-use"),
        Some(_) => Some("garbage"),
        None if link.is_kept() => Some("kept"),
        None if link.is_ours() => Some("transient"),
        None => None,
    };
    let bridge = link.controller.and_then(|index| network.link_by_index(index).ok());
    InterfaceJson {
        name: link.name.clone(),
        index: link.index,
        kind: match link.kind.as_deref() {
            Some("tun") => "tap",
            Some("bridge") => "bridge",
            Some("veth") => "veth",
            _ => "other",
        },
        mac: link.mac.map(|mac| mac.to_string()),
        mtu: link.mtu,
        up: link.is_up,
        running: link.is_running,
        bridge: bridge.map(|link| link.name),
        addresses: addresses
            .iter()
            .filter(|address| address.link == link.index)
            .map(|address| address.cidr.to_string())
            .collect(),
        state,
        pid: owner.map(|owner| owner.pid()),
        adopted: network.is_redirected(&link.name).unwrap_or(false) && link.kind.as_deref() != Some("tun"),
    }
}

/// Prints taps and bridges, and everything that nabla made or uses.
pub fn main(args: &ListArgs) -> anyhow::Result<()> {
    let network = super::network(args.netns.as_deref())?;
    let addresses = network.addresses()?;
    let interfaces = network.links()?;
    let interfaces: Vec<_> = interfaces
        .iter()
        .map(|link| interface(&network, link, &addresses))
        .filter(|json| json.state.is_some() || json.adopted || matches!(json.kind, "tap" | "bridge"))
        .collect();
    if args.json {
        return output::print_json(&ListJson { kind: "nabla.net.list", version: 1, interfaces });
    }
    let mut text = format!(
        "{:<15}  {:<6}  {:<5}  {:<6}  {:<15}  {:<24}  MADE BY\n",
        "NAME", "KIND", "STATE", "MTU", "BRIDGE", "ADDRESSES"
    );
    for json in &interfaces {
        let state = match (json.up, json.running) {
            (false, _) => "down",
            (true, false) => "idle",
            (true, true) => "up",
        };
        let made_by = match (json.state, json.pid) {
            (Some("kept"), _) => "nabla net create".to_owned(),
            (Some("transient"), _) => "nabla, for one run".to_owned(),
            (Some("garbage"), Some(pid)) => format!("process {pid}, which is gone: nabla net gc"),
            (Some(_), Some(pid)) => format!("process {pid}"),
            _ if json.adopted => "somebody else; a guest has it".to_owned(),
            _ => "somebody else".to_owned(),
        };
        let addresses = if json.addresses.is_empty() { "-".to_owned() } else { json.addresses.join(",") };
        // Whoever may make interfaces may put anything into their names.
        let bridge = output::one_line(json.bridge.as_deref().unwrap_or("-"));
        let name = output::one_line(&json.name);
        let _ = writeln!(
            text,
            "{name:<15}  {:<6}  {state:<5}  {:<6}  {bridge:<15}  {addresses:<24}  {made_by}",
            json.kind, json.mtu,
        );
    }
    output::print(text.as_bytes())
}
