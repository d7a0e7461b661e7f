//! The options of Solo5's tenders. Later ones replace earlier ones of the same name, and what follows a number is
//! ignored, as by the original.

use super::strerror;
use crate::run::device::{TapSource, device_name};
use nabla_core::{ByteSize, DeviceKind, Manifest};
use nabla_monitor::{DEFAULT_BLOCK_SIZE, DEFAULT_MEMORY, MacAddress, NetDevice, Tap};
use rustix::fs::{SeekFrom, seek};
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::OpenOptions,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

/// Why no guest runs.
#[derive(Debug)]
pub enum Stop {
    /// Something is wrong.
    Failed(String),
    /// The command line is wrong: the usage is shown after the messages.
    Usage(Vec<String>),
    /// The version was asked for.
    Version,
}

/// What the options say, by the names of devices.
#[derive(Debug)]
pub struct Options {
    pub memory: ByteSize,
    /// Whether the tender has `--x-exec-heap`.
    may_exec_heap: bool,
    pub exec_heap: bool,
    pub disks: BTreeMap<String, OpenedDisk>,
    pub block_sizes: BTreeMap<String, u16>,
    pub nets: BTreeMap<String, Net>,
    pub macs: BTreeMap<String, MacAddress>,
    /// Whether the tender has the three below.
    debug: bool,
    pub gdb: bool,
    pub gdb_port: u16,
    pub core_directory: Option<PathBuf>,
}

/// A disk that is open for reading and writing.
#[derive(Debug)]
pub struct OpenedDisk {
    pub descriptor: OwnedFd,
    /// In bytes.
    pub capacity: u64,
}

/// A network interface, and the option that names it.
#[derive(Debug)]
pub struct Net {
    pub tap: NetDevice,
    pub interface: String,
    pub option: String,
}

impl Options {
    /// Parses the options in front of the image and opens the disks.
    pub fn parse(
        words: &[OsString],
        manifest: &Manifest,
        may_exec_heap: bool,
        debug: bool,
    ) -> Result<Self, Stop> {
        let mut options = Self {
            memory: DEFAULT_MEMORY,
            may_exec_heap,
            exec_heap: false,
            disks: BTreeMap::new(),
            block_sizes: BTreeMap::new(),
            nets: BTreeMap::new(),
            macs: BTreeMap::new(),
            debug,
            gdb: false,
            gdb_port: 1234,
            core_directory: None,
        };
        for word in words {
            options.take(word, manifest)?;
        }
        Ok(options)
    }

    fn take(&mut self, word: &OsStr, manifest: &Manifest) -> Result<(), Stop> {
        let invalid = |message: Option<String>| {
            let option = format!("Invalid option: `{}'", word.display());
            Stop::Usage(message.into_iter().chain([option]).collect())
        };
        let declared = |kind, name: &str| match manifest.find(kind, name) {
            Some(_) => Ok(()),
            None => Err(invalid(Some(format!("Resource not declared in manifest: '{name}'")))),
        };
        let bytes = word.as_bytes();
        if let Some(text) = bytes.strip_prefix(b"--mem=") {
            let mebibytes = leading_number(text).and_then(|number| number.checked_mul(1 << 20));
            let size = mebibytes.filter(|&size| size > 0);
            self.memory = size
                .map(ByteSize::bytes)
                .ok_or_else(|| Stop::Failed("Malformed argument to --mem".to_owned()))?;
        } else if let Some((name, path)) = named(bytes, b"--block:") {
            declared(DeviceKind::Block, name)?;
            self.disks.insert(name.to_owned(), open_disk(Path::new(path)).map_err(Stop::Failed)?);
        } else if let Some((name, size)) = named(bytes, b"--block-sector-size:") {
            let size = leading_number(size.as_bytes()).ok_or_else(|| invalid(None))?;
            let size = u16::try_from(size).ok().filter(|&size| nabla_core::block_size_is_valid(size.into()));
            let size = size.ok_or_else(|| {
                invalid(Some("Block size must be a multiple of 2 greater than or equal 512".to_owned()))
            })?;
            declared(DeviceKind::Block, name)?;
            self.block_sizes.insert(name.to_owned(), size);
        } else if let Some((name, interface)) = named(bytes, b"--net:") {
            declared(DeviceKind::Net, name)?;
            let interface = interface.to_string_lossy().into_owned();
            let tap = tap(&interface).map_err(|error| {
                invalid(Some(format!("Could not attach interface: {interface}: {}", strerror(&error))))
            })?;
            let option = word.to_string_lossy().into_owned();
            self.nets.insert(name.to_owned(), Net { tap, interface, option });
        } else if let Some((name, mac)) = named(bytes, b"--net-mac:") {
            let mac = mac.to_str().and_then(mac_address).ok_or_else(|| invalid(None))?;
            declared(DeviceKind::Net, name)?;
            self.macs.insert(name.to_owned(), mac);
        } else if self.may_exec_heap && bytes == b"--x-exec-heap" {
            self.exec_heap = true;
        } else if self.debug && bytes == b"--gdb" {
            self.gdb = true;
        } else if let Some(port) = bytes.strip_prefix(b"--gdb-port=").filter(|_| self.debug) {
            let port = leading_number(port).and_then(|port| u16::try_from(port).ok());
            self.gdb_port =
                port.ok_or_else(|| Stop::Failed("Malformed argument to --gdb-port".to_owned()))?;
        } else if let Some(path) = bytes.strip_prefix(b"--dumpcore=").filter(|_| self.debug) {
            self.core_directory = Some(OsStr::from_bytes(path).into());
        } else {
            return Err(invalid(None));
        }
        Ok(())
    }

    /// Checks that every disk is a whole number of blocks.
    pub fn check_disks(&self) -> Result<(), Stop> {
        for (name, disk) in &self.disks {
            let size = self.block_sizes.get(name).copied().unwrap_or(DEFAULT_BLOCK_SIZE);
            let problem = if !disk.capacity.is_multiple_of(size.into()) {
                format!("{name}: Backing storage size must be block aligned ({size} bytes)")
            } else if disk.capacity < size.into() {
                format!("{name}: Backing storage must be at least 1 block ({size} bytes) in size")
            } else {
                continue;
            };
            return Err(Stop::Failed(problem));
        }
        Ok(())
    }
}

/// The name and the value of an option `PREFIX:NAME=VALUE`; the value is not empty.
fn named<'a>(word: &'a [u8], prefix: &[u8]) -> Option<(&'a str, &'a OsStr)> {
    let rest = word.strip_prefix(prefix)?;
    let name = device_name(rest)?;
    let value = &rest[name.len() + 1..];
    (!value.is_empty()).then(|| (name, OsStr::from_bytes(value)))
}

/// The decimal number with which a text starts, after white space and a sign, as C's scanf reads it.
fn leading_number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

fn open_disk(path: &Path) -> Result<OpenedDisk, String> {
    let name = path.display();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| format!("Could not open block device: {name}: {}", strerror(&error)))?;
    let capacity = seek(&file, SeekFrom::End(0))
        .map_err(|errno| format!("{name}: Could not determine capacity: {}", strerror(&errno.into())))?;
    Ok(OpenedDisk { descriptor: file.into(), capacity })
}

fn tap(interface: &str) -> io::Result<NetDevice> {
    match TapSource::parse(interface) {
        Ok(TapSource::Name(name)) => Ok(name.into()),
        Ok(TapSource::Descriptor(number)) => {
            let descriptor = crate::system::inherited_descriptor(number)?;
            Ok(Tap::from_fd(descriptor).map_err(io::Error::other)?.into())
        }
        Err(_) => Err(rustix::io::Errno::INVAL.into()),
    }
}

/// Six groups of one or two hexadecimal digits.
fn mac_address(text: &str) -> Option<MacAddress> {
    let mut bytes = [0; 6];
    let mut groups = text.split(':');
    for byte in &mut bytes {
        let group = groups.next().filter(|group| group.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(group, 16).ok().filter(|_| group.len() <= 2)?;
    }
    groups.next().is_none().then_some(MacAddress(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, Vec<String>> {
        let manifest =
            Manifest::new([(DeviceKind::Block, "storage"), (DeviceKind::Net, "service0")]).unwrap();
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Options::parse(&words, &manifest, true, true).map_err(|stop| match stop {
            Stop::Failed(message) => vec![message],
            Stop::Usage(messages) => messages,
            Stop::Version => Vec::new(),
        })
    }

    #[test]
    fn later_options_replace_earlier_ones() {
        let options = parse(&[
            "--mem=64",
            "--mem= +2M",
            "--block-sector-size:storage=4096",
            "--block-sector-size:storage=1024",
            "--net-mac:service0=2:0:0:0:0:1",
            "--net-mac:service0=02:00:00:00:00:ff",
            "--net:service0=tap8",
            "--net:service0=tap9",
        ])
        .unwrap();
        assert_eq!(options.memory, ByteSize::mib(2));
        assert_eq!(options.block_sizes["storage"], 1024);
        assert_eq!(options.macs["service0"], MacAddress([2, 0, 0, 0, 0, 255]));
        assert_eq!(options.nets["service0"].interface, "tap9");
    }

    #[test]
    fn bad_options_are_told_as_the_original_does() {
        for (word, messages) in [
            ("--mem=0", &["Malformed argument to --mem"][..]),
            ("--mem=", &["Malformed argument to --mem"]),
            ("--mem=x", &["Malformed argument to --mem"]),
            ("--mem=-1", &["Malformed argument to --mem"]),
            ("--mem=99999999999999999", &["Malformed argument to --mem"]),
            ("--mem", &["Invalid option: `--mem'"]),
            ("-x", &["Invalid option: `-x'"]),
            ("--block:storage=", &["Invalid option: `--block:storage='"]),
            ("--block:my-disk=x", &["Invalid option: `--block:my-disk=x'"]),
            (
                "--block:disk=x",
                &["Resource not declared in manifest: 'disk'", "Invalid option: `--block:disk=x'"],
            ),
            (
                "--block:service0=x",
                &["Resource not declared in manifest: 'service0'", "Invalid option: `--block:service0=x'"],
            ),
            ("--block:storage=/none", &["Could not open block device: /none: No such file or directory"]),
            (
                "--block-sector-size:storage=521",
                &[
                    "Block size must be a multiple of 2 greater than or equal 512",
                    "Invalid option: `--block-sector-size:storage=521'",
                ],
            ),
            (
                "--net:storage=x",
                &["Resource not declared in manifest: 'storage'", "Invalid option: `--net:storage=x'"],
            ),
            (
                "--net:service0=@999999",
                &[
                    "Could not attach interface: @999999: Bad file descriptor",
                    "Invalid option: `--net:service0=@999999'",
                ],
            ),
            (
                "--net:service0=@x",
                &["Could not attach interface: @x: Invalid argument", "Invalid option: `--net:service0=@x'"],
            ),
            ("--net-mac:service0=1:2:3", &["Invalid option: `--net-mac:service0=1:2:3'"]),
        ] {
            assert_eq!(parse(&[word]).unwrap_err(), messages, "{word}");
        }
    }
}
