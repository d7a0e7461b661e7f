//! What is compared.

use crate::{
    bindings, images, network,
    pairs::{Measured, measure},
    program::{find, proportional_memory, time},
};
use anyhow::{Context, Result, ensure};
use nabla_monitor::{ByteSize, Console, Runtime, Supervision};
use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

const MEMORY_MIB: u64 = 64;
const DISK_MIB: usize = 32;
/// Clock reads and polls of one run of the guest `calls`.
const CALLS: &str = "20000";

/// What every comparison needs.
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
    directory: tempfile::TempDir,
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

    fn guest(&self, name: &str) -> PathBuf {
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

    fn disk(&self) -> PathBuf {
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

    /// The whole run of a guest under `solo5-spt`.
    fn solo5(&self, options: &[OsString], guest: &str, args: &[&str]) -> Result<f64> {
        let mut line = vec![OsString::from(format!("--mem={MEMORY_MIB}"))];
        line.extend_from_slice(options);
        line.extend([OsString::from("--"), self.guest(guest).into()]);
        line.extend(args.iter().map(OsString::from));
        time(self.spt()?, line)
    }

    /// The whole run of a guest under `nabla run`.
    fn nabla(&self, options: &[OsString], guest: &str, args: &[&str]) -> Result<f64> {
        let mut line = vec![OsString::from("run"), format!("--mem={MEMORY_MIB}M").into()];
        line.extend_from_slice(options);
        line.extend([self.guest(guest).into(), OsString::from("--")]);
        line.extend(args.iter().map(OsString::from));
        time(&self.nabla, line)
    }

    /// From `start` to the exit of a guest, in this program.
    fn start_to_exit(&self, supervision: Supervision, memory: ByteSize) -> Result<f64> {
        let image = self.guest("hello");
        let start = Instant::now();
        let guest = self
            .runtime
            .guest(image)
            .memory(memory)
            .console(Console::null())
            .supervision(supervision)
            .start()?;
        let status = guest.wait()?;
        let time = start.elapsed();
        ensure!(status.success(), "the guest {status}");
        Ok(time.as_secs_f64() * 1e6)
    }
}

/// What a comparison takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    None,
    /// `solo5-spt`.
    Spt,
    /// Virtual machines.
    Kvm,
    /// Virtual machines and `solo5-hvt`.
    Hvt,
    /// Those, and what builds guests with Solo5's own bindings.
    HvtBindings,
    /// Those, taps and `ping`.
    HvtBindingsNetwork,
    /// Taps, `wrk`, and `solo5-spt` with guests of our SDK.
    SptNetwork,
    /// Taps, `wrk`, and virtual machines.
    KvmNetwork,
    /// Taps, `wrk`, and `solo5-hvt` with guests of our SDK, which it runs only where ring 0 is not interpreted.
    HvtNetwork,
    /// A program on PATH.
    Program(&'static str),
    /// A file system with reflinks, as root.
    Reflinks,
}

/// A comparison of two things.
#[derive(Debug)]
pub struct Comparison {
    /// Short and stable.
    pub name: &'static str,
    /// What is measured, on which side.
    pub ours: &'static str,
    pub theirs: &'static str,
    pub unit: &'static str,
    /// The ratio that is promised, if any.
    pub at_most: Option<f64>,
    pub peer: Peer,
    pub run: fn(&Setup, u32) -> Result<Measured>,
}

impl Comparison {
    /// Whether what it compares with is there.
    pub fn is_possible(&self, setup: &Setup) -> bool {
        match self.peer {
            Peer::None => true,
            Peer::Program(name) => find(name).is_some(),
            Peer::Reflinks => images::can_share(),
            Peer::Spt => setup.solo5_spt.is_some(),
            Peer::Kvm => setup.hvt_guests.is_some(),
            Peer::Hvt => setup.hvt_guests.is_some() && setup.solo5_hvt.is_some(),
            Peer::HvtBindings => Self { peer: Peer::Hvt, ..*self }.is_possible(setup) && bindings::possible(),
            Peer::HvtBindingsNetwork => {
                Self { peer: Peer::HvtBindings, ..*self }.is_possible(setup) && network::can_ping()
            }
            Peer::SptNetwork => setup.solo5_spt.is_some() && network::is_possible(setup, self.peer),
            Peer::KvmNetwork => setup.hvt_guests.is_some() && network::is_possible(setup, self.peer),
            Peer::HvtNetwork => {
                setup.hvt_guests.is_some()
                    && setup.solo5_hvt.is_some()
                    && network::is_possible(setup, self.peer)
            }
        }
    }
}

/// All of them.
pub fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "library-start-exit",
            ours: "start() to exit, from a running program",
            theirs: "solo5-spt, whole run",
            unit: "us",
            at_most: Some(0.5),
            peer: Peer::Spt,
            run: |s, n| {
                measure(
                    n,
                    || s.start_to_exit(Supervision::Full, ByteSize::mib(MEMORY_MIB)),
                    || s.solo5(&[], "hello", &[]),
                )
            },
        },
        Comparison {
            name: "library-start-exit-unsupervised",
            ours: "the same without supervision",
            theirs: "solo5-spt, whole run",
            unit: "us",
            at_most: Some(0.5),
            peer: Peer::Spt,
            run: |s, n| {
                measure(
                    n,
                    || s.start_to_exit(Supervision::None, ByteSize::mib(MEMORY_MIB)),
                    || s.solo5(&[], "hello", &[]),
                )
            },
        },
        Comparison {
            name: "cli-run",
            ours: "nabla run, whole run",
            theirs: "solo5-spt, whole run",
            unit: "us",
            at_most: Some(1.0),
            peer: Peer::Spt,
            run: |s, n| measure(n, || s.nabla(&[], "hello", &[]), || s.solo5(&[], "hello", &[])),
        },
        Comparison {
            name: "cli-run-over-floor",
            ours: "nabla run, whole run",
            theirs: "a bare ELF file that exits",
            unit: "us",
            at_most: None,
            peer: Peer::None,
            run: |s, n| {
                let bare = s.directory.path().join("bare");
                measure(n, || s.nabla(&[], "hello", &[]), || time(&bare, [""; 0]))
            },
        },
        Comparison {
            name: "memory-size",
            ours: "start() to exit with 4 GiB",
            theirs: "the same with 4 MiB",
            unit: "us",
            at_most: Some(1.1),
            peer: Peer::None,
            run: |s, n| {
                let full = Supervision::Full;
                measure(
                    n,
                    || s.start_to_exit(full, ByteSize::gib(4)),
                    || s.start_to_exit(full, ByteSize::mib(4)),
                )
            },
        },
        Comparison {
            name: "disk-read",
            ours: "nabla run, guest sums a 32 MiB disk",
            theirs: "solo5-spt, the same guest",
            unit: "us",
            at_most: Some(1.05),
            peer: Peer::Spt,
            run: |s, n| {
                let ours = [OsString::from("--disk"), s.disk().into()];
                let mut theirs = OsString::from("--block:storage=");
                theirs.push(s.disk());
                let n = n.div_ceil(4);
                measure(n, || s.nabla(&ours, "disk-sum", &[]), || s.solo5(&[theirs.clone()], "disk-sum", &[]))
            },
        },
        Comparison {
            name: "clocks-and-polls",
            ours: "nabla run, guest reads clocks and polls",
            theirs: "solo5-spt, the same guest",
            unit: "us",
            at_most: Some(1.05),
            peer: Peer::Spt,
            run: |s, n| {
                let n = n.div_ceil(4);
                measure(n, || s.nabla(&[], "calls", &[CALLS]), || s.solo5(&[], "calls", &[CALLS]))
            },
        },
        Comparison {
            name: "idle-memory",
            ours: "proportional memory of an idle guest",
            theirs: "of a solo5-spt process with it",
            unit: "KiB",
            at_most: Some(0.2),
            peer: Peer::Spt,
            run: |s, n| {
                let n = n.div_ceil(10);
                measure(n, || idle_in_library(s), || idle_in_solo5(s))
            },
        },
    ]
}

fn idle_in_library(setup: &Setup) -> Result<f64> {
    let image = setup.guest("sleeper");
    let guest =
        setup.runtime.guest(image).memory(ByteSize::mib(MEMORY_MIB)).console(Console::pipe()).start()?;
    let mut console = guest.take_console().context("the console is a pipe")?;
    console.read_exact(&mut [0; 6])?;
    proportional_memory(guest.pid())
}

fn idle_in_solo5(setup: &Setup) -> Result<f64> {
    /// Kills the process when dropped.
    struct Running(Child);
    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut command = Command::new(setup.spt()?);
    command.arg(format!("--mem={MEMORY_MIB}")).arg(setup.guest("sleeper"));
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
    let mut console = BufReader::new(running.0.stdout.take().context("the output is a pipe")?);
    console.read_line(&mut String::new())?;
    proportional_memory(running.0.id())
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
