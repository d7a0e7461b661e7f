//! Tests of the tables, by walking them as the processor does.

use super::*;
use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, Register};
use std::ops::Range;

const fn permissions(read: bool, write: bool, execute: bool) -> Permissions {
    Permissions { read, write, execute }
}

const READ: Permissions = permissions(true, false, false);
const TEXT: Permissions = permissions(true, false, true);
const DATA: Permissions = permissions(true, true, false);
const HEAP: Permissions = Permissions::READ_WRITE;

fn range(pages: Range<u64>, permissions: Permissions) -> PageRange {
    PageRange { pages, permissions }
}

/// The lowest entry for an address, and the size of its page.
fn walk(tables: &[u8], address: u64) -> Option<(u64, u64)> {
    let mut table = PAGE_TABLES;
    for shift in [39, 30, 21, 12] {
        let at = usize::try_from(table - PAGE_TABLES + (address >> shift & 511) * 8).unwrap();
        let entry = u64::from_le_bytes(tables[at..at + 8].try_into().unwrap());
        if entry & PRESENT == 0 {
            return None;
        }
        if shift == 12 || entry & LARGE != 0 {
            return Some((entry, 1 << shift));
        }
        table = entry & 0x000f_ffff_ffff_f000;
    }
    unreachable!("the last level returns");
}

fn image() -> Vec<PageRange> {
    vec![
        range(0x10_0000..0x10_5000, TEXT),
        range(0x10_5000..0x10_7000, READ),
        range(0x10_7000..0x30_c000, DATA),
        // Execute-only, over a whole large page.
        range(0x40_0000..0x60_1000, permissions(false, false, true)),
    ]
}

#[test]
fn regions_cover_memory_in_order() {
    let regions = regions(image(), 16 << 20, false);
    assert_eq!(regions[0], range(0x1_0000..0x10_0000, READ));
    for pair in regions.windows(2) {
        assert_eq!(pair[0].pages.end, pair[1].pages.start);
    }
    assert_eq!(regions.last(), Some(&range(0x60_1000..16 << 20, HEAP)));
    assert!(regions.contains(&range(0x30_c000..0x40_0000, HEAP)), "the gap is heap");
}

#[test]
fn every_page_has_the_permissions_of_its_region_and_maps_to_itself() {
    for exec_heap in [false, true] {
        let regions = regions(image(), 16 << 20, exec_heap);
        let tables = page_tables(&regions);
        assert!((0..0x1_0000).step_by(0x1000).all(|address| walk(&tables, address).is_none()));
        assert!(walk(&tables, 16 << 20).is_none());
        for PageRange { pages, permissions } in &regions {
            for address in pages.clone().step_by(0x1000) {
                let (entry, size) = walk(&tables, address).unwrap();
                assert_eq!(entry & 0x000f_ffff_ffff_f000, address & !(size - 1));
                assert_ne!(entry & USER, 0);
                assert_eq!(entry & WRITABLE != 0, permissions.write, "{address:#x}");
                assert_eq!(entry & NO_EXECUTE == 0, permissions.execute, "{address:#x}");
                let (start, end) = (address & !(size - 1), (address & !(size - 1)) + size);
                assert!(pages.start <= start && end <= pages.end, "a large page reaches beyond {pages:x?}");
            }
        }
        assert_eq!(walk(&tables, 0x20_0000).unwrap().1, 0x1000, "the image's edge");
        assert_eq!(walk(&tables, 0x40_0000).unwrap().1, LARGE_PAGE);
        assert_eq!(walk(&tables, 0x80_0000).unwrap().1, LARGE_PAGE);
    }
}

#[test]
fn four_gib_take_few_tables() {
    let tables = page_tables(&regions(image(), 4 << 30, false));
    assert_eq!(walk(&tables, (4 << 30) - 1).unwrap().1, LARGE_PAGE);
    assert!(walk(&tables, 4 << 30).is_none());
    assert!(tables.len() <= 16 * 4096, "{}", tables.len());
}

#[test]
fn pages_without_permissions_are_not_mapped() {
    let none = permissions(false, false, false);
    let tables = page_tables(&regions(vec![range(0x10_0000..0x10_2000, none)], 4 << 20, false));
    assert!(walk(&tables, 0x10_0000).is_none());
    assert!(walk(&tables, 0x10_2000).is_some());
}

#[test]
fn the_monitors_pages_are_out_of_reach_and_its_tables_are_not_mapped() {
    let tables = page_tables(&regions(image(), 4 << 30, true));
    for (page, writable, executable) in
        [(STUB_PAGE, false, true), (TABLES_PAGE, false, false), (STACK_PAGE, true, false)]
    {
        let (entry, size) = walk(&tables, page).unwrap();
        assert_eq!((entry & USER, size), (0, 0x1000));
        assert_eq!((entry & WRITABLE != 0, entry & NO_EXECUTE == 0), (writable, executable));
    }
    assert!(walk(&tables, PAGE_TABLES).is_none());
}

#[test]
fn large_pages_count_once_they_are_accessed_and_small_ones_always() {
    const SIZE: u64 = 16 << 20;
    let mut tables = page_tables(&regions(image(), SIZE, false));
    let seen = |tables: &[u8]| {
        accessed(SIZE, |at| {
            let at = usize::try_from(at).ok()?;
            Some(u64::from_le_bytes(tables.get(at..at + 8)?.try_into().unwrap()))
        })
    };
    // The image's edges lie in these; it has a large page between them.
    let small = [0..4 << 20, 6 << 20..8 << 20];
    assert_eq!(seen(&tables), small);
    for page in [6, 7] {
        // The directory of the first GiB is the third table.
        tables[0x2000 + page * 8] |= 1 << 5;
    }
    assert_eq!(seen(&tables), [small[0].clone(), small[1].clone(), 12 << 20..16 << 20]);
    assert!(accessed(SIZE, |_| None).is_empty(), "no entry, no page");
}

#[test]
fn only_the_ports_of_hypercalls_are_open() {
    for (doorbell, also) in [(false, 0..0), (true, 0x600..0x604)] {
        let found: Vec<usize> = open_ports(&monitor_pages(doorbell));
        assert_eq!(found, (0x501..0x510).chain(also).collect::<Vec<_>>());
    }
}

fn open_ports(pages: &[u8]) -> Vec<usize> {
    let tss = usize::try_from(MONITOR_TSS.base - MONITOR_BASE).unwrap();
    let map = tss + usize::from(u16::from_le_bytes([pages[tss + 102], pages[tss + 103]]));
    let end = tss + usize::from(MONITOR_TSS.limit);
    // As the processor does: a byte after the port's, too, and everything beyond the limit is closed.
    let open = |port: usize| map + port / 8 < end && pages[map + port / 8] >> (port % 8) & 1 == 0;
    assert_eq!(pages[end], 0xff);
    (0..=0xffff).filter(|&port| open(port)).collect()
}

#[test]
fn every_vector_enters_the_stub_and_is_told_by_where_it_halts() {
    let pages = monitor_pages(false);
    for vector in 0..VECTORS {
        let at = usize::try_from(MONITOR_IDT.base - MONITOR_BASE).unwrap() + usize::from(vector) * 16;
        let word = |at: usize| u64::from_le_bytes(pages[at..at + 8].try_into().unwrap());
        let (low, high) = (word(at), word(at + 8));
        let entry = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        assert_eq!(low >> 16 & 0xffff, u64::from(KERNEL_CS));
        assert_eq!(low >> 45 & 3, if matches!(vector, 3 | 4) { 3 } else { 0 }, "who may call it");
        let code = &pages[usize::try_from(entry - MONITOR_BASE).unwrap()..];
        if vector == GENERAL_PROTECTION {
            assert_eq!(code[0], 0xe9);
        } else {
            assert_eq!(code[0], 0xf4);
            assert_eq!(vector_at(entry + 1), Some(vector));
        }
    }
    assert_eq!(vector_at(WRMSR_STUB + WRMSR_CODE.len() as u64), Some(GENERAL_PROTECTION));
    for rip in [0, STUB_PAGE, STUB_PAGE + 2, STUB_PAGE + 13 * 16 + 1, STUB_PAGE + 32 * 16 + 1, u64::MAX] {
        assert_eq!(vector_at(rip), None, "{rip:#x}");
    }
}

#[test]
fn the_stub_for_wrmsr_is_what_its_comment_says() {
    let mut decoder = Decoder::with_ip(64, &WRMSR_CODE, WRMSR_STUB, DecoderOptions::NONE);
    let instructions: Vec<_> = decoder.iter().collect();
    let mnemonics: Vec<_> = instructions.iter().map(|instruction| instruction.mnemonic()).collect();
    use Mnemonic::{Add, Cmp, Hlt, Iretq, Jae, Je, Jne, Mov, Not, Pop, Push, Test, Wrmsr};
    assert_eq!(
        mnemonics,
        [
            Push, Cmp, Jne, Mov, Not, Test, Je, Not, Cmp, Jne, Cmp, Jne, Cmp, Jae, Test, Jne, Pop, Wrmsr,
            Add, Add, Iretq, Pop, Hlt
        ]
    );
    let out = instructions[21].ip();
    for instruction in instructions.iter().filter(|i| matches!(i.mnemonic(), Jne | Je | Jae)) {
        assert_eq!(instruction.near_branch_target(), out);
    }
    assert_eq!((instructions[1].op0_register(), instructions[1].immediate32()), (Register::ECX, 0xc000_0100));
    assert_eq!(instructions[3].memory_displacement64(), 16);
    assert_eq!((instructions[8].code(), instructions[8].memory_displacement64()), (Code::Cmp_rm32_imm8, 20));
    assert_eq!(instructions[10].immediate16(), 0x300f);
    assert_eq!((instructions[12].op0_register(), instructions[12].immediate32()), (Register::EDX, 0x8000));
    assert_eq!((instructions[14].memory_displacement64(), instructions[14].immediate8()), (33, 1));
}

#[test]
fn a_processor_in_the_stub_for_wrmsr_can_be_taken_back_until_it_halts() {
    let mut decoder = Decoder::with_ip(64, &WRMSR_CODE, WRMSR_STUB, DecoderOptions::NONE);
    let mut pushed = false;
    for instruction in decoder.iter() {
        let found = in_wrmsr_stub(instruction.ip());
        match instruction.mnemonic() {
            Mnemonic::Hlt => assert_eq!(found, None),
            // Reached by a jump from where it was pushed.
            Mnemonic::Pop if instruction.next_ip() + 1 == WRMSR_STUB + WRMSR_CODE.len() as u64 => {
                assert_eq!(found, Some(true));
            }
            mnemonic => {
                assert_eq!(found, Some(pushed), "{mnemonic:?}");
                pushed = mnemonic == Mnemonic::Push || pushed && mnemonic != Mnemonic::Pop;
            }
        }
    }
    assert_eq!(in_wrmsr_stub(STUB_PAGE + 13 * 16), Some(false));
    for rip in [0, STUB_PAGE, STUB_PAGE + 14 * 16, WRMSR_STUB + WRMSR_CODE.len() as u64, u64::MAX] {
        assert_eq!(in_wrmsr_stub(rip), None, "{rip:#x}");
    }
}

#[test]
fn the_gdts_descriptors_are_what_the_selectors_say() {
    let pages = monitor_pages(false);
    let gdt = usize::try_from(MONITOR_GDT.base - MONITOR_BASE).unwrap();
    let descriptor = |selector: u16| {
        let at = gdt + usize::from(selector & !7);
        u64::from_le_bytes(pages[at..at + 8].try_into().unwrap())
    };
    for (selector, privilege, kind) in [(KERNEL_CS, 0, 0xb), (USER_CS, 3, 0xb), (USER_DS, 3, 3)] {
        let found = descriptor(selector);
        assert_eq!(
            (found >> 45 & 3, found >> 40 & 0xf, found >> 47 & 1),
            (privilege, kind, 1),
            "{selector:#x}"
        );
    }
    // Every other one that a guest could load faults.
    for selector in (0..256_u16).step_by(8) {
        let ours = [KERNEL_CS, USER_CS & !7, USER_DS & !7, TSS_SELECTOR, TSS_SELECTOR + 8];
        assert!(ours.contains(&selector) || descriptor(selector) == 0, "{selector:#x}");
    }
    let base = descriptor(TSS_SELECTOR) >> 16 & 0xff_ffff | descriptor(TSS_SELECTOR) >> 32 & 0xff00_0000;
    assert_eq!(base | descriptor(TSS_SELECTOR + 8) << 32, MONITOR_TSS.base);
}
