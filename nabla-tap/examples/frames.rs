//! Shows the frames that the host sends through a tap: `cargo run --example frames -- tap0`. Ends with the first error.

use nabla_tap::Tap;
use rustix::event::{PollFd, PollFlags, poll};
use std::{env, error::Error};

fn main() -> Result<(), Box<dyn Error>> {
    let name =
        env::args().nth(1).ok_or("which tap? It is made with: ip tuntap add tap0 mode tap user $USER")?;
    let tap = Tap::open(&name)?;
    let mtu = usize::try_from(tap.mtu()?.unwrap_or(1500))?;
    let mut frame = vec![0; mtu + 14];
    loop {
        poll(&mut [PollFd::new(&tap, PollFlags::IN)], None)?;
        let length = rustix::io::read(&tap, &mut frame)?;
        println!("{length} bytes, type {:02x}{:02x}", frame[12], frame[13]);
    }
}
