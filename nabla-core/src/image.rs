//! What is in the file of a guest.

use crate::{
    abi::{self, net1},
    elf::{Elf, ElfError, OddHeader, PT_INTERP, PT_NOTE, PageRange, Segment, symbols},
    legacy,
    manifest::{DeviceKind, DeviceName, Manifest, ManifestError},
    note::{NoteError, Notes},
    size::ByteSize,
    source::{ReadAt, SourceError, read_vec},
    target::{Abi, target_name},
};
use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;
use thiserror::Error;

/// Memory that Solo5's bindings want free after the image, in bytes; they refuse to start with less.
const BINDINGS_MINIMUM: u64 = 512 << 10;
/// Start of an `.interp` that the host kernel will not find.
const NONEXISTENT: &[u8] = b"/nonexistent/";

/// How the ABI of an image was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AbiSource {
    /// The image's ABI1 note says it.
    Note,
    /// There is no note. These tell-tales were found in the code.
    Guess {
        /// One sentence each.
        reasons: Vec<String>,
    },
    /// The caller said it.
    Caller,
}

/// Something unusual about an image that can still be run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A segment can be written and executed.
    WritableExecutable {
        /// Index of its program header.
        index: u16,
    },
    /// A program header that is not loaded has impossible sizes.
    OddHeader(OddHeader),
    /// There is no `.interp` that keeps the host kernel from executing the file if it were started directly.
    HostExecutable,
    /// A second note of the same type is ignored.
    DuplicateNote,
    /// A device's name is one that Solo5's tools would not make.
    DeviceName(DeviceName),
    /// Two devices of a kind have this name; the guest can never find the second by it.
    DuplicateDevice(DeviceName),
    /// A device has an unknown type; the guest cannot run.
    UnknownDevice(DeviceName, u32),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WritableExecutable { index } => write!(f, "segment {index} is writable and executable"),
            Self::OddHeader(OddHeader { index, kind, file_size, memory_size }) => write!(
                f,
                "program header {index} ({}) has an odd size: {file_size:#x} bytes in the file, {memory_size:#x} in memory",
                match *kind {
                    PT_INTERP => "PT_INTERP".to_string(),
                    PT_NOTE => "PT_NOTE".to_string(),
                    kind => alloc::format!("type {kind:#x}"),
                }
            ),
            Self::HostExecutable => f.write_str(
                "its .interp is not /nonexistent/solo5/, so the host kernel would execute it if it were started directly",
            ),
            Self::DuplicateNote => f.write_str("it has two notes of the same type; the first one counts"),
            Self::DeviceName(name) => write!(f, "device name '{name}' is not alphanumeric"),
            Self::DuplicateDevice(name) => write!(f, "two devices are called '{name}'"),
            Self::UnknownDevice(name, kind) => write!(f, "device '{name}' has the unknown type {kind}"),
        }
    }
}

/// What can be wrong with an image.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The ELF file.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The notes.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The ABI is one of Solo5's that this project does not run.
    #[error("it is for Solo5's {name} target (abi_target {target}), and only hvt and spt guests can be run", name = target_name(*.target))]
    Target {
        /// Value of the field.
        target: u32,
    },
    /// The version of the ABI is unknown.
    #[error("its {name} ABI has version {version} (abi_version), and only 1 and 2 are known", name = target_name(*.target))]
    Version {
        /// Value of `abi_target`.
        target: u32,
        /// Value of `abi_version`.
        version: u32,
    },
    /// There is no ABI note, and nothing tells what the file is.
    #[error(
        "it has no Solo5 ABI note and no other sign of a unikernel: is it an ordinary program? (an ABI can be forced)"
    )]
    Unidentified,
    /// There is an ABI note and no manifest.
    #[error("it has no Solo5 manifest note (MFT1), which its ABI {abi} requires")]
    NoManifest {
        /// The ABI.
        abi: Abi,
    },
    /// The ABI that the caller asked for contradicts the note.
    #[error("its ABI note says {found}, and {wanted} was asked for")]
    AbiMismatch {
        /// What the note says.
        found: Abi,
        /// What the caller said.
        wanted: Abi,
    },
}

/// What is in the file of a guest.
///
/// Only headers and notes are read, so the cost does not depend on the size of the file. When there is no ABI note,
/// the code is read too: half a MiB around the entry point, and up to 32 MiB if that tells nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    abi: Abi,
    abi_source: AbiSource,
    elf: Elf,
    manifest: Manifest,
    net_note: Option<net1::Info>,
    warnings: Vec<Warning>,
}

impl Image {
    /// Reads and checks an image.
    ///
    /// # Errors
    ///
    /// The first thing found wrong, by field and value.
    pub fn parse<S: ReadAt + ?Sized>(source: &S) -> Result<Self, ImageError> {
        Self::parse_with(source, None)
    }

    /// The same for a caller who knows the ABI. Needed for images without an ABI note where the guess is wrong.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`], and [`ImageError::AbiMismatch`] when the image has a note that says something else.
    pub fn parse_as<S: ReadAt + ?Sized>(source: &S, abi: Abi) -> Result<Self, ImageError> {
        Self::parse_with(source, Some(abi))
    }

    fn parse_with<S: ReadAt + ?Sized>(source: &S, wanted: Option<Abi>) -> Result<Self, ImageError> {
        let elf = Elf::parse(source)?;
        let notes = Notes::read(source, &elf.notes)?;
        let (abi, abi_source) = match (notes.abi, wanted) {
            (Some(info), wanted) => {
                let found = abi_of_note(info)?;
                match wanted.filter(|&wanted| wanted != found) {
                    Some(wanted) => return Err(ImageError::AbiMismatch { found, wanted }),
                    None => (found, AbiSource::Note),
                }
            }
            (None, Some(wanted)) => (wanted, AbiSource::Caller),
            (None, None) => {
                let guess = legacy::guess(source, &elf).map_err(ElfError::from)?;
                let (abi, reasons) = guess.ok_or(ImageError::Unidentified)?;
                (abi, AbiSource::Guess { reasons })
            }
        };
        let manifest = match &notes.manifest {
            Some(bytes) => Manifest::parse(bytes)?,
            None if abi.has_note() => return Err(ImageError::NoManifest { abi }),
            None => Manifest::new([])?,
        };
        let host_executable = !has_nonexistent_interp(source, &elf).map_err(ElfError::from)?;
        let warnings = warnings(&elf, &notes, &manifest, host_executable);
        Ok(Self { abi, abi_source, elf, manifest, net_note: notes.net, warnings })
    }

    /// The ABI.
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.abi
    }

    /// How the ABI was found.
    #[must_use]
    pub fn abi_source(&self) -> &AbiSource {
        &self.abi_source
    }

    /// Address of the first instruction.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.elf.entry
    }

    /// What is loaded: in ascending order, without overlap.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.elf.segments
    }

    /// The pages of the image with their permissions: see [`Elf::page_ranges`].
    #[must_use]
    pub fn page_ranges(&self) -> Vec<PageRange> {
        self.elf.page_ranges()
    }

    /// First page-aligned address after everything that is loaded: the smallest memory size into which the
    /// image fits at all.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.elf.end()
    }

    /// The smallest memory with which Solo5's bindings start: the image and 512 KiB for heap and stack, rounded up
    /// to the ABI's [unit](Abi::memory_unit).
    #[must_use]
    pub fn minimum_memory(&self) -> ByteSize {
        ByteSize::bytes((self.end() + BINDINGS_MINIMUM).next_multiple_of(self.abi.memory_unit().as_u64()))
    }

    /// The devices that the guest declares. Empty for ABIs without a manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the guest's note [NET1](net1) says about network arguments; `None` without the note.
    #[must_use]
    pub fn net_note(&self) -> Option<net1::Info> {
        self.net_note
    }

    /// Which of `names` the symbol table (`.symtab`) of the image's file defines as functions or variables: one answer
    /// for each of these different names. `source` is what the image was parsed from.
    ///
    /// All answers are no when the file has no symbol table or one that makes no sense, and for an empty name. The cost
    /// is linear in the table and its names. What follows the first [`MAX_SECTIONS`](crate::elf::MAX_SECTIONS)
    /// section headers, [`MAX_SYMBOLS_SIZE`](crate::elf::MAX_SYMBOLS_SIZE) bytes of the table and
    /// [`MAX_NAMES_SIZE`](crate::elf::MAX_NAMES_SIZE) bytes of names is not looked at.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn find_symbols<S: ReadAt + ?Sized, const N: usize>(
        &self,
        source: &S,
        names: [&str; N],
    ) -> Result<[bool; N], SourceError> {
        symbols::find(source, self.elf.sections, names)
    }

    /// What is unusual.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

fn abi_of_note(info: abi::Abi1Info) -> Result<Abi, ImageError> {
    match (info.abi_target, info.abi_version) {
        (abi::TARGET_HVT, 1) => Ok(Abi::HvtV1),
        (abi::TARGET_HVT, 2) => Ok(Abi::HvtV2),
        (abi::TARGET_SPT, 1) => Ok(Abi::SptV1),
        (abi::TARGET_SPT, 2) => Ok(Abi::SptV2),
        (target @ (abi::TARGET_HVT | abi::TARGET_SPT), version) => {
            Err(ImageError::Version { target, version })
        }
        (target, _) => Err(ImageError::Target { target }),
    }
}

fn has_nonexistent_interp<S: ReadAt + ?Sized>(source: &S, elf: &Elf) -> Result<bool, SourceError> {
    match elf.interp {
        Some(interp) if interp.size >= NONEXISTENT.len() as u64 => {
            Ok(read_vec(source, interp.offset, NONEXISTENT.len())? == NONEXISTENT)
        }
        _ => Ok(false),
    }
}

fn warnings(elf: &Elf, notes: &Notes, manifest: &Manifest, host_executable: bool) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = elf
        .segments
        .iter()
        .filter(|segment| segment.permissions.is_writable_and_executable())
        .map(|segment| Warning::WritableExecutable { index: segment.index })
        .collect();
    // Linkers give the section of an expected interpreter sizes that mean nothing: rumprun's and MirageOS's images all have
    // such a header. The kernel does not execute those, either.
    let counts = |header: &&OddHeader| header.kind != PT_INTERP || host_executable;
    warnings.extend(elf.odd_headers.iter().filter(counts).copied().map(Warning::OddHeader));
    if host_executable {
        warnings.push(Warning::HostExecutable);
    }
    if notes.duplicate {
        warnings.push(Warning::DuplicateNote);
    }
    let mut seen: Vec<(DeviceKind, DeviceName)> = Vec::new();
    for device in manifest.devices() {
        if !device.name.is_alphanumeric() {
            warnings.push(Warning::DeviceName(device.name.clone()));
        }
        if let DeviceKind::Unknown(kind) = device.kind {
            warnings.push(Warning::UnknownDevice(device.name.clone(), kind));
        }
        let key = (device.kind, device.name);
        if seen.contains(&key) {
            warnings.push(Warning::DuplicateDevice(key.1));
        } else {
            seen.push(key);
        }
    }
    warnings
}
