//! Makes a network that only the host and one guest are in, and says what the guest is to be told. Run as root:
//! `cargo run --example lease`. The network is gone when this ends.

use nabla_net::{LeaseOptions, Network};
use std::io::Read;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let network = Network::current()?;
    let lease = network.lease(&LeaseOptions::new())?;
    println!("interface {}", lease.tap.link().name);
    println!("host {}, guest {}", lease.host, lease.guest);
    println!("{:?}", lease.config);
    println!("the end of standard input ends it");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
