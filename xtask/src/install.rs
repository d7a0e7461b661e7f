//! Putting the static `nabla` where the shell finds it. `cargo install` cannot: it ignores a workspace's flags.

use crate::build;
use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process,
};

/// Names under which `nabla` takes the command lines of Solo5's programs.
const SOLO5_NAMES: [&str; 4] = ["solo5-spt", "solo5-hvt", "solo5-hvt-debug", "solo5-elftool"];

pub fn install(args: &[String]) -> Result<()> {
    let mut root = None;
    let mut names: &[&str] = &[];
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--root" => root = Some(PathBuf::from(args.next().context("--root needs a directory")?)),
            "--solo5-names" => names = &SOLO5_NAMES,
            other => bail!("install does not know '{other}'"),
        }
    }
    let root = match root {
        Some(root) => root,
        None => cargo_home()?,
    };
    let nabla = build::nabla()?;
    let bin = root.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot create {}", bin.display()))?;
    let installed = bin.join("nabla");
    replace(&installed, |temporary| {
        fs::copy(&nabla, temporary)?;
        Ok(())
    })?;
    println!("installed {}", installed.display());
    for name in names {
        let path = bin.join(name);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_symlink()) {
            bail!("{} exists and is not a link; remove it first", path.display());
        }
        replace(&path, |temporary| symlink("nabla", temporary))?;
        println!("installed {} -> nabla", path.display());
    }
    let on_path = env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir == bin));
    if !on_path {
        println!("note: {} is not in PATH", bin.display());
    }
    Ok(())
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set; use --root")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// Makes a file under a temporary name and renames it, so that a running program is not disturbed and nothing is
/// ever half there.
fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let temporary = path.with_extension(format!("new{}", process::id()));
    make(&temporary)
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
        .with_context(|| format!("cannot write {}", path.display()))
}
