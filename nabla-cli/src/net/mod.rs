//! `nabla net`.

mod create;
mod list;

use crate::output;
use clap::{Args, Subcommand};
use nabla_net::{Leftover, Link, Namespace, Network};
use serde::Serialize;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  # a tap for guests of user alice, who then needs no root
  nabla net create tap0 --owner alice --address 10.0.0.1/24
  # a bridge, and a tap at it
  nabla net create br0 --kind bridge --address 10.1.0.1/16
  nabla net create tap1 --owner alice --bridge br0
  nabla net list
  nabla net delete tap0 tap1 br0
  # what guests and programs that were killed have left behind
  nabla net gc

Exit status: 0, or 125 when something failed.";

/// Arguments of `nabla net`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct NetArgs {
    #[command(subcommand)]
    command: NetCommand,
}

#[derive(Debug, Subcommand)]
enum NetCommand {
    /// Make a tap or a bridge that stays until it is deleted.
    Create(create::CreateArgs),
    /// Delete what 'nabla net create' has made.
    Delete(DeleteArgs),
    /// List taps, bridges, and who made them.
    List(list::ListArgs),
    /// Clean up after guests and programs that were killed, in every network namespace that can be found.
    Gc(GcArgs),
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// The interfaces.
    #[arg(required = true)]
    names: Vec<String>,

    /// Delete a tap that a guest or another program has open, too: it loses its network.
    #[arg(long)]
    force: bool,

    /// The network namespace that they are in.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct GcArgs {
    /// Look only into this network namespace.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Does what the command line says.
pub fn main(args: &NetArgs) -> anyhow::Result<u8> {
    match &args.command {
        NetCommand::Create(args) => create::main(args),
        NetCommand::Delete(args) => delete(args),
        NetCommand::List(args) => list::main(args),
        NetCommand::Gc(args) => collect(args),
    }?;
    Ok(0)
}

/// The network of a namespace, or the current one.
fn network(netns: Option<&Path>) -> anyhow::Result<Network> {
    match netns {
        None => Ok(Network::current()?),
        Some(path) => Ok(Network::inside(Namespace::open_path(path)?)?),
    }
}

/// The JSON forms are described in docs/cli.md.
#[derive(Debug, Serialize)]
struct DeletedJson<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    deleted: &'a [String],
}

fn delete(args: &DeleteArgs) -> anyhow::Result<()> {
    let network = network(args.netns.as_deref())?;
    for name in &args.names {
        let link = network.link(name)?;
        if !link.is_ours() {
            anyhow::bail!(
                "interface '{name}' was not made by nabla, and stays; delete it with: ip link delete {name}"
            );
        }
        if !args.force {
            refuse_in_use(&network, &link)?;
        }
    }
    for name in &args.names {
        network.delete_link(name)?;
    }
    if args.json {
        output::print_json(&DeletedJson { kind: "nabla.net.deleted", version: 1, deleted: &args.names })?;
    }
    Ok(())
}

/// Fails for a tap that somebody has open, and for a bridge that has such a tap.
fn refuse_in_use(network: &Network, link: &Link) -> anyhow::Result<()> {
    for tap in network.links()? {
        let is_meant = tap.index == link.index || tap.controller == Some(link.index);
        if is_meant && tap.kind.as_deref() == Some("tun") && network.is_in_use(&tap)? {
            anyhow::bail!(
                "tap '{}' is in use by a guest or another program, which would lose its network; end that first, or say --force",
                tap.name
            );
        }
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct CollectedJson {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    collected: Vec<LeftoverJson>,
}

#[derive(Debug, Serialize)]
struct LeftoverJson {
    action: &'static str,
    interface: String,
    pid: u32,
}

impl From<Leftover> for LeftoverJson {
    fn from(leftover: Leftover) -> Self {
        let (action, interface, owner) = match leftover {
            Leftover::Link { name, owner } => ("deleted", name, owner),
            Leftover::Adopted { name, owner } => ("given-back", name, owner),
        };
        Self { action, interface, pid: owner.pid() }
    }
}

fn collect(args: &GcArgs) -> anyhow::Result<()> {
    let mut collected = Vec::new();
    let mut result = Ok(());
    let mut collect =
        |network: Result<Network, nabla_net::Error>| match network.and_then(|it| it.collect_garbage()) {
            Ok(leftovers) => collected.extend(leftovers.into_iter().map(LeftoverJson::from)),
            // A namespace that may not be entered belongs to another user, who has to clean it up.
            Err(error) if args.netns.is_none() && error.is_not_permitted() => {}
            Err(error) => result = std::mem::replace(&mut result, Ok(())).and(Err(error)),
        };
    match &args.netns {
        Some(path) => collect(Namespace::open_path(path).and_then(Network::inside)),
        None => {
            if let Err(error) = Namespace::for_each(|namespace| collect(Network::inside(namespace))) {
                collect(Err(error));
            }
        }
    }
    if args.json {
        output::print_json(&CollectedJson { kind: "nabla.net.collected", version: 1, collected })?;
    } else {
        let line = |leftover: &LeftoverJson| {
            let what = if leftover.action == "deleted" { "deleted" } else { "given back" };
            let interface = output::one_line(&leftover.interface);
            format!("{interface}: {what}; process {} left it behind\n", leftover.pid)
        };
        output::print(collected.iter().map(line).collect::<String>().as_bytes())?;
    }
    Ok(result?)
}
