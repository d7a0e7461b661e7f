//! The README's first command: from nothing to a guest that lists and reads what is on its disk.

use crate::build;
use anyhow::{Context, Result, bail};
use std::{env, fs, process::Command};

/// What the guest is to read from its disk.
const TEXT: &str = "These bytes come from a file on the guest's disk, through one of nine system calls.\n";

pub fn demo() -> Result<()> {
    println!("==> building nabla and the example guest");
    let nabla = build::nabla()?;
    let guests = build::guests("examples/cat", "examples", &[])?;

    let directory = build::target_directory().join("demo");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let (image, root, disk) =
        (directory.join("cat.nabla"), directory.join("rootfs"), directory.join("rootfs.iso"));
    fs::copy(guests.join("cat"), &image).context("cannot copy the guest")?;
    fs::create_dir_all(root.join("etc"))
        .and_then(|()| fs::write(root.join("etc/motd"), TEXT))
        .context("cannot write the disk's files")?;

    let short = |path: &std::path::Path| {
        let here = env::current_dir().unwrap_or_default();
        path.strip_prefix(here).unwrap_or(path).display().to_string()
    };
    println!("==> the guest is {}, its file system {}", short(&image), short(&root));
    println!("==> {} iso build {} -o {}", short(&nabla), short(&root), short(&disk));
    let status =
        Command::new(&nabla).args(["iso", "build"]).args([&short(&root), "-o", &short(&disk)]).status();
    if !status.context("cannot start nabla")?.success() {
        bail!("the disk could not be made");
    }
    println!("==> {} run {} --disk {},ro -- / /etc/motd", short(&nabla), short(&image), short(&disk));
    let mut spec = disk.into_os_string();
    spec.push(",ro");
    let run = Command::new(&nabla)
        .arg("run")
        .arg(&image)
        .arg("--disk")
        .arg(spec)
        .args(["--", "/", "/etc/motd"])
        .status();
    let status = run.context("cannot start nabla")?;
    if !status.success() {
        bail!("the guest failed ({status}); `{} doctor` says what this host lacks", short(&nabla));
    }
    println!("==> the guest exited with status 0; `{} --help` says what else there is", short(&nabla));
    Ok(())
}
