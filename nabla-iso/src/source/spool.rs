//! Keeping the contents of streams, which can be read only once, until the image is written.

use super::{
    blob::{Blob, BlobSource},
    tree::Tree,
};
use crate::error::Error;
use rustix::{
    fs::{self, Mode, OFlags},
    io::Errno,
};
use std::{
    env,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};

const BUFFER: usize = 128 << 10;
/// Zeros of this size and alignment become holes.
const HOLE: usize = 4096;

/// An unnamed file in the directory for temporary files, into which contents are put one behind the other.
#[derive(Debug)]
pub struct Spool {
    /// Number in the tree's sources.
    number: u32,
    end: u64,
}

impl Spool {
    /// The one of `tree`, made when it is needed first.
    pub fn of<'a>(spool: &'a mut Option<Self>, tree: &mut Tree) -> Result<&'a mut Self, Error> {
        if spool.is_none() {
            let directory = env::temp_dir();
            let file = unnamed(&directory)
                .map_err(|error| Error::io("make a temporary file in", &directory, error))?;
            let number = u32::try_from(tree.sources.files.len()).map_err(|_| Error::TooMany)?;
            tree.sources.files.push((directory, file));
            *spool = Some(Self { number, end: 0 });
        }
        spool.as_mut().ok_or(Error::TooMany)
    }

    /// Takes all that comes. The inner result is the stream's.
    pub fn add(&mut self, tree: &Tree, stream: &mut dyn Read) -> Result<io::Result<Blob>, Error> {
        let mut writer = self.start();
        let mut buffer = vec![0; BUFFER];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return self.finish(tree, &writer).map(Ok),
                Ok(length) => writer.write(self, tree, &buffer[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Begins the contents of a file.
    pub const fn start(&self) -> SpoolWriter {
        SpoolWriter { start: self.end, at: self.end, sparse: false }
    }

    /// Ends them.
    pub fn finish(&mut self, tree: &Tree, writer: &SpoolWriter) -> Result<Blob, Error> {
        let size = writer.at - writer.start;
        self.end = writer.at.next_multiple_of(HOLE as u64);
        let (directory, file) = &tree.sources.files[self.number as usize];
        file.set_len(self.end).map_err(|error| Error::io("write a temporary file in", directory, error))?;
        let source = BlobSource::Part { file: self.number, offset: writer.start };
        Ok(Blob { size, extent: 0, sparse: writer.sparse, source })
    }
}

/// Where the contents of a file go.
#[derive(Debug)]
pub struct SpoolWriter {
    start: u64,
    at: u64,
    sparse: bool,
}

impl SpoolWriter {
    pub fn write(&mut self, spool: &Spool, tree: &Tree, mut bytes: &[u8]) -> Result<(), Error> {
        let (directory, file) = &tree.sources.files[spool.number as usize];
        while !bytes.is_empty() {
            // Up to the next boundary of what can be a hole.
            let length = HOLE - usize::try_from(self.at % HOLE as u64).unwrap_or(0);
            let (part, rest) = bytes.split_at(length.min(bytes.len()));
            if part.len() == HOLE && part.iter().all(|&byte| byte == 0) {
                self.sparse = true;
                (bytes, self.at) = (rest, self.at + HOLE as u64);
                continue;
            }
            // Everything up to the next hole at once.
            let mut end = part.len();
            while let Some(next) = bytes.get(end..end + HOLE)
                && next.iter().any(|&byte| byte != 0)
            {
                end += HOLE;
            }
            if bytes.len() - end < HOLE {
                end = bytes.len();
            }
            file.write_all_at(&bytes[..end], self.at)
                .map_err(|error| Error::io("write a temporary file in", directory, error))?;
            (bytes, self.at) = (&bytes[end..], self.at + end as u64);
        }
        Ok(())
    }

    /// Leaves a hole.
    pub fn skip(&mut self, bytes: u64) {
        self.sparse |= bytes > 0;
        self.at = self.at.saturating_add(bytes);
    }

    /// How much there is so far.
    pub const fn length(&self) -> u64 {
        self.at - self.start
    }
}

/// A file without a name.
fn unnamed(directory: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match fs::open(directory, flags | OFlags::TMPFILE, mode) {
        Ok(fd) => Ok(fd.into()),
        // The file system has no unnamed files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            for attempt in 0_u32.. {
                let path = directory.join(format!(".nabla-iso-{}-{attempt}", std::process::id()));
                match fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode) {
                    Err(Errno::EXIST) => {}
                    result => {
                        let fd = result?;
                        fs::unlink(&path)?;
                        return Ok(fd.into());
                    }
                }
            }
            Err(Errno::EXIST.into())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{format::Timestamp, source::tree::Metadata};

    #[test]
    fn streams_come_back_with_holes_for_zeros() {
        let mut tree = Tree::new(Metadata::implied(0o755, Timestamp::default()));
        let mut spool = None;
        let spool = Spool::of(&mut spool, &mut tree).unwrap();
        let mut contents = vec![0; 100_000];
        contents[5] = 1;
        contents[50_000..50_010].fill(7);
        contents.push(9);
        for round in 0..3 {
            contents[6] = round;
            let blob = spool.add(&tree, &mut &contents[..]).unwrap().unwrap();
            assert_eq!((blob.size, blob.sparse), (100_001, true));
            let BlobSource::Part { file, offset } = blob.source else { panic!() };
            let mut back = vec![1; contents.len()];
            tree.sources.files[file as usize].1.read_exact_at(&mut back, offset).unwrap();
            assert!(back == contents);
        }
        let blocks = fs::fstat(&tree.sources.files[0].1).unwrap().st_blocks;
        assert!(blocks * 512 < 100_000, "{blocks}");
        let blob = spool.add(&tree, &mut &b"short"[..]).unwrap().unwrap();
        assert_eq!((blob.size, blob.sparse), (5, false));
    }
}
