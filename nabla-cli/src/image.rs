//! Reading an image without running it.

use nabla_core::{Abi, Image, ReadAt, SourceError};
use nabla_monitor::Error;
use rustix::fs::{Mode, OFlags};
use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// An image's file.
#[derive(Debug)]
pub struct ImageFile(File);

impl ImageFile {
    /// Opens the regular file at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let fail = |source: io::Error| Error::OpenImage { path: path.to_owned(), source };
        // Without NONBLOCK, a fifo would block until somebody opens its other end.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| fail(errno.into()))?;
        let file = File::from(file);
        if !file.metadata().map_err(fail)?.is_file() {
            return Err(Error::ImageNotAFile { path: path.to_owned() });
        }
        Ok(Self(file))
    }

    /// Reads and checks what is in it; as another ABI than it seems to have, if one is given.
    pub fn parse(&self, path: &Path, abi: Option<Abi>) -> Result<Image, Error> {
        match abi {
            None => Image::parse(self),
            Some(abi) => Image::parse_as(self, abi),
        }
        .map_err(|source| Error::Image { path: path.to_owned(), source })
    }
}

impl ReadAt for ImageFile {
    fn size(&self) -> u64 {
        self.0.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let length = buffer.len();
        self.0.read_exact_at(buffer, offset).map_err(|error| SourceError {
            offset,
            length,
            reason: error.to_string(),
        })
    }
}
