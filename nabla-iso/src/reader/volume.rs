//! An image that is open.

use super::{
    error::{ReadError, broken},
    node::Node,
};
use crate::format::{
    FIRST_DESCRIPTOR, FormatError, SECTOR, SECTOR_SIZE,
    directory_record::DirectoryRecord,
    susp,
    volume::{Descriptor, VolumeDescriptor},
};

/// What an image is read from: a file, a device, a plan.
pub trait Source {
    /// Why it cannot be read.
    type Error;

    /// Bytes that there are.
    fn size(&self) -> u64;

    /// Reads all of `buffer` from `offset` on; never called beyond the size.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// The next range of bytes from `offset` on and before `end` that may be other than zero; nothing if there is none.
    /// A source that knows of holes spares others reading them.
    fn next_data(&self, offset: u64, end: u64) -> Option<(u64, u64)> {
        (offset < end).then_some((offset, end))
    }
}

impl<S: Source> Source for &S {
    type Error = S::Error;

    fn next_data(&self, offset: u64, end: u64) -> Option<(u64, u64)> {
        (**self).next_data(offset, end)
    }

    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), S::Error> {
        (**self).read_at(offset, buffer)
    }
}

/// Which names an image's files have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Those of Rock Ridge, with owners, permissions, links and devices.
    RockRidge,
    /// Those of Joliet, in UTF-8.
    Joliet,
    /// Those of ECMA-119, without version numbers.
    Plain,
}

/// An image that is open.
#[derive(Debug)]
pub struct Volume<S> {
    pub(super) source: S,
    descriptor: VolumeDescriptor,
    pub(super) naming: Naming,
    /// Bytes of each system use area that are reserved for other uses.
    pub(super) skip: u8,
    root: Node,
}

/// How many descriptors are looked at.
const MOST_DESCRIPTORS: u64 = 64;

impl<S: Source> Volume<S> {
    /// Reads the descriptors and the root directory's record.
    ///
    /// Rock Ridge is preferred; where it is not used, Joliet.
    ///
    /// # Errors
    ///
    /// The source cannot be read, or it is no image of a volume that can be read.
    pub fn open(source: S) -> Result<Self, ReadError<S::Error>> {
        let (primary, joliet) = descriptors(&source)?;
        let mut volume =
            Self { source, descriptor: primary, naming: Naming::Plain, skip: 0, root: Node::default() };
        let mut sector = [0; SECTOR];
        let at = volume.offset(primary.root_extent);
        volume.read_sector(at, at + SECTOR_SIZE, &mut sector)?;
        let own = DirectoryRecord::parse(&sector, 0).map_err(|error| broken(at, error))?;
        match own.and_then(|own| susp::skip(own.system_use)) {
            Some(skip) => (volume.naming, volume.skip) = (Naming::RockRidge, skip),
            None => {
                if let Some(joliet) = joliet {
                    (volume.naming, volume.descriptor) = (Naming::Joliet, joliet);
                }
            }
        }
        let VolumeDescriptor { root_extent, root_length, .. } = volume.descriptor;
        // What the descriptor says about the place counts, as for Linux.
        let root = volume.directory_at(root_extent)?;
        volume.root = Node { size: root_length.into(), ..root };
        volume.check_extent(root_extent, root_length.into(), at)?;
        Ok(volume)
    }

    /// The root directory.
    pub const fn root(&self) -> &Node {
        &self.root
    }

    /// Which names files have.
    pub const fn naming(&self) -> Naming {
        self.naming
    }

    /// The descriptor that is used: the primary one, or Joliet's.
    pub const fn descriptor(&self) -> &VolumeDescriptor {
        &self.descriptor
    }

    /// What the image is read from.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// Where a block begins in the image, in bytes.
    pub(crate) fn offset(&self, block: u32) -> u64 {
        u64::from(block) * u64::from(self.descriptor.block_size)
    }

    /// Reads the sector at `at` of a directory that ends at `end`; what is after its end is zero.
    pub(crate) fn read_sector(
        &self,
        at: u64,
        end: u64,
        buffer: &mut [u8; SECTOR],
    ) -> Result<(), ReadError<S::Error>> {
        if at >= self.source.size() {
            return Err(broken(at, AFTER_END));
        }
        let end = end.min(self.source.size());
        let length = usize::try_from(end.saturating_sub(at)).unwrap_or(SECTOR).min(SECTOR);
        let (there, rest) = buffer.split_at_mut(length);
        rest.fill(0);
        self.source.read_at(at, there).map_err(ReadError::Source)
    }

    /// Checks that an extent of so many bytes, which is recorded at `at`, is in the image. (Not in the volume: there are
    /// images that say a wrong size.)
    pub(crate) fn check_extent(&self, block: u32, bytes: u64, at: u64) -> Result<(), ReadError<S::Error>> {
        if self.offset(block) + bytes > self.source.size() {
            return Err(broken(at, AFTER_END));
        }
        Ok(())
    }
}

const AFTER_END: FormatError = FormatError::new("an extent goes on after the image's end");

/// The primary descriptor, and Joliet's if there is one.
fn descriptors<S: Source>(
    source: &S,
) -> Result<(VolumeDescriptor, Option<VolumeDescriptor>), ReadError<S::Error>> {
    let (mut primary, mut joliet) = (None, None);
    for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MOST_DESCRIPTORS {
        let at = number * SECTOR_SIZE;
        if at + SECTOR_SIZE > source.size() {
            if primary.is_some() {
                break;
            }
            return Err(broken(at, FormatError::new("it is too short for an ISO 9660 image")));
        }
        let mut sector = [0; SECTOR];
        source.read_at(at, &mut sector).map_err(ReadError::Source)?;
        match Descriptor::parse(&sector) {
            Ok(Descriptor::Primary(found)) => primary = primary.or(Some(found)),
            Ok(Descriptor::Joliet(found)) => joliet = joliet.or(Some(found)),
            Ok(Descriptor::Other) => {}
            Ok(Descriptor::Terminator) => break,
            // Without a terminator, the first sector that is no descriptor ends them.
            Err(_) if primary.is_some() => break,
            Err(error) => return Err(broken(at, error)),
        }
    }
    let missing = FormatError::new("there is no primary volume descriptor");
    Ok((primary.ok_or(broken(FIRST_DESCRIPTOR * SECTOR_SIZE, missing))?, joliet))
}
