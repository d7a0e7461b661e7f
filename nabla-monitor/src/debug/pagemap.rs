//! Which pages of an address space are in use: see proc_pid_pagemap(5).

use nabla_core::abi::PAGE_SIZE;
use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

/// Of an entry, of which there is one for each page: the page is in memory, or in swap space.
const IN_USE: u64 = 0b11 << 62;

/// See the module.
#[derive(Debug)]
pub struct Pagemap(Option<File>);

impl Pagemap {
    /// That of the process with this name in `/proc`. It stays open to this program when the process no longer is.
    pub fn of(process: &str) -> Self {
        // Some kernels have none.
        Self(File::open(format!("/proc/{process}/pagemap")).ok())
    }

    /// The parts of `part` that are in use, where `part` lies `base` bytes further up in the address space. They are
    /// ascending, disjoint, and of whole pages, as `part` must be.
    ///
    /// Memory that no file is behind is zeros where it is not in use.
    pub fn touched(&self, base: u64, part: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let Some(file) = &self.0 else { return Ok(vec![part]) };
        let pages = usize::try_from((part.end - part.start) / PAGE_SIZE).map_err(io::Error::other)?;
        let mut entries = vec![[0; size_of::<u64>()]; pages];
        let first = (base + part.start) / PAGE_SIZE;
        file.read_exact_at(entries.as_flattened_mut(), first * size_of::<u64>() as u64)?;
        let mut touched: Vec<Range<u64>> = Vec::new();
        for (entry, index) in entries.into_iter().zip(0..) {
            let page = part.start + index * PAGE_SIZE;
            if u64::from_ne_bytes(entry) & IN_USE != 0 {
                match touched.last_mut() {
                    Some(last) if last.end == page => last.end = page + PAGE_SIZE,
                    _ => touched.push(page..page + PAGE_SIZE),
                }
            }
        }
        Ok(touched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    #[test]
    fn written_pages_of_a_mapping_are_in_use_and_others_not() {
        const PAGE: usize = 4096;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let mapping =
            unsafe { mmap_anonymous(std::ptr::null_mut(), 8 * PAGE, protection, MapFlags::PRIVATE) };
        let mapping = mapping.unwrap();
        for page in [1, 2, 5] {
            // SAFETY: a byte of the mapping, which nobody else uses.
            unsafe { mapping.cast::<u8>().add(page * PAGE).write_volatile(1) };
        }
        let touched = Pagemap::of("self").touched(mapping as u64, 0..8 * PAGE_SIZE).unwrap();
        assert_eq!(touched, [PAGE_SIZE..3 * PAGE_SIZE, 5 * PAGE_SIZE..6 * PAGE_SIZE]);
        assert_eq!(Pagemap(None).touched(0, 0..PAGE_SIZE).unwrap().first(), Some(&(0..PAGE_SIZE)));
        // SAFETY: the mapping from above, which nobody uses any more.
        unsafe { munmap(mapping, 8 * PAGE).unwrap() };
    }
}
