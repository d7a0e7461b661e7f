//! Shows what an image is, which devices a guest of it was given, how it ended and what it used:
//! `cargo run --example report -- IMAGE [DISK]`.

use nabla_monitor::{Console, OpenImage, Runtime};
use std::env;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args_os().skip(1);
    // What is shown and what is run are the same open file.
    let open = OpenImage::open(args.next().ok_or("usage: report IMAGE [DISK]")?)?;
    let image = open.image();
    println!("{}: ABI {}, entry {:#x}", open.path().display(), image.abi(), image.entry());
    for device in image.manifest().devices() {
        println!("  declares {} device '{}'", device.kind, device.name);
    }

    let mut builder = Runtime::new().guest(open).console(Console::null());
    if let Some(disk) = args.next() {
        builder = builder.block(disk);
    }
    let guest = builder.start()?;
    println!("  runs as process {}, supervised: {}", guest.pid(), guest.is_supervised());
    for device in guest.devices() {
        println!("  has {device}");
    }
    println!("  {}", guest.wait()?);
    let usage = guest.usage()?;
    println!(
        "  processor time {:?}, at most {} bytes",
        usage.user_time + usage.system_time,
        usage.max_resident
    );
    if let Some(counters) = guest.counters() {
        println!("  {counters:#?}");
    }
    Ok(())
}
