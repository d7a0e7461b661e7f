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

/// Builds the guest `wall` in this directory, unless that has been done. Without SSE, which Solo5's tender cannot run
/// where ring 0 is interpreted.
pub fn wall(nabla: &Path, directory: &Path) -> Result<PathBuf> {
    let image = directory.join("wall.hvt");
    if image.exists() {
        return Ok(image);
    }
    let (source, manifest) = (directory.join("wall.c"), directory.join("manifest.c"));
    let json = directory.join("manifest.json");
    fs::write(&source, include_str!("../guests/wall/wall.c"))?;
    fs::write(&json, include_str!("../guests/wall/manifest.json"))?;
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
