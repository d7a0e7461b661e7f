//! A tap device for a test.

use nabla_tap::{Tap, TapOptions};
use rustix::thread::UnshareFlags;
use std::{cell::Cell, process::Command};

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
        let tap = Tap::create(&TapOptions::new().name("nt%d").persistent(true))
            .unwrap_or_else(|error| panic!("{error}"));
        Self { name: tap.name().unwrap_or_default().to_owned() }
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
    /// # Panics
    ///
    /// When the kernel refuses.
    #[must_use]
    pub fn open(&self) -> Tap {
        Tap::open(&self.name).unwrap_or_else(|error| panic!("{error}"))
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
