//! The ELF file: what is loaded, what is refused, by field and value.

use crate::common::{
    checks,
    elf::{ElfBuilder, PT_INTERP, PT_NOTE, PT_NULL, Part, R, RW, RWX, RX, ehdr, in_phdr, phdr, poke},
    guests::{CODE, TEXT, index, segments, spt_v2},
};
use nabla_core::{
    ElfError, Permissions,
    elf::{Elf, FileRange, MAX_ADDRESS, OddHeader, PageRange, page_down, page_up},
};

/// The error for [`spt_v2`] with one field of the ELF header changed.
fn with_header(field: usize, value: impl Into<crate::common::elf::Field>) -> ElfError {
    let mut file = spt_v2();
    poke(&mut file, field, value);
    Elf::parse(file.as_slice()).unwrap_err()
}

/// [`spt_v2`] with fields of one program header changed.
fn with_segment(index: usize, fields: &[(usize, u64)]) -> Result<Elf, ElfError> {
    let mut file = spt_v2();
    for &(field, value) in fields {
        poke(&mut file, in_phdr(index, field), value);
    }
    Elf::parse(file.as_slice())
}

fn parse(builder: &ElfBuilder) -> Result<Elf, ElfError> {
    Elf::parse(builder.build().as_slice())
}

fn permissions(text: &str) -> Permissions {
    Permissions { read: text.contains('r'), write: text.contains('w'), execute: text.contains('x') }
}

/// Address, size in memory and size in the file of every segment.
fn shapes(elf: &Elf) -> Vec<(u64, u64, u64)> {
    elf.segments.iter().map(|s| (s.address, s.memory_size, s.file_size)).collect()
}

fn ranges(elf: &Elf) -> Vec<(u64, u64, String)> {
    let triple =
        |PageRange { pages, permissions }: PageRange| (pages.start, pages.end, permissions.to_string());
    elf.page_ranges().into_iter().map(triple).collect()
}

#[test]
fn segments_of_a_typical_guest_are_all_non_empty_ones() {
    let elf = Elf::parse(spt_v2().as_slice()).unwrap();

    assert_eq!(elf.entry, TEXT);
    assert_eq!(
        shapes(&elf),
        [(TEXT, CODE.len() as u64, CODE.len() as u64), (TEXT + 0x1000, 4, 4), (TEXT + 0x2000, 0x58, 0)]
    );
    assert_eq!(
        elf.segments.iter().map(|s| usize::from(s.index)).collect::<Vec<_>>(),
        [index::TEXT, index::DATA, index::BSS]
    );
    assert_eq!(elf.segments[2].file_offset, 0, "there are no bytes");
    assert_eq!(elf.end(), TEXT + 0x3000);
    assert_eq!((elf.notes.len(), elf.interp.is_some(), elf.odd_headers.len()), (3, true, 0));
}

#[test]
fn no_elf_file_is_told_by_its_first_bytes() {
    for (file, start) in
        [(&b""[..], &b""[..]), (b"#!/bin/sh", b"#!/b"), (b"\x7fEL", b"\x7fEL"), (&[0; 100], &[0; 4])]
    {
        assert_eq!(Elf::parse(file), Err(ElfError::Magic { start: start.to_vec() }));
    }
    let message = |file: &[u8]| Elf::parse(file).unwrap_err().to_string();
    assert_eq!(
        message(b"#!/bin/sh"),
        "it is not an ELF file: it starts with 23 21 2f 62 ('#!/b'), and not with 7f 45 4c 46"
    );
    assert_eq!(message(b""), "it is not an ELF file: it is empty");
}

#[test]
fn short_file_is_told_by_its_size() {
    for size in 4..64 {
        assert_eq!(Elf::parse(&spt_v2()[..size]), Err(ElfError::TooShort { size: size as u64 }));
    }
}

#[test]
fn every_wrong_field_of_the_header_has_its_own_error() {
    assert_eq!(with_header(ehdr::CLASS, 1_u8), ElfError::Class { class: 1 });
    assert_eq!(with_header(ehdr::DATA, 2_u8), ElfError::ByteOrder { data: 2 });
    assert_eq!(with_header(ehdr::VERSION, 0_u32), ElfError::Version { version: 0 });
    assert_eq!(with_header(ehdr::TYPE, 3_u16), ElfError::Type { kind: 3 });
    assert_eq!(with_header(ehdr::MACHINE, 183_u16), ElfError::Machine { machine: 183 });
    assert_eq!(with_header(ehdr::EHSIZE, 52_u16), ElfError::HeaderSize { size: 52 });
    assert_eq!(with_header(ehdr::PHENTSIZE, 32_u16), ElfError::ProgramHeaderSize { size: 32 });
    for count in [0, 129, 0xffff] {
        assert_eq!(with_header(ehdr::PHNUM, count), ElfError::ProgramHeaderCount { count });
    }
}

#[test]
fn type_is_shown_with_its_name() {
    for (kind, name) in
        [(0, "ET_NONE"), (1, "an object file"), (3, "PIE"), (4, "a core dump"), (0xfe00_u16, "unknown")]
    {
        let message = with_header(ehdr::TYPE, kind).to_string();
        assert!(message.contains(name) && message.contains(&kind.to_string()), "{message}");
    }
}

#[test]
fn os_abi_and_section_headers_are_ignored() {
    let mut file = spt_v2();
    poke(&mut file, 7, 12_u8);
    file[40..48].fill(0xff);
    file[58..64].fill(0xff);
    assert!(Elf::parse(file.as_slice()).is_ok());
}

#[test]
fn program_headers_outside_of_the_file_return_error() {
    let size = spt_v2().len() as u64;
    for offset in [size - 9 * 56 + 1, size, u64::MAX, u64::MAX - 9 * 56 + 1] {
        assert_eq!(with_header(ehdr::PHOFF, offset), ElfError::ProgramHeadersOutside { offset, size });
    }
}

#[test]
fn program_headers_at_the_very_end_of_the_file_are_read() {
    let mut file = spt_v2();
    let headers = file[ehdr::SIZE..ehdr::SIZE + 9 * phdr::SIZE].to_vec();
    let offset = file.len() as u64;
    poke(&mut file, ehdr::PHOFF, offset);
    file.extend_from_slice(&headers);
    assert_eq!(Elf::parse(file.as_slice()).unwrap().segments.len(), 3);
}

#[test]
fn most_program_headers_are_128() {
    let builder = |n: usize| (1..n).fold(segments(), |b, _| b.load(R, 0, b"", 0));
    let fill = builder(1).next_index();
    assert!(parse(&builder(129 - fill)).is_ok());
    assert_eq!(parse(&builder(130 - fill)), Err(ElfError::ProgramHeaderCount { count: 129 }));
}

#[test]
fn every_wrong_field_of_a_segment_has_its_own_error() {
    let size = spt_v2().len() as u64;
    let error = |fields: &[(usize, u64)]| with_segment(index::DATA, fields).unwrap_err();
    let index = 2;
    assert_eq!(
        error(&[(phdr::MEMSZ, 3)]),
        ElfError::MemoryBelowFileSize { index, memory_size: 3, file_size: 4 }
    );
    assert_eq!(
        error(&[(phdr::MEMSZ, 0)]),
        ElfError::MemoryBelowFileSize { index, memory_size: 0, file_size: 4 }
    );
    for offset in [size - 3, size, u64::MAX, u64::MAX - 3] {
        assert_eq!(
            error(&[(phdr::OFFSET, offset)]),
            ElfError::SegmentOutsideFile { index, offset, file_size: 4, size }
        );
    }
    for address in [0, 0xf_ffff] {
        assert_eq!(error(&[(phdr::VADDR, address)]), ElfError::SegmentTooLow { index, address });
    }
    for align in [3, 0x1001, u64::MAX] {
        assert_eq!(error(&[(phdr::ALIGN, align)]), ElfError::Alignment { index, align });
    }
}

#[test]
fn segment_that_ends_at_the_highest_address_is_loaded_and_one_byte_more_is_not() {
    let bss = |address, memory_size| {
        with_segment(index::BSS, &[(phdr::VADDR, address), (phdr::MEMSZ, memory_size)])
    };
    assert_eq!(bss(MAX_ADDRESS - 1, 1).unwrap().end(), MAX_ADDRESS);
    assert!(bss(TEXT + 0x2000, MAX_ADDRESS - TEXT - 0x2000).is_ok());
    for (address, memory_size) in [
        (MAX_ADDRESS - 1, 2),
        (MAX_ADDRESS, 1),
        (u64::MAX, 1),
        (u64::MAX - 0xfff, 0x1000),
        (TEXT + 0x2000, u64::MAX),
    ] {
        assert_eq!(
            bss(address, memory_size),
            Err(ElfError::SegmentTooHigh { index: 5, address, memory_size })
        );
    }
}

#[test]
fn alignment_zero_and_one_mean_none() {
    for align in [0, 1, 1 << 63] {
        assert!(with_segment(index::DATA, &[(phdr::ALIGN, align)]).is_ok(), "{align}");
    }
}

#[test]
fn load_descending_segments_returns_error() {
    let error = parse(&ElfBuilder::new(TEXT).load(RX, TEXT + 0x1000, CODE, 16).load(RW, TEXT, b"data", 4));
    assert_eq!(error, Err(ElfError::Order { index: 1, address: TEXT, previous: TEXT + 0x1000 }));
}

#[test]
fn load_overlapping_segments_returns_error() {
    for (address, previous) in [(TEXT, 0x10), (TEXT + 0xf, 0x10), (TEXT + 0x1fff, 0x2000)] {
        let error =
            parse(&ElfBuilder::new(TEXT).load(RX, TEXT, CODE, previous).load(RW, address, b"data", 4));
        assert_eq!(error, Err(ElfError::Overlap { index: 1, address, previous_end: TEXT + previous }));
    }
}

#[test]
fn segments_that_touch_are_loaded() {
    let elf = parse(&ElfBuilder::new(TEXT).load(RX, TEXT, CODE, 0x1000).load(RW, TEXT + 0x1000, b"data", 4))
        .unwrap();
    assert_eq!(shapes(&elf), [(TEXT, 0x1000, 16), (TEXT + 0x1000, 4, 4)]);
}

#[test]
fn empty_segment_at_address_zero_is_skipped_whatever_else_it_says() {
    let fields = [(phdr::OFFSET, u64::MAX), (phdr::VADDR, 0), (phdr::ALIGN, 3)];
    assert_eq!(with_segment(index::EMPTY, &fields).unwrap().segments.len(), 3);
    let fields = [(phdr::OFFSET, 0), (phdr::VADDR, u64::MAX), (phdr::ALIGN, 0)];
    assert_eq!(with_segment(index::EMPTY, &fields).unwrap().segments.len(), 3);
}

#[test]
fn bss_alone_needs_no_bytes_in_the_file() {
    let elf = with_segment(index::BSS, &[(phdr::OFFSET, u64::MAX), (phdr::MEMSZ, 1 << 40)]).unwrap();
    let bss = elf.segments[2];
    assert_eq!((bss.file_offset, bss.file_size, bss.memory_size), (0, 0, 1 << 40));
    assert_eq!(bss.permissions, Permissions::READ_WRITE);
}

#[test]
fn file_without_segments_returns_error() {
    let empty = ElfBuilder::new(0).load(R, 0, b"", 0).unloaded(PT_NOTE, b"note");
    assert_eq!(parse(&empty), Err(ElfError::NothingToLoad));
}

#[test]
fn entry_outside_of_executable_segments_returns_error() {
    let last = TEXT + CODE.len() as u64 - 1;
    for entry in [TEXT, last] {
        let mut file = spt_v2();
        poke(&mut file, ehdr::ENTRY, entry);
        assert_eq!(Elf::parse(file.as_slice()).unwrap().entry, entry);
    }
    for entry in [0, TEXT - 1, last + 1, TEXT + 0x1000, TEXT + 0x2000, u64::MAX] {
        assert_eq!(with_header(ehdr::ENTRY, entry), ElfError::Entry { entry });
    }
}

#[test]
fn unused_program_header_is_ignored() {
    let junk = Part { kind: PT_NULL, flags: 7, address: 1, bytes: vec![], memory_size: 1, align: 3 };
    let builder = segments().part(junk);
    let mut file = builder.build();
    for field in [phdr::OFFSET, phdr::FILESZ] {
        poke(&mut file, in_phdr(builder.next_index() - 1, field), u64::MAX);
    }
    assert_eq!(Elf::parse(file.as_slice()).unwrap().odd_headers, []);
}

#[test]
fn rumpruns_odd_interpreter_is_clipped_and_reported() {
    let mut file = spt_v2();
    let interp = |file: &[u8]| Elf::parse(file).unwrap().interp.unwrap();
    let FileRange { offset, size: 20, .. } = interp(&file) else { panic!("no interpreter") };
    poke(&mut file, in_phdr(index::INTERP, phdr::FILESZ), 0x22_32e0_u64);
    poke(&mut file, in_phdr(index::INTERP, phdr::MEMSZ), 0x164_u64);

    let elf = Elf::parse(file.as_slice()).unwrap();

    assert_eq!(interp(&file), FileRange { index: 0, offset, size: file.len() as u64 - offset });
    let odd = OddHeader { index: 0, kind: PT_INTERP, file_size: 0x22_32e0, memory_size: 0x164 };
    assert_eq!(elf.odd_headers, [odd]);
}

#[test]
fn header_that_claims_more_in_the_file_than_in_memory_is_reported() {
    for (memory_size, odd) in [(0, 0), (19, 1), (20, 0), (21, 0)] {
        let elf = with_segment(index::INTERP, &[(phdr::MEMSZ, memory_size)]).unwrap();
        assert_eq!(elf.odd_headers.len(), odd, "{memory_size}");
    }
}

#[test]
fn header_without_bytes_may_lie_anywhere() {
    let elf = with_segment(index::INTERP, &[(phdr::OFFSET, u64::MAX), (phdr::FILESZ, 0)]).unwrap();
    assert_eq!((elf.interp, elf.odd_headers.len()), (None, 0));
}

#[test]
fn first_of_two_interpreters_counts() {
    let elf = parse(&segments().unloaded(PT_INTERP, b"/other\0")).unwrap();
    assert_eq!(elf.interp.unwrap().index, 0);
}

#[test]
fn note_outside_of_the_file_is_reported_and_not_read() {
    let mut file = spt_v2();
    poke(&mut file, in_phdr(index::MFT1, phdr::OFFSET), u64::MAX - 1);
    let elf = Elf::parse(file.as_slice()).unwrap();
    assert_eq!((elf.notes.len(), elf.odd_headers.len()), (2, 1));
    assert_eq!(elf.odd_headers[0].kind, PT_NOTE);
}

#[test]
fn page_ranges_merge_neighbours_with_equal_permissions() {
    let elf = parse(
        &ElfBuilder::new(TEXT)
            .load(RX, TEXT, CODE, 0x1800)
            .load(RX, TEXT + 0x2000, CODE, 16)
            .load(RW, TEXT + 0x3000, b"data", 4)
            .load(RW, TEXT + 0x4fff, b"", 2)
            .load(RW, TEXT + 0x8000, b"", 1),
    )
    .unwrap();
    assert_eq!(
        ranges(&elf),
        [
            (TEXT, TEXT + 0x3000, "r-x".into()),
            (TEXT + 0x3000, TEXT + 0x6000, "rw-".into()),
            (TEXT + 0x8000, TEXT + 0x9000, "rw-".into()),
        ]
    );
}

#[test]
fn page_ranges_unite_permissions_on_shared_pages_only() {
    let elf = parse(
        &ElfBuilder::new(TEXT)
            .load(RX, TEXT, CODE, 0x1010)
            .load(R, TEXT + 0x1010, b"constants", 0x1000)
            .load(RW, TEXT + 0x2010, b"data", 0x2000),
    )
    .unwrap();
    assert_eq!(
        ranges(&elf),
        [(TEXT, TEXT + 0x2000, "r-x".into()), (TEXT + 0x2000, TEXT + 0x5000, "rw-".into()),]
    );
}

#[test]
fn page_ranges_of_many_segments_in_one_page_are_one_page() {
    let elf = parse(
        &ElfBuilder::new(TEXT)
            .load(RX, TEXT, CODE, 16)
            .load(0, TEXT + 0x10, b"nothing", 7)
            .load(R, TEXT + 0x20, b"constants", 9)
            .load(1, TEXT + 0x30, b"execute only", 0x2000),
    )
    .unwrap();
    assert_eq!(
        ranges(&elf),
        [(TEXT, TEXT + 0x1000, "r-x".into()), (TEXT + 0x1000, TEXT + 0x3000, "--x".into()),]
    );
}

#[test]
fn shared_page_that_becomes_writable_and_executable_returns_error() {
    let error =
        parse(&ElfBuilder::new(TEXT).load(RX, TEXT, CODE, 0x1010).load(RW, TEXT + 0x1800, b"data", 4));
    assert_eq!(error, Err(ElfError::SharedPage { index: 1, page: TEXT + 0x1000 }));
}

#[test]
fn page_shared_by_three_that_becomes_writable_and_executable_returns_error() {
    // Each pair of neighbours would be fine.
    let error = parse(
        &ElfBuilder::new(TEXT)
            .load(RX, TEXT, CODE, 16)
            .load(R, TEXT + 0x10, b"constants", 9)
            .load(R, TEXT + 0x20, b"constants", 9)
            .load(RW, TEXT + 0x30, b"data", 4),
    );
    assert_eq!(error, Err(ElfError::SharedPage { index: 3, page: TEXT }));
}

#[test]
fn page_shared_with_a_writable_and_executable_segment_is_loaded() {
    let elf = parse(&ElfBuilder::new(TEXT).load(RWX, TEXT, CODE, 16).load(RW, TEXT + 0x10, b"data", 0x1000))
        .unwrap();
    assert_eq!(
        ranges(&elf),
        [(TEXT, TEXT + 0x1000, "rwx".into()), (TEXT + 0x1000, TEXT + 0x2000, "rw-".into())]
    );
}

#[test]
fn permissions_are_shown_as_in_proc_maps() {
    for text in ["---", "r--", "rw-", "r-x", "--x", "rwx"] {
        assert_eq!(permissions(text).to_string(), text);
        assert_eq!(format!("{:?}", permissions(text)), text);
        assert_eq!(permissions(text).is_writable_and_executable(), text == "rwx");
    }
}

#[test]
fn rounding_to_pages_never_wraps() {
    for (address, down, up) in
        [(0, 0, 0), (1, 0, 0x1000), (0xfff, 0, 0x1000), (0x1000, 0x1000, 0x1000), (u64::MAX, !0xfff, !0xfff)]
    {
        assert_eq!((page_down(address), page_up(address)), (down, up));
    }
}

#[test]
fn request_for_an_executable_stack_is_ignored() {
    // PT_GNU_STACK asks for one in old guests; that is not granted, and not an error.
    let stack = Part { kind: 0x6474_e551, flags: RWX, address: 0, bytes: vec![], memory_size: 0, align: 16 };
    let elf = parse(&segments().part(stack)).unwrap();
    assert_eq!((elf.segments.len(), elf.odd_headers.len()), (3, 0));
}

#[test]
fn invariants_hold_for_a_typical_guest() {
    checks::image(&spt_v2()).unwrap();
}
