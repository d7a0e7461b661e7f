//! Shows everything in an image: `cargo run --example tree -- rootfs.iso`. Without an argument, it shows one that it plans
//! itself.

use nabla_iso::{
    Entry, ImageBuilder,
    reader::{ImageFile, Kind, Source, Volume},
};
use std::{env, error::Error, io};

fn main() -> Result<(), Box<dyn Error>> {
    match env::args_os().nth(1) {
        Some(path) => show(ImageFile::open(path)?),
        None => {
            show(ImageBuilder::new().entry("/etc/hosts", Entry::bytes(*b"127.0.0.1 localhost\n")).plan()?)
        }
    }
}

fn show(image: impl Source<Error = io::Error>) -> Result<(), Box<dyn Error>> {
    let volume = Volume::open(image)?;
    for entry in volume.walk(volume.root())? {
        let entry = entry?;
        let name = entry.name.as_encoded_bytes().escape_ascii();
        let indent = "  ".repeat(entry.depth);
        match entry.node.kind {
            Kind::Directory => println!("{indent}{name}/"),
            Kind::Symlink => {
                let mut buffer = [0; 4096];
                let target = volume.read_link(&entry.node, &mut buffer)?;
                println!("{indent}{name} -> {}", target.escape_ascii());
            }
            _ => println!("{indent}{name} ({} bytes)", entry.node.size),
        }
    }
    for problem in volume.verify().problems {
        println!("problem: {}: {}", problem.path.display(), problem.message);
    }
    Ok(())
}
