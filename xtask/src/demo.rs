//! The README's first command: from nothing to a guest that reads its disk.

use crate::build;
use anyhow::{Context, Result, bail};
use std::{env, fs, process::Command};

/// What the guest is to read from its disk.
const TEXT: &str =
    "These bytes come from the guest's disk, block by block, through one of about eight system calls.\n";
const BLOCK: usize = 512;

pub fn demo() -> Result<()> {
    println!("==> building nabla and the example guest");
    let nabla = build::nabla()?;
    let guests = build::guests("examples/cat", "examples", &[])?;

    let directory = build::target_directory().join("demo");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let (image, disk) = (directory.join("cat.nabla"), directory.join("disk.img"));
    fs::copy(guests.join("cat"), &image).context("cannot copy the guest")?;
    let mut bytes = TEXT.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    fs::write(&disk, bytes).context("cannot write the disk")?;

    let short = |path: &std::path::Path| {
        let here = env::current_dir().unwrap_or_default();
        path.strip_prefix(here).unwrap_or(path).display().to_string()
    };
    println!("==> the guest is {}, its disk {} ({TEXT:.20}...)", short(&image), short(&disk));
    println!("==> {} run {} --disk {}", short(&nabla), short(&image), short(&disk));
    let status = Command::new(&nabla).arg("run").arg(&image).arg("--disk").arg(&disk).status();
    let status = status.context("cannot start nabla")?;
    if !status.success() {
        bail!("the guest failed ({status}); `{} doctor` says what this host lacks", short(&nabla));
    }
    println!("==> the guest exited with status 0; `{} --help` says what else there is", short(&nabla));
    Ok(())
}
