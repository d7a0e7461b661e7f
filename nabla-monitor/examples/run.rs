//! Runs a guest, passes its output on, and exits with its status:
//! `cargo run --example run -- IMAGE [DISK]`.

use nabla_monitor::{BlockDevice, ByteSize, Console, Runtime};
use std::{env, process::ExitCode};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut args = env::args_os().skip(1);
    let image = args.next().ok_or("usage: run IMAGE [DISK]")?;
    let mut guest = Runtime::new().guest(image).memory(ByteSize::mib(64)).console(Console::inherit());
    if let Some(disk) = args.next() {
        guest = guest.block(BlockDevice::new(disk).read_only());
    }
    let status = guest.start()?.wait()?;
    if !status.success() {
        eprintln!("guest: {status}");
    }
    Ok(ExitCode::from(status.shell_code()))
}
