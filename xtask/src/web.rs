//! A guest that serves web pages, with a network of its own.

use crate::build;
use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

const PAGE: &str = "\
<!doctype html>
<title>A guest</title>
<h1>Hello from a box</h1>
<p>This page comes from a web server that is its own operating system.
";

/// Builds the web server, packs a directory for it, and becomes `nabla run`.
pub fn web(args: &[String]) -> Result<()> {
    let (mut root, mut hvt, mut rest) = (None, false, Vec::new());
    for arg in args {
        match arg.as_str() {
            "--hvt" => hvt = true,
            _ if root.is_none() && !arg.starts_with('-') && rest.is_empty() => {
                root = Some(PathBuf::from(arg));
            }
            _ => rest.push(arg.clone()),
        }
    }
    println!("==> building nabla and the web server");
    let nabla = build::nabla()?;
    let guests = if hvt {
        build::guests("examples/httpd", "examples-hvt", &["--features", "hvt"])?
    } else {
        build::guests("examples/httpd", "examples", &[])?
    };
    let directory = build::target_directory().join("web");
    fs::create_dir_all(directory.join("root")).context("cannot make a directory for the pages")?;
    let root = match root {
        Some(root) => root,
        None => {
            fs::write(directory.join("root/index.html"), PAGE).context("cannot write a page")?;
            directory.join("root")
        }
    };
    let disk = directory.join("rootfs.iso");
    let mut build = Command::new(&nabla);
    build.args(["iso", "build", "--quiet"]).arg(&root).arg("-o").arg(&disk);
    println!("==> {}", shown(&build));
    if !build.status().context("cannot start nabla")?.success() {
        bail!("there is no disk of {}", root.display());
    }
    let mut command = Command::new(&nabla);
    command.arg("run").arg(guests.join("httpd")).arg("--disk").arg(format!("{},ro", disk.display()));
    if !rest.iter().any(|arg| arg == "--net" || arg.starts_with("--net=")) {
        command.args(["--net", "new"]);
    }
    command.args(&rest);
    println!("==> {} (Ctrl-C ends it)", shown(&command));
    Err(command.exec()).context("cannot start nabla")
}

/// The command with paths below the current directory made short.
fn shown(command: &Command) -> String {
    let here = env::current_dir().unwrap_or_default();
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let short = |word: &std::ffi::OsStr| {
        Path::new(word)
            .strip_prefix(&here)
            .map_or_else(|_| word.to_string_lossy().into_owned(), |path| path.display().to_string())
    };
    words.map(short).collect::<Vec<_>>().join(" ")
}
