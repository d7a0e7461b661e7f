//! Builds whole guests, as somebody would outside of this repository, and looks at what comes out.

use super::program::Program;
use std::{fs, ops::Range, path::Path, process::Command};

use nabla_core::abi::{ABI1_NOTE_TYPE, GUEST_MIN_BASE, INTERP, MFT1_NOTE_TYPE, TARGET_HVT, TARGET_SPT};

const PT_LOAD: u64 = 1;
const PT_INTERP: u64 = 3;
const PT_NOTE: u64 = 4;

/// A program header.
#[derive(Debug)]
struct Segment {
    kind: u64,
    flags: u64,
    file: Range<usize>,
    address: u64,
    memory_size: u64,
    align: u64,
}

struct Elf {
    bytes: Vec<u8>,
    entry: u64,
    segments: Vec<Segment>,
}

impl Elf {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        assert_eq!(bytes[..6], *b"\x7fELF\x02\x01");
        let mut elf = Self { bytes, entry: 0, segments: Vec::new() };
        assert_eq!((elf.number(16, 2), elf.number(18, 2)), (2, 62), "ET_EXEC for x86-64");
        elf.entry = elf.number(24, 8);
        let (table, count) = (elf.number(32, 8), elf.number(56, 2));
        for i in 0..count {
            let at = usize::try_from(table + i * 56).unwrap();
            let start = usize::try_from(elf.number(at + 8, 8)).unwrap();
            let len = usize::try_from(elf.number(at + 32, 8)).unwrap();
            elf.segments.push(Segment {
                kind: elf.number(at, 4),
                flags: elf.number(at + 4, 4),
                file: start..start + len,
                address: elf.number(at + 16, 8),
                memory_size: elf.number(at + 40, 8),
                align: elf.number(at + 48, 8),
            });
        }
        elf
    }

    fn number(&self, at: usize, size: usize) -> u64 {
        self.bytes[at..at + size].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    fn of_kind(&self, kind: u64) -> Vec<&Segment> {
        self.segments.iter().filter(|segment| segment.kind == kind).collect()
    }

    /// The descriptor of the note that is alone in its segment.
    fn note(&self, note_type: u32) -> &[u8] {
        let notes = self.of_kind(PT_NOTE);
        let has_type = |note: &&&Segment| self.number(note.file.start + 8, 4) == u64::from(note_type);
        let [note] = notes.iter().filter(has_type).collect::<Vec<_>>()[..] else {
            panic!("not one note of type {note_type:#x}: {notes:x?}");
        };
        let bytes = &self.bytes[note.file.clone()];
        assert_eq!(bytes[12..20], *b"Solo5\0\0\0");
        assert_eq!(self.number(note.file.start, 4), 6);
        assert_eq!(self.number(note.file.start + 4, 4), bytes.len() as u64 - 20);
        &bytes[20..]
    }

    /// The layout of a guest that has this note after OpenBSD's.
    fn check_layout(&self, net_note: &[u8]) {
        let [text, rodata, data] = self.of_kind(PT_LOAD)[..] else { panic!("{:x?}", self.segments) };
        assert_eq!([text.flags, rodata.flags, data.flags], [5, 4, 6]);
        assert_eq!(text.address, GUEST_MIN_BASE);
        assert!((text.address..text.address + text.memory_size).contains(&self.entry));
        let mut end = GUEST_MIN_BASE;
        for segment in [text, rodata, data] {
            assert!(segment.address >= end && segment.address.is_multiple_of(4096), "{segment:x?}");
            assert!(segment.file.start.is_multiple_of(4096) && segment.align == 4096, "{segment:x?}");
            assert!(!segment.file.is_empty(), "loaders skip {segment:x?}");
            end = (segment.address + segment.memory_size).next_multiple_of(4096);
        }
        let [interp] = self.of_kind(PT_INTERP)[..] else { panic!("{:x?}", self.segments) };
        assert_eq!(self.bytes[interp.file.clone()], *INTERP);
        let first = &self.bytes[self.of_kind(PT_NOTE)[0].file.clone()];
        let openbsd = b"\x08\0\0\0\x04\0\0\0\x01\0\0\0OpenBSD\0\0\0\0\0";
        assert_eq!(*first, [openbsd, net_note].concat());
        assert_eq!(self.of_kind(PT_NOTE).len(), 3);
    }
}

const MAIN: &str = r#"
    extern crate alloc;
    nabla_guest::entry!(main, block "storage", net "service0");
    fn main() -> Result<(), nabla_guest::Error> {
        let disk = nabla_guest::Block::acquire("storage")?;
        let mut bytes = alloc::vec![0; disk.block_size()];
        disk.read_at(0, &mut bytes)?;
        nabla_guest::println!("{bytes:?}");
        Ok(())
    }
"#;

#[test]
fn every_profile_gives_the_layout_and_notes_of_the_abi() {
    let program = Program::new("layout", MAIN);
    for profile in ["dev", "release", "small"] {
        let path = program.build(profile, &[]);
        let elf = Elf::read(&path);
        elf.check_layout(b"");
        let abi: Vec<u8> = [TARGET_SPT, 2, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(elf.note(ABI1_NOTE_TYPE), abi);
        let manifest = elf.note(MFT1_NOTE_TYPE);
        assert_eq!(manifest[..12], [0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(manifest.len(), 12 + 3 * 104);
        assert!(manifest[12 + 104..].starts_with(b"storage\0"));
        assert!(manifest[12 + 2 * 104..].starts_with(b"service0\0"));
        let error = Command::new(&path).status().expect_err("a host must not execute a guest");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}

/// What takes addresses from arguments.
const TOLD: &str = r#"
    nabla_guest::entry!(main, net "service0");
    fn main() -> Result<(), nabla_guest::tcpip::SettingsError> {
        let (settings, _) = nabla_guest::tcpip::Settings::from_args()?;
        nabla_guest::println!("{}", settings.addresses.len());
        Ok(())
    }
"#;

#[test]
fn note_about_network_arguments_is_in_guests_that_take_them_and_in_no_others() {
    const NOTE: &[u8] = b"\x06\0\0\0\x04\0\0\0NET1Nabla\0\0\0\x01\0\0\0";
    let (told, other) = (Program::new("told", TOLD), Program::new("other", MAIN));
    for profile in ["dev", "release", "small"] {
        for (program, note) in [(&told, NOTE), (&other, b"")] {
            Elf::read(&program.build(profile, &["--features", "nabla-guest/tcpip"])).check_layout(note);
        }
    }
}

#[test]
fn hvt_wins_over_spt() {
    let program = Program::new("hvt", "nabla_guest::entry!(main); fn main() {}");
    let elf = Elf::read(&program.build("release", &["--features", "nabla-guest/hvt"]));
    elf.check_layout(b"");
    assert_eq!(elf.note(ABI1_NOTE_TYPE)[..8], [TARGET_HVT.to_le_bytes(), 2_u32.to_le_bytes()].concat());
    assert_eq!(elf.note(MFT1_NOTE_TYPE).len(), 12 + 104);
}

#[test]
fn mistakes_are_told_at_build_time() {
    for (devices, message) in [
        (r#", block "a-b""#, "the name of a device has more in it than ASCII letters and digits"),
        (r#", block """#, "the name of a device is empty"),
        (r#", block "a", net "a""#, "two devices of a guest have the same name"),
        (r#", disk "a""#, r#"a device is `block "name"` or `net "name"`, not `disk`"#),
    ] {
        let program = Program::new("mistake", &format!("nabla_guest::entry!(main{devices}); fn main() {{}}"));
        let told = program.fail();
        assert!(told.contains(message), "{told}");
    }
}

#[test]
fn a_guest_without_entry_is_told_at_link_time() {
    let main = "use nabla_guest as _; #[panic_handler] fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }";
    let told = Program::new("no entry", main).fail();
    assert!(told.contains("nabla_guest::entry!(main) is missing in this program"), "{told}");
}

#[test]
fn a_forgotten_build_script_is_told_at_link_time() {
    let program = Program::new("no build script", "nabla_guest::entry!(main); fn main() {}");
    fs::remove_file(program.path("build.rs")).unwrap();
    let told = program.fail();
    assert!(
        told.contains("a build script is missing: see \"build.rs\" in the documentation of nabla-guest"),
        "{told}"
    );
    assert!(!told.contains("duplicate symbol"), "{told}");
}
