//! Makes an image of directories and tar files: `cargo run --example build -- rootfs.iso rootfs layer.tar`.
//! Without arguments, it does so with a small tree of its own.

use nabla_iso::{Entry, ImageBuilder, Phase};
use std::{env, error::Error, ops::ControlFlow, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let image = arguments.next().unwrap_or_else(|| scratch.path().join("rootfs.iso"));
    let mut builder = ImageBuilder::new().exclude("*.pyc").skip(&image);
    let mut sources = 0;
    for source in arguments {
        builder = if source.is_dir() { builder.directory(source) } else { builder.tar_file(source) };
        sources += 1;
    }
    if sources == 0 {
        builder = builder
            .entry("/etc/motd", Entry::bytes(*b"hello\n"))
            .entry("/dev/null", Entry::character_device(1, 3).mode(0o666))
            .entry("/etc/issue", Entry::symlink("motd"));
    }
    let plan = builder
        .progress(|progress| {
            if progress.phase == Phase::Writing {
                eprintln!("{} of {} bytes", progress.bytes, progress.bytes_total);
            }
            ControlFlow::Continue(())
        })
        .plan()?;
    for warning in plan.warnings() {
        eprintln!("warning: {warning}");
    }
    plan.write_file(&image)?;
    println!("{}: {} entries, {} bytes", image.display(), plan.entries(), plan.size());
    Ok(())
}
