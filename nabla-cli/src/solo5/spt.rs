//! `solo5-spt`: runs a guest as Solo5's tender of that name does.

use super::{VERSION, elftool::open_message, notes::Notes, spt_options::Options, strerror, warn};
use crate::output;
use nabla_core::{CommandLineError, DeviceKind, Manifest, abi};
use nabla_monitor::{Disk, Error, ImageFile, Runtime};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// The name of the program.
pub const NAME: &str = "solo5-spt";

/// Why no guest runs.
#[derive(Debug)]
pub enum Stop {
    /// Something is wrong.
    Failed(String),
    /// The command line is wrong: the usage is shown behind the messages.
    Usage(Vec<String>),
    /// The version was asked for.
    Version,
}

/// Becomes the guest. Returns the exit status when that does not happen.
pub fn main(args: &[OsString]) -> u8 {
    let Err(stop) = run(args.get(1..).unwrap_or_default());
    match stop {
        Stop::Failed(message) => warn(NAME, &message),
        Stop::Usage(messages) => {
            messages.iter().for_each(|message| warn(NAME, message));
            output::complain(&usage());
        }
        Stop::Version => {
            output::complain(&format!(
                "{NAME} tender, version {VERSION}\nABI version {}",
                abi::spt::VERSIONS.end()
            ));
            return 0;
        }
    }
    1
}

fn usage() -> String {
    format!(
        "usage: {NAME} [ CORE OPTIONS ] [ -- ] KERNEL [ ARGS ]\n\
         KERNEL is the guest's image, ARGS are the guest's arguments.\n\
         Core options:\n\
         \x20   --mem=MIB (memory of the guest in MiB; 512)\n\
         \x20   --block:NAME=PATH (attach the file or block device PATH as block device NAME)\n\
         \x20   --block-sector-size:NAME=SIZE (bytes of its blocks: a power of two from 512 on)\n\
         \x20   --net:NAME=IFACE | @NN (attach the tap IFACE, or descriptor NN, as network device NAME)\n\
         \x20   --net-mac:NAME=HWADDR (its MAC address)\n\
         \x20   --x-exec-heap (let the guest execute heap and stack; dangerous)\n\
         \x20   --help (show this)\n\
         \x20   --version"
    )
}

fn run(args: &[OsString]) -> Result<std::convert::Infallible, Stop> {
    let (options, kernel, guest_args) = split(args)?;
    let path = Path::new(kernel);
    let manifest = manifest(path).map_err(Stop::Failed)?;
    let options = Options::parse(options, &manifest)?;
    if options.exec_heap {
        let warning = "WARNING: The use of --x-exec-heap is dangerous and not recommended";
        warn(NAME, &format!("{warning}: the guest can execute its heap and stack."));
    }
    options.check_disks()?;
    check_attached(&manifest, &options)?;

    let mut guest = Runtime::new()
        .guest(path)
        .memory(options.memory)
        .exec_heap(options.exec_heap)
        .launch_failure(format!("{NAME}: "), 1)
        .args(guest_args.iter().map(|arg| arg.as_bytes()));
    let mut interfaces = Vec::new();
    for (name, disk) in options.disks {
        // Solo5's tender does not lock.
        let block_size = options.block_sizes.get(&name).copied().unwrap_or(Options::BLOCK_SIZE);
        guest = guest.block(name, Disk::from_fd(disk.descriptor).block_size(block_size.into()).unlocked());
    }
    for (name, net) in options.nets {
        let tap = match options.macs.get(&name) {
            Some(mac) if mac.0 != [0; 6] => net.tap.mac(*mac),
            _ => net.tap,
        };
        guest = guest.net_device(name, tap);
        interfaces.push((net.interface, net.option));
    }
    Err(explain(&guest.exec(), path, &interfaces))
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
fn manifest(path: &Path) -> Result<Manifest, String> {
    let name = path.display();
    let file = ImageFile::open(path).map_err(|error| open_message(path, &error))?;
    let notes = Notes::read(&file).map_err(|error| format!("{name}: {error}"))?;
    match notes.abi {
        None => return Err(format!("{name}: No Solo5 ABI information found in executable")),
        Some((abi::TARGET_SPT, version)) if abi::spt::VERSIONS.contains(&version) => {}
        Some((abi::TARGET_SPT, version)) => {
            return Err(format!("{name}: Executable requests unsupported ABI version {version}"));
        }
        Some(_) => return Err(format!("{name}: Executable is not for the solo5-spt target")),
    }
    match notes.manifest {
        None => Err(format!("{name}: No Solo5 manifest found in executable")),
        Some(Err(error)) => Err(format!("{name}: Solo5 manifest is invalid: {error}")),
        Some(Ok(manifest)) => Ok(manifest),
    }
}

/// Every device that is declared must be there.
fn check_attached(manifest: &Manifest, options: &Options) -> Result<(), Stop> {
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
            warn(NAME, &format!("Device '{name}' of type {kind} declared but not attached."));
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
        Error::Image { source, .. } => format!("{name}: invalid executable: {source}"),
        Error::Memory { source, .. } => format!("{name}: invalid executable: {source}"),
        Error::WritableExecutable { index, .. } => {
            format!("{name}: invalid executable: phdr[{index}] requests WRITE and EXEC permissions")
        }
        Error::CommandLine(CommandLineError::TooLong { .. }) => {
            format!("Guest command line too long (max={} characters)", abi::CMDLINE_SIZE - 1)
        }
        Error::Tap(error) => {
            let of = |(interface, _): &&(String, String)| error.name.as_ref() == Some(interface);
            let Some((interface, option)) = interfaces.iter().find(of) else {
                return Stop::Failed(format!("Could not attach interface: {error}"));
            };
            return Stop::Usage(vec![
                format!("Could not attach interface: {interface}: {}", tap_reason(&error.kind)),
                format!("Invalid option: `{option}'"),
            ]);
        }
        other => other.to_string(),
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
