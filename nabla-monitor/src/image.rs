//! Images in files.

use crate::error::Error;
use nabla_core::{Abi, Image, ReadAt, SourceError};
use rustix::fs::{Mode, OFlags};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
};

/// The open file of an image. Only what is asked for is read.
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    path: PathBuf,
}

impl ImageFile {
    /// Opens the regular file at `path`.
    ///
    /// ```
    /// use nabla_monitor::{ErrorKind, ImageFile};
    ///
    /// let error = ImageFile::open("/no/such/app.nabla").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::NotFound);
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::OpenImage`], [`Error::ImageNotAFile`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let fail = |source: io::Error| Error::OpenImage { path: path.clone(), source };
        // Without NONBLOCK, a fifo would block until its other end is opened.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file =
            File::from(rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| fail(errno.into()))?);
        if !file.metadata().map_err(fail)?.is_file() {
            return Err(Error::ImageNotAFile { path });
        }
        Ok(Self { file, path })
    }

    /// A regular file that is open already; the path is for messages.
    pub(crate) fn from_file(file: File, path: impl Into<PathBuf>) -> Self {
        Self { file, path: path.into() }
    }

    /// Reads and checks what is in it; as `abi`, if one is given, where it has no ABI note.
    ///
    /// ```no_run
    /// use nabla_monitor::{Abi, ImageFile, Runtime};
    ///
    /// // An image of early 2019 does not say which ABI it has.
    /// let image = ImageFile::open("old.nabla")?.parse(Some(Abi::SptWithoutNote))?;
    /// println!("entry {:#x}", image.image().entry());
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Image`].
    pub fn parse(self, abi: Option<Abi>) -> Result<OpenImage, Error> {
        let image = match abi {
            None => Image::parse(&self),
            Some(abi) => Image::parse_as(&self, abi),
        };
        match image {
            Ok(image) => Ok(OpenImage { file: self, image }),
            Err(source) => Err(Error::Image { path: self.path, source }),
        }
    }

    /// Its path, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
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

impl AsFd for ImageFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// An image that is open and was found to be one. What was looked at and what is run are the same file, whatever
/// happens to its path meanwhile.
///
/// ```no_run
/// use nabla_monitor::{OpenImage, Runtime};
///
/// let image = OpenImage::open("app.nabla")?;
/// for device in image.image().manifest().devices() {
///     println!("{} {}", device.kind, device.name);
/// }
/// let guest = Runtime::new().guest(image).start()?;
/// # Ok::<(), nabla_monitor::Error>(())
/// ```
#[derive(Debug)]
pub struct OpenImage {
    file: ImageFile,
    image: Image,
}

impl OpenImage {
    /// Opens, reads and checks the image at `path`. One that does not say which ABI it has is taken for what it
    /// looks like; see [`ImageFile::parse`] to say it.
    ///
    /// ```no_run
    /// use nabla_monitor::OpenImage;
    ///
    /// let open = OpenImage::open("app.nabla")?;
    /// println!("{}", open.image().abi());
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::OpenImage`], [`Error::ImageNotAFile`], [`Error::Image`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        ImageFile::open(path)?.parse(None)
    }

    /// What is in it.
    ///
    /// ```no_run
    /// let open = nabla_monitor::OpenImage::open("app.nabla")?;
    /// let image = open.image();
    /// println!("{}, {} of memory at least", image.abi(), image.minimum_memory());
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Its file.
    ///
    /// ```no_run
    /// use nabla_core::ReadAt;
    ///
    /// let open = nabla_monitor::OpenImage::open("app.nabla")?;
    /// println!("{} bytes", open.file().size());
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    #[must_use]
    pub fn file(&self) -> &ImageFile {
        &self.file
    }

    /// Its path, as it was given.
    ///
    /// ```no_run
    /// let open = nabla_monitor::OpenImage::open("app.nabla")?;
    /// assert_eq!(open.path(), std::path::Path::new("app.nabla"));
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

impl AsFd for OpenImage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Where a guest's image is: a path, which is opened when the guest is started, or a file that is open.
#[derive(Debug)]
#[non_exhaustive]
pub enum ImageSource {
    /// A path.
    Path(PathBuf),
    /// An open file.
    File(ImageFile),
    /// An open file that was read and checked.
    Open(Box<OpenImage>),
}

impl ImageSource {
    /// Opens, reads and checks it as far as that was not done.
    pub(crate) fn open(self, abi: Option<Abi>) -> Result<OpenImage, Error> {
        match (self, abi) {
            (Self::Path(path), abi) => ImageFile::open(path)?.parse(abi),
            (Self::File(file), abi) => file.parse(abi),
            (Self::Open(open), Some(abi)) if open.image.abi() != abi => open.file.parse(Some(abi)),
            (Self::Open(open), _) => Ok(*open),
        }
    }
}

impl<T: Into<PathBuf>> From<T> for ImageSource {
    fn from(path: T) -> Self {
        Self::Path(path.into())
    }
}

impl From<ImageFile> for ImageSource {
    fn from(file: ImageFile) -> Self {
        Self::File(file)
    }
}

impl From<OpenImage> for ImageSource {
    fn from(image: OpenImage) -> Self {
        Self::Open(Box::new(image))
    }
}
