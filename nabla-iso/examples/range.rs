//! Reads ranges of an image that is never written, as a block device would: `cargo run --example range -- rootfs 32768 512`.
//! Without arguments, the volume descriptor of an image of its own.

use nabla_iso::{Entry, ImageBuilder};
use std::{
    env,
    error::Error,
    io::{self, Write},
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (builder, offset, length) = match &arguments[..] {
        [directory, offset, length] => {
            (ImageBuilder::new().directory(directory), offset.parse()?, length.parse()?)
        }
        _ => (ImageBuilder::new().entry("/file", Entry::bytes(*b"contents")), 16 * 2048, 64),
    };
    let plan = builder.plan()?;
    let mut buffer = vec![0; length];
    // Any number of threads may do this at a time.
    let there = plan.read_at(offset, &mut buffer)?;
    writeln!(io::stdout(), "{}", buffer[..there].escape_ascii())?;
    Ok(())
}
