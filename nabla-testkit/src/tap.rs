//! A tap device for a test.

use rustix::thread::UnshareFlags;
use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    io,
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// Moves the calling thread to a network namespace of its own, the first time that it calls this. Tests that run at the
/// same time, or a machine's own networks, can then use the same addresses.
fn leave_the_machines_network() {
    thread_local!(static LEFT: Cell<bool> = const { Cell::new(false) });
    if !LEFT.replace(true) {
        // SAFETY: only the network is unshared, not the table of descriptors that other code relies on.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("root can unshare");
        ip(&["link", "set", "lo", "up"]);
    }
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap_or_else(|error| panic!("ip: {error}"));
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A persistent tap device with a name of its own, in a network namespace which the calling thread is moved to. Goes away
/// when dropped.
#[derive(Debug)]
pub struct TestTap {
    name: String,
}

impl TestTap {
    /// Creates one, down. Takes root and `ip`.
    ///
    /// # Panics
    ///
    /// When that fails.
    #[must_use]
    pub fn new() -> Self {
        leave_the_machines_network();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nt{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let tap = Self { name };
        tap.ip(&["tuntap", "add", "dev", &tap.name, "mode", "tap"]);
        tap
    }

    /// Creates one that is up and has the address `cidr` on the host's side.
    ///
    /// # Panics
    ///
    /// When `ip` fails.
    #[must_use]
    pub fn up(cidr: &str) -> Self {
        let tap = Self::new();
        tap.ip(&["addr", "add", cidr, "dev", &tap.name]);
        tap.ip(&["link", "set", &tap.name, "up"]);
        tap
    }

    /// Runs `ip` with these arguments.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn ip(&self, args: &[&str]) {
        ip(args);
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens it, as a program does that passes the descriptor on.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn open(&self) -> io::Result<File> {
        const TUNSETIFF: u32 = 0x4004_54ca;
        const IFF_TAP_NO_PI: u64 = 0x1002;
        #[repr(C)]
        struct Request {
            name: [u8; 16],
            flags: [u64; 3],
        }
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        let mut request = Request { name: [0; 16], flags: [IFF_TAP_NO_PI, 0, 0] };
        request.name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        // SAFETY: TUNSETIFF reads and writes an ifreq, which has this layout and size.
        unsafe {
            rustix::ioctl::ioctl(file.as_fd(), rustix::ioctl::Updater::<TUNSETIFF, _>::new(&mut request))?;
        };
        Ok(file)
    }
}

impl Default for TestTap {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestTap {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.name]).output();
    }
}
