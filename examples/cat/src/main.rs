//! Lists directories and prints files of the file system on its disk: `cat [PATH]...`, the root without one.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::{format, string::String};
use core::{error::Error, fmt};

use nabla_guest::{
    Block, args, console,
    fs::{FileSystem, FsError},
    println,
};

nabla_guest::entry!(main, block "storage");

/// What ends the guest, as a sentence.
struct Failure(String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("{error}"))
    }
}

fn main() -> Result<(), Failure> {
    let disk = FileSystem::mount(Block::acquire("storage")?)?;
    if args().next().is_none() {
        show(&disk, "/")?;
    }
    for path in args() {
        show(&disk, path).map_err(|error| Failure(format!("{path}: {error}")))?;
    }
    Ok(())
}

/// Lists a directory or prints a file.
fn show(disk: &FileSystem, path: &str) -> Result<(), FsError> {
    if disk.metadata(path)?.is_directory() {
        for entry in disk.read_dir(path)? {
            let entry = entry?;
            let slash = if entry.node().is_directory() { "/" } else { "" };
            println!("{:>8} {}{slash}", entry.node().size, entry.name().escape_ascii());
        }
        return Ok(());
    }
    let mut file = disk.open(path)?;
    let mut part = [0; 4096];
    loop {
        match file.read(&mut part)? {
            0 => return Ok(()),
            length => console::write(&part[..length]),
        }
    }
}
