//! Images in files.

use crate::error::Error;
use nabla_core::{Abi, Image, ReadAt, SourceError};
use rustix::fs::{Mode, OFlags};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The open file of an image. Only what is asked for is read.
///
/// ```no_run
/// let image = nabla_monitor::ImageFile::open("app.nabla")?.parse(None)?;
/// for device in image.manifest().devices() {
///     println!("{} {}", device.kind, device.name);
/// }
/// # Ok::<(), nabla_monitor::Error>(())
/// ```
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    path: PathBuf,
}

impl ImageFile {
    /// Opens the regular file at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::OpenImage`], [`Error::ImageNotAFile`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let fail = |source: io::Error| Error::OpenImage { path: path.clone(), source };
        // Without NONBLOCK, a fifo would block until somebody opens its other end.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file =
            File::from(rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| fail(errno.into()))?);
        if !file.metadata().map_err(fail)?.is_file() {
            return Err(Error::ImageNotAFile { path });
        }
        Ok(Self { file, path })
    }

    /// Reads and checks what is in it; as `abi`, if one is given, where it has no ABI note.
    ///
    /// # Errors
    ///
    /// [`Error::Image`].
    pub fn parse(&self, abi: Option<Abi>) -> Result<Image, Error> {
        match abi {
            None => Image::parse(self),
            Some(abi) => Image::parse_as(self, abi),
        }
        .map_err(|source| Error::Image { path: self.path.clone(), source })
    }

    /// Its path, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn into_parts(self) -> (File, PathBuf) {
        (self.file, self.path)
    }
}

impl ReadAt for ImageFile {
    fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let length = buffer.len();
        self.file.read_exact_at(buffer, offset).map_err(|error| SourceError {
            offset,
            length,
            reason: error.to_string(),
        })
    }
}
