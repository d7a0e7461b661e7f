//! Brings bytes of files into the image.

use super::{ioctl::clone_range, unit::Unit};
use crate::{
    error::Error,
    format::SECTOR_SIZE,
    plan::{
        Plan,
        layout::{ALIGN_FROM, ALIGNMENT},
        system_use::SystemUse,
    },
    source::{
        blob::Blob,
        open::{Opened, Opener},
    },
};
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs, io,
    io::Errno,
};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

/// Bytes that are copied at a time where they go through memory: what a processor's cache holds.
const BUFFER: usize = 256 << 10;
/// Less than this is copied through memory even where the kernel could do it: it is as fast.
const WORTH_COPYING: u64 = 8 << 20;

/// Copy methods of the kernel that have failed between these file systems, and are not tried again.
#[derive(Debug, Default)]
pub struct CopyMethods {
    no_clone: AtomicBool,
    no_copy: AtomicBool,
}

/// What one thread needs for making pieces.
#[derive(Debug)]
pub struct Copier<'a> {
    plan: &'a Plan,
    opener: Opener<'a>,
    system_use: SystemUse,
    buffer: Vec<u8>,
}

/// A file that is being written.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub fd: BorrowedFd<'a>,
    /// For errors.
    pub path: &'a Path,
    pub methods: &'a CopyMethods,
    /// What is not written reads as zero.
    pub fresh: bool,
}

impl Target<'_> {
    fn failed(&self, error: Errno) -> Error {
        Error::io("write", self.path, error)
    }

    /// Writes all bytes at an offset.
    pub fn write(&self, mut offset: u64, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            match io::pwrite(self.fd, bytes, offset) {
                Ok(0) => return Err(self.failed(Errno::IO)),
                Ok(length) => {
                    offset += length as u64;
                    bytes = &bytes[length..];
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    /// Reserves room, where that is possible.
    fn reserve(&self, start: u64, end: u64) -> Result<(), Error> {
        if end <= start {
            return Ok(());
        }
        match fs::fallocate(self.fd, fs::FallocateFlags::empty(), start, end - start) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    /// Writes zeros at an offset.
    pub fn zero(&self, offset: u64, length: u64) -> Result<(), Error> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut done = 0;
        while done < length {
            let part = usize::try_from(length - done).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write(offset + done, &ZEROS[..part])?;
            done += part as u64;
        }
        Ok(())
    }
}

impl<'a> Copier<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        let (opener, system_use) = (Opener::new(&plan.tree), SystemUse::default());
        Self { plan, opener, system_use, buffer: Vec::new() }
    }

    /// Finds out whether blocks can be shared, and if not, reserves the room for everything but files with holes: that is
    /// faster than when each write does it, and a full disk is noticed at once.
    pub fn prepare(&mut self, target: &Target<'_>) -> Result<(), Error> {
        let blobs = || self.plan.files.iter().map(|&number| &self.plan.tree.blobs[number as usize]);
        if let Some(blob) = blobs().find(|blob| blob.size >= ALIGN_FROM) {
            let opened = self.opener.open(blob)?;
            if let Some((fd, base)) = opened.file() {
                share(fd, base, target, u64::from(blob.extent) * SECTOR_SIZE, ALIGNMENT);
            }
            if !target.methods.no_clone.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        let mut start = 0;
        for blob in blobs().filter(|blob| blob.sparse) {
            let hole = u64::from(blob.extent) * SECTOR_SIZE;
            target.reserve(start, hole)?;
            start = hole + blob.size;
        }
        target.reserve(start, self.plan.size())
    }

    /// Makes the bytes of a part or of small files.
    pub fn gather(&mut self, unit: Unit) -> Result<&mut Vec<u8>, Error> {
        self.buffer.clear();
        match unit {
            Unit::Part(part) => self.plan.render(part, &mut self.system_use, &mut self.buffer),
            Unit::Small { first, end } => {
                let base = unit.offset(self.plan);
                for &number in &self.plan.files[first..end] {
                    let blob = &self.plan.tree.blobs[number as usize];
                    let offset = u64::from(blob.extent) * SECTOR_SIZE - base;
                    let start = usize::try_from(offset).unwrap_or(usize::MAX);
                    // Zeros between files.
                    self.buffer.resize(start, 0);
                    self.buffer.resize(start + usize::try_from(blob.size).unwrap_or(usize::MAX), 0);
                    let opened = self.opener.open(blob)?;
                    self.opener.read(blob, &opened, 0, &mut self.buffer[start..])?;
                    self.opener.check(blob, &opened)?;
                }
            }
            Unit::Large { file, offset, length } => {
                let blob = &self.plan.tree.blobs[self.plan.files[file] as usize];
                self.buffer.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
                let opened = self.opener.open(blob)?;
                self.opener.read(blob, &opened, offset, &mut self.buffer)?;
                self.opener.check(blob, &opened)?;
            }
        }
        Ok(&mut self.buffer)
    }

    /// Writes a piece where it belongs.
    pub fn write(&mut self, unit: Unit, target: &Target<'_>) -> Result<(), Error> {
        let Unit::Large { file, offset, length } = unit else {
            let at = unit.offset(self.plan);
            return target.write(at, self.gather(unit)?);
        };
        let blob = &self.plan.tree.blobs[self.plan.files[file] as usize];
        let start = u64::from(blob.extent) * SECTOR_SIZE;
        let opened = self.opener.open(blob)?;
        let end = offset + length;
        let mut at = offset;
        while let Some((from, to)) = self.opener.next_data(blob, &opened, at, end)? {
            if !target.fresh {
                target.zero(start + at, from - at)?;
            }
            self.copy(blob, &opened, from, to, start, target)?;
            at = to;
        }
        if !target.fresh {
            target.zero(start + at, end - at)?;
        }
        self.opener.check(blob, &opened)
    }

    /// Copies `from..to` of the contents, which begin at `start` in the image.
    fn copy(
        &mut self,
        blob: &Blob,
        opened: &Opened<'_>,
        from: u64,
        to: u64,
        start: u64,
        target: &Target<'_>,
    ) -> Result<(), Error> {
        let mut from = from;
        if let Some((fd, base)) = opened.file() {
            from += share(fd, base + from, target, start + from, to - from);
            let worth = blob.size >= WORTH_COPYING;
            while from < to && worth && !target.methods.no_copy.load(Ordering::Relaxed) {
                let (mut source, mut place) = (base + from, start + from);
                let length = usize::try_from(to - from).unwrap_or(usize::MAX);
                match fs::copy_file_range(fd, Some(&mut source), target.fd, Some(&mut place), length) {
                    Ok(0) => break,
                    Ok(length) => from += length as u64,
                    Err(Errno::INTR) => {}
                    // Nothing is wrong that reading and writing would not tell.
                    Err(_) => target.methods.no_copy.store(true, Ordering::Relaxed),
                }
            }
        }
        while from < to {
            let length = usize::try_from(to - from).unwrap_or(usize::MAX).min(BUFFER);
            self.buffer.resize(length, 0);
            self.opener.read(blob, opened, from, &mut self.buffer)?;
            target.write(start + from, &self.buffer)?;
            from += length as u64;
        }
        Ok(())
    }
}

/// Lets the image share whole blocks with a file. Returns how many bytes that was possible for.
fn share(fd: BorrowedFd<'_>, from: u64, target: &Target<'_>, to: u64, length: u64) -> u64 {
    let whole = length / ALIGNMENT * ALIGNMENT;
    let aligned = from.is_multiple_of(ALIGNMENT) && to.is_multiple_of(ALIGNMENT);
    if !aligned || whole == 0 || target.methods.no_clone.load(Ordering::Relaxed) {
        return 0;
    }
    match clone_range(fd, from, whole, target.fd.as_fd(), to) {
        Ok(()) => whole,
        Err(_) => {
            target.methods.no_clone.store(true, Ordering::Relaxed);
            0
        }
    }
}
