//! What every comparison needs.

use crate::{bindings, program::find};
use anyhow::{Context, Result};
use nabla_monitor::Runtime;
use std::{
    fs,
    path::{Path, PathBuf},
};

const DISK_MIB: usize = 32;

/// Programs, guests and files.
#[derive(Debug)]
pub struct Setup {
    pub nabla: PathBuf,
    guests: PathBuf,
    /// Those for virtual machines, where these can be had.
    pub hvt_guests: Option<PathBuf>,
    /// The directories of the web server.
    httpd: PathBuf,
    hvt_httpd: PathBuf,
    solo5_spt: Option<PathBuf>,
    solo5_hvt: Option<PathBuf>,
    /// For whatever a comparison writes.
    pub directory: tempfile::TempDir,
    pub runtime: Runtime,
}

impl Setup {
    pub fn new(nabla: PathBuf, [guests, hvt_guests, httpd, hvt_httpd]: [PathBuf; 4]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let disk: Vec<u8> = (0..DISK_MIB << 20).map(|i| (i * 31 % 251).to_le_bytes()[0]).collect();
        fs::write(directory.path().join("small.img"), &disk[..1 << 20])?;
        fs::write(directory.path().join("disk.img"), disk)?;
        let bare = directory.path().join("bare");
        fs::write(&bare, bare_program())?;
        let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&bare, mode)?;
        Ok(Self {
            nabla,
            guests,
            hvt_guests: fs::File::open("/dev/kvm").is_ok().then_some(hvt_guests),
            httpd,
            hvt_httpd,
            solo5_spt: find("solo5-spt"),
            solo5_hvt: find("solo5-hvt"),
            directory,
            runtime: Runtime::new(),
        })
    }

    /// Names of peers that were not found.
    pub fn missing(&self) -> Vec<&'static str> {
        [("solo5-spt", &self.solo5_spt), ("solo5-hvt", &self.solo5_hvt)]
            .into_iter()
            .filter(|(_, found)| found.is_none())
            .map(|(name, _)| name)
            .collect()
    }

    /// A guest for processes.
    pub fn guest(&self, name: &str) -> PathBuf {
        self.guests.join(name)
    }

    /// A guest with Solo5's own bindings.
    pub fn with_bindings(&self, guest: &bindings::Source) -> Result<PathBuf> {
        bindings::build(guest, &self.nabla, self.directory.path())
    }

    /// A guest with a network.
    pub fn network_guest(&self, name: &str, vm: bool) -> Result<PathBuf> {
        let directory = match (name, vm) {
            ("httpd", false) => &self.httpd,
            ("httpd", true) => &self.hvt_httpd,
            (_, false) => &self.guests,
            (_, true) => self.hvt_guests.as_ref().context("there is no KVM")?,
        };
        Ok(directory.join(name))
    }

    /// A disk of 32 MiB.
    pub fn disk(&self) -> PathBuf {
        self.directory.path().join("disk.img")
    }

    /// The guest with Solo5's bindings.
    pub fn wall(&self) -> Result<PathBuf> {
        self.with_bindings(&bindings::WALL)
    }

    pub fn small_disk(&self) -> PathBuf {
        self.directory.path().join("small.img")
    }

    pub fn hvt(&self) -> Result<&Path> {
        self.solo5_hvt.as_deref().context("solo5-hvt is not on PATH")
    }

    pub fn spt(&self) -> Result<&Path> {
        self.solo5_spt.as_deref().context("solo5-spt is not on PATH")
    }

    /// Whether `solo5-spt` is there.
    pub fn has_spt(&self) -> bool {
        self.solo5_spt.is_some()
    }

    /// Whether there are virtual machines.
    pub fn has_kvm(&self) -> bool {
        self.hvt_guests.is_some()
    }

    /// Whether there are virtual machines and `solo5-hvt`.
    pub fn has_hvt(&self) -> bool {
        self.has_kvm() && self.solo5_hvt.is_some()
    }
}

/// An ELF file that does nothing but exit: the floor for anything that executes a program.
fn bare_program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    // xor edi, edi; mov eax, 231; syscall
    const CODE: [u8; 9] = [0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    let size = (64 + 56 + CODE.len()) as u64;
    bytes.extend([BASE + 64 + 56, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([1_u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend([0, BASE, BASE, size, size, 0x1000].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend_from_slice(&CODE);
    bytes
}
