//! `nabla net create`.

use super::list::{InterfaceJson, interface};
use crate::{accounts::ACCOUNTS, output};
use anyhow::bail;
use clap::{Args, ValueEnum};
use nabla_net::{Cidr, Link, Network, Owned, TapOptions};
use serde::Serialize;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  nabla net create tap0 --owner alice --address 10.0.0.1/24
  nabla net create br0 --kind bridge --address 10.1.0.1/16 --address fd00:1::1/64
  nabla net create tap1 --owner 1000 --bridge br0 --mtu 9000";

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// What a guest sends and receives its frames by.
    Tap,
    /// A switch, for several taps.
    Bridge,
}

/// Arguments of `nabla net create`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CreateArgs {
    /// Its name: 1 to 15 characters.
    name: String,

    /// What it is.
    #[arg(long, value_enum, default_value = "tap")]
    kind: Kind,

    /// An address of the host on it; may be given several times.
    #[arg(long, value_name = "IP/PREFIX")]
    address: Vec<Cidr>,

    /// The user who may use the tap without root: a name or a number.
    #[arg(long, value_name = "USER")]
    owner: Option<String>,

    /// The group whose members may use the tap without root: a name or a number.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,

    /// Make the tap a port of this bridge.
    #[arg(long, value_name = "BRIDGE")]
    bridge: Option<String>,

    /// Its MTU in bytes.
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,

    /// Make it in this network namespace.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct CreatedJson {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    created: InterfaceJson,
}

/// Makes it, or nothing.
pub fn main(args: &CreateArgs) -> anyhow::Result<()> {
    let network = super::network(args.netns.as_deref())?;
    let made = match args.kind {
        Kind::Tap => network.create_persistent_tap(&tap_options(args)?)?,
        Kind::Bridge if args.owner.is_some() || args.group.is_some() || args.bridge.is_some() => {
            bail!("--owner, --group and --bridge are for taps, not for bridges")
        }
        Kind::Bridge => bridge(&network, args)?,
    };
    // If something fails, everything goes with the interface.
    for address in &args.address {
        network.add_address(&args.name, *address)?.keep();
    }
    if let Some(bridge) = &args.bridge {
        network.attach(&args.name, bridge)?.keep();
    }
    network.set_up(&args.name)?;
    made.keep();
    if args.json {
        let created = interface(&network, &network.link(&args.name)?, &network.addresses()?);
        output::print_json(&CreatedJson { kind: "nabla.net.created", version: 1, created })?;
    }
    Ok(())
}

fn tap_options(args: &CreateArgs) -> anyhow::Result<TapOptions> {
    let mut options = TapOptions::new().name(&args.name);
    if let Some(mtu) = args.mtu {
        options = options.mtu(mtu);
    }
    if let Some(user) = &args.owner {
        options = options.owner(ACCOUNTS.user(user)?);
    }
    if let Some(group) = &args.group {
        options = options.group(ACCOUNTS.group(group)?);
    }
    Ok(options)
}

fn bridge(network: &Network, args: &CreateArgs) -> anyhow::Result<Owned<Link>> {
    let bridge = network.create_bridge(&args.name)?;
    if let Some(mtu) = args.mtu {
        network.set_mtu(&args.name, mtu)?;
    }
    Ok(bridge)
}
