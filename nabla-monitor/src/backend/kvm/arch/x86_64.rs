//! What the monitor puts beside a guest's memory, so that the guest can run in ring 3: page tables, descriptor
//! tables, and the stub that every exception enters. All of it is computed here; nothing here knows KVM.
//!
//! Source: Intel SDM volume 3A, chapters 3.5 (descriptors), 4.5 (4-level paging), 6.14 (exceptions in 64-bit mode),
//! 7.7 (64-bit TSS), and 19.5 of volume 1 (I/O permission bitmap).

#![allow(
    clippy::cast_possible_truncation,
    reason = "tables are full of parts of numbers; offsets are constants, and usize has 64 bits on this processor"
)]

use nabla_core::{
    Permissions,
    abi::{PAGE_SIZE, hvt},
    elf::PageRange,
    layout::hvt::BOOT_INFO_BASE,
};
use std::ops::Range;

/// Where the monitor's own pages are, for the guest's processor: physical and virtual. Far above the 4 GiB that
/// guests can have, so that running off the end of memory does not get here.
pub const MONITOR_BASE: u64 = 0x2_0000_0000;
const STUB_PAGE: u64 = MONITOR_BASE;
const TABLES_PAGE: u64 = MONITOR_BASE + PAGE_SIZE;
const STACK_PAGE: u64 = MONITOR_BASE + 2 * PAGE_SIZE;
/// End of the stack that exceptions push their frames on.
pub const STACK_TOP: u64 = STACK_PAGE + PAGE_SIZE;
/// Address of the PML4. The pages from here on are page tables, which are not mapped.
pub const PAGE_TABLES: u64 = MONITOR_BASE + 3 * PAGE_SIZE;

/// Vectors that the IDT has gates for: the exceptions. Everything else is no business of a guest.
pub const VECTORS: u8 = 32;
/// Bytes between the stub's entry points.
const STUB_STRIDE: u64 = 16;
/// Where `syscall` ends up on processors (and hypervisors) that let it through although EFER.SCE is 0: a place that
/// ring 3 may not execute, so that it faults.
pub const SYSCALL_TRAP: u64 = STUB_PAGE + 0xff0;

/// The stub's way for `wrmsr` of the FS base, after the entry points.
const WRMSR_STUB: u64 = STUB_PAGE + VECTORS as u64 * STUB_STRIDE;
/// The vector of #GP.
pub const GENERAL_PROTECTION: u8 = 13;

/// Selectors of the monitor's GDT: code of ring 0. The others are where no binding has any, so that what a guest
/// loads from its own table faults, and is emulated.
const KERNEL_CS: u16 = 0x08;
/// Data of ring 3.
pub const USER_DS: u16 = 0xe0 | 3;
/// Code of ring 3.
pub const USER_CS: u16 = 0xe8 | 3;
/// The task state segment.
pub const TSS_SELECTOR: u16 = 0xf0;

/// Offsets in the page of tables.
const GDT: u64 = 0;
const TSS: u64 = 0x200;
const IDT: u64 = 0x800;
/// Size of the GDT: 32 entries of 8 bytes, of which the TSS takes the last two.
const GDT_SIZE: u64 = 256;
/// Size of the TSS without the bitmap.
const TSS_SIZE: u64 = 104;
/// The first port after those that the bitmap speaks of. All others are closed.
const PORTS_END: u64 = 0x608;
/// The last byte of the TSS; after the bitmap's last byte there must be one of ones.
const TSS_LIMIT: u64 = TSS_SIZE + PORTS_END / 8;

/// Base and limit of a descriptor table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Address.
    pub base: u64,
    /// Size in bytes, less one.
    pub limit: u16,
}

/// The monitor's GDT.
pub const MONITOR_GDT: Table = Table { base: TABLES_PAGE + GDT, limit: GDT_SIZE as u16 - 1 };
/// The monitor's IDT.
pub const MONITOR_IDT: Table = Table { base: TABLES_PAGE + IDT, limit: VECTORS as u16 * 16 - 1 };
/// The monitor's TSS.
pub const MONITOR_TSS: Table = Table { base: TABLES_PAGE + TSS, limit: TSS_LIMIT as u16 };

/// Control registers and EFER, as the ABI wants them and with what ring 3 and W^X need.
///
/// PE, MP, ET, NE, WP, PG; not AM, so that alignment is never checked.
pub const CR0: u64 = 0x8001_0033;
/// PAE, OSFXSR, OSXMMEXCPT.
pub const CR4: u64 = 0x620;
/// `sgdt` and its relatives fault outside ring 0 instead of telling the monitor's addresses.
pub const CR4_UMIP: u64 = 1 << 11;
/// LME, LMA, NXE. `syscall` (SCE) stays off.
pub const EFER: u64 = 0xd00;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// Set from the start, so that the processor (or a shadow of the tables) never has to. Only whether a large page has
/// been accessed is left to it, which tells what the guest has used, see [`accessed`].
const USED: u64 = ACCESSED | DIRTY;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// The address in an entry.
const ADDRESS: u64 = !NO_EXECUTE & !(PAGE_SIZE - 1);
const ENTRIES: usize = 512;
const LARGE_PAGE: u64 = 2 << 20;

/// What a guest with `memory` bytes may do with each page: ascending and disjoint; what is in none is not mapped.
///
/// Nothing is mapped below the boot info, as with Solo5's tender. From there to where images begin lies what the monitor
/// tells the guest, for reading only. What the image does not say anything about is heap and stack.
pub fn regions(image: Vec<PageRange>, memory: u64, exec_heap: bool) -> Vec<PageRange> {
    let heap = Permissions { execute: exec_heap, ..Permissions::READ_WRITE };
    let read = Permissions { read: true, write: false, execute: false };
    let low = nabla_core::abi::GUEST_MIN_BASE.min(memory);
    let mut regions = vec![PageRange { pages: BOOT_INFO_BASE.min(low)..low, permissions: read }];
    let mut end = low;
    let mut push = |pages: Range<u64>, permissions| {
        if !pages.is_empty() {
            regions.push(PageRange { pages, permissions });
        }
    };
    for range in image {
        push(end..range.pages.start, heap);
        end = range.pages.end;
        push(range.pages, range.permissions);
    }
    push(end..memory, heap);
    regions
}

fn entry_bits(permissions: Permissions) -> u64 {
    // Nothing that can be written or executed cannot be read, on this processor.
    if !(permissions.read || permissions.write || permissions.execute) {
        return 0;
    }
    let write = if permissions.write { WRITABLE } else { 0 };
    let execute = if permissions.execute { 0 } else { NO_EXECUTE };
    PRESENT | USER | USED | write | execute
}

/// Page tables under construction: table N lies at `PAGE_TABLES + N * PAGE_SIZE`.
struct PageTables(Vec<[u64; ENTRIES]>);

impl PageTables {
    /// The table that entry `index` of `table` points to; a new one if there is none.
    fn below(&mut self, table: usize, index: usize) -> usize {
        let entry = self.0[table][index];
        if entry & PRESENT != 0 {
            return usize::try_from(((entry & ADDRESS) - PAGE_TABLES) / PAGE_SIZE).unwrap_or_default();
        }
        let new = self.0.len();
        self.0.push([0; ENTRIES]);
        // What is allowed is decided at the lowest level.
        self.0[table][index] = (PAGE_TABLES + new as u64 * PAGE_SIZE) | PRESENT | WRITABLE | USER | USED;
        new
    }

    /// Maps the page, or large page, at `address` to itself.
    fn map(&mut self, address: u64, size: u64, bits: u64) {
        let index = |shift: u32| (address >> shift) as usize % ENTRIES;
        let pdpt = self.below(0, index(39));
        let directory = self.below(pdpt, index(30));
        if size == LARGE_PAGE {
            self.0[directory][index(21)] = address | bits & !ACCESSED | LARGE;
        } else {
            let table = self.below(directory, index(21));
            self.0[table][index(12)] = address | bits;
        }
    }
}

/// The page tables for these regions and the monitor's pages, as bytes that go to [`PAGE_TABLES`].
///
/// Large pages wherever a region fills one, small ones at the edges.
pub fn page_tables(regions: &[PageRange]) -> Vec<u8> {
    let mut tables = PageTables(vec![[0; ENTRIES]]);
    for PageRange { pages, permissions } in regions {
        let bits = entry_bits(*permissions);
        let mut address = pages.start;
        while bits != 0 && address < pages.end {
            let large = address.is_multiple_of(LARGE_PAGE) && pages.end - address >= LARGE_PAGE;
            let size = if large { LARGE_PAGE } else { PAGE_SIZE };
            tables.map(address, size, bits);
            address += size;
        }
    }
    tables.map(STUB_PAGE, PAGE_SIZE, PRESENT | USED);
    tables.map(TABLES_PAGE, PAGE_SIZE, PRESENT | USED | NO_EXECUTE);
    tables.map(STACK_PAGE, PAGE_SIZE, PRESENT | USED | NO_EXECUTE | WRITABLE);
    tables.0.iter().flatten().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// The parts of a memory of `size` bytes that the guest may have accessed, ascending, as the processor has noted in the
/// page tables. `entry` gives an entry by its place in what [`page_tables`] returned.
pub fn accessed(size: u64, entry: impl Fn(u64) -> Option<u64>) -> Vec<Range<u64>> {
    const MOST: u64 = 4 << 30;
    let below = |table: u64, index: u64| {
        let entry = entry(table + index * 8)?;
        (entry & PRESENT != 0).then_some((entry, (entry & ADDRESS).wrapping_sub(PAGE_TABLES)))
    };
    let used = |address: u64| {
        let (_, pdpt) = below(0, 0)?;
        let (_, directory) = below(pdpt, address >> 30)?;
        let (entry, _) = below(directory, address >> 21 & 511)?;
        (entry & LARGE == 0 || entry & ACCESSED != 0).then_some(())
    };
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for address in (0..size.min(MOST)).step_by(LARGE_PAGE as usize).filter(|&address| used(address).is_some())
    {
        let end = size.min(address + LARGE_PAGE);
        match ranges.last_mut() {
            Some(last) if last.end == address => last.end = end,
            _ => ranges.push(address..end),
        }
    }
    ranges
}

/// The first three pages of the monitor: stub, tables, and the empty stack.
///
/// `doorbell` opens the port that wakes the host's side of the network ring.
pub fn monitor_pages(doorbell: bool) -> Vec<u8> {
    let mut bytes = vec![0; 3 * PAGE_SIZE as usize];
    let (stub, rest) = bytes.split_at_mut(PAGE_SIZE as usize);
    write_stub(stub);
    write_tables(rest, doorbell);
    bytes
}

fn put(bytes: &mut [u8], offset: u64, part: &[u8]) {
    let offset = offset as usize;
    bytes[offset..offset + part.len()].copy_from_slice(part);
}

/// An entry for each vector: `hlt`, which only ring 0 can execute, so no guest can pretend to be the stub. The
/// monitor then changes the registers, and the guest goes on in ring 3 without passing through here again.
fn write_stub(page: &mut [u8]) {
    const HLT: u8 = 0xf4;
    page.fill(HLT);
    for vector in 0..u64::from(VECTORS) {
        page[(vector * STUB_STRIDE) as usize] = HLT;
    }
    // jmp rel32
    let entry = u64::from(GENERAL_PROTECTION) * STUB_STRIDE;
    let distance = (WRMSR_STUB - (STUB_PAGE + entry + 5)) as u32;
    put(page, entry, &[0xe9]);
    put(page, entry + 1, &distance.to_le_bytes());
    put(page, WRMSR_STUB - STUB_PAGE, &WRMSR_CODE);
}

/// `wrmsr` of the FS base is how threads are switched, so it is done without leaving the guest. Everything else
/// that arrives here is left to the monitor, with every register as it was. In the order of execution: is it this
/// register (ecx); are the two bytes at the faulting address the instruction (and do they lie in one page, so that
/// reading them cannot fault); is the base one below 2^47 (edx below 0x8000), which cannot fault either; is nobody
/// stepping, who would miss the step here.
///
/// ```text
///       push rax
///       cmp ecx, 0xc0000100 ; jne out
///       mov rax, [rsp + 16]                 ; rip
///       not eax ; test eax, 0xfff ; jz out  ; the last byte of a page
///       not eax                             ; the upper half is zero now: guests live below 4 GiB ...
///       cmp dword [rsp + 20], 0 ; jne out   ; ... which is checked
///       cmp word [rax], 0x300f ; jne out     ; 0f 30
///       cmp edx, 0x8000 ; jae out
///       test byte [rsp + 33], 1 ; jnz out   ; TF
///       pop rax
///       wrmsr
///       add rsp, 8                          ; the error code
///       add qword [rsp], 2                  ; rip
///       iretq
/// out:  pop rax
///       hlt
/// ```
const WRMSR_CODE: [u8; 70] = [
    0x50, // push rax
    0x81, 0xf9, 0x00, 0x01, 0x00, 0xc0, // cmp ecx, 0xc0000100
    0x75, 59, // jne out
    0x48, 0x8b, 0x44, 0x24, 0x10, // mov rax, [rsp+16]
    0xf7, 0xd0, // not eax
    0xa9, 0xff, 0x0f, 0x00, 0x00, // test eax, 0xfff
    0x74, 45, // jz out
    0xf7, 0xd0, // not eax
    0x83, 0x7c, 0x24, 0x14, 0x00, // cmp dword [rsp+20], 0
    0x75, 36, // jne out
    0x66, 0x81, 0x38, 0x0f, 0x30, // cmp word [rax], 0x300f
    0x75, 29, // jne out
    0x81, 0xfa, 0x00, 0x80, 0x00, 0x00, // cmp edx, 0x8000
    0x73, 21, // jae out
    0xf6, 0x44, 0x24, 0x21, 0x01, // test byte [rsp+33], 1
    0x75, 14,   // jnz out
    0x58, // pop rax
    0x0f, 0x30, // wrmsr
    0x48, 0x83, 0xc4, 0x08, // add rsp, 8
    0x48, 0x83, 0x04, 0x24, 0x02, // add qword [rsp], 2
    0x48, 0xcf, // iretq
    0x58, // out: pop rax
    0xf4, // hlt
];

/// Where, in the stub for `wrmsr`, rax is popped on the way back to the guest.
const WRMSR_POP: u64 = 54;

/// Whether a processor that is at `rip` is in the stub for `wrmsr`, where it can be taken back to the guest's
/// instruction: the frame is complete, and doing it once more does no harm. `Some(true)` when rax is on the stack, too.
pub fn in_wrmsr_stub(rip: u64) -> Option<bool> {
    const OUT: u64 = WRMSR_CODE.len() as u64 - 2;
    if rip == STUB_PAGE + GENERAL_PROTECTION as u64 * STUB_STRIDE {
        return Some(false);
    }
    match rip.checked_sub(WRMSR_STUB)? {
        1..=WRMSR_POP | OUT => Some(true),
        offset if offset < OUT => Some(false),
        // It halts now, or it is somewhere else.
        _ => None,
    }
}

/// The vector of the exception that halted at `rip`, which is after the `hlt`.
pub fn vector_at(rip: u64) -> Option<u8> {
    if rip == WRMSR_STUB + WRMSR_CODE.len() as u64 {
        return Some(GENERAL_PROTECTION);
    }
    let offset = rip.checked_sub(STUB_PAGE + 1)?;
    let vector = u8::try_from(offset / STUB_STRIDE).ok()?;
    (vector < VECTORS && vector != GENERAL_PROTECTION && offset.is_multiple_of(STUB_STRIDE)).then_some(vector)
}

/// Whether an exception of this vector pushes an error code.
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

fn write_tables(page: &mut [u8], doorbell: bool) {
    // 64-bit code of ring 0 and ring 3, and data: accessed, so that the processor does not write to them.
    for (selector, descriptor) in [
        (KERNEL_CS, 0x00af_9b00_0000_ffff_u64),
        (USER_DS, 0x00cf_f300_0000_ffff),
        (USER_CS, 0x00af_fb00_0000_ffff),
    ] {
        put(page, GDT + u64::from(selector & !7), &descriptor.to_le_bytes());
    }
    let base = MONITOR_TSS.base;
    // Type 11: a 64-bit TSS that is in use.
    let low = TSS_LIMIT | (base & 0xff_ffff) << 16 | 0x8b << 40 | (base >> 24 & 0xff) << 56;
    put(page, GDT + u64::from(TSS_SELECTOR), &low.to_le_bytes());
    put(page, GDT + u64::from(TSS_SELECTOR) + 8, &(base >> 32).to_le_bytes());

    put(page, TSS + 4, &STACK_TOP.to_le_bytes());
    put(page, TSS + 102, &(TSS_SIZE as u16).to_le_bytes());
    let mut ports = vec![0xff; (PORTS_END / 8 + 1) as usize];
    // An access of four bytes needs four open ports.
    let hypercalls = hvt::HYPERCALL_PORT_BASE + 1..hvt::HYPERCALL_PORT_BASE + 0x10;
    let doorbell = if doorbell { hvt::RING_KICK_PORT..hvt::RING_KICK_PORT + 4 } else { 0..0 };
    for port in hypercalls.chain(doorbell) {
        ports[usize::from(port / 8)] &= !(1 << (port % 8));
    }
    put(page, TSS + TSS_SIZE, &ports);

    for vector in 0..VECTORS {
        let entry = STUB_PAGE + u64::from(vector) * STUB_STRIDE;
        // Interrupt gates. Those of `int3` and `into` are open to ring 3, as these instructions are in ring 0, where the
        // guest thinks that it is.
        let kind = if matches!(vector, 3 | 4) { 0xee_u64 } else { 0x8e };
        let low = entry & 0xffff | u64::from(KERNEL_CS) << 16 | kind << 40 | (entry >> 16 & 0xffff) << 48;
        put(page, IDT + u64::from(vector) * 16, &low.to_le_bytes());
        put(page, IDT + u64::from(vector) * 16 + 8, &(entry >> 32).to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
