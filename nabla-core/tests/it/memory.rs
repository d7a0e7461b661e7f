//! Which memory sizes suit an image.

use crate::common::guests::{guest, two_devices};
use nabla_core::{
    Abi, ByteSize, Image, abi,
    layout::{MemoryError, check_memory},
};

fn image(target: u32) -> Image {
    Image::parse(guest(target, 2, &two_devices()).build().as_slice()).unwrap()
}

#[test]
fn process_guests_take_whole_pages_up_to_64_tib() {
    let image = image(abi::TARGET_SPT);
    for bytes in [0x10_4000, 0x10_5000, 2 << 20, 5 << 30, 1 << 46] {
        assert_eq!(check_memory(&image, ByteSize::bytes(bytes)), Ok(()), "{bytes}");
    }
    let unaligned =
        MemoryError::Unaligned { size: ByteSize::bytes(0x10_4001), unit: ByteSize::kib(4), abi: Abi::SptV2 };
    assert_eq!(check_memory(&image, ByteSize::bytes(0x10_4001)), Err(unaligned));
    let size = ByteSize::bytes((1 << 46) + 4096);
    let large = MemoryError::TooLarge { size, max: ByteSize::bytes(1 << 46), abi: Abi::SptV2 };
    assert_eq!(check_memory(&image, size), Err(large));
}

#[test]
fn machine_guests_take_multiples_of_2_mib_up_to_4_gib() {
    let image = image(abi::TARGET_HVT);
    for size in [ByteSize::mib(2), ByteSize::mib(512), ByteSize::gib(4)] {
        assert_eq!(check_memory(&image, size), Ok(()));
    }
    let size = ByteSize::mib(3);
    let unaligned = MemoryError::Unaligned { size, unit: ByteSize::mib(2), abi: Abi::HvtV2 };
    assert_eq!(check_memory(&image, size), Err(unaligned));
    let size = ByteSize::bytes((4 << 30) + (2 << 20));
    assert_eq!(
        check_memory(&image, size),
        Err(MemoryError::TooLarge { size, max: ByteSize::gib(4), abi: Abi::HvtV2 })
    );
}

#[test]
fn image_needs_at_least_a_page_behind_it() {
    let image = image(abi::TARGET_SPT);
    for bytes in [0, 1, 0x10_0000, 0x10_3000, 0x10_3fff] {
        let size = ByteSize::bytes(bytes);
        let error = check_memory(&image, size).unwrap_err();
        assert_eq!(
            error,
            MemoryError::TooSmall { end: 0x10_3000, size, minimum: ByteSize::bytes(0x18_3000) }
        );
    }
    let error = check_memory(&image, ByteSize::mib(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the image ends at 0x103000, so 1 MiB of memory is too little: it needs at least 1548 KiB"
    );
}
