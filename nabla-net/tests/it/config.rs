//! How images show which network arguments they take.

#[path = "../../../nabla-core/tests/common/mod.rs"]
mod images;

use images::{
    elf::{PT_NOTE, with_symbols},
    guests::{abi1, mft1, net1, segments, spt_v2, two_devices},
};
use nabla_core::{Image, ReadAt, SourceError, abi::TARGET_SPT};
use nabla_net::ConfigStyle;

fn style(file: &[u8]) -> Option<ConfigStyle> {
    ConfigStyle::of_image(&Image::parse(file).unwrap(), file).unwrap()
}

/// A guest with a note about network arguments.
fn noted(version: u32) -> Vec<u8> {
    let notes = [net1(version), abi1(TARGET_SPT, 2), mft1(&two_devices().encode())].concat();
    segments().unloaded(PT_NOTE, &notes).build()
}

#[test]
fn note_shows_the_convention_before_symbols_do() {
    assert_eq!(style(&noted(1)), Some(ConfigStyle::Nabla));
    assert_eq!(style(&with_symbols(&noted(1), &["rump_init", "rumprun_boot"])), Some(ConfigStyle::Nabla));
    for version in [0, 2, u32::MAX] {
        assert_eq!(style(&noted(version)), None, "version {version} is not known");
    }
}

#[test]
fn symbols_show_the_convention() {
    use ConfigStyle::{Mirage, Rumprun};
    for (symbols, expected) in [
        (&["rump_init", "x", "rumprun_boot"][..], Some(Rumprun)),
        (&["rump_init"], None),
        (&["rumprun_boot"], None),
        (&["caml_startup", "caml_poll"], Some(Mirage)),
        (&["mirage_solo5_yield", "caml_startup"], Some(Mirage)),
        (&["mirage_solo5_yield_2", "caml_startup"], Some(Mirage)),
        (&["mirage_solo5_yield_2"], None),
        (&["caml_startup"], None),
        (&["solo5_app_main"], None),
        (&[], None),
    ] {
        assert_eq!(style(&with_symbols(&spt_v2(), symbols)), expected, "{symbols:?}");
    }
}

#[test]
fn words_in_an_image_show_nothing() {
    let mut file = spt_v2();
    for word in
        ["nabla-guest: network arguments", "rumprun", "ukvmif", "ipv4-gateway", "\0rump_init\0rumprun_boot\0"]
    {
        file.extend_from_slice(word.as_bytes());
    }
    assert_eq!(style(&file), None);
}

#[test]
fn symbols_that_cannot_be_read_are_an_error_and_a_note_needs_none() {
    struct Broken;
    impl ReadAt for Broken {
        fn size(&self) -> u64 {
            1 << 20
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
            Err(SourceError { offset, length: buffer.len(), reason: "input/output error".into() })
        }
    }
    let image = Image::parse(with_symbols(&spt_v2(), &["x"]).as_slice()).unwrap();
    assert!(ConfigStyle::of_image(&image, &Broken).is_err());
    let image = Image::parse(noted(1).as_slice()).unwrap();
    assert_eq!(ConfigStyle::of_image(&image, &Broken), Ok(Some(ConfigStyle::Nabla)));
}
