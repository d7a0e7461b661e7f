//! What `--disk` takes, and what it has in common with `--net`.
//!
//! Both are `[NAME=]WHAT[,OPTION]...`. NAME counts only when it consists of letters and digits, as every device's
//! name does, so that `./a=b.img` is a path; a comma that belongs to WHAT is written twice.

use crate::system;
use anyhow::Context;
use nabla_monitor::{BlockDevice, NetDevice, Tap};
use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::RawFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
};

/// A value of `--disk`: `[NAME=]PATH[,ro][,block-size=N]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// The name that the guest has for it; its only disk without one.
    pub name: Option<String>,
    /// The file or block device.
    pub path: PathBuf,
    /// Whether it is opened for reading only.
    pub read_only: bool,
    /// Bytes of a block, where that was said.
    pub block_size: Option<u32>,
}

impl DiskSpec {
    /// Parses the value of `--disk`.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        let Parts { name, subject, options } = Parts::of(text);
        if subject.is_empty() {
            return Err("the path is missing; expected [NAME=]PATH[,ro][,block-size=N]".to_owned());
        }
        let path = OsString::from_vec(subject).into();
        let mut disk = Self { name, path, read_only: false, block_size: None };
        for option in options {
            match option.split_once('=') {
                None if option == "ro" => disk.read_only = true,
                Some(("block-size", size)) => {
                    let size =
                        size.parse().map_err(|_| format!("block-size '{size}' is not a number of bytes"))?;
                    disk.block_size = Some(size);
                }
                _ => {
                    return Err(format!(
                        "a disk has no option '{option}', only ro and block-size=N; a comma in its path is written twice"
                    ));
                }
            }
        }
        Ok(disk)
    }

    /// What the monitor takes.
    pub fn device(&self) -> BlockDevice {
        let mut disk = BlockDevice::new(&self.path);
        if self.read_only {
            disk = disk.read_only();
        }
        match self.block_size {
            Some(bytes) => disk.block_size(bytes),
            None => disk,
        }
    }
}

/// Where a tap is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapSource {
    /// An interface that exists.
    Name(String),
    /// A descriptor that nabla was started with: `@N`.
    Descriptor(RawFd),
}

impl TapSource {
    /// Parses an interface's name or `@N`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix('@') {
            None if text.is_empty() => Err("the tap is missing".to_owned()),
            None => Ok(Self::Name(text.to_owned())),
            Some(number) => match number.parse() {
                // `parse` would take a sign.
                Ok(number) if text.bytes().skip(1).all(|byte| byte.is_ascii_digit()) => {
                    Ok(Self::Descriptor(number))
                }
                _ => Err(format!("'{text}' is not the number of a descriptor")),
            },
        }
    }

    /// What the monitor takes.
    pub fn device(&self) -> anyhow::Result<NetDevice> {
        match self {
            Self::Name(name) => Ok(NetDevice::from(name.as_str())),
            Self::Descriptor(number) => {
                let descriptor = system::inherited_descriptor(*number)
                    .with_context(|| format!("descriptor {number}, which --net names, cannot be used"))?;
                Ok(NetDevice::from(Tap::from_fd(descriptor)?))
            }
        }
    }
}

impl std::fmt::Display for TapSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Descriptor(number) => write!(f, "@{number}"),
        }
    }
}

/// A value taken apart.
pub struct Parts {
    /// The name that the guest has for it.
    pub name: Option<String>,
    /// What is attached.
    pub subject: Vec<u8>,
    /// What follows it.
    pub options: Vec<String>,
}

impl Parts {
    /// Takes a value apart.
    pub fn of(text: &OsStr) -> Self {
        let mut fields = split_at_commas(text.as_bytes()).into_iter();
        let first = fields.next().unwrap_or_default();
        let (name, subject) = match device_name(&first) {
            Some(name) => (Some(name.to_owned()), first[name.len() + 1..].to_vec()),
            None => (None, first),
        };
        let options = fields.map(|field| String::from_utf8_lossy(&field).into_owned()).collect();
        Self { name, subject, options }
    }
}

/// Splits at single commas; two of them are one that is part of the text.
fn split_at_commas(text: &[u8]) -> Vec<Vec<u8>> {
    let mut fields = vec![Vec::new()];
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&b',').is_none() {
            fields.push(Vec::new());
        } else if let Some(field) = fields.last_mut() {
            field.push(byte);
        }
    }
    fields
}

/// What stands before the first `=`, if that can be the name of a device.
pub fn device_name(text: &[u8]) -> Option<&str> {
    let end = text.iter().position(|&byte| byte == b'=')?;
    let name = &text[..end];
    let valid =
        (1..=nabla_core::abi::mft::NAME_MAX).contains(&end) && name.iter().all(u8::is_ascii_alphanumeric);
    if valid { std::str::from_utf8(name).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(text: &str) -> Result<DiskSpec, String> {
        DiskSpec::parse(OsStr::new(text))
    }

    #[test]
    fn disks_parse() {
        for (text, name, path, read_only, block_size) in [
            ("disk.img", None, "disk.img", false, None),
            ("storage=disk.img", Some("storage"), "disk.img", false, None),
            ("disk.img,ro", None, "disk.img", true, None),
            ("a=/dev/sda,ro,block-size=4096", Some("a"), "/dev/sda", true, Some(4096)),
            ("disk.img,block-size=2048,ro", None, "disk.img", true, Some(2048)),
            // A path that looks like a name, and commas.
            ("./a=b.img", None, "./a=b.img", false, None),
            ("a=b=c.img", Some("a"), "b=c.img", false, None),
            ("my-disk=b.img", None, "my-disk=b.img", false, None),
            ("=b.img", None, "=b.img", false, None),
            ("a,,b.img", None, "a,b.img", false, None),
            ("x=a,,b,,.img,ro", Some("x"), "a,b,.img", true, None),
            ("a,,,ro", None, "a,", true, None),
            (",,ro", None, ",ro", false, None),
        ] {
            let name = name.map(str::to_owned);
            assert_eq!(disk(text), Ok(DiskSpec { name, path: path.into(), read_only, block_size }), "{text}");
        }
    }

    #[test]
    fn names_are_letters_and_digits_of_at_most_67_characters() {
        let longest = "n".repeat(67);
        assert_eq!(disk(&format!("{longest}=x")).unwrap().name, Some(longest.clone()));
        assert_eq!(disk(&format!("{longest}n=x")).unwrap().name, None);
    }

    #[test]
    fn paths_need_not_be_utf8() {
        let spec = DiskSpec::parse(OsStr::from_bytes(b"a=\xff,,,ro")).unwrap();
        assert_eq!(spec.path.as_os_str().as_bytes(), b"\xff,");
        assert!(spec.read_only);
    }

    #[test]
    fn bad_disks_say_what_is_wrong() {
        for (text, part) in [
            ("", "path is missing"),
            ("storage=", "path is missing"),
            (",ro", "path is missing"),
            ("disk.img,rw", "no option 'rw'"),
            ("disk.img,", "no option ''"),
            ("disk.img,ro=1", "no option 'ro=1'"),
            ("disk.img,block-size", "no option 'block-size'"),
            ("disk.img,block-size=4k", "'4k' is not a number"),
            ("disk.img,block-size=-1", "'-1' is not a number"),
        ] {
            let error = disk(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
