//! Takes over an interface of a network namespace, as a guest would, and gives it back. Run as root:
//! `cargo run --example adopt -- eth0 /run/netns/pod`.

use nabla_net::{AdoptOptions, Namespace, Network};
use std::{env, io::Read};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let (Some(interface), Some(path)) = (args.next(), args.next()) else {
        return Err("usage: adopt INTERFACE PATH_OF_NAMESPACE".into());
    };
    let network = Network::inside(Namespace::open_path(path)?)?;
    let adopted = network.adopt(&AdoptOptions::new(interface))?;
    println!("{:?}", adopted.config());
    println!("the end of standard input gives it back");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    adopted.release()?;
    Ok(())
}
