//! `solo5-spt` and `solo5-hvt`: run a guest as Solo5's tenders of these names do.

use super::{
    VERSION,
    elftool::open_message,
    notes::Notes,
    strerror,
    tender_options::{Options, Stop},
    warn,
};
use crate::{error::chain, output};
use nabla_core::{ByteSize, CommandLineError, DeviceKind, Manifest, ManifestError, abi};
use nabla_monitor::{
    BlockDevice, DEFAULT_BLOCK_SIZE, DEFAULT_MEMORY, DeviceError, Error, ExitStatus, Fault, GdbListener,
    ImageFile, Runtime,
};
use std::{
    ffi::{OsStr, OsString},
    ops::RangeInclusive,
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// One of Solo5's tenders.
#[derive(Debug)]
pub struct Tender {
    name: &'static str,
    /// `abi_target` of its guests.
    target: u32,
    versions: RangeInclusive<u32>,
    may_exec_heap: bool,
    /// Whether it has the options for debugging.
    debug: bool,
    /// What memory is a multiple of; the rest of `--mem` is not used.
    memory_unit: u64,
    /// The most memory that guests can have.
    memory_max: u64,
}

/// Guests in confined processes.
pub const SPT: Tender = Tender {
    name: "solo5-spt",
    target: abi::TARGET_SPT,
    versions: abi::spt::VERSIONS,
    may_exec_heap: true,
    debug: false,
    memory_unit: 1 << 20,
    memory_max: u64::MAX,
};

/// Guests in virtual machines.
pub const HVT: Tender = Tender {
    name: "solo5-hvt",
    target: abi::TARGET_HVT,
    versions: abi::hvt::VERSIONS,
    may_exec_heap: false,
    debug: false,
    memory_unit: abi::hvt::MEMORY_UNIT,
    memory_max: abi::hvt::MEMORY_MAX,
};

/// The same, with a debugger and core dumps.
pub const HVT_DEBUG: Tender = Tender { name: "solo5-hvt-debug", debug: true, ..HVT };

/// Runs the guest, as this process where that is possible, and returns the exit status.
pub fn main(tender: &Tender, args: &[OsString]) -> u8 {
    let name = tender.name;
    match run(tender, args.get(1..).unwrap_or_default()) {
        Ok(status) => return status,
        Err(Stop::Failed(message)) => warn(name, &message),
        Err(Stop::Usage(messages)) => {
            messages.iter().for_each(|message| warn(name, message));
            output::complain(&usage(tender));
        }
        Err(Stop::Version) => {
            let version = tender.versions.end();
            output::complain(&format!("{name} tender, version {VERSION}\nABI version {version}"));
            return 0;
        }
    }
    1
}

fn usage(tender: &Tender) -> String {
    let name = tender.name;
    let memory = DEFAULT_MEMORY.as_u64() >> 20;
    let mut text = format!(
        "usage: {name} [ CORE OPTIONS ] [ -- ] KERNEL [ ARGS ]\n\
         KERNEL is the guest's image, ARGS are the guest's arguments.\n\
         Core options:\n\
         \x20   --mem=MIB (memory of the guest in MiB; {memory})\n\
         \x20   --block:NAME=PATH (attach the file or block device PATH as block device NAME)\n\
         \x20   --block-sector-size:NAME=SIZE (bytes of its blocks: a power of two from 512 on)\n\
         \x20   --net:NAME=IFACE | @NN (attach the tap IFACE, or descriptor NN, as network device NAME)\n\
         \x20   --net-mac:NAME=HWADDR (its MAC address)\n\
         \x20   --help (show this)\n\
         \x20   --version"
    );
    if tender.may_exec_heap {
        text.push_str("\n    --x-exec-heap (let the guest execute heap and stack; dangerous)");
    }
    if tender.debug {
        text.push_str(
            "\n    --gdb (wait for gdb at the guest's first instruction)\
             \n    --gdb-port=PORT (on this TCP port of 127.0.0.1; 1234)\
             \n    --dumpcore=DIR (write a core dump when the guest aborts or faults)",
        );
    }
    text
}

fn run(tender: &Tender, args: &[OsString]) -> Result<u8, Stop> {
    let name = tender.name;
    let (options, kernel, guest_args) = split(args)?;
    let path = Path::new(kernel);
    let file = ImageFile::open(path).map_err(|error| Stop::Failed(open_message(path, &error)))?;
    let manifest = manifest(tender, &file).map_err(Stop::Failed)?;
    let options = Options::parse(options, &manifest, tender.may_exec_heap, tender.debug)?;
    if options.exec_heap {
        let warning = "WARNING: The use of --x-exec-heap is dangerous and not recommended";
        warn(name, &format!("{warning}: the guest can execute its heap and stack."));
    }
    options.check_disks()?;
    check_attached(tender, &manifest, &options)?;

    let unit = tender.memory_unit;
    let memory = options.memory.as_u64() / unit * unit;
    if memory > tender.memory_max {
        let max = tender.memory_max;
        return Err(Stop::Failed(format!(
            "guest memory size {memory} bytes exceeds the max size {max} bytes"
        )));
    }
    let memory = ByteSize::bytes(memory);
    let mut guest = Runtime::new()
        .guest(file)
        .memory(memory)
        .exec_heap(options.exec_heap)
        .launch_failure(format!("{name}: "), 1)
        .args(guest_args.iter().map(|arg| arg.as_bytes()));
    let mut interfaces = Vec::new();
    for (name, disk) in options.disks {
        // Solo5's tender does not lock.
        let block_size = options.block_sizes.get(&name).copied().unwrap_or(DEFAULT_BLOCK_SIZE);
        guest = guest.block_device(
            name,
            BlockDevice::from_fd(disk.descriptor).block_size(block_size.into()).unlocked(),
        );
    }
    for (name, net) in options.nets {
        let tap = match options.macs.get(&name) {
            Some(mac) if mac.0 != [0; 6] => net.tap.mac(*mac),
            _ => net.tap,
        };
        guest = guest.net_device(name, tap);
        interfaces.push((net.interface, net.option));
    }
    if let Some(port) = options.gdb.then_some(options.gdb_port) {
        let listener = GdbListener::tcp(("127.0.0.1", port)).map_err(|error| {
            Stop::Failed(format!("Could not listen on 127.0.0.1 port {port}: {}", strerror(&error)))
        })?;
        warn(
            name,
            &format!(
                "Waiting for a debugger. Connect to it like this: gdb --ex=\"target remote {listener}\" {}",
                path.display()
            ),
        );
        guest = guest.gdb(listener);
    }
    if let Some(directory) = &options.core_directory {
        // Under this name scripts look for it.
        guest = guest.core_dumps(directory).name(HVT.name);
    }
    let guest = guest.exec().map_err(|error| explain(&error, path, &interfaces))?;
    if !options.gdb && options.core_directory.is_none() {
        guest.confine_program().map_err(|error| Stop::Failed(chain(&error)))?;
    }
    let status = guest.wait().map_err(|error| Stop::Failed(chain(&error)))?;
    match guest.core() {
        Ok(None) => {}
        Ok(Some(core)) => warn(name, &format!("core dumped to {}", core.display())),
        Err(error) => warn(name, &chain(&error)),
    }
    // This program ends now, and takes along what is left of it.
    std::mem::forget(guest);
    match status {
        ExitStatus::Exited(_) | ExitStatus::Aborted => Ok(status.shell_code()),
        ExitStatus::Faulted(Fault { instruction_pointer: Some(rip), .. }) => {
            Err(Stop::Failed(format!("KVM: host/guest translation fault: rip={rip:#x} ({status})")))
        }
        other => Err(Stop::Failed(other.to_string())),
    }
}

/// Splits the command line into options, the image, and the guest's arguments.
fn split(args: &[OsString]) -> Result<(&[OsString], &OsStr, &[OsString]), Stop> {
    for (index, arg) in args.iter().enumerate() {
        let (options, rest) = args.split_at(index);
        let rest = match arg.to_str() {
            Some("--") => &rest[1..],
            Some("--help") => return Err(Stop::Usage(Vec::new())),
            Some("--version") => return Err(Stop::Version),
            _ if arg.as_bytes().starts_with(b"-") => continue,
            _ => rest,
        };
        let Some((kernel, guest_args)) = rest.split_first() else { break };
        return Ok((options, kernel, guest_args));
    }
    Err(Stop::Usage(vec!["Missing KERNEL operand".to_owned()]))
}

/// The devices that an image declares, if it is one that can be run.
fn manifest(tender: &Tender, file: &ImageFile) -> Result<Manifest, String> {
    let name = file.path().display();
    let notes = Notes::read(file).map_err(|error| format!("{name}: {error}"))?;
    match notes.abi {
        None => return Err(format!("{name}: No Solo5 ABI information found in executable")),
        Some((target, version)) if target == tender.target && tender.versions.contains(&version) => {}
        Some((target, version)) if target == tender.target => {
            return Err(format!("{name}: Executable requests unsupported ABI version {version}"));
        }
        Some(_) => return Err(format!("{name}: Executable is not for the {} target", tender.name)),
    }
    match notes.manifest {
        None => Err(format!("{name}: No Solo5 manifest found in executable")),
        Some(Err(error @ ManifestError::TooShort { .. })) => {
            Err(format!("{name}: invalid executable: note does not fall within valid size: {error}"))
        }
        Some(Err(error)) => Err(format!("{name}: Solo5 manifest is invalid: {error}")),
        Some(Ok(manifest)) => Ok(manifest),
    }
}

/// Every device that is declared must be there.
fn check_attached(tender: &Tender, manifest: &Manifest, options: &Options) -> Result<(), Stop> {
    let mut complete = true;
    for device in manifest.devices() {
        let name = device.name.to_string();
        let attached = match device.kind {
            DeviceKind::Block => options.disks.contains_key(&name),
            DeviceKind::Net => options.nets.contains_key(&name),
            DeviceKind::Unknown(_) => false,
        };
        if !attached {
            complete = false;
            let kind = device.kind.solo5_name();
            warn(tender.name, &format!("Device '{name}' of type {kind} declared but not attached."));
        }
    }
    if complete {
        Ok(())
    } else {
        Err(Stop::Failed("All declared devices must be attached. See --help for syntax.".to_owned()))
    }
}

/// The monitor's errors in Solo5's words, where it has some.
fn explain(error: &Error, path: &Path, interfaces: &[(String, String)]) -> Stop {
    let name = path.display();
    Stop::Failed(match error {
        Error::OpenImage { .. } | Error::ImageNotAFile { .. } => open_message(path, error),
        Error::Image { source, .. } => format!("{name}: invalid executable: {}", chain(source)),
        Error::Memory { source, .. } => format!("{name}: invalid executable: {}", chain(source)),
        Error::WritableExecutable { index, .. } => {
            format!("{name}: invalid executable: phdr[{index}] requests WRITE and EXEC permissions")
        }
        Error::CommandLine(CommandLineError::TooLong { .. }) => {
            format!("Guest command line too long (max={} characters)", abi::CMDLINE_SIZE - 1)
        }
        Error::Device(DeviceError::Net(error)) => {
            let of = |(interface, _): &&(String, String)| error.name.as_ref() == Some(interface);
            let Some((interface, option)) = interfaces.iter().find(of) else {
                return Stop::Failed(format!("Could not attach interface: {}", chain(error)));
            };
            return Stop::Usage(vec![
                format!("Could not attach interface: {interface}: {}", tap_reason(&error.kind)),
                format!("Invalid option: `{option}'"),
            ]);
        }
        other => chain(other),
    })
}

/// Why a tap cannot be attached: as the system says it, where Solo5's tender does.
fn tap_reason(kind: &nabla_monitor::TapErrorKind) -> String {
    use nabla_monitor::TapErrorKind as Kind;
    use rustix::io::Errno;
    let errno = match kind {
        Kind::NotFound => Errno::NOENT,
        Kind::Down => Errno::NETDOWN,
        Kind::Busy => Errno::BUSY,
        Kind::NotPermitted => Errno::PERM,
        Kind::Name => Errno::NAMETOOLONG,
        Kind::NotATap => Errno::INVAL,
        Kind::DevNetTun { source }
        | Kind::Open { source }
        | Kind::Descriptor { source }
        | Kind::Mtu { source } => {
            return strerror(source);
        }
        other => return other.to_string(),
    };
    strerror(&errno.into())
}
