//! Comparisons of guests with a network: the same guest and the same tap, under nabla and under Solo5's tenders.
//!
//! Everything happens in a network namespace of its own. Clients are `wrk` for requests, and this program for bytes.
//! A process and its client have a processor each: where the scheduler puts two programs that wake each other makes
//! more of a difference than anything that is measured here. Virtual machines are left to the scheduler, since they
//! have threads of their own.

use crate::{
    bindings,
    comparison::Comparison,
    pairs::{Measured, measure},
    program::find,
    setup::Setup,
};
use anyhow::{Context, Result, bail};
use nabla_net::{Cidr, Link, Network, Owned, TapOptions};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::{
    ffi::OsString,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const TAP: &str = "bench0";
const HOST: &str = "10.111.0.1/24";
const GUEST: &str = "10.111.0.2";
const MEMORY_MIB: u64 = 64;
/// How long one side of a pair is looked at.
const LOOK: &str = "1s";
/// How long a guest that waits is looked at.
const IDLE: Duration = Duration::from_secs(2);
/// What is moved in one go.
const BULK_MIB: usize = 64;
const PINGS: u32 = 1000;
const PAGE: usize = 1024;

/// The program that runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nabla,
    NablaVm,
    Spt,
    Hvt,
}

/// A namespace with a tap, and what the guests serve.
struct Place {
    // In the order in which they are dropped.
    _tap: Owned<Link>,
    network: Network,
    disk: PathBuf,
    _directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let network = Network::isolated()?;
        let tap = network.create_persistent_tap(&TapOptions::new().name(TAP))?;
        network.add_address(TAP, HOST.parse::<Cidr>()?)?.keep();
        network.set_up(TAP)?;
        let directory = tempfile::tempdir()?;
        let root = directory.path().join("root");
        fs::create_dir(&root)?;
        fs::write(root.join("index.html"), vec![b'x'; PAGE])?;
        let disk = directory.path().join("rootfs.iso");
        nabla_iso::ImageBuilder::new().directory(&root).plan()?.write_file(&disk)?;
        Ok(Self { _tap: tap, network, disk, _directory: directory })
    }

    /// Starts a guest, and waits until it answers on a port.
    fn start(&self, setup: &Setup, who: Who, guest: &str, port: u16) -> Result<Running> {
        let vm = matches!(who, Who::NablaVm | Who::Hvt);
        let running = self.spawn(setup, who, &setup.network_guest(guest, vm)?, guest == "httpd")?;
        self.connect(port)?;
        Ok(running)
    }

    /// Starts a guest.
    fn spawn(&self, setup: &Setup, who: Who, image: &Path, has_disk: bool) -> Result<Running> {
        let mut line: Vec<OsString> = Vec::new();
        let program = match who {
            Who::Nabla | Who::NablaVm => {
                line.extend([
                    "run".into(),
                    format!("--mem={MEMORY_MIB}M").into(),
                    "--net".into(),
                    TAP.into(),
                ]);
                if has_disk {
                    line.extend(["--disk".into(), self.disk.clone().into()]);
                }
                &*setup.nabla
            }
            Who::Spt | Who::Hvt => {
                line.extend([format!("--mem={MEMORY_MIB}").into(), format!("--net:service0={TAP}").into()]);
                if has_disk {
                    let mut option = OsString::from("--block:storage=");
                    option.push(&self.disk);
                    line.push(option);
                }
                if who == Who::Spt { setup.spt()? } else { setup.hvt()? }
            }
        };
        line.push(image.into());
        line.push("--".into());
        line.push(format!("--ipv4={GUEST}/24").into());
        if matches!(who, Who::Spt | Who::Hvt) {
            // These take no mark between the image and its arguments.
            line.retain(|word| word != "--");
        }
        let mut command = Command::new(program);
        command.args(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let is_process = matches!(who, Who::Nabla | Who::Spt);
        let spawn = || {
            // What is started by this thread inherits where it runs.
            let _there = is_process.then(|| Pinned::to(Side::Guest));
            command.spawn()
        };
        let running = Running(self.network.namespace().run(spawn)?.context("cannot start the guest")?);
        Ok(running)
    }

    /// Connects to the guest, as soon as it accepts connections.
    fn connect(&self, port: u16) -> Result<TcpStream> {
        let address = SocketAddrV4::new(GUEST.parse::<Ipv4Addr>()?, port).into();
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
            match self.network.namespace().run(connect)? {
                Ok(stream) => return Ok(stream),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("the guest does not answer");
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Microseconds for a request of `connections` clients together.
    fn requests(&self, connections: u32, fresh: bool, pinned: bool) -> Result<f64> {
        let mut command = Command::new("wrk");
        command.args(["-t1", "-d", LOOK]).arg(format!("-c{connections}"));
        if fresh {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(format!("http://{GUEST}/")).stderr(Stdio::inherit());
        let run = || {
            let _here = pinned.then(|| Pinned::to(Side::Client));
            command.output()
        };
        let output = self.network.namespace().run(run)?.context("cannot start wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse::<f64>().ok());
        match rate {
            Some(rate) if rate > 0.0 && output.status.success() && !text.contains("Non-2xx") => {
                Ok(1e6 / rate)
            }
            _ => bail!("wrk said:\n{text}"),
        }
    }

    /// Microseconds for a ping and its answer, of many in a row.
    fn pings(&self, count: u32) -> Result<f64> {
        let mut command = Command::new("ping");
        command.args(["-f", "-q", "-n", "-W", "2", "-c"]).arg(count.to_string()).arg(GUEST);
        let output = self.network.namespace().run(|| command.output())?.context("cannot start ping")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let time = text.lines().find_map(|line| {
            line.split_once(" 0% packet loss, time ")?.1.strip_suffix("ms")?.parse::<f64>().ok()
        });
        Ok(time.with_context(|| format!("ping said:\n{text}"))? * 1e3 / f64::from(count))
    }

    /// Microseconds for a MiB out of the guest.
    fn bulk_out(&self) -> Result<f64> {
        let mut stream = self.connect(19)?;
        let mut buffer = vec![0; 1 << 20];
        stream.read_exact(&mut buffer)?;
        let start = Instant::now();
        for _ in 0..BULK_MIB {
            stream.read_exact(&mut buffer)?;
        }
        Ok(start.elapsed().as_secs_f64() * 1e6 / BULK_MIB as f64)
    }

    /// Microseconds for a MiB into the guest.
    fn bulk_in(&self) -> Result<f64> {
        let mut stream = self.connect(9)?;
        let buffer = vec![0; 1 << 20];
        stream.write_all(&buffer)?;
        let start = Instant::now();
        for _ in 0..BULK_MIB {
            stream.write_all(&buffer)?;
        }
        // The guest has taken everything when it has heard the end.
        stream.shutdown(std::net::Shutdown::Write)?;
        let _ = stream.read(&mut [0]);
        Ok(start.elapsed().as_secs_f64() * 1e6 / BULK_MIB as f64)
    }
}

/// Which processor each side gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Guest,
}

/// The calling thread has a processor of a side, until this is dropped. On a machine with one, nothing changes.
struct Pinned(Option<CpuSet>);

impl Pinned {
    fn to(side: Side) -> Self {
        let Ok(before) = sched_getaffinity(None) else { return Self(None) };
        let mut processors = (0..CpuSet::MAX_CPU).filter(|&cpu| before.is_set(cpu));
        let (Some(first), Some(second)) = (processors.next(), processors.next()) else { return Self(None) };
        let mut set = CpuSet::new();
        set.set(if side == Side::Client { first } else { second });
        Self(sched_setaffinity(None, &set).is_ok().then_some(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = sched_setaffinity(None, before);
        }
    }
}

/// Ends the guest when dropped.
struct Running(Child);

impl Running {
    /// Microseconds of processor time so far, of all threads.
    fn processor_time(&self) -> Result<f64> {
        let mut nanos = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let path = thread?.path().join("schedstat");
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            nanos += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos).as_secs_f64() * 1e6)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether `who` runs guests of our SDK here at all (solo5-hvt does only where ring 0 is not interpreted), and what is
/// needed for comparing is there.
fn can_serve(setup: &Setup, who: Who) -> bool {
    find("wrk").is_some() && Place::new().and_then(|place| place.start(setup, who, "httpd", 80)).is_ok()
}

fn requests(
    setup: &Setup,
    pairs: u32,
    [ours, theirs]: [Who; 2],
    connections: u32,
    fresh: bool,
) -> Result<Measured> {
    let place = Place::new()?;
    let side = |who| {
        let _guest = place.start(setup, who, "httpd", 80)?;
        place.requests(connections, fresh, ours == Who::Nabla)
    };
    measure(pairs.div_ceil(10), || side(ours), || side(theirs))
}

fn bulk(setup: &Setup, pairs: u32, [ours, theirs]: [Who; 2], out: bool) -> Result<Measured> {
    let place = Place::new()?;
    let side = |who| {
        let _guest = place.start(setup, who, "tcp-peer", if out { 19 } else { 9 })?;
        let _here = (ours == Who::Nabla).then(|| Pinned::to(Side::Client));
        if out { place.bulk_out() } else { place.bulk_in() }
    };
    measure(pairs.div_ceil(10), || side(ours), || side(theirs))
}

/// Whether the host can be made to ping.
fn can_ping() -> bool {
    find("ping").is_some() && Place::new().is_ok()
}

/// Pings of a guest with Solo5's own bindings.
fn echo(setup: &Setup, pairs: u32, [ours, theirs]: [Who; 2]) -> Result<Measured> {
    let place = Place::new()?;
    let image = setup.with_bindings(&bindings::ECHO)?;
    let side = |who| {
        let _guest = place.spawn(setup, who, &image, false)?;
        // Until it is there, and knows its client.
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(error) = place.pings(1) {
            if Instant::now() > deadline {
                return Err(error);
            }
        }
        place.pings(PINGS)
    };
    measure(pairs.div_ceil(10), || side(ours), || side(theirs))
}

/// Processor time of a guest that waits for requests, and the time that it waits.
fn idle(setup: &Setup, pairs: u32, who: Who) -> Result<Measured> {
    let place = Place::new()?;
    let guest = place.start(setup, who, "httpd", 80)?;
    // It has had a client, and is in the state in which it is between two.
    place.requests(4, false, false)?;
    thread::sleep(Duration::from_millis(200));
    let side = || {
        let before = guest.processor_time()?;
        thread::sleep(IDLE);
        Ok(guest.processor_time()? - before)
    };
    measure(pairs.div_ceil(50), side, || Ok(IDLE.as_secs_f64() * 1e6))
}

const SPT: [Who; 2] = [Who::Nabla, Who::Spt];
const HVT: [Who; 2] = [Who::NablaVm, Who::Hvt];

/// All of them.
pub fn all() -> Vec<Comparison> {
    let row = |name, ours, theirs, is_possible, run| Comparison {
        name,
        ours,
        theirs,
        unit: if name.contains("bulk") { "us/MiB" } else { "us" },
        at_most: Some(1.0),
        is_possible,
        run,
    };
    let spt: fn(&Setup) -> bool = |s| s.has_spt() && can_serve(s, Who::Spt);
    let hvt: fn(&Setup) -> bool = |s| s.has_hvt() && can_serve(s, Who::Hvt);
    let kvm: fn(&Setup) -> bool = |s| s.has_kvm() && can_serve(s, Who::NablaVm);
    let idle_row = |name, ours, is_possible, run| Comparison {
        name,
        ours,
        theirs: "the time that it waits",
        unit: "us",
        at_most: Some(0.001),
        is_possible,
        run,
    };
    vec![
        row(
            "net-requests",
            "httpd, 16 clients, keep-alive, per request",
            "solo5-spt, the same",
            spt,
            |s, n| requests(s, n, SPT, 16, false),
        ),
        row("net-requests-fresh", "a connection for each request", "solo5-spt, the same", spt, |s, n| {
            requests(s, n, SPT, 16, true)
        }),
        row("net-latency", "httpd, 1 client, keep-alive, per request", "solo5-spt, the same", spt, |s, n| {
            requests(s, n, SPT, 1, false)
        }),
        row("net-latency-fresh", "a connection for each request", "solo5-spt, the same", spt, |s, n| {
            requests(s, n, SPT, 1, true)
        }),
        row("net-bulk-out", "a guest sends, per MiB", "solo5-spt, the same", spt, |s, n| {
            bulk(s, n, SPT, true)
        }),
        row("net-bulk-in", "a guest receives, per MiB", "solo5-spt, the same", spt, |s, n| {
            bulk(s, n, SPT, false)
        }),
        idle_row("net-idle", "processor time of a waiting httpd", spt, |s, n| idle(s, n, Who::Nabla)),
        row(
            "vm-net-requests",
            "httpd, 16 clients, keep-alive, per request",
            "solo5-hvt, the same",
            hvt,
            |s, n| requests(s, n, HVT, 16, false),
        ),
        row("vm-net-requests-fresh", "a connection for each request", "solo5-hvt, the same", hvt, |s, n| {
            requests(s, n, HVT, 16, true)
        }),
        row(
            "vm-net-latency",
            "httpd, 1 client, keep-alive, per request",
            "solo5-hvt, the same",
            hvt,
            |s, n| requests(s, n, HVT, 1, false),
        ),
        row("vm-net-bulk-out", "a guest sends, per MiB", "solo5-hvt, the same", hvt, |s, n| {
            bulk(s, n, HVT, true)
        }),
        row("vm-net-bulk-in", "a guest receives, per MiB", "solo5-hvt, the same", hvt, |s, n| {
            bulk(s, n, HVT, false)
        }),
        row(
            "vm-net-pings",
            "pings of a guest with Solo5's bindings, each",
            "solo5-hvt, the same",
            |s| s.has_hvt() && bindings::possible() && can_ping(),
            |s, n| echo(s, n, HVT),
        ),
        idle_row("vm-net-idle", "processor time of a waiting httpd", kvm, |s, n| idle(s, n, Who::NablaVm)),
    ]
}
