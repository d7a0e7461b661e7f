//! `--json-report`: how a guest ended, for programs. The format is described in docs/cli.md.

use super::counters::CountersJson;
use crate::{output, pending::PendingFile};
use anyhow::Context;
use nabla_monitor::{
    DeniedCall, DeviceInfo, DeviceProperties, ExitStatus, Fault, Guest, HypercallMistake, ResourceUsage,
    signal_name,
};
use nix::sys::signal::Signal;
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A report on a guest that has not ended yet.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    file: PendingFile,
    image: String,
}

impl Report {
    /// Does everything that can fail before the guest starts.
    pub fn prepare(path: &Path, image: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            anyhow::bail!(
                "standard output is the guest's: name a file for the report, or a descriptor as /dev/fd/3"
            );
        }
        let file = PendingFile::create(path).with_context(|| cannot_write(path))?;
        Ok(Self { path: path.to_owned(), file, image: image.display().to_string() })
    }

    /// Writes it.
    pub fn finish(
        self,
        guest: &Guest,
        status: ExitStatus,
        interrupted: Option<Signal>,
        exit_code: u8,
        started: SystemTime,
        duration: Duration,
    ) -> anyhow::Result<()> {
        let json = ReportJson {
            kind: "nabla.report",
            version: 1,
            image: &self.image,
            abi: guest.abi().name(),
            pid: guest.pid(),
            supervised: guest.is_supervised(),
            started_ns: nanoseconds(started.duration_since(UNIX_EPOCH).unwrap_or_default()),
            duration_ns: nanoseconds(duration),
            exit_code,
            interrupted_by: interrupted.map(|signal| SignalJson::new(signal as i32)),
            status: StatusJson::new(status),
            usage: guest.usage()?.into(),
            counters: guest.counters().map(CountersJson::from),
            devices: guest.devices().iter().filter_map(DeviceJson::of).collect(),
        };
        let text = output::json_lines(&json)? + "\n";
        self.file.finish(text.as_bytes()).with_context(|| cannot_write(&self.path))
    }
}

fn cannot_write(path: &Path) -> String {
    format!("the report '{}' cannot be written", path.display())
}

/// Until the year 2554.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug, Serialize)]
struct ReportJson<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    image: &'a str,
    abi: &'static str,
    pid: u32,
    supervised: bool,
    started_ns: u64,
    duration_ns: u64,
    exit_code: u8,
    interrupted_by: Option<SignalJson>,
    status: StatusJson,
    usage: UsageJson,
    counters: Option<CountersJson>,
    devices: Vec<DeviceJson>,
}

#[derive(Debug, Serialize)]
struct SignalJson {
    number: i32,
    name: Option<String>,
}

impl SignalJson {
    fn new(number: i32) -> Self {
        Self { number, name: signal_name(number).map(|name| format!("SIG{name}")) }
    }
}

#[derive(Debug, Serialize)]
struct StatusJson {
    kind: &'static str,
    message: String,
    code: Option<u8>,
    signal: Option<SignalJson>,
    fault: Option<FaultJson>,
    syscall: Option<SyscallJson>,
}

impl StatusJson {
    fn new(status: ExitStatus) -> Self {
        let (kind, signal) = match status {
            ExitStatus::Exited(_) => ("exited", None),
            ExitStatus::Aborted => ("aborted", None),
            ExitStatus::Faulted(Fault { signal, .. }) => ("faulted", Some(signal)),
            ExitStatus::Denied(_) => ("denied", Some(Signal::SIGSYS as i32)),
            ExitStatus::Killed(signal) => ("killed", Some(signal)),
            ExitStatus::OutOfMemory => ("out-of-memory", Some(Signal::SIGKILL as i32)),
            ExitStatus::BadHypercall(_) => ("bad-hypercall", None),
            ExitStatus::Unsupported(_) => ("unsupported-instruction", None),
            _ => ("unknown", None),
        };
        let ended_itself = matches!(status, ExitStatus::Exited(_) | ExitStatus::Aborted);
        Self {
            kind,
            message: status.to_string(),
            code: ended_itself.then(|| status.shell_code()),
            signal: signal.map(SignalJson::new),
            fault: FaultJson::of(status),
            syscall: match status {
                ExitStatus::Denied(denied) => denied.call.map(SyscallJson::from),
                _ => None,
            },
        }
    }
}

#[derive(Debug, Serialize)]
struct FaultJson {
    address: Option<String>,
    instruction_pointer: Option<String>,
}

impl FaultJson {
    /// Where the guest did what it ended for.
    fn of(status: ExitStatus) -> Option<Self> {
        let (address, instruction_pointer) = match status {
            ExitStatus::Faulted(Fault { address, instruction_pointer, .. }) => (address, instruction_pointer),
            ExitStatus::BadHypercall(call) => {
                let address = match call.mistake {
                    HypercallMistake::Memory { address } => Some(address),
                    _ => None,
                };
                (address, Some(call.instruction_pointer))
            }
            ExitStatus::Unsupported(instruction) => (None, Some(instruction.instruction_pointer)),
            _ => return None,
        };
        Some(Self { address: address.map(hex), instruction_pointer: instruction_pointer.map(hex) })
    }
}

#[derive(Debug, Serialize)]
struct SyscallJson {
    entry: String,
    number: u32,
    name: Option<&'static str>,
    arguments: [String; 6],
    instruction_pointer: String,
}

impl From<DeniedCall> for SyscallJson {
    fn from(call: DeniedCall) -> Self {
        Self {
            entry: call.entry.to_string(),
            number: call.number,
            name: call.name(),
            arguments: call.arguments.map(hex),
            instruction_pointer: hex(call.instruction_pointer),
        }
    }
}

/// 64-bit values are strings, since many readers of JSON have only 53 bits for numbers.
fn hex(value: u64) -> String {
    format!("{value:#x}")
}

#[derive(Debug, Serialize)]
struct UsageJson {
    user_time_ns: u64,
    system_time_ns: u64,
    max_resident_bytes: u64,
    minor_faults: u64,
    major_faults: u64,
}

impl From<ResourceUsage> for UsageJson {
    fn from(usage: ResourceUsage) -> Self {
        Self {
            user_time_ns: nanoseconds(usage.user_time),
            system_time_ns: nanoseconds(usage.system_time),
            max_resident_bytes: usage.max_resident,
            minor_faults: usage.minor_faults,
            major_faults: usage.major_faults,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum DeviceJson {
    Block {
        index: usize,
        name: String,
        path: Option<String>,
        read_only: bool,
        block_size: u16,
        capacity: u64,
    },
    Net {
        index: usize,
        name: String,
        tap: Option<String>,
        mac: String,
        mtu: u16,
    },
}

impl DeviceJson {
    /// `None` for kinds that this version of the format does not have.
    fn of(device: &DeviceInfo) -> Option<Self> {
        let (index, name) = (device.index, device.name.clone());
        match &device.properties {
            DeviceProperties::Block(block) => Some(Self::Block {
                index,
                name,
                path: block.path.as_ref().map(|path| path.display().to_string()),
                read_only: block.read_only,
                block_size: block.block_size,
                capacity: block.capacity,
            }),
            DeviceProperties::Net(net) => Some(Self::Net {
                index,
                name,
                tap: net.interface.clone(),
                mac: net.mac.to_string(),
                mtu: net.mtu,
            }),
            _ => None,
        }
    }
}
