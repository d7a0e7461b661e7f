//! What must hold for every input. The fuzz targets, the replay of their corpus and the tests of hostile files all
//! call these.

use nabla_core::{
    Abi, Attachment, ByteSize, CommandLine, Device, DeviceKind, Image, ImageError, Manifest, ManifestError,
    ReadAt, SourceError, Warning,
    abi::{GUEST_MIN_BASE, PAGE_SIZE, mft},
    block_size_is_valid,
    elf::{Elf, MAX_ADDRESS},
    layout,
};
use std::{cell::Cell, error::Error};

/// An image in memory that refuses reads which a careful parser would not make.
struct Metered<'a> {
    bytes: &'a [u8],
    read: Cell<usize>,
}

impl Metered<'_> {
    /// Most bytes that one read may ask for: a chunk of code with some overlap.
    const MAX_READ: usize = (256 << 10) + 64;
}

impl ReadAt for Metered<'_> {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        assert!(buffer.len() <= Self::MAX_READ, "a read of {} bytes", buffer.len());
        assert!(
            offset.checked_add(buffer.len() as u64).is_some_and(|end| end <= self.size()),
            "a read outside"
        );
        self.read.set(self.read.get() + buffer.len());
        self.bytes.read_at(offset, buffer)
    }
}

/// Parses `file` as an image, with and without an ABI of the caller's choice (made from the last byte).
pub fn image(file: &[u8]) -> Result<Image, ImageError> {
    let source = Metered { bytes: file, read: Cell::new(0) };
    let result = Image::parse(&source);
    // At most 128 headers are believed, each with 64 KiB of notes; code is read twice at most.
    let limit =
        64 + 128 * 56 + 128 * (file.len().min(64 << 10)) + 2 * 128 * file.len() + 64 * file.len() / 1024;
    assert!(source.read.get() <= limit, "{} of {} bytes read", source.read.get(), file.len());
    match &result {
        Ok(image) => {
            check_image(image, file.len());
            check_symbols(image, file);
        }
        Err(error) => check_error(error),
    }
    check_elf(file);
    let wanted = Abi::ALL[usize::from(file.last().copied().unwrap_or_default()) % Abi::ALL.len()];
    match (Image::parse_as(file, wanted), &result) {
        (Ok(image), _) => {
            assert_eq!(image.abi(), wanted);
            check_image(&image, file.len());
        }
        (Err(ImageError::AbiMismatch { found, .. }), Ok(image)) => assert_eq!(found, image.abi()),
        (Err(error), Ok(image)) => {
            assert!(
                matches!(error, ImageError::NoManifest { .. }),
                "{:?} is fine, but: {error}",
                image.abi()
            );
        }
        (Err(error), Err(_)) => check_error(&error),
    }
    result
}

/// An error says something, down to its cause.
fn check_error(error: &(dyn Error + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        assert!(!text.is_empty() && text.len() < 400 && !text.contains(char::is_control), "{text:?}");
        next = error.source();
    }
}

/// What [`Image`] does not show of a file lies inside of it, too.
fn check_elf(file: &[u8]) {
    if let Ok(elf) = Elf::parse(file) {
        for range in elf.notes.iter().chain(&elf.interp) {
            assert!(
                range.size > 0
                    && range.offset.checked_add(range.size).is_some_and(|end| end <= file.len() as u64)
            );
        }
        assert!(elf.odd_headers.len() + elf.notes.len() + elf.segments.len() <= 2 * 128);
    }
}

fn check_image(image: &Image, file_size: usize) {
    check_segments(image, file_size as u64);
    check_page_ranges(image);
    check_memory(image);
    check_boot_areas(image);
    for warning in image.warnings() {
        let text = warning.to_string();
        assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
        if let Warning::UnknownDevice(name, _) = warning {
            assert!(image.manifest().devices().any(|device| device.name == *name));
        }
    }
    check_manifest(image.manifest());
}

/// Looking for symbols reads the section headers, the table and the names once, and does not fail.
fn check_symbols(image: &Image, file: &[u8]) {
    let source = Metered { bytes: file, read: Cell::new(0) };
    let found = image.find_symbols(&source, ["rump_init", "", "main"]).unwrap();
    assert!(!found[1]);
    assert!(source.read.get() <= 3 * file.len() + file.len() / 1024, "{} bytes read", source.read.get());
}

fn check_segments(image: &Image, file_size: u64) {
    let segments = image.segments();
    assert!(!segments.is_empty());
    let mut last_end = GUEST_MIN_BASE;
    for segment in segments {
        assert!(segment.address >= last_end, "ascending and disjoint");
        assert!(segment.memory_size > 0 && segment.memory_size >= segment.file_size);
        last_end = segment.address.checked_add(segment.memory_size).expect("no wrap");
        assert_eq!(segment.end(), last_end);
        assert!(segment.file_offset.checked_add(segment.file_size).is_some_and(|end| end <= file_size));
        let pages = segment.pages();
        assert!(pages.start <= segment.address && segment.end() <= pages.end);
        assert!(pages.start.is_multiple_of(PAGE_SIZE) && pages.end.is_multiple_of(PAGE_SIZE));
    }
    assert!(last_end <= MAX_ADDRESS);
    assert_eq!(image.end(), last_end.next_multiple_of(PAGE_SIZE));
    let entry = image.entry();
    assert!(segments.iter().any(|s| s.permissions.execute && s.address <= entry && entry < s.end()));
}

fn check_page_ranges(image: &Image) {
    let (segments, ranges) = (image.segments(), image.page_ranges());
    assert!(ranges.len() <= 2 * segments.len());
    for range in &ranges {
        assert!(range.pages.start < range.pages.end);
        assert!(range.pages.start.is_multiple_of(PAGE_SIZE) && range.pages.end.is_multiple_of(PAGE_SIZE));
        // Every page is some segment's, and a range allows what the segments on it ask for, no more.
        let on_it = || {
            segments.iter().filter(|s| s.pages().start < range.pages.end && range.pages.start < s.pages().end)
        };
        let asked = on_it().fold(nabla_core::Permissions::default(), |all, s| all.union(s.permissions));
        assert_eq!(range.permissions, asked);
        if range.permissions.is_writable_and_executable() {
            assert!(on_it().any(|s| s.permissions.is_writable_and_executable()), "nobody asked for this");
        }
    }
    for pair in ranges.windows(2) {
        assert!(pair[0].pages.end <= pair[1].pages.start, "ascending and disjoint");
        let adjacent = pair[0].pages.end == pair[1].pages.start;
        assert!(!adjacent || pair[0].permissions != pair[1].permissions, "merged");
    }
    let covered: u64 = ranges.iter().map(|range| range.pages.end - range.pages.start).sum();
    let mut last = 0;
    let touched = |pages: std::ops::Range<u64>| {
        let new = pages.end.saturating_sub(pages.start.max(last));
        last = pages.end;
        new
    };
    assert_eq!(covered, segments.iter().map(|s| s.pages()).map(touched).sum::<u64>(), "covering exactly");
}

fn check_memory(image: &Image) {
    let abi = image.abi();
    let (unit, max, end) = (abi.memory_unit(), abi.memory_max(), image.end());
    let minimum = image.minimum_memory();
    assert!(minimum.as_u64() >= end + (512 << 10));
    assert!(minimum > max || layout::check_memory(image, minimum).is_ok());
    for size in
        [0, 1, end - 1, end, end + 1, end + PAGE_SIZE, 2 << 20, 1 << 32, 1 << 46, (1 << 46) + 4096, u64::MAX]
    {
        match layout::check_memory(image, ByteSize::bytes(size)) {
            Ok(()) => {
                assert!(size > end && size <= max.as_u64() && size.is_multiple_of(unit.as_u64()));
            }
            Err(error) => check_error(&error),
        }
    }
}

fn check_boot_areas(image: &Image) {
    let cmdline = CommandLine::from_args(["x".repeat(8191)]).unwrap();
    let (memory, manifest) = (image.minimum_memory().as_u64(), image.manifest());
    let spt = layout::spt::boot_area(memory, image.end(), manifest, &cmdline, 3, 4);
    assert!(spt.address + spt.bytes.len() as u64 <= layout::spt::BOOT_AREA_END);
    let hvt = layout::hvt::boot_area(memory, image.end(), 1 << 31, manifest, &cmdline, None);
    assert!(hvt.address + hvt.bytes.len() as u64 <= GUEST_MIN_BASE);
}

/// Parses `bytes` as the content of a manifest note, attaches devices, encodes and parses again.
pub fn manifest(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let result = Manifest::parse(bytes);
    match &result {
        Ok(manifest) => {
            assert_eq!(manifest.encoded_size(), bytes.len());
            check_manifest(manifest);
        }
        Err(error) => check_error(error),
    }
    result
}

fn check_manifest(manifest: &Manifest) {
    assert!((1..=64).contains(&manifest.entry_count()));
    let clean = manifest.encode();
    assert_eq!(clean.len(), manifest.encoded_size());
    let parsed = Manifest::parse(&clean).expect("what was parsed or made can be parsed");
    assert_eq!(parsed.encode(), clean);
    assert!(parsed.devices().eq(manifest.devices()));

    let mut attached = manifest.clone();
    let devices: Vec<Device> = manifest.devices().collect();
    for device in &devices {
        assert!(device.index > 0 && device.index < manifest.entry_count());
        assert!(device.name.as_bytes().len() <= mft::NAME_MAX);
        attach_everything(&mut attached, device);
    }
    let last = devices.last().map(|device| (device, std::str::from_utf8(device.name.as_bytes())));
    if let Some((device, Ok(name))) = last {
        let same = devices.iter().find(|other| other.kind == device.kind && other.name == device.name);
        assert_eq!(manifest.find(device.kind, name).as_ref(), same);
    }
    check_attached(&attached, &clean);
}

/// Attaches what does not fit, what does, and what does again.
fn attach_everything(manifest: &mut Manifest, device: &Device) {
    let Device { index, kind, .. } = *device;
    let seed =
        device.name.as_bytes().iter().fold(index as u64, |n, &b| n.wrapping_mul(31).wrapping_add(b.into()));
    let block_size = u16::try_from(seed % 65536).unwrap();
    let disk = |capacity, block_size| Attachment::Block { capacity, block_size, descriptor: 3 };
    let net = Attachment::Net { mac: [2, 0, 0, 0, 0, 1], mtu: block_size, descriptor: -1 };
    let good = match kind {
        DeviceKind::Block => {
            let expected = block_size_is_valid(block_size.into());
            let fits = expected && seed > 0 && seed.is_multiple_of(block_size.into());
            assert!(manifest.clone().attach(index, disk(seed, block_size)).is_ok() == fits);
            assert!(manifest.attach(index, net).is_err());
            disk(512 << (seed % 50), 512 << (seed % 7))
        }
        DeviceKind::Net => {
            assert!(manifest.attach(index, disk(512, 512)).is_err());
            net
        }
        DeviceKind::Unknown(_) => {
            assert!(manifest.attach(index, net).is_err() && manifest.attach(index, disk(512, 512)).is_err());
            return;
        }
    };
    match manifest.attach(index, good) {
        Ok(()) => assert!(matches!(manifest.attach(index, good), Err(ManifestError::AttachedTwice { .. }))),
        // 512 << (seed % 50) may be less than a block.
        Err(error) => assert!(matches!(error, ManifestError::Capacity { .. }), "{error}"),
    }
}

/// The guest reads what was attached, and nothing else is different.
fn check_attached(manifest: &Manifest, clean: &[u8]) {
    let bytes = manifest.encode();
    assert_eq!(bytes.len(), clean.len());
    let entry =
        |bytes: &[u8], index: usize| -> [u8; 104] { bytes[8 + index * 104..][..104].try_into().unwrap() };
    let mut attachments = vec![None; manifest.entry_count()];
    for device in manifest.devices() {
        attachments[device.index] = device.attachment;
    }
    for (index, attachment) in attachments.iter().enumerate() {
        let (now, before) = (entry(&bytes, index), entry(clean, index));
        let Some(attachment) = *attachment else {
            assert_eq!(now, before);
            continue;
        };
        assert_eq!(now[..72], before[..72], "name and type");
        assert_eq!(now[96..], [1, 0, 0, 0, 0, 0, 0, 0]);
        match attachment {
            Attachment::Block { capacity, block_size, descriptor } => {
                assert_eq!(now[72..80], capacity.to_le_bytes());
                assert_eq!(now[80..82], block_size.to_le_bytes());
                assert_eq!(now[88..92], descriptor.to_le_bytes());
            }
            Attachment::Net { mac, mtu, descriptor } => {
                assert_eq!((&now[72..78], &now[78..80]), (&mac[..], &mtu.to_le_bytes()[..]));
                assert_eq!(now[88..92], descriptor.to_le_bytes());
            }
        }
    }
    let any = attachments.iter().any(Option::is_some);
    assert_eq!(any, matches!(Manifest::parse(&bytes), Err(ManifestError::AlreadyAttached { .. })));
    assert_eq!(any, bytes != clean);
}
