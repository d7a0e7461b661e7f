//! Guest memory, and what a guest may do with each part of it.

use super::{arch, devices, reservation::Reservation};
use crate::sys::raw::{check, nr, syscall};
use linux_raw_sys::general::{MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use nabla_core::{Image, Permissions, abi::PAGE_SIZE, elf::PageRange};
use std::{fmt, io, ops::Range, os::fd::AsFd};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapRegion, VolatileSlice,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What the view is told of its mapping; it maps nothing itself.
const PROTECTION: i32 = (PROT_READ | PROT_WRITE).cast_signed();
const MAPPING: i32 = (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE).cast_signed();

/// What is to be done with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// Memory that a guest named and may not use that way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadAccess {
    /// The first address that is not all right.
    pub address: u64,
    pub access: Access,
    /// Whether there is memory at all.
    pub mapped: bool,
}

/// The memory of a guest, from address 0 on. Every access is checked against what the guest's page tables allow it,
/// so that it cannot make the monitor write where it may not write itself.
pub struct GuestMemory {
    // In the order in which they are dropped: the view before what it shows.
    mapping: GuestMemoryMmap,
    _space: Reservation,
    /// Ascending and disjoint. The page tables are made of the same.
    regions: Vec<PageRange>,
    size: u64,
    /// With the network ring after it.
    length: usize,
}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestMemory").field("size", &self.size).finish_non_exhaustive()
    }
}

/// How guest memory is to be had of the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryOptions {
    pub huge_pages: bool,
    pub dumpable: bool,
    /// Bytes of the network ring after guest memory, in whole pages.
    pub ring_bytes: u64,
}

impl GuestMemory {
    /// `size` bytes of zeros. Nothing of it is used before it is touched.
    pub fn new(size: u64, regions: Vec<PageRange>, options: MemoryOptions) -> io::Result<Self> {
        let length = size.checked_add(options.ring_bytes).ok_or(io::ErrorKind::OutOfMemory)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let space = Reservation::new(length)?;
        // SAFETY: the range is that of the reservation, which lives as long as the view.
        let region = unsafe { MmapRegion::build_raw(space.memory(), length, PROTECTION, MAPPING) };
        let region = GuestRegionMmap::new(region.map_err(io::Error::other)?, GuestAddress(0));
        let mapping = GuestMemoryMmap::from_regions(vec![region.ok_or(io::ErrorKind::InvalidInput)?])
            .map_err(io::Error::other)?;
        let memory = Self { mapping, _space: space, regions, size, length };
        memory.advise(rustix::mm::Advice::LinuxDontFork)?;
        if !options.dumpable {
            memory.advise(rustix::mm::Advice::LinuxDontDump)?;
        }
        if options.huge_pages {
            memory.advise(rustix::mm::Advice::LinuxHugepage)?;
        } else {
            // Where the host's policy is `always`, one touched page would cost 2 MiB. Kernels without them know no such
            // advice.
            let _ = memory.advise(rustix::mm::Advice::LinuxNoHugepage);
        }
        Ok(memory)
    }

    fn advise(&self, advice: rustix::mm::Advice) -> io::Result<()> {
        let address = self.host_address();
        // SAFETY: the range is the mapping that `self` owns; none of the advices used changes what is in it.
        Ok(unsafe { rustix::mm::madvise(address.cast(), self.length, advice) }?)
    }

    /// Where it is in this program.
    pub fn host_address(&self) -> *mut u8 {
        self.mapping.get_host_address(GuestAddress(0)).unwrap_or(std::ptr::null_mut())
    }

    /// Bytes that are the guest's own.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that there are.
    pub fn length(&self) -> u64 {
        self.length as u64
    }

    /// The network ring, which guest and monitor share.
    pub fn ring(&self) -> Option<VolatileSlice<'_>> {
        self.raw(self.size, usize::try_from(self.length() - self.size).ok()?)
    }

    /// Copies the image's segments from its file. Bounds are the image's own, which were checked against the size.
    pub fn load(&self, image: &Image, file: impl AsFd) -> io::Result<()> {
        for segment in image.segments() {
            let length = usize::try_from(segment.file_size).map_err(io::Error::other)?;
            let target = self.raw(segment.address, length).ok_or(io::ErrorKind::InvalidData)?;
            let mut done = 0;
            while done < length {
                let part = target.subslice(done, length - done).map_err(io::Error::other)?;
                let offset = segment.file_offset + done as u64;
                match devices::pread(&file, &part, offset)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => done += n,
                }
            }
        }
        Ok(())
    }

    /// Puts bytes where the guest could not put them itself: boot info.
    pub fn place(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.mapping.write_slice(bytes, GuestAddress(address)).map_err(io::Error::other)
    }

    /// What is at `address`, as far as there is memory, whatever the guest may do there.
    pub fn peek(&self, address: u64, bytes: &mut [u8]) -> usize {
        self.mapping.read(bytes, GuestAddress(address)).unwrap_or(0)
    }

    /// What the guest may do with each part.
    pub fn regions(&self) -> &[PageRange] {
        &self.regions
    }

    fn raw(&self, address: u64, length: usize) -> Option<VolatileSlice<'_>> {
        self.mapping.get_slice(GuestAddress(address), length).ok()
    }

    fn region_at(&self, address: u64) -> Option<&PageRange> {
        let index = self.regions.partition_point(|range| range.pages.end <= address);
        self.regions.get(index).filter(|range| range.pages.start <= address)
    }

    /// Checks that the guest itself could access all of this.
    pub fn check(&self, address: u64, length: u64, access: Access) -> Result<(), BadAccess> {
        let bad = |address, mapped| BadAccess { address, access, mapped };
        let end = address.checked_add(length).ok_or(bad(address, false))?;
        let mut next = address;
        while next < end {
            let range = self.region_at(next).ok_or(bad(next, false))?;
            let Permissions { read, write, execute } = range.permissions;
            let allowed = match access {
                // As in the page tables: there is no memory that can be written or executed but not read.
                Access::Read => read || write || execute,
                Access::Write => write,
                Access::Execute => execute,
            };
            if !allowed {
                return Err(bad(next, read || write || execute));
            }
            next = range.pages.end;
        }
        Ok(())
    }

    /// The bytes at `address`, if the guest may access them so. They are in guest memory: copy, then check.
    pub fn slice(&self, address: u64, length: u64, access: Access) -> Result<VolatileSlice<'_>, BadAccess> {
        self.check(address, length, access)?;
        let bad = BadAccess { address, access, mapped: false };
        let length = usize::try_from(length).map_err(|_| bad)?;
        // A range of no bytes may lie anywhere.
        if length == 0 {
            return self.raw(0, 0).ok_or(bad);
        }
        self.raw(address, length).ok_or(bad)
    }

    /// A copy of what is at `address`.
    pub fn read<T: FromBytes + IntoBytes>(&self, address: u64) -> Result<T, BadAccess> {
        let slice = self.slice(address, size_of::<T>() as u64, Access::Read)?;
        let mut value = T::new_zeroed();
        slice.copy_to(value.as_mut_bytes());
        Ok(value)
    }

    /// Replaces what is at `address`.
    pub fn write<T: IntoBytes + Immutable>(&self, address: u64, value: &T) -> Result<(), BadAccess> {
        let slice = self.slice(address, size_of::<T>() as u64, Access::Write)?;
        slice.copy_from(value.as_bytes());
        Ok(())
    }

    /// Up to 15 bytes of an instruction: as many as can be executed.
    pub fn instruction_bytes(&self, address: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(15);
        for offset in 0..15 {
            let Some(address) = address.checked_add(offset) else { break };
            if self.check(address, 1, Access::Execute).is_err() {
                break;
            }
            let Ok(byte) = self.read::<u8>(address) else { break };
            bytes.push(byte);
        }
        bytes
    }

    /// Where the image ends: everything after it is the guest's own.
    fn heap(&self) -> u64 {
        let own = self.regions.iter().rfind(|range| range.pages.start < self.size);
        own.map_or(self.size, |last| last.pages.start)
    }

    /// Bytes of it that are in use.
    pub fn resident(&self) -> io::Result<u64> {
        self.resident_in(0..self.length())
    }

    /// Bytes of it that are in use, of what was loaded and of these parts, which are ascending.
    pub fn resident_among(&self, parts: &[Range<u64>]) -> io::Result<u64> {
        let heap = self.heap();
        let loaded = self.resident_in(0..heap);
        parts
            .iter()
            .map(|part| self.resident_in(part.start.max(heap)..part.end))
            .fold(loaded, |sum, part| Ok(sum? + part?))
    }

    /// Bytes of a part (of whole pages) that are in use.
    fn resident_in(&self, part: Range<u64>) -> io::Result<u64> {
        const CHUNK: u64 = 64 << 20;
        let mut used = 0;
        // One byte for each page.
        let mut pages = [0_u8; (CHUNK / PAGE_SIZE) as usize];
        let mut offset = part.start;
        while offset < part.end.min(self.length()) {
            let length = CHUNK.min(part.end.min(self.length()) - offset);
            let address = self.host_address() as u64 + offset;
            // SAFETY: the range is within the mapping that `self` owns, and `pages` has a byte for each of its pages.
            check(unsafe { syscall!(nr::MINCORE, address, length, pages.as_mut_ptr()) })?;
            let count = usize::try_from(length / PAGE_SIZE).unwrap_or(0);
            used += pages.iter().take(count).map(|page| u64::from(page & 1)).sum::<u64>() * PAGE_SIZE;
            offset += length;
        }
        Ok(used)
    }
}

/// The regions of a guest with `memory` bytes of its own, and `ring_bytes` after it: see [`arch::regions`].
pub fn regions(image: &Image, memory: u64, ring_bytes: u64, exec_heap: bool) -> Vec<PageRange> {
    let mut regions = arch::regions(image.page_ranges(), memory, exec_heap);
    if ring_bytes > 0 {
        regions.push(PageRange { pages: memory..memory + ring_bytes, permissions: Permissions::READ_WRITE });
    }
    regions
}
