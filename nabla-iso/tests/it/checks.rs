//! What must hold whatever bytes an image or a tar stream has. Used by the tests and by the fuzz targets.

use nabla_iso::{
    ImageBuilder,
    reader::{Kind, ReadError, Source, Volume},
};
use std::{
    cell::Cell,
    io::{self, Cursor, Read},
    num::NonZero,
    os::unix::ffi::OsStrExt,
};

/// An image that sees to it that nothing outside of it is read, and that not too much is.
struct Watched<'a> {
    bytes: &'a [u8],
    left: Cell<u64>,
}

/// How often the whole image may be read, by everything that is done with it here.
const TIMES: u64 = 2000;
/// Bytes of each file that are read as a stream.
const READ_MAX: u64 = 64 << 10;
/// What may be read of a small one in any case.
const SPARE: u64 = 64 << 20;

impl Source for Watched<'_> {
    type Error = io::Error;

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
        let left = self.left.get().checked_sub(buffer.len() as u64);
        self.left.set(left.expect("the image is read again and again"));
        Ok(())
    }
}

/// Reads everything that can be read.
pub fn image(bytes: &[u8]) {
    let left = Cell::new(bytes.len() as u64 * TIMES + SPARE);
    let _ = read(&Watched { bytes, left });
}

fn read(source: &Watched<'_>) -> Result<(), ReadError<io::Error>> {
    let volume = Volume::open(source)?;
    let _ = volume.verify();
    let mut buffer = [0; 4096];
    let mut looked_up = 0;
    let mut walk = volume.walk(volume.root())?;
    while let Some(entry) = walk.next() {
        let entry = entry?;
        let name = entry.name.as_bytes();
        assert!(!name.is_empty() && name.len() <= 255 && !name.contains(&b'/') && !name.contains(&0));
        assert!(!matches!(name, b"." | b".."));
        if let Ok(target) = volume.read_link(&entry.node, &mut buffer) {
            assert!(entry.node.kind == Kind::Symlink && !target.is_empty() && !target.contains(&0));
        }
        for offset in [0, entry.node.size / 2, entry.node.size, u64::MAX] {
            if let Ok(length) = volume.read_file(&entry.node, offset, &mut buffer) {
                let expected = entry.node.size.saturating_sub(offset).min(buffer.len() as u64);
                assert_eq!(length as u64, expected);
            }
        }
        if let Ok(mut reader) = volume.open_node(&entry.node) {
            let mut all = 0;
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                all += length as u64;
                if all >= READ_MAX {
                    break;
                }
            }
            assert!(all >= entry.node.size.min(READ_MAX));
        }
        // Each looks through whole directories, so not for all.
        looked_up += 1;
        if looked_up <= 10 {
            let _ = volume.lookup(walk.path().as_os_str().as_bytes());
            let _ = volume.lookup(b"a/link/../../a/b/c/d/e/f/g/h/i");
        }
    }
    Ok(())
}

/// Lays them over an empty image as a tar stream. What comes of it, if something does, is an image without a fault.
pub fn tar(bytes: &[u8]) {
    let stream = Cursor::new(bytes.to_vec());
    let Ok(plan) = ImageBuilder::new().threads(NonZero::<usize>::MIN).tar("the stream", stream).plan() else {
        return;
    };
    let volume = Volume::open(&plan).expect("an image that was planned can be read");
    assert_eq!(volume.verify().problems, []);
    let mut buffer = [0; 4096];
    let walk = volume.walk(volume.root()).expect("the root is a directory");
    for entry in walk {
        let entry = entry.expect("a whole tree can be read");
        match entry.node.kind {
            Kind::File => {
                let length = volume.read_file(&entry.node, 0, &mut buffer).expect("its contents are there");
                assert_eq!(length as u64, entry.node.size.min(buffer.len() as u64));
            }
            Kind::Symlink => {
                volume.read_link(&entry.node, &mut buffer).expect("it has a target");
            }
            _ => {}
        }
    }
}
