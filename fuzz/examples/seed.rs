//! Writes the seeds of the corpus: `cargo run --example seed` in this folder. The same every time.

#[path = "../../nabla-iso/tests/it/archive.rs"]
mod archive;
#[path = "../../nabla-core/tests/common/mod.rs"]
mod common;

use common::{
    elf::{ElfBuilder, PT_INTERP, PT_NOTE, R, RW, RWX, RX, ehdr, in_phdr, note, phdr, poke, with_symbols},
    guests::{
        CALL_POINTER, CODE, EXIT, PPOLL, TEXT, abi1, guest, index, legacy_code, manifest, mft1, net1, out,
        segments, spt_v2, two_devices,
    },
};
use nabla_core::{DeviceKind, Manifest};
use nabla_iso::{Entry, ImageBuilder};
use std::{error::Error, fs, path::Path};

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, seeds) in
        [("image", images()), ("iso", isos()?), ("manifest", manifests()), ("tar", archive::seeds())]
    {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            fs::write(folder.join(format!("seed-{name}")), bytes)?;
        }
    }
    Ok(())
}

/// Images of file systems.
fn isos() -> Result<Seeds, Box<dyn Error>> {
    let small = || {
        ImageBuilder::new()
            .entry("/a/file", Entry::bytes(*b"contents"))
            .entry("/a/link", Entry::symlink("../a/./file"))
            .entry("/null", Entry::character_device(1, 3))
    };
    let mut seeds = Seeds::new();
    for (name, builder) in [
        ("small", small()),
        ("joliet", small().joliet(true)),
        ("deep", small().entry("/a/b/c/d/e/f/g/h/i", Entry::bytes(*b"deep"))),
        ("long", small().entry(format!("/{}", "n".repeat(255)), Entry::symlink("t/".repeat(1500)))),
    ] {
        let mut bytes = Vec::new();
        builder.plan()?.write_to(&mut bytes)?;
        seeds.push((name, bytes));
    }
    Ok(seeds)
}

/// A guest without a note, as small as it can be.
fn legacy(sequences: &[&[u8]]) -> Vec<u8> {
    let code = legacy_code(sequences);
    ElfBuilder::new(TEXT).load(RX, TEXT, &code, code.len() as u64).build()
}

fn outs(ports: &[u16]) -> Vec<u8> {
    let calls: Vec<_> = ports.iter().copied().map(out).collect();
    legacy(&calls.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn images() -> Seeds {
    let devices = two_devices();
    let mut seeds: Seeds = vec![
        ("hvt-v1", guest(1, 1, &devices).build()),
        ("hvt-v2", guest(1, 2, &devices).build()),
        ("spt-v1", guest(2, 1, &devices).build()),
        ("spt-v2", spt_v2()),
        ("virtio", guest(3, 1, &devices).build()),
        ("version-3", guest(2, 3, &devices).build()),
        ("no-manifest", segments().unloaded(PT_NOTE, &abi1(2, 2)).build()),
        ("no-note", segments().build()),
        ("odd-devices", guest(2, 2, &odd_devices()).build()),
        ("most-devices", guest(1, 2, &most_devices()).build()),
        ("ukvm", outs(&[0x502, 0x499, 0x509])),
        ("hvt-without-note", outs(&[0x501, 0x502, 0x50a])),
        ("spt-without-note", legacy(&[PPOLL, EXIT])),
        ("nabla-2018", legacy(&[CALL_POINTER; 3])),
        ("symbols", with_symbols(&spt_v2(), &["main", "rump_init"])),
        (
            "net-note",
            segments().unloaded(PT_NOTE, &[abi1(2, 2), net1(1), mft1(&devices.encode())].concat()).build(),
        ),
        ("truncated", spt_v2()[..1000].to_vec()),
        ("script", b"#!/bin/sh\n".to_vec()),
    ];

    let all = [note(b"GNU\0", 3, &[1; 20]), abi1(2, 2), mft1(&devices.encode()), abi1(2, 1)].concat();
    seeds.push(("notes-in-one-header", segments().unloaded(PT_NOTE, &all).build()));

    let shared = ElfBuilder::new(TEXT)
        .load(RX, TEXT, CODE, 0x1010)
        .load(R, TEXT + 0x1010, b"constants", 0x100)
        .load(RW, TEXT + 0x2110, b"data", 0x2000)
        .load(0, TEXT + 0x4200, b"", 1);
    seeds.push(("shared-pages", shared.unloaded(PT_NOTE, &all).build()));

    let one = ElfBuilder::new(TEXT).load(RWX, TEXT, CODE, 1 << 30).unloaded(PT_INTERP, b"/lib64/ld.so\0");
    seeds.push(("writable-executable", one.unloaded(PT_NOTE, &all).build()));

    let mut odd = spt_v2();
    poke(&mut odd, in_phdr(index::INTERP, phdr::FILESZ), 0x22_32e0_u64);
    poke(&mut odd, in_phdr(index::INTERP, phdr::MEMSZ), 0x164_u64);
    seeds.push(("odd-interp", odd));

    let mut wrapping = spt_v2();
    poke(&mut wrapping, in_phdr(index::BSS, phdr::MEMSZ), u64::MAX);
    seeds.push(("wrapping", wrapping));

    let mut machine = spt_v2();
    poke(&mut machine, ehdr::MACHINE, 183_u16);
    seeds.push(("aarch64", machine));
    seeds
}

fn odd_devices() -> Manifest {
    let (block, net, unknown) = (DeviceKind::Block, DeviceKind::Net, DeviceKind::Unknown(9));
    manifest(&[(block, "a"), (net, "a"), (block, "a"), (unknown, "with space"), (net, "")])
}

fn most_devices() -> Manifest {
    let names: Vec<_> = (1..64).map(|i| format!("device{i}")).collect();
    let kind = |i: usize| if i.is_multiple_of(2) { DeviceKind::Block } else { DeviceKind::Net };
    Manifest::new(names.iter().enumerate().map(|(i, name)| (kind(i), name.as_str()))).expect("63 devices fit")
}

fn manifests() -> Seeds {
    let devices = two_devices().encode();
    let mut attached = devices.clone();
    attached[8 + 104 + 96] = 1;
    let mut unterminated = devices.clone();
    unterminated[8 + 104..][..68].fill(b'x');
    vec![
        ("none", Manifest::new([]).expect("no devices fit").encode()),
        ("two", devices.clone()),
        ("odd", odd_devices().encode()),
        ("most", most_devices().encode()),
        ("attached", attached),
        ("unterminated", unterminated),
        ("truncated", devices[..200].to_vec()),
        ("long", [devices, vec![0; 104]].concat()),
    ]
}
