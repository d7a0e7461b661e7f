//! Notes: where they are looked for, their padding, their sizes.

use crate::common::{
    elf::{PT_NOTE, in_phdr, note, phdr, poke},
    guests::{abi1, guest, index, manifest, mft1, names, net1, not_openbsd, segments, spt_v2, two_devices},
};
use nabla_core::{
    Abi, DeviceKind, Image, ImageError, ManifestError, NoteError, Warning,
    abi::{self, ABI1_NOTE_TYPE, MFT1_NOTE_TYPE, NOTE_NAME, TARGET_SPT},
};

/// Parses segments with these contents of PT_NOTE headers.
fn parse(notes: &[Vec<u8>]) -> Result<Image, ImageError> {
    let builder = notes.iter().fold(segments(), |builder, note| builder.unloaded(PT_NOTE, note));
    Image::parse(builder.build().as_slice())
}

fn note_error(notes: &[Vec<u8>]) -> NoteError {
    match parse(notes) {
        Err(ImageError::Note(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn good() -> [Vec<u8>; 2] {
    [abi1(TARGET_SPT, 2), mft1(&two_devices().encode())]
}

#[test]
fn notes_in_headers_of_their_own_are_found() {
    let image = Image::parse(spt_v2().as_slice()).unwrap();
    assert_eq!(image.abi(), Abi::SptV2);
    assert_eq!(names(image.manifest().devices()), [(1, "storage".into()), (2, "service0".into())]);
}

#[test]
fn several_notes_in_one_header_are_found_in_any_order() {
    let [abi, mft] = good();
    let foreign = note(b"GNU\0", 3, &[1; 20]);
    let odd = note(b"odd", 7, b"12345");
    for order in [[&abi, &mft, &foreign, &odd], [&foreign, &mft, &odd, &abi], [&odd, &foreign, &mft, &abi]] {
        let image = parse(&[order.into_iter().flatten().copied().collect()]).unwrap();
        assert_eq!((image.abi(), image.manifest().entry_count()), (Abi::SptV2, 3));
        assert!(!image.warnings().contains(&Warning::DuplicateNote));
    }
}

#[test]
fn first_of_two_notes_counts_and_the_second_is_reported() {
    let [abi, mft] = good();
    for second in [abi1(TARGET_SPT, 1), mft1(&two_devices().encode())] {
        let image = parse(&[abi.clone(), mft.clone(), second]).unwrap();
        assert_eq!(image.abi(), Abi::SptV2);
        assert!(image.warnings().contains(&Warning::DuplicateNote));
    }
}

#[test]
fn notes_of_others_do_not_matter() {
    let [abi, mft] = good();
    let others = [
        // Another owner with our type, our name without its NUL or longer, and our name with another type.
        note(b"Other\0", ABI1_NOTE_TYPE, &[9; 16]),
        note(b"Solo5", ABI1_NOTE_TYPE, &[9; 16]),
        note(b"Solo5\0\0", ABI1_NOTE_TYPE, &[9; 16]),
        note(&NOTE_NAME, 1, &[9; 16]),
        note(b"", 0, b""),
        vec![0; 24],
        vec![1; 11],
    ];
    for other in others {
        let image = parse(&[other.clone(), abi.clone(), mft.clone()]).unwrap();
        assert_eq!(image.abi(), Abi::SptV2, "{other:?}");
        assert!(!image.warnings().contains(&Warning::DuplicateNote));
    }
}

#[test]
fn note_about_network_arguments_is_found_after_another() {
    let [abi, mft] = good();
    assert_eq!(parse(&[abi.clone(), mft.clone()]).unwrap().net_note(), None);
    for (first, version) in [(not_openbsd(), 1), (abi1(TARGET_SPT, 2), 7)] {
        let image = parse(&[[first, net1(version)].concat(), abi.clone(), mft.clone()]).unwrap();
        assert_eq!(image.net_note().map(|note| note.version), Some(version));
    }
    let twice = parse(&[net1(1), abi.clone(), mft.clone(), net1(2)]).unwrap();
    assert_eq!(twice.net_note().map(|note| note.version), Some(1));
    assert!(twice.warnings().contains(&Warning::DuplicateNote));
    // What a later version appends does not matter, and neither do notes of other owners and types.
    let (owner, kind) = (&abi::net1::NOTE_NAME, abi::net1::NOTE_TYPE);
    for (note, version) in [
        (note(owner, kind, &[2, 0, 0, 0, 9, 9]), Some(2)),
        (note(b"Solo5\0", kind, &[1, 0, 0, 0]), None),
        (note(b"Nabla", kind, &[1, 0, 0, 0]), None),
        (note(owner, ABI1_NOTE_TYPE, &[1; 16]), None),
    ] {
        let image = parse(&[note, abi.clone(), mft.clone()]).unwrap();
        assert_eq!((image.abi(), image.net_note().map(|note| note.version)), (Abi::SptV2, version));
    }
}

#[test]
fn note_about_network_arguments_that_is_too_small_returns_error() {
    let (owner, kind) = (&abi::net1::NOTE_NAME, abi::net1::NOTE_TYPE);
    for size in 0..4 {
        assert_eq!(note_error(&[note(owner, kind, &vec![1; size])]), NoteError::NetSize { size });
    }
    let mut cut = net1(1);
    poke(&mut cut, 4, 5_u32);
    let index = segments().next_index() as u16;
    assert_eq!(note_error(&[cut]), NoteError::Truncated { index, note_type: kind, size: 5, available: 4 });
}

#[test]
fn name_that_reaches_past_the_end_is_no_note_of_ours() {
    let [abi, mft] = good();
    for namesz in [0x100_u32, u32::MAX, u32::MAX - 2] {
        let mut cut = not_openbsd();
        poke(&mut cut, 0, namesz);
        assert!(parse(&[cut, abi.clone(), mft.clone()]).is_ok());
    }
}

#[test]
fn foreign_note_that_reaches_past_the_end_hides_what_follows() {
    let [abi, mft] = good();
    let mut cut = not_openbsd();
    poke(&mut cut, 4, u32::MAX);
    assert!(parse(&[cut.clone(), abi.clone(), mft.clone()]).is_ok(), "in a header of its own it is harmless");
    assert_eq!(parse(&[[cut, abi].concat(), mft]), Err(ImageError::Unidentified));
}

#[test]
fn note_of_ours_that_reaches_past_the_end_returns_error() {
    for (i, note_type, there) in [(0, ABI1_NOTE_TYPE, 16), (1, MFT1_NOTE_TYPE, 4 + 8 + 3 * 104)] {
        for size in [there as u32 + 1, u32::MAX] {
            let mut notes = good();
            poke(&mut notes[i], 4, size);
            let index = segments().next_index() as u16 + i as u16;
            assert_eq!(note_error(&notes), NoteError::Truncated { index, note_type, size, available: there });
        }
    }
}

#[test]
fn note_cut_off_by_the_end_of_the_file_returns_error() {
    // Only the manifest's note is after everything else.
    let file = spt_v2();
    for cut in [1, 100, 300] {
        let available = 4 + 8 + 3 * 104 - cut;
        match Image::parse(&file[..file.len() - cut]) {
            Err(ImageError::Note(NoteError::Truncated { index, note_type, size: 324, available: there })) => {
                assert_eq!((usize::from(index), note_type, there), (index::MFT1, MFT1_NOTE_TYPE, available));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn abi_note_of_another_size_returns_error() {
    for size in [0, 4, 12, 15, 17, 20, 32] {
        let notes = [note(&NOTE_NAME, ABI1_NOTE_TYPE, &vec![2; size])];
        assert_eq!(note_error(&notes), NoteError::AbiSize { size });
    }
}

#[test]
fn abi_note_has_no_padding_and_manifest_note_has_four_bytes_of_it() {
    let [abi, mft] = good();
    assert_eq!((&abi[12..18], &abi[20..28]), (&NOTE_NAME[..], &[2, 0, 0, 0, 2, 0, 0, 0][..]));
    assert_eq!(&mft[20..32], &[0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
    // What is in the padding does not matter.
    let mut junk = mft;
    junk[20..24].fill(0xff);
    assert!(parse(&[abi, junk]).is_ok());
}

#[test]
fn manifest_note_of_impossible_size_returns_error() {
    let [abi, _] = good();
    for size in [0, 1, 4, 11, 6669, 60000] {
        let notes = [abi.clone(), note(&NOTE_NAME, MFT1_NOTE_TYPE, &vec![0; size])];
        assert_eq!(note_error(&notes), NoteError::ManifestSize { size });
    }
}

#[test]
fn manifest_notes_of_least_and_of_most_size_are_parsed() {
    let [abi, _] = good();
    let no_entries = [1, 0, 0, 0, 0, 0, 0, 0];
    let error = ManifestError::EntryCount { entries: 0 };
    assert_eq!(parse(&[abi.clone(), mft1(&no_entries)]), Err(ImageError::Manifest(error)));
    let names: Vec<String> = (1..64).map(|i| format!("device{i}")).collect();
    let devices: Vec<_> = names.iter().map(|name| (DeviceKind::Net, name.as_str())).collect();
    let note = mft1(&manifest(&devices).encode());
    assert_eq!(note.len(), 20 + 6668);
    assert_eq!(parse(&[abi, note]).unwrap().manifest().devices().count(), 63);
}

#[test]
fn manifest_note_with_a_byte_too_many_returns_error() {
    let [abi, _] = good();
    let mut content = two_devices().encode();
    content.push(0);
    assert_eq!(
        parse(&[abi, mft1(&content)]),
        Err(ImageError::Manifest(ManifestError::Size { size: 321, entries: 3, expected: 320 }))
    );
}

#[test]
fn only_the_first_64_kib_of_a_header_are_read() {
    let [abi, mft] = good();
    let padding = |size: usize| note(b"pad\0", 1, &vec![0; size - 16]);
    let fits = [padding((64 << 10) - abi.len()), abi.clone()].concat();
    assert!(parse(&[fits, mft.clone()]).is_ok());
    let beyond = [padding(64 << 10), abi].concat();
    assert_eq!(parse(&[beyond, mft]), Err(ImageError::Unidentified));
    // A header of absurd size is harmless, as long as the note comes first.
    let builder = guest(TARGET_SPT, 2, &two_devices());
    let mut file = builder.build();
    for i in [index::ABI1, index::MFT1] {
        poke(&mut file, in_phdr(i, phdr::FILESZ), 0x22_32e0_u64);
    }
    let image = Image::parse(file.as_slice()).unwrap();
    assert_eq!(image.warnings().iter().filter(|w| matches!(w, Warning::OddHeader(_))).count(), 2);
}
