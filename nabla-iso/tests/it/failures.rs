//! What goes wrong, and what is left then.

use nabla_iso::{Entry, Error, ImageBuilder, WarningKind};
use nabla_testkit::need;
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read, Write},
    ops::ControlFlow,
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

/// An error and what caused it, as a program tells it.
fn chain(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn names(directory: &Path) -> Vec<OsString> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn files_that_change_are_errors_with_their_path_and_leave_no_image() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 5] = [
        (|path| fs::write(path, vec![1; 100]).unwrap(), "shorter|size"),
        (|path| fs::write(path, vec![1; 900_000]).unwrap(), "size"),
        (|path| File::options().write(true).open(path).unwrap().write_all_at(b"x", 0).unwrap(), "written to"),
        (|path| fs::remove_file(path).unwrap(), "gone"),
        (
            |path| {
                fs::remove_file(path).unwrap();
                symlink("/etc/passwd", path).unwrap();
            },
            "another file",
        ),
    ];
    for size in [2000, 600_000] {
        for (change, expected) in changes {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path().join("root");
            fs::create_dir_all(root.join("a")).unwrap();
            let file = root.join("a/file");
            fs::write(&file, vec![0; size]).unwrap();
            let old = std::time::SystemTime::UNIX_EPOCH;
            File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
            let plan = ImageBuilder::new().directory(&root).plan().unwrap();
            change(&file);
            fs::create_dir(directory.path().join("out")).unwrap();
            let image = directory.path().join("out/image.iso");
            for error in [plan.write_file(&image).unwrap_err(), plan.write_to(io::sink()).unwrap_err()] {
                let text = error.to_string();
                assert!(expected.split('|').any(|expected| text.contains(expected)), "{error}");
                assert_eq!(error.path(), Some(&*file), "{error}");
            }
            assert_eq!(names(&directory.path().join("out")), Vec::<OsString>::new());
        }
    }
}

#[test]
fn what_was_there_stays_until_the_image_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image.iso");
    fs::write(&image, "old").unwrap();
    let cancelled = ImageBuilder::new()
        .entry("/x", Entry::bytes(vec![1; 100]))
        .progress(|progress| match progress.phase {
            nabla_iso::Phase::Writing => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .plan()
        .unwrap();
    assert!(matches!(cancelled.write_file(&image), Err(Error::Cancelled)));
    assert_eq!(fs::read_to_string(&image).unwrap(), "old");
    assert_eq!(names(directory.path()), ["image.iso"]);
}

#[test]
fn unreadable_files_are_errors_with_their_path() {
    if need::root() {
        // Root can read everything, so somebody else tries.
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = directory.path().join("secret");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let plan = ImageBuilder::new().directory(directory.path()).plan().unwrap();
        // Only this thread becomes another.
        let error = std::thread::scope(|scope| {
            let write = || {
                let nobody = rustix::process::Uid::from_raw(65534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
                plan.write_to(io::sink()).unwrap_err()
            };
            scope.spawn(write).join().unwrap()
        });
        assert_eq!(error.path(), Some(&*file), "{error}");
    }
    let error = ImageBuilder::new().directory("/nonexistent").plan().unwrap_err();
    assert_eq!(error.path(), Some(Path::new("/nonexistent")));
    let error = ImageBuilder::new().directory("/etc/passwd").plan().unwrap_err();
    assert_eq!(error.path(), Some(Path::new("/etc/passwd")));
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    if !need::root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let small = directory.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&small).status();
    assert!(mounted.unwrap().success());
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    for number in 0..40 {
        fs::write(root.join(number.to_string()), vec![7; 50_000]).unwrap();
    }
    let plan = ImageBuilder::new().directory(&root).plan().unwrap();
    let error = plan.write_file(small.join("image.iso")).unwrap_err();
    let left = names(&small);
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    assert!(error.to_string().contains("image.iso") && !error.to_string().contains("No space"), "{error}");
    assert!(chain(&error).ends_with(": No space left on device (os error 28)"), "{}", chain(&error));
    assert_eq!(left, Vec::<OsString>::new());
}

#[test]
fn sockets_are_left_out_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let plan = ImageBuilder::new().directory(directory.path()).plan().unwrap();
    assert_eq!((plan.entries(), plan.warnings()[0].kind), (0, WarningKind::Socket));
    assert_eq!(plan.warnings()[0].path, path);
    let error = ImageBuilder::new().directory(directory.path()).refuse_sockets(true).plan().unwrap_err();
    assert_eq!(error.path(), Some(&*path));
}

#[test]
fn the_image_may_be_among_its_sources() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image.iso");
    fs::write(directory.path().join("file"), "x").unwrap();
    for _ in 0..2 {
        let plan = ImageBuilder::new().directory(directory.path()).skip(&image).plan().unwrap();
        assert_eq!(plan.entries(), 1);
        plan.write_file(&image).unwrap();
    }
}

#[test]
fn pipes_get_the_whole_image_and_broken_ones_are_errors() {
    let plan = ImageBuilder::new().entry("/x", Entry::bytes(vec![3; 5_000_000])).plan().unwrap();
    let (mut reader, writer) = io::pipe().unwrap();
    let size = plan.size();
    let read = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes.len() as u64
    });
    plan.write_to(writer).unwrap();
    assert_eq!(read.join().unwrap(), size);
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    assert!(plan.write_to(writer).is_err());
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for name in ["", "x\u{e9}", &"x".repeat(33)] {
        assert!(matches!(ImageBuilder::new().volume_id(name).plan(), Err(Error::VolumeId { .. })));
    }
    assert!(matches!(ImageBuilder::new().exclude("[").plan(), Err(Error::Pattern { .. })));
    for path in ["/a/../b", "/"] {
        let plan = ImageBuilder::new().entry(path, Entry::bytes(*b"x")).plan();
        assert!(matches!(plan, Err(Error::Entry { .. })), "{path}");
    }
    assert!(ImageBuilder::new().entry("/x", Entry::symlink("")).plan().is_err());
    assert!(ImageBuilder::new().entry("/x", Entry::hard_link("/y")).plan().is_err());
}

/// Layers with whiteouts, made by GNU tar.
#[test]
fn layers_are_laid_over_each_other() {
    if !need::program("tar") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let layer = |name: &str, files: &[(&str, &str)]| {
        let root = directory.path().join(name);
        for (path, contents) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        let tar = directory.path().join(format!("{name}.tar"));
        crate::common::run(
            "tar",
            &[OsStr::new("cf"), tar.as_os_str(), OsStr::new("-C"), root.as_os_str(), OsStr::new(".")],
        );
        tar
    };
    let base =
        layer("base", &[("etc/a", "1"), ("etc/b", "1"), ("opt/x/1", "1"), ("opt/x/2", "1"), ("keep", "1")]);
    let app =
        layer("app", &[("etc/a", "22"), ("etc/.wh.b", ""), ("opt/x/.wh..wh..opq", ""), ("opt/x/3", "2")]);
    let stream = File::open(&app).unwrap();
    for plan in [
        ImageBuilder::new().tar_file(&base).tar_file(&app).plan().unwrap(),
        ImageBuilder::new().tar_file(&base).tar("a stream", stream).plan().unwrap(),
    ] {
        let volume = nabla_iso::reader::Volume::open(plan).unwrap();
        let mut found = Vec::new();
        let mut walk = volume.walk(volume.root()).unwrap();
        while let Some(entry) = walk.next() {
            let node = entry.unwrap().node;
            if !node.is_directory() {
                found.push(format!("{} {}", walk.path().display(), node.size));
            }
        }
        found.sort();
        assert_eq!(found, ["etc/a 2", "keep 1", "opt/x/3 1"]);
        let mut text = String::new();
        volume.open_file(b"/etc/a").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "22");
    }
    // Cut off in the middle of a file.
    let bytes = fs::read(&base).unwrap();
    let mut cut = File::create(&base).unwrap();
    cut.write_all(&bytes[..bytes.len() / 3]).unwrap();
    assert!(matches!(ImageBuilder::new().tar_file(&base).plan(), Err(Error::Tar { .. })));
    let error = ImageBuilder::new().tar("layer", &b"\x1f\x8b\x08\0\0\0\0\0"[..]).plan().unwrap_err();
    let expected = "cannot read layer: it is compressed with gzip, and is to be unpacked before";
    assert_eq!(chain(&error), expected);
    assert!(matches!(ImageBuilder::new().tar("garbage", &[1_u8, 2, 3][..]).plan(), Err(Error::Tar { .. })));
}

#[test]
fn equal_files_are_stored_once_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(directory.path().join(name), vec![9; 100_000]).unwrap();
    }
    fs::write(directory.path().join("d"), [vec![9; 99_999], vec![8]].concat()).unwrap();
    let plan = |yes| ImageBuilder::new().directory(directory.path()).deduplicate(yes).plan().unwrap();
    assert_eq!((plan(false).files(), plan(true).files()), (4, 2));
    let volume = nabla_iso::reader::Volume::open(plan(true)).unwrap();
    for name in ["a", "b", "c", "d"] {
        let mut bytes = Vec::new();
        volume.open_file(name.as_bytes()).unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == fs::read(directory.path().join(name)).unwrap(), "{name}");
    }
}
