//! Prints everything in the file system on its disk: `files [PATH]` lists PATH, with sums of the bytes of files, and
//! everything below. Then, for each further argument, what happens when it is opened.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::{string::String, vec::Vec};

use nabla_guest::{
    Block, args,
    fs::{FileSystem, FsError, Kind},
    println,
};

nabla_guest::entry!(main, block "storage");

fn main() {
    let disk = match FileSystem::mount(Block::acquire("storage").expect("the disk")) {
        Ok(disk) => disk,
        Err(error) => return println!("cannot mount: {error}"),
    };
    let mut args = args();
    let mut pending = Vec::from([String::from(args.next().unwrap_or("/").trim_end_matches('/'))]);
    while let Some(path) = pending.pop() {
        if let Err(error) = list(&disk, &path, &mut pending) {
            println!("{path}: {error}");
        }
    }
    for path in args {
        match disk.read_to_string(path) {
            Ok(text) => println!("{path}: {} bytes", text.len()),
            Err(error) => println!("{path}: {error}"),
        }
    }
}

fn list(disk: &FileSystem, path: &str, pending: &mut Vec<String>) -> Result<(), FsError> {
    for entry in disk.read_dir(path)? {
        let entry = entry?;
        let below = alloc::format!("{path}/{}", entry.name().escape_ascii());
        let node = entry.node();
        match node.kind {
            Kind::Directory => {
                println!("{below}/");
                pending.push(below);
            }
            Kind::Symlink => {
                let target = disk.read_link(&below)?;
                println!("{below} -> {}", target.escape_ascii());
            }
            Kind::File => println!("{below} {} {}", node.size, sum(disk, &below)?),
            _ => println!("{below} {:?} {:?}", node.kind, node.device),
        }
    }
    Ok(())
}

fn sum(disk: &FileSystem, path: &str) -> Result<u64, FsError> {
    let mut file = disk.open(path)?;
    let mut buffer = [0; 1000];
    let mut sum = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sum),
            length => sum += buffer[..length].iter().copied().map(u64::from).sum::<u64>(),
        }
    }
}
