//! Writes the arguments that link a guest into a file and tells the guest's build script where it is.
//!
//! The guest's build script reads its path from `DEP_NABLA_GUEST_LINK_ARGS`. A file, because a build script
//! of one line can then pass everything as the single argument `@file`, which gcc and clang expand.

use std::{env, fs, path::PathBuf};

/// One argument a line, in the order in which the linker driver gets them; the linker script follows.
const LINK_ARGS: &[&str] = &[
    // No start files, no libraries: the guest brings everything itself.
    "-nostartfiles",
    "-nostdlib",
    // ET_EXEC without relocations, whatever the target's default is.
    "-static",
    "-no-pie",
    // The script lays out every section; nothing is mapped that it does not name.
    "-Wl,-z,norelro",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,noexecstack",
    "-Wl,--build-id=none",
    "-Wl,--no-eh-frame-hdr",
    "-Wl,--gc-sections",
    "-T",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link.ld");

    let script = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("link.ld");
    let args = PathBuf::from(variable("OUT_DIR")).join("link-args");
    let mut text = LINK_ARGS.join("\n");
    text.push('\n');
    text.push_str(&quote(script.to_str().expect("the path of nabla-guest is UTF-8")));
    text.push('\n');
    fs::write(&args, text).expect("OUT_DIR is writable");

    println!("cargo::metadata=LINK_ARGS={}", args.to_str().expect("the path of OUT_DIR is UTF-8"));
    println!("cargo::metadata=LINKER_SCRIPT={}", script.display());
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name}: {error}"))
}

/// Quotes a path for a response file: inside double quotes only these two characters are special.
fn quote(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
}
