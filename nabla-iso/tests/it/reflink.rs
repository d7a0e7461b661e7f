//! On a file system with reflinks, an image shares its blocks with its sources.

use crate::common::run;
use nabla_iso::{
    ImageBuilder,
    reader::{ImageFile, Volume},
};
use nabla_testkit::need;
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

/// An XFS in a file, mounted as long as this is there.
struct Mounted(PathBuf);

impl Mounted {
    /// Nothing where loop devices or the file system cannot be had, which is reported.
    fn new(directory: &Path) -> Option<Self> {
        let (image, point) = (directory.join("xfs"), directory.join("mounted"));
        File::create(&image).unwrap().set_len(400 << 20).unwrap();
        fs::create_dir(&point).unwrap();
        let options = ["-q", "-m", "reflink=1"].map(OsStr::new).into_iter();
        run("mkfs.xfs", &options.chain([image.as_os_str()]).collect::<Vec<_>>());
        let output = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point).output().unwrap();
        let reason = format!("needs to mount an XFS: {}", String::from_utf8_lossy(&output.stderr).trim());
        need::there("mount-xfs", output.status.success(), &reason).then_some(Self(point))
    }

    fn free(&self) -> u64 {
        rustix::fs::sync();
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bfree * stat.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn large_files_take_no_room_in_an_image() {
    if !need::root() || !need::program("mkfs.xfs") {
        return;
    }
    const SIZE: usize = 64 << 20;
    let directory = tempfile::tempdir().unwrap();
    let Some(mounted) = Mounted::new(directory.path()) else { return };
    let root = mounted.0.join("root");
    fs::create_dir(&root).unwrap();
    // An odd size: the rest of a block is copied.
    let contents: Vec<u8> = (0..SIZE + 777).map(|i| (i % 251).to_le_bytes()[0]).collect();
    fs::write(root.join("large"), &contents).unwrap();
    fs::write(root.join("small"), "small").unwrap();
    let before = mounted.free();
    let image = mounted.0.join("image.iso");
    ImageBuilder::new().directory(&root).plan().unwrap().write_file(&image).unwrap();
    let taken = before - mounted.free();
    assert!(taken < 4 << 20, "the image takes {taken} bytes");
    let volume = Volume::open(ImageFile::open(&image).unwrap()).unwrap();
    let mut back = Vec::new();
    volume.open_file(b"large").unwrap().read_to_end(&mut back).unwrap();
    assert!(back == contents);
    assert_eq!(volume.verify().problems, []);
}
