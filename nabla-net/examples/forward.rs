//! Passes connections to a port of the host on: `cargo run --example forward -- 127.0.0.1:8080 10.0.0.2:80`.

use nabla_net::Forwarder;
use std::{env, io::Read};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let (Some(listen), Some(target)) = (args.next(), args.next()) else {
        return Err("usage: forward ADDRESS:PORT ADDRESS:PORT".into());
    };
    let forwarder = Forwarder::start(listen.parse()?, target.parse()?)?;
    println!("{} is passed on to {target}", forwarder.local_address());
    println!("the end of standard input ends it");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
