//! Core dumps: a guest's memory and registers as an ELF file that debuggers read together with the guest's image.
//!
//! The file is sparse: pages of zeros are holes, and what was never touched is not even read. It gets its name when it is
//! complete, and has none before where the file system can do that. Others may write in the directory: nothing that they
//! put there is opened, followed or replaced.

use super::{Debuggee, FloatRegisters, Registers, Stop};
use linux_raw_sys::elf_uapi::{NT_PRFPREG, NT_PRPSINFO, NT_PRSTATUS};
use nabla_core::{
    abi::PAGE_SIZE,
    elf::{PT_LOAD, PT_NOTE, PageRange},
};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, linkat, open, openat, unlinkat},
    io::Errno,
};
use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    ops::Range,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
};
use zerocopy::IntoBytes;

const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// Bytes of which it is asked at once whether they were touched.
const WINDOW: u64 = 256 << 20;
const PAGE: usize = 4096;
/// How many dumps of the same name there can be.
const NAMES: u32 = 1000;

/// Whose core it is.
#[derive(Debug, Clone)]
pub struct Subject {
    /// In the file's name, and what debuggers show.
    pub name: String,
    pub pid: u32,
    /// The signal that it got, or 0.
    pub signal: i32,
}

/// A directory for cores. It is opened once, and stays the same when another one gets its name.
#[derive(Debug)]
pub struct CoreDirectory {
    path: PathBuf,
    descriptor: OwnedFd,
}

impl CoreDirectory {
    pub fn open(path: &Path) -> io::Result<Self> {
        let descriptor = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path: path.to_owned(), descriptor })
    }

    /// Checks that cores can be written to it, before it is too late.
    pub fn check(&self) -> io::Result<()> {
        self.draft()?.file.write_all(b"\x7fELF")
    }

    /// A new file, which is nobody else's.
    fn draft(&self) -> io::Result<Draft<'_>> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(&self.descriptor, ".", flags | OFlags::TMPFILE, mode) {
            Ok(file) => return Ok(Draft { directory: self, file: file.into(), name: None }),
            // The file system has no files without a name.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        // There is never anything at such a name, unless somebody plays tricks; but not often.
        for _ in 0..16 {
            let name = format!(".core.{:016x}.tmp", RandomState::new().hash_one(0));
            let new = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            match openat(&self.descriptor, &name, new, mode) {
                Ok(file) => return Ok(Draft { directory: self, file: file.into(), name: Some(name) }),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(Errno::EXIST.into())
    }
}

/// A file that is being written.
struct Draft<'a> {
    directory: &'a CoreDirectory,
    file: File,
    /// One that it has meanwhile, where it must have one.
    name: Option<String>,
}

impl Draft<'_> {
    /// Gives it a name, if there is nothing at that name. By its descriptor, and not by the name that it has so far: there
    /// could be another file by now.
    fn link(&self, name: &str) -> Result<(), Errno> {
        let directory = &self.directory.descriptor;
        match linkat(&self.file, "", directory, name, AtFlags::EMPTY_PATH) {
            // Not without privileges.
            Err(Errno::NOENT | Errno::PERM) => {
                let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(CWD, path, directory, name, AtFlags::SYMLINK_FOLLOW)
            }
            result => result,
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = unlinkat(&self.directory.descriptor, name, AtFlags::empty());
        }
    }
}

/// Writes a core to `directory`, and returns its path. The guest stands still meanwhile.
pub fn write(directory: &CoreDirectory, subject: &Subject, guest: &mut dyn Debuggee) -> io::Result<PathBuf> {
    let written = directory.draft().and_then(|draft| {
        write_to(&draft.file, subject, guest)?;
        give_name(&draft, subject)
    });
    written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", directory.path.display())))
}

/// The same for a guest that runs, and goes on then.
pub fn write_of_running(
    directory: &CoreDirectory,
    name: &str,
    pid: u32,
    guest: &mut dyn Debuggee,
) -> io::Result<PathBuf> {
    let stop = guest.stop_now()?;
    if matches!(stop, Stop::Ended(_)) {
        return Err(super::thread::ended());
    }
    let subject = Subject { name: name.to_owned(), pid, signal: 0 };
    let written = write(directory, &subject, guest);
    guest.resume(stop.undisturbed())?;
    written
}

/// Links it under the first name that is free.
fn give_name(draft: &Draft<'_>, subject: &Subject) -> io::Result<PathBuf> {
    let base = format!("core.{}.{}", file_part(&subject.name), subject.pid);
    for number in 0..NAMES {
        let name = if number == 0 { base.clone() } else { format!("{base}.{number}") };
        match draft.link(&name) {
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
            Ok(()) => return Ok(draft.directory.path.join(name)),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("there are {NAMES} files called {base} already"),
    ))
}

fn file_part(name: &str) -> String {
    name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect()
}

fn write_to(file: &File, subject: &Subject, guest: &mut dyn Debuggee) -> io::Result<()> {
    let regions = guest.regions()?;
    let notes = notes(subject, &guest.registers()?, &guest.float_registers()?);
    let Headers { bytes: mut start, offsets, end } = headers(&regions, notes.len());
    start.extend_from_slice(&notes);
    file.write_all_at(&start, 0)?;
    for (region, &offset) in regions.iter().zip(&offsets) {
        copy(file, offset, region, guest)?;
    }
    file.set_len(end)?;
    Ok(())
}

fn copy(file: &File, offset: u64, region: &PageRange, guest: &mut dyn Debuggee) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut start = region.pages.start;
    while start < region.pages.end {
        let end = region.pages.end.min(start.saturating_add(WINDOW));
        for part in guest.touched(start..end)? {
            copy_part(file, offset, region, part, guest, &mut buffer)?;
        }
        check_kept(guest)?;
        start = end;
    }
    Ok(())
}

/// Nobody waits for the core of a guest that somebody wants to be gone.
fn check_kept(guest: &dyn Debuggee) -> io::Result<()> {
    let killed = || io::Error::new(io::ErrorKind::Interrupted, "the guest was killed meanwhile");
    guest.is_kept().then_some(()).ok_or_else(killed)
}

fn copy_part(
    file: &File,
    offset: u64,
    region: &PageRange,
    part: Range<u64>,
    guest: &mut dyn Debuggee,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut address = part.start;
    while address < part.end {
        check_kept(guest)?;
        let left = usize::try_from(part.end - address).unwrap_or(usize::MAX);
        let wanted = left.min(CHUNK);
        let read = guest.read(address, &mut buffer[..wanted])?;
        // What cannot be read is a hole.
        let step = if read == 0 { PAGE.min(wanted) } else { read };
        for (index, page) in buffer[..read].chunks(PAGE).enumerate() {
            if page.iter().any(|&byte| byte != 0) {
                let place = offset + (address - region.pages.start) + (index * PAGE) as u64;
                file.write_all_at(page, place)?;
            }
        }
        address += step as u64;
    }
    Ok(())
}

struct Headers {
    bytes: Vec<u8>,
    /// Where each region's bytes are.
    offsets: Vec<u64>,
    end: u64,
}

/// The ELF header and the program headers: one for the notes, one for each region.
fn headers(regions: &[PageRange], notes: usize) -> Headers {
    let count = u16::try_from(regions.len() + 1).unwrap_or(u16::MAX);
    let mut bytes = Vec::new();
    // Magic number, 64-bit, little-endian, version 1; ET_CORE, x86-64, version 1.
    bytes.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0");
    for word in [0, ELF_HEADER as u64, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0]);
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&[0; 6]);
    let mut header = |kind: u32, flags: u32, words: [u64; 6]| {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    };
    let notes_at = (ELF_HEADER + usize::from(count) * PROGRAM_HEADER) as u64;
    header(PT_NOTE, 0, [notes_at, 0, 0, notes as u64, 0, 4]);
    let mut next = (notes_at + notes as u64).next_multiple_of(PAGE_SIZE);
    let mut offsets = Vec::new();
    for PageRange { pages, permissions } in regions {
        let size = pages.end - pages.start;
        let flags = u32::from(permissions.read) << 2
            | u32::from(permissions.write) << 1
            | u32::from(permissions.execute);
        header(PT_LOAD, flags, [next, pages.start, 0, size, size, PAGE_SIZE]);
        offsets.push(next);
        next += size;
    }
    Headers { bytes, offsets, end: next }
}

fn notes(subject: &Subject, registers: &Registers, float: &FloatRegisters) -> Vec<u8> {
    let mut notes = Vec::new();
    note(&mut notes, NT_PRSTATUS, &status(subject, registers));
    note(&mut notes, NT_PRPSINFO, &information(subject));
    note(&mut notes, NT_PRFPREG, float.as_bytes());
    notes
}

fn note(notes: &mut Vec<u8>, kind: u32, content: &[u8]) {
    let size = u32::try_from(content.len()).unwrap_or(0);
    for word in [5, size, kind] {
        notes.extend_from_slice(&word.to_le_bytes());
    }
    notes.extend_from_slice(b"CORE\0\0\0\0");
    notes.extend_from_slice(content);
    notes.resize(notes.len().next_multiple_of(4), 0);
}

/// `struct elf_prstatus` of Linux on x86-64.
fn status(subject: &Subject, registers: &Registers) -> [u8; 336] {
    let mut status = [0; 336];
    let mut put = |at: usize, bytes: &[u8]| status[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &subject.signal.to_le_bytes());
    put(12, &i16::try_from(subject.signal).unwrap_or(0).to_le_bytes());
    put(32, &subject.pid.to_le_bytes());
    put(112, registers.as_bytes());
    // There are floating-point registers, in a note of their own.
    put(328, &1_u32.to_le_bytes());
    status
}

/// `struct elf_prpsinfo` of Linux on x86-64.
fn information(subject: &Subject) -> [u8; 136] {
    let mut information = [0; 136];
    information[24..28].copy_from_slice(&subject.pid.to_le_bytes());
    for (start, room) in [(40, 16), (56, 80)] {
        let name = subject.name.as_bytes();
        let length = name.len().min(room - 1);
        information[start..start + length].copy_from_slice(&name[..length]);
    }
    information
}
