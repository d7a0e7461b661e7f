//! Images: ABI, manifest, warnings, and the errors that are about more than one part of a file.

use crate::common::{
    elf::{ElfBuilder, PT_INTERP, PT_NOTE, RWX, in_phdr, phdr, poke},
    guests::{CODE, TEXT, abi1, guest, manifest, mft1, names, segments, spt_v2, two_devices},
};
use nabla_core::{
    Abi, AbiSource, ByteSize, DeviceKind, ElfError, Image, ImageError, Manifest, ManifestError, ReadAt,
    SourceError, Warning, abi, target_name,
};

fn parse(builder: &ElfBuilder) -> Result<Image, ImageError> {
    Image::parse(builder.build().as_slice())
}

#[test]
fn note_tells_the_abi() {
    for (target, version, expected) in [
        (abi::TARGET_HVT, 1, Abi::HvtV1),
        (abi::TARGET_HVT, 2, Abi::HvtV2),
        (abi::TARGET_SPT, 1, Abi::SptV1),
        (abi::TARGET_SPT, 2, Abi::SptV2),
    ] {
        let image = parse(&guest(target, version, &two_devices())).unwrap();
        assert_eq!((image.abi(), image.abi_source()), (expected, &AbiSource::Note));
        assert_eq!(image.warnings(), []);
    }
}

#[test]
fn other_targets_are_refused_by_name() {
    for (target, name) in
        [(3, "virtio"), (4, "muen"), (5, "genode"), (6, "xen"), (0, "unknown"), (7, "unknown")]
    {
        let error = parse(&guest(target, 1, &two_devices())).unwrap_err();
        assert_eq!(error, ImageError::Target { target });
        assert_eq!(target_name(target), name);
        let message = error.to_string();
        assert!(message.contains(name) && message.contains(&format!("abi_target {target}")), "{message}");
    }
}

#[test]
fn unknown_versions_are_refused_with_their_number() {
    for (target, version) in [(1, 0), (1, 3), (2, 0), (2, 3), (2, u32::MAX)] {
        let error = parse(&guest(target, version, &two_devices())).unwrap_err();
        assert_eq!(error, ImageError::Version { target, version });
        assert!(error.to_string().contains(&version.to_string()));
    }
}

#[test]
fn abi_note_without_manifest_returns_error() {
    let error = parse(&segments().unloaded(PT_NOTE, &abi1(2, 2))).unwrap_err();
    assert_eq!(error, ImageError::NoManifest { abi: Abi::SptV2 });
}

#[test]
fn invalid_manifest_returns_its_error() {
    let mut content = two_devices().encode();
    content[0] = 2;
    let error =
        parse(&segments().unloaded(PT_NOTE, &abi1(2, 2)).unloaded(PT_NOTE, &mft1(&content))).unwrap_err();
    assert_eq!(error, ImageError::Manifest(ManifestError::Version { version: 2 }));
}

#[test]
fn file_without_anything_is_unidentified() {
    assert_eq!(parse(&segments()), Err(ImageError::Unidentified));
}

#[test]
fn elf_error_is_passed_on() {
    assert!(matches!(Image::parse(&b"MZ"[..]), Err(ImageError::Elf(ElfError::Magic { .. }))));
}

#[test]
fn asked_for_abi_must_be_that_of_the_note() {
    let file = spt_v2();
    for wanted in Abi::ALL {
        match Image::parse_as(file.as_slice(), wanted) {
            Ok(image) => assert_eq!((wanted, image.abi_source()), (Abi::SptV2, &AbiSource::Note)),
            Err(error) => assert_eq!(error, ImageError::AbiMismatch { found: Abi::SptV2, wanted }),
        }
    }
}

#[test]
fn asked_for_abi_counts_where_there_is_no_note() {
    for wanted in Abi::ALL {
        let result = Image::parse_as(segments().build().as_slice(), wanted);
        if matches!(wanted, Abi::HvtV1 | Abi::HvtV2 | Abi::SptV1 | Abi::SptV2) {
            assert_eq!(result, Err(ImageError::NoManifest { abi: wanted }));
        } else {
            let image = result.unwrap();
            assert_eq!((image.abi(), image.abi_source()), (wanted, &AbiSource::Caller));
            assert_eq!(image.manifest(), &Manifest::new([]).unwrap());
        }
    }
}

#[test]
fn manifest_without_abi_note_is_enough_for_a_caller_who_knows() {
    let file = segments().unloaded(PT_NOTE, &mft1(&two_devices().encode())).build();
    assert_eq!(Image::parse(file.as_slice()), Err(ImageError::Unidentified));
    let image = Image::parse_as(file.as_slice(), Abi::SptV1).unwrap();
    assert_eq!(names(image.manifest().devices()).len(), 2);
}

#[test]
fn abi_names_round_trip_and_others_are_refused() {
    for abi in Abi::ALL {
        assert_eq!(abi.name().parse(), Ok(abi));
        assert_eq!(abi.to_string(), abi.name());
    }
    let message = "spt".parse::<Abi>().unwrap_err().to_string();
    for abi in Abi::ALL {
        assert!(message.contains(abi.name()), "{message}");
    }
}

#[test]
fn memory_limits_follow_the_backend() {
    for abi in Abi::ALL {
        let (unit, max) = if abi.needs_kvm() { (2 << 20, 4 << 30) } else { (4096, 64 << 40) };
        assert_eq!((abi.memory_unit(), abi.memory_max()), (ByteSize::bytes(unit), ByteSize::bytes(max)));
    }
}

#[test]
fn writable_executable_segment_is_a_warning() {
    let builder = ElfBuilder::new(TEXT)
        .load(RWX, TEXT, CODE, 16)
        .unloaded(PT_INTERP, abi::INTERP)
        .unloaded(PT_NOTE, &abi1(2, 1))
        .unloaded(PT_NOTE, &mft1(&two_devices().encode()));
    assert_eq!(parse(&builder).unwrap().warnings(), [Warning::WritableExecutable { index: 0 }]);
}

#[test]
fn interpreter_that_exists_is_a_warning() {
    let with_interp = |interp: Option<&[u8]>| {
        let builder = ElfBuilder::new(TEXT).load(5, TEXT, CODE, 16);
        let builder = interp.iter().fold(builder, |builder, path| builder.unloaded(PT_INTERP, path));
        parse(&builder.unloaded(PT_NOTE, &abi1(2, 1)).unloaded(PT_NOTE, &mft1(&two_devices().encode())))
            .unwrap()
    };
    for interp in
        [&abi::INTERP[..], b"/nonexistent/solo5/\0\0\0\0\0", b"/nonexistent/other\0", b"/nonexistent/"]
    {
        assert_eq!(with_interp(Some(interp)).warnings(), []);
    }
    for interp in [None, Some(&b"/lib64/ld-linux-x86-64.so.2\0"[..]), Some(b"/nonexistent"), Some(b"\0")] {
        assert_eq!(with_interp(interp).warnings(), [Warning::HostExecutable], "{interp:?}");
    }
}

#[test]
fn odd_header_is_a_warning_that_names_it() {
    let odd = |index, path: &[u8]| {
        let mut file = ElfBuilder::new(TEXT)
            .unloaded(PT_INTERP, path)
            .unloaded(PT_NOTE, &abi1(2, 1))
            .unloaded(PT_NOTE, &mft1(&two_devices().encode()))
            .load(5, TEXT, CODE, 16)
            .build();
        poke(&mut file, in_phdr(index, phdr::FILESZ), 0x22_32e0_u64);
        poke(&mut file, in_phdr(index, phdr::MEMSZ), 0x164_u64);
        let image = Image::parse(file.as_slice()).unwrap();
        image.warnings().iter().map(ToString::to_string).collect::<Vec<String>>()
    };
    let text =
        |name| format!("program header {name} has an odd size: 0x2232e0 bytes in the file, 0x164 in memory");
    assert_eq!(odd(2, abi::INTERP), [text("2 (PT_NOTE)")]);
    assert_eq!(odd(0, b"/lib64/ld.so\0")[0], text("0 (PT_INTERP)"));
    // As the linkers of rumprun and MirageOS guests make it.
    assert_eq!(odd(0, abi::INTERP), [""; 0]);
}

#[test]
fn odd_devices_are_warnings() {
    let devices = [
        (DeviceKind::Block, "a"),
        (DeviceKind::Net, "a"),
        (DeviceKind::Block, "a"),
        (DeviceKind::Unknown(9), "b"),
        (DeviceKind::Net, "with space"),
        (DeviceKind::Net, ""),
    ];
    let image = parse(&guest(2, 2, &manifest(&devices))).unwrap();
    let texts: Vec<String> = image.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "two devices are called 'a'",
            "device 'b' has the unknown type 9",
            "device name 'with space' is not alphanumeric",
            "device name '' is not alphanumeric",
        ]
    );
}

#[test]
fn minimum_memory_is_the_image_and_half_a_mebibyte_in_the_abis_unit() {
    // The image ends at 0x103000.
    for (target, minimum) in [(abi::TARGET_SPT, 0x18_3000), (abi::TARGET_HVT, 0x20_0000)] {
        let image = parse(&guest(target, 2, &two_devices())).unwrap();
        assert_eq!((image.end(), image.minimum_memory()), (0x10_3000, ByteSize::bytes(minimum)));
    }
}

/// A file that fails to be read from `bad` on, as a disk or a file that shrinks does.
struct Failing(Vec<u8>, u64);

impl ReadAt for Failing {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let length = buffer.len();
        if offset + length as u64 > self.1 {
            return Err(SourceError { offset, length, reason: "input/output error".into() });
        }
        self.0.as_slice().read_at(offset, buffer)
    }
}

#[test]
fn every_read_that_fails_is_an_error_with_the_offset() {
    let file = spt_v2();
    let mut failures = 0;
    for bad in 0..file.len() as u64 {
        let Err(error) = Image::parse(&Failing(file.clone(), bad)) else { continue };
        failures += 1;
        let message = error.to_string();
        assert!(message.starts_with("cannot read ") && message.ends_with("input/output error"), "{message}");
    }
    assert!(failures > 500, "{failures}");
}

#[test]
fn read_past_the_end_of_bytes_in_memory_is_an_error() {
    for (offset, length) in [(0, 4), (3, 1), (4, 0), (u64::MAX, 1)] {
        let mut buffer = vec![0; length];
        assert!(b"abc".as_slice().read_at(offset, &mut buffer).is_err(), "{offset} {length}");
    }
    let mut buffer = [0; 2];
    (&b"abc".as_slice()).read_at(1, &mut buffer).unwrap();
    assert_eq!(&buffer, b"bc");
}
