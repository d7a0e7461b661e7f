//! Tells what is in the file of a guest: `cargo run -p nabla-core --example inspect -- FILE`.

use nabla_core::{ByteSize, Image};
use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args_os().nth(1).ok_or("the path of an image is missing")?;
    // Anything that is a `ReadAt` will do: parsing reads headers and notes only.
    let image = Image::parse(&*fs::read(path)?).map_err(|error| error.to_string())?;
    println!("{}, at least {} of memory, entry {:#x}", image.abi(), image.minimum_memory(), image.entry());
    for segment in image.segments() {
        let size = ByteSize::bytes(segment.memory_size);
        println!("segment at {:#x}: {size}, {}", segment.address, segment.permissions);
    }
    for device in image.manifest().devices() {
        println!("device {}: {:?}", device.name, device.kind);
    }
    for warning in image.warnings() {
        println!("warning: {warning}");
    }
    Ok(())
}
