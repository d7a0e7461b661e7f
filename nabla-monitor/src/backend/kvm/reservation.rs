//! Address space for guest memory, with space around it that cannot be used: should the monitor or a system call that
//! it makes ever run off its end, it fails instead of hitting what the host program has there.

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::{ffi::c_void, io, ptr};

/// On each side, and where guest memory is aligned to: the size of a large page.
const GUARD: usize = 2 << 20;

/// See the module. Freed when dropped.
#[derive(Debug)]
pub struct Reservation {
    start: *mut c_void,
    length: usize,
    memory: *mut u8,
}

// SAFETY: it only owns the address range; what uses that does so through its own types.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// `size` bytes of zeros, of which nothing is used before it is touched.
    pub fn new(size: usize) -> io::Result<Self> {
        let length = size.checked_add(3 * GUARD).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), length, ProtFlags::empty(), flags)? };
        let mut space = Self { start, length, memory: ptr::null_mut() };
        let first = start.wrapping_byte_add(GUARD);
        let memory = first.wrapping_byte_add(first.align_offset(GUARD).min(GUARD));
        // SAFETY: the range is within the mapping above, which is not in use yet.
        unsafe { mprotect(memory, size, MprotectFlags::READ | MprotectFlags::WRITE)? };
        space.memory = memory.cast();
        Ok(space)
    }

    /// Where the memory is.
    pub fn memory(&self) -> *mut u8 {
        self.memory
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; it is not in use any more.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn nobody_can_use_what_is_around() {
        const SIZE: usize = 4 << 20;
        let space = Reservation::new(SIZE).unwrap();
        assert_eq!(space.memory().align_offset(GUARD), 0);
        // SAFETY: the first and the last byte of the memory.
        unsafe {
            space.memory().write(1);
            space.memory().add(SIZE - 1).write(2);
        }
        let at = space.memory() as usize;
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let of = |address: usize| {
            let line = maps.lines().find(|line| {
                let (range, _) = line.split_once(' ').unwrap();
                let (start, end) = range.split_once('-').unwrap();
                let number = |text| usize::from_str_radix(text, 16).unwrap();
                (number(start)..number(end)).contains(&address)
            });
            line.map(|line| line.split(' ').nth(1).unwrap().to_owned())
        };
        assert_eq!(of(at).as_deref(), Some("rw-p"));
        assert_eq!(of(at + SIZE - 1).as_deref(), Some("rw-p"));
        for guard in [at - 1, at - GUARD, at + SIZE, at + SIZE + GUARD - 1] {
            assert_eq!(of(guard).as_deref(), Some("---p"), "{guard:#x} of {at:#x}");
        }
    }
}
