//! Images without an ABI note: what is guessed from their code.

use crate::common::{
    elf::{ElfBuilder, RW, RX},
    guests::{CALL_POINTER, CODE, EXIT, PPOLL, TEXT, legacy, legacy_code, out},
};
use nabla_core::{Abi, AbiSource, Image, ImageError};

/// What is guessed, and why, for a guest with this code.
fn guess(code: &[u8]) -> Option<(Abi, Vec<String>)> {
    match Image::parse(legacy(code).as_slice()) {
        Ok(image) => match image.abi_source() {
            AbiSource::Guess { reasons } => Some((image.abi(), reasons.clone())),
            other => panic!("{other:?}"),
        },
        Err(ImageError::Unidentified) => None,
        Err(error) => panic!("{error}"),
    }
}

fn guessed(sequences: &[&[u8]]) -> Option<Abi> {
    guess(&legacy_code(sequences)).map(|(abi, _)| abi)
}

/// All calls of a kind of bindings.
fn outs(ports: impl IntoIterator<Item = u16>) -> Vec<u8> {
    legacy_code(&ports.into_iter().map(out).collect::<Vec<_>>().iter().map(Vec::as_slice).collect::<Vec<_>>())
}

#[test]
fn hvt_of_0_3_and_0_4_is_told_by_console_and_halt() {
    let (abi, reasons) = guess(&outs(0x501..=0x50a)).unwrap();
    assert_eq!(abi, Abi::HvtWithoutNote);
    assert_eq!(
        reasons,
        [
            "an OUT to port 0x502, the console of hvt, first at 0x10001b",
            "an OUT to port 0x50a, halt of hvt without a note, first at 0x100073",
        ]
    );
}

#[test]
fn ukvm_0_2_is_told_by_its_console_although_it_uses_port_0x502_too() {
    // Its three block calls go through 0x502, the console through 0x499 once.
    let ports = [0x506, 0x507, 0x505, 0x503, 0x504, 0x502, 0x502, 0x502, 0x499, 0x509];
    let (abi, reasons) = guess(&outs(ports)).unwrap();
    assert_eq!(abi, Abi::Ukvm);
    assert!(reasons[0].contains("0x499") && reasons[1].contains("0x509"), "{reasons:?}");
}

#[test]
fn hvt_that_lost_its_note_is_not_taken_for_an_older_one() {
    assert_eq!(guess(&outs(0x501..=0x508)), None);
}

#[test]
fn spt_of_2019_is_told_by_ppoll_and_exit() {
    assert_eq!(guessed(&[PPOLL, EXIT]), Some(Abi::SptWithoutNote));
    assert_eq!(guessed(&[PPOLL]), None);
    assert_eq!(guessed(&[EXIT]), None);
}

#[test]
fn nabla_2018_is_told_by_calls_through_its_pointer() {
    let (abi, reasons) = guess(&legacy_code(&[CALL_POINTER; 10])).unwrap();
    assert_eq!(abi, Abi::Nabla2018);
    assert_eq!(reasons, ["calls through the function pointer at 0x10000, first at 0x100010"]);
    assert_eq!(guessed(&[CALL_POINTER; 2]), None, "two may be a coincidence");
    // jmp [0x10000]; mov rax, [0x10000]; mov r12, [0x10000]
    let forms: [&[u8]; 3] = [
        &[0xff, 0x24, 0x25, 0, 0, 1, 0],
        &[0x48, 0x8b, 4, 0x25, 0, 0, 1, 0],
        &[0x4c, 0x8b, 0x24, 0x25, 0, 0, 1, 0],
    ];
    assert_eq!(guessed(&forms), Some(Abi::Nabla2018));
}

#[test]
fn out_counts_in_every_form_that_compilers_make() {
    let forms: [&[u8]; 5] = [
        b"\xef",
        b"\x89\xf0\xef",                     // mov eax, esi
        b"\x48\x89\xe0\xef",                 // mov rax, rsp
        b"\x48\x8d\x44\x24\x10\x89\xc0\xef", // lea rax, [rsp + 16]; mov eax, eax
        b"\x8b\x84\x24\x00\x01\x00\x00\xef", // mov eax, [rsp + 256]
    ];
    for form in forms {
        let call = |port: u8| [&[0xba, port, 5, 0, 0], form].concat();
        assert_eq!(guessed(&[&call(2), &call(10)]), Some(Abi::HvtWithoutNote), "{form:02x?}");
        let call = |port: u8| [&[0x66, 0xba, port, 5], form].concat();
        assert_eq!(guessed(&[&call(2), &call(10)]), Some(Abi::HvtWithoutNote), "{form:02x?}");
    }
}

#[test]
fn constant_without_its_instruction_tells_nothing() {
    let others: [&[u8]; 4] = [
        b"\xe8\xef\0\0\0",   // call
        b"\x48\x89\xef\xc3", // mov rdi, rbp: the byte of `out` inside of another instruction
        b"\xbf\xef\0\0\0",   // mov edi
        b"\xec",             // in
    ];
    for other in others {
        let call = |port: u8| [&[0xba, port, 5, 0, 0], other].concat();
        assert_eq!(guessed(&[&call(2), &call(10)]), None, "{other:02x?}");
    }
    assert_eq!(guessed(&[&[0xba, 0x0a, 5, 1, 0, 0xef], &out(0x502)]), None, "0x1050a is no port");
    assert_eq!(guessed(&[&[0xff, 0x14, 0x25, 0, 0, 2, 0][..]; 9]), None, "another address");
    assert_eq!(guessed(&[&[0x48, 0x8b, 0x05, 0x25, 0, 0, 1, 0][..]; 9]), None, "relative to rip");
    assert_eq!(guessed(&[&[0x48, 0x8b, 0x84, 0x25, 0, 0, 1, 0][..]; 9]), None, "relative to rbp");
}

#[test]
fn system_calls_of_an_ordinary_program_tell_nothing() {
    // ppoll of a libc has a signal mask in r10 and its size in r8; exit_group is followed by hlt, or by a check.
    let ppoll: &[u8] = b"\x41\xb8\x08\0\0\0\xb8\x0f\x01\0\0\x0f\x05";
    let exits: [&[u8]; 2] = [b"\xb8\xe7\0\0\0\x0f\x05\xf4", b"\xb8\xe7\0\0\0\x0f\x05\x48\x3d\0\xf0\xff\xff"];
    for exit in exits {
        assert_eq!(guessed(&[ppoll, exit]), None);
        assert_eq!(guessed(&[PPOLL, exit]), None);
    }
    assert_eq!(guessed(&[ppoll, EXIT]), None);
    // Another call without its fourth and fifth argument, and no call at all.
    let pselect: &[u8] = b"\x45\x31\xd2\x45\x31\xc0\xb8\x0e\x01\0\0\x0f\x05";
    assert_eq!(guessed(&[pselect, EXIT]), None);
    assert_eq!(guessed(&[PPOLL, b"\xb8\xe7\0\0\0\x90\x90\xeb\xfe"]), None);
}

#[test]
fn ppoll_counts_whatever_the_order() {
    let forms: [&[u8]; 3] = [
        b"\x45\x31\xc0\x45\x31\xd2\xb8\x0f\x01\0\0\x0f\x05",
        b"\x41\xba\0\0\0\0\x41\xb8\0\0\0\0\xb8\x0f\x01\0\0\x0f\x05",
        b"\xb8\x0f\x01\0\0\x45\x31\xd2\x45\x31\xc0\x0f\x05",
    ];
    for form in forms {
        assert_eq!(guessed(&[form, EXIT]), Some(Abi::SptWithoutNote), "{form:02x?}");
    }
}

#[test]
fn exit_counts_when_its_loop_is_aligned() {
    let aligned = b"\xb8\xe7\0\0\0\x0f\x05\x66\x2e\x0f\x1f\x84\0\0\0\0\0\x90\xeb\xfe";
    assert_eq!(guessed(&[PPOLL, aligned]), Some(Abi::SptWithoutNote));
}

#[test]
fn sequence_cut_off_by_the_end_of_the_code_tells_nothing() {
    for (sequence, other) in
        [(out(0x50a), out(0x502)), (PPOLL.to_vec(), EXIT.to_vec()), (EXIT.to_vec(), PPOLL.to_vec())]
    {
        let code = [legacy_code(&[&other]), sequence.clone()].concat();
        assert!(guess(&code).is_some());
        for cut in 1..sequence.len() {
            assert_eq!(guess(&code[..code.len() - cut]), None);
        }
    }
}

#[test]
fn sequence_across_chunks_and_far_from_the_entry_is_found() {
    // The code is read in chunks of 256 KiB; the entry is at its start.
    for start in (256 << 10) - 10..=256 << 10 {
        let mut code = vec![0x90; 700 << 10];
        for (at, port) in [(start, 0x502), (600 << 10, 0x50a)] {
            code[at..at + 8].copy_from_slice(&out(port));
        }
        let (abi, reasons) = guess(&code).unwrap();
        assert_eq!(abi, Abi::HvtWithoutNote);
        assert!(reasons[0].ends_with(&format!("at {:#x}", TEXT + start as u64)), "{reasons:?}");
    }
}

#[test]
fn what_is_near_the_entry_counts_more_than_what_is_far() {
    let mut code = vec![0x90; 1 << 20];
    let (hvt, ukvm) = (outs(0x501..=0x50a), outs([0x499, 0x509]));
    for (near, far, expected) in [(&hvt, &ukvm, Abi::HvtWithoutNote), (&ukvm, &hvt, Abi::Ukvm)] {
        code[..near.len()].copy_from_slice(near);
        code[1 << 19..][..far.len()].copy_from_slice(far);
        assert_eq!(guess(&code).unwrap().0, expected);
    }
}

#[test]
fn only_executable_bytes_of_the_file_are_searched() {
    let code = outs(0x501..=0x50a);
    let data = ElfBuilder::new(TEXT)
        .load(RX, TEXT, CODE, 16)
        .load(RW, TEXT + 0x1000, &code, code.len() as u64)
        .build();
    assert_eq!(Image::parse(data.as_slice()), Err(ImageError::Unidentified));
    let two = ElfBuilder::new(TEXT + 0x1000)
        .load(RX, TEXT, &outs([0x502]), 0x800)
        .load(RX, TEXT + 0x1000, &outs([0x50a]), 1 << 40)
        .build();
    assert_eq!(Image::parse(two.as_slice()).unwrap().abi(), Abi::HvtWithoutNote);
}
