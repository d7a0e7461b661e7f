//! A guest with Solo5's own bindings, where Solo5's compiler wrappers are on PATH.

use crate::program::find;
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

const COMPILER: &str = "x86_64-solo5-none-static-cc";
const LINKER: &str = "x86_64-solo5-none-static-ld";

/// Whether such a guest can be built.
pub fn possible() -> bool {
    find(COMPILER).is_some() && find(LINKER).is_some()
}

/// A guest's sources.
#[derive(Debug)]
pub struct Source {
    name: &'static str,
    code: &'static str,
    manifest: &'static str,
}

/// Reads the wall clock.
pub const WALL: Source = Source {
    name: "wall",
    code: include_str!("../guests/wall/wall.c"),
    manifest: include_str!("../guests/wall/manifest.json"),
};

/// Answers pings.
pub const ECHO: Source = Source {
    name: "echo",
    code: include_str!("../guests/echo/echo.c"),
    manifest: include_str!("../guests/echo/manifest.json"),
};

/// Builds a guest in this directory, unless that has been done. Without SSE, which Solo5's tender cannot run where ring 0
/// is interpreted.
pub fn build(guest: &Source, nabla: &Path, directory: &Path) -> Result<PathBuf> {
    let directory = directory.join(guest.name);
    let image = directory.join("guest.hvt");
    if image.exists() {
        return Ok(image);
    }
    fs::create_dir_all(&directory)?;
    let (source, manifest) = (directory.join("guest.c"), directory.join("manifest.c"));
    let json = directory.join("manifest.json");
    fs::write(&source, guest.code)?;
    fs::write(&json, guest.manifest)?;
    run(Command::new(nabla).arg0("solo5-elftool").arg("gen-manifest").args([&json, &manifest]))?;
    let mut objects = Vec::new();
    for file in [&source, &manifest] {
        let object = file.with_extension("o");
        run(Command::new(COMPILER).args(["-O2", "-mno-sse", "-c", "-o"]).args([&object, file]))?;
        objects.push(object);
    }
    run(Command::new(LINKER).args(["-z", "solo5-abi=hvt"]).args(&objects).arg("-o").arg(&image))?;
    Ok(image)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
