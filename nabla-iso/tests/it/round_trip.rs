//! Images that are written here are read by others, and the other way round.

use crate::common::{SMALL, Shape, assert_same, run, seen, tree};
use nabla_iso::{
    Extractor, ImageBuilder,
    reader::{ImageFile, Naming, Volume},
};
use nabla_testkit::need;
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

fn image(directory: &Path, shape: Shape) -> (PathBuf, PathBuf) {
    let (root, image) = (directory.join("tree"), directory.join("image.iso"));
    tree(&root, shape);
    ImageBuilder::new().directory(&root).joliet(true).plan().unwrap().write_file(&image).unwrap();
    (root, image)
}

#[test]
fn our_own_reader_unpacks_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let (root, image) = image(directory.path(), SMALL);
    let volume = Volume::open(ImageFile::open(&image).unwrap()).unwrap();
    assert_eq!(volume.naming(), Naming::RockRidge);
    assert_eq!(volume.verify().problems, []);
    let target = directory.path().join("unpacked");
    Extractor::new().extract(&volume, &target).unwrap();
    assert_same(&seen(&root), &seen(&target));
    // Holes are holes.
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(target.join("sparse")).unwrap());
    assert!(blocks * 512 < SMALL.sparse / 2, "{blocks}");
}

#[test]
fn xorriso_unpacks_what_was_there() {
    if !need::program("xorriso") || !need::root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // Its paths in links have 1023 bytes at most.
    let (root, image) = image(directory.path(), Shape { link: 1000, ..SMALL });
    let target = directory.path().join("unpacked");
    let arguments: Vec<&OsStr> =
        ["-osirrox", "device_files:sort_lba_on", "-indev"].into_iter().map(OsStr::new).collect();
    let rest = [image.as_os_str(), OsStr::new("-extract"), OsStr::new("/"), target.as_os_str()];
    run("xorriso", &[arguments, rest.to_vec()].concat());
    let (mut ours, mut theirs) = (seen(&root), seen(&target));
    // It makes hard links only on demand, sets the times of some directories before it puts files into them, and those
    // of symbolic links not at all.
    for seen in ours.values_mut().chain(theirs.values_mut()) {
        seen.links = 0;
        if seen.mode & 0o170_000 != 0o100_000 {
            seen.seconds = 0;
        }
    }
    // It leaves the directory that it unpacks into as it is.
    ours.remove(Path::new(""));
    theirs.remove(Path::new(""));
    assert_same(&ours, &theirs);
}

#[test]
fn bsdtar_unpacks_what_was_there() {
    if !need::program("bsdtar") || !need::root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (root, image) = image(directory.path(), Shape { odd: true, ..SMALL });
    let target = directory.path().join("unpacked");
    fs::create_dir(&target).unwrap();
    run(
        "bsdtar",
        &[
            OsStr::new("-xpf"),
            image.as_os_str(),
            OsStr::new("-C"),
            target.as_os_str(),
            OsStr::new("--numeric-owner"),
        ],
    );
    let (mut ours, mut theirs) = (seen(&root), seen(&target));
    // It takes empty files that are fifos' neighbours for what they are, but leaves the root's time.
    ours.remove(Path::new(""));
    theirs.remove(Path::new(""));
    assert_same(&ours, &theirs);
}

/// The paths that a program lists, one in a line.
fn listed(output: &[u8]) -> BTreeSet<PathBuf> {
    output
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_prefix(b"/").unwrap_or(line))
        .filter(|line| !line.is_empty() && *line != b".")
        .map(|line| PathBuf::from(OsString::from_vec(line.to_vec())))
        .collect()
}

fn paths(root: &Path) -> BTreeSet<PathBuf> {
    seen(root).into_keys().filter(|path| !path.as_os_str().is_empty()).collect()
}

#[test]
fn isoinfo_lists_what_was_there() {
    if !need::program("isoinfo") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // A long link makes it crash.
    let (root, image) = image(directory.path(), Shape { link: 200, ..SMALL });
    let output = run(
        "isoinfo",
        &["-R", "-f", "-i"].map(OsStr::new).into_iter().chain([image.as_os_str()]).collect::<Vec<_>>(),
    );
    // It does not know relocation: what is above the eighth level has to be there under its own name.
    let found = listed(&output.stdout);
    let expected = paths(&root).into_iter().filter(|path| path.components().count() <= 7);
    let missing: Vec<_> = expected.filter(|path| !found.contains(path)).collect();
    assert_eq!(missing, Vec::<PathBuf>::new());
}

#[test]
fn pycdlib_lists_and_reads_what_was_there() {
    let Some(python) = need::python("pycdlib") else { return };
    const SCRIPT: &str = r#"
import io, sys, pycdlib
iso = pycdlib.PyCdlib()
iso.open(sys.argv[1])
for path, directories, files in iso.walk(rr_path="/"):
    for name in directories + files:
        print((path.rstrip("/") + "/" + name))
out = io.BytesIO()
iso.get_file_from_iso_fp(out, rr_path="/large")
open(sys.argv[2], "wb").write(out.getvalue())
"#;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("tree");
    let image = directory.path().join("image.iso");
    // It takes names for UTF-8, does not find relocated directories, and older versions read one continuation area.
    tree(&root, Shape { odd: false, link: 1000, ..SMALL });
    fs::remove_dir_all(root.join("d0")).unwrap();
    ImageBuilder::new().directory(&root).plan().unwrap().write_file(&image).unwrap();
    let large = directory.path().join("large");
    let output = run(python, &[OsStr::new("-c"), OsStr::new(SCRIPT), image.as_os_str(), large.as_os_str()]);
    assert_eq!(listed(&output.stdout), paths(&root));
    assert!(fs::read(large).unwrap() == fs::read(root.join("large")).unwrap());
}

#[test]
fn images_of_others_are_unpacked() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("tree");
    // mkisofs writes long links wrong.
    tree(&root, Shape { link: 200, ..SMALL });
    let image = directory.path().join("image.iso");
    let mut oracles: Vec<(&str, Vec<&str>)> = Vec::new();
    if need::program("genisoimage") {
        oracles.push(("genisoimage", vec!["-quiet", "-R", "-iso-level", "3", "-o"]));
    }
    if need::program("xorriso") {
        oracles.push(("xorriso", vec!["-as", "mkisofs", "-quiet", "-R", "-D", "-iso-level", "3", "-o"]));
    }
    for (program, options) in oracles {
        let _ = fs::remove_file(&image);
        let mut arguments: Vec<&OsStr> = options.into_iter().map(OsStr::new).collect();
        arguments.extend([image.as_os_str(), root.as_os_str()]);
        run(program, &arguments);
        let volume = Volume::open(ImageFile::open(&image).unwrap()).unwrap();
        let verification = volume.verify();
        assert_eq!(verification.problems, [], "{program}");
        let target = directory.path().join(program);
        Extractor::new().extract(&volume, &target).unwrap();
        let (mut ours, mut theirs) = (seen(&root), seen(&target));
        // mkisofs shows the directory that holds relocated ones, has no times after 2036 and before 1970 in its own
        // arithmetic, and neither of them has serial numbers for empty files.
        theirs.remove(Path::new("rr_moved"));
        for seen in ours.values_mut().chain(theirs.values_mut()) {
            (seen.seconds, seen.links) = (0, 0);
        }
        assert_same(&ours, &theirs);
    }
}

#[test]
fn joliet_and_plain_names_are_read_where_there_is_no_rock_ridge() {
    if !need::program("genisoimage") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("tree");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(root.join("A name with spaces \u{20ac}.txt"), "one").unwrap();
    fs::write(root.join("sub/two.txt"), "two").unwrap();
    let image = directory.path().join("image.iso");
    for (option, naming, path) in
        [("-J", Naming::Joliet, "/A name with spaces \u{20ac}.txt"), ("-l", Naming::Plain, "/SUB/TWO.TXT")]
    {
        let _ = fs::remove_file(&image);
        let arguments: Vec<&OsStr> = ["-quiet", option, "-o"]
            .into_iter()
            .map(OsStr::new)
            .chain([image.as_os_str(), root.as_os_str()])
            .collect();
        run("genisoimage", &arguments);
        let volume = Volume::open(ImageFile::open(&image).unwrap()).unwrap();
        assert_eq!(volume.naming(), naming);
        assert_eq!(volume.lookup(path.as_bytes()).unwrap().size, 3);
        assert_eq!(volume.verify().problems, []);
    }
}

#[test]
fn files_of_4_gib_and_more_have_several_sections_and_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("tree");
    fs::create_dir(&root).unwrap();
    let size = (5_u64 << 30) + 1;
    let file = fs::File::create(root.join("huge")).unwrap();
    file.set_len(size).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", size - 3).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", (4 << 30) - 3).unwrap();
    let plan = ImageBuilder::new().directory(&root).plan().unwrap();
    let image = directory.path().join("image.iso");
    plan.write_file(&image).unwrap();
    let volume = Volume::open(ImageFile::open(&image).unwrap()).unwrap();
    let node = volume.lookup(b"huge").unwrap();
    assert_eq!((node.size, node.sections), (size, 2));
    let mut buffer = [0; 6];
    volume.read_file(&node, (4 << 30) - 3, &mut buffer).unwrap();
    assert_eq!(&buffer, b"middle");
    assert_eq!(volume.read_file(&node, size - 3, &mut buffer).unwrap(), 3);
    assert_eq!(&buffer[..3], b"end");
    assert_eq!(volume.verify().problems, []);
    if need::program("bsdtar") {
        let listing = run("bsdtar", &[OsStr::new("-tvf"), image.as_os_str()]);
        assert!(String::from_utf8_lossy(&listing.stdout).contains(&size.to_string()));
    }
}

/// The part of ECMA-119 alone, by the crate `iso9660`.
#[test]
fn the_iso9660_crate_reads_the_plain_part() {
    use iso9660::{DirectoryEntry, ISO9660, ISODirectory};
    use std::io::Read;

    fn walk(directory: &ISODirectory<fs::File>, path: &str, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in directory.contents() {
            match entry.unwrap() {
                DirectoryEntry::Directory(below) if !matches!(below.identifier.as_str(), "." | "..") => {
                    walk(&below, &format!("{path}/{}", below.identifier), found);
                }
                DirectoryEntry::Directory(_) => {}
                DirectoryEntry::File(file) => {
                    let mut contents = Vec::new();
                    file.read().read_to_end(&mut contents).unwrap();
                    found.push((format!("{path}/{}", file.identifier), contents));
                }
            }
        }
    }

    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("tree");
    for number in 0..300 {
        let place = root.join(format!("SUB{}/DIR{}", number % 3, number % 7));
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join(format!("FILE{number}.TXT")), vec![b'x'; number * 37]).unwrap();
    }
    let image = directory.path().join("image.iso");
    ImageBuilder::new().directory(&root).plan().unwrap().write_file(&image).unwrap();
    let mut found = Vec::new();
    walk(&ISO9660::new(fs::File::open(&image).unwrap()).unwrap().root, "", &mut found);
    found.sort();
    let mut expected: Vec<_> = seen(&root)
        .into_iter()
        .filter(|(path, _)| path.extension().is_some())
        .map(|(path, seen)| (format!("/{}", path.display()), seen.contents))
        .collect();
    expected.sort();
    assert!(found == expected, "{} and {}", found.len(), expected.len());
}
