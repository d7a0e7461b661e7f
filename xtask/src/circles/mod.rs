//! Circles of modules: in no crate do modules of the top level use each other, directly or through others.
//!
//! A file is a node, and so is a folder with all that is in it: a folder has one job, and how its files share it is
//! their affair. Only folders in a folder are looked at again, among each other. Arrows are the paths that the code
//! names: in `use` and anywhere else, arguments of macros included. A name that a module takes from the crate's root
//! (`crate::Name`) points to the module from which the root re-exports it; the re-export itself is no arrow, since the
//! root is the crate's face. Unit tests (`#[cfg(test)]`) do not count: they may use all of the crate.

mod graph;
mod scan;
#[cfg(test)]
mod tests;
mod tree;

use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Looks for circles in every crate of the workspace in `workspace` and prints them. Fails if there is one.
pub fn check(workspace: &Path) -> Result<()> {
    let mut found = 0;
    for root in roots(workspace)? {
        let circles = circles(&root).with_context(|| format!("cannot read {}", root.display()))?;
        if circles.is_empty() {
            continue;
        }
        let shown = root.strip_prefix(workspace).unwrap_or(&root);
        println!("{}: {} of modules", shown.display(), counted(circles.len(), "circle"));
        for circle in &circles {
            print!("{}", circle.describe(workspace));
        }
        found += circles.len();
    }
    if found > 0 {
        bail!("there {} of modules", if found == 1 { "is a circle" } else { "are circles" });
    }
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The circles of the crate whose root file is `root`.
fn circles(root: &Path) -> Result<Vec<graph::Circle>> {
    let tree = tree::Tree::read(root)?;
    Ok(tree.levels().flat_map(|arrows| graph::circles(&arrows)).collect())
}

/// The root files of the crates in the workspace and in the workspaces in it.
fn roots(workspace: &Path) -> Result<Vec<PathBuf>> {
    let mut roots = Vec::new();
    for package in
        folders(workspace).into_iter().flat_map(|folder| [vec![folder.clone()], folders(&folder)].concat())
    {
        if !package.join("Cargo.toml").is_file() {
            continue;
        }
        let programs = fs::read_dir(package.join("src/bin")).into_iter().flatten().flatten();
        let files = ["src/lib.rs", "src/main.rs"].into_iter().map(|name| package.join(name));
        let files = files.chain(programs.map(|entry| entry.path()));
        roots.extend(files.filter(|path| path.is_file()));
    }
    if roots.is_empty() {
        bail!("there is no crate in {}", workspace.display());
    }
    roots.sort();
    Ok(roots)
}

/// The folders in a folder that may have crates.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let inside = fs::read_dir(folder).into_iter().flatten().flatten();
    let wanted = inside.filter(|entry| {
        let name = entry.file_name();
        name != "target" && !name.to_string_lossy().starts_with('.')
    });
    wanted.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
