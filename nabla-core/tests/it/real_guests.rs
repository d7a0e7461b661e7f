//! Guests that other toolchains built, where the environment names some: `NABLA_TEST_GUESTS` is a list of
//! files and directories, separated by colons. Those in directories are found by their names' endings.

use crate::{common::checks, linux_loader};
use nabla_core::{AbiSource, Warning};
use nabla_testkit::need;
use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn collect(path: &Path, guests: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_dir() && !path.is_symlink() {
            collect(&path, guests);
        } else if matches!(ending, Some("spt" | "hvt" | "nabla")) {
            guests.push(path);
        }
    }
}

#[test]
fn real_guests_are_understood_and_loaded_as_linux_loader_does() {
    let list = env::var_os("NABLA_TEST_GUESTS");
    need::there(
        "foreign-guests",
        list.is_some(),
        "needs NABLA_TEST_GUESTS, a list of images and directories",
    );
    let Some(list) = list else { return };
    let mut guests = Vec::new();
    for path in env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()) {
        if path.is_dir() {
            collect(&path, &mut guests);
        } else {
            guests.push(path);
        }
    }
    assert!(!guests.is_empty(), "no guests in NABLA_TEST_GUESTS");
    for path in &guests {
        let file = fs::read(path).unwrap();
        let image = match checks::image(&file) {
            Ok(image) => image,
            // Solo5 has a file that is damaged on purpose.
            Err(error) if path.ends_with("test_buggyelf/buggyelf.hvt") => {
                println!("{}: {error}", path.display());
                continue;
            }
            Err(error) => panic!("{}: {error}", path.display()),
        };
        println!("{}: {} ({:?}), {:?}", path.display(), image.abi(), image.abi_source(), image.warnings());
        linux_loader::compare(&file);
        if image.abi_source() == &AbiSource::Note {
            let ending = path.extension().and_then(|ending| ending.to_str());
            assert!(ending != Some("hvt") || image.abi().needs_kvm(), "{}", path.display());
            assert!(ending != Some("spt") || !image.abi().needs_kvm(), "{}", path.display());
            assert!(!image.warnings().contains(&Warning::HostExecutable));
        }
    }
    println!("{} guests", guests.len());
}
