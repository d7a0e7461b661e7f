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
}

impl<S: Source> Source for &S {
    type Error = S::Error;

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
    /// Blocks that may be used: those of the volume that are there.
    blocks: u32,
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
        let there = u32::try_from(source.size() / SECTOR_SIZE).unwrap_or(u32::MAX);
        let mut volume = Self {
            source,
            descriptor: primary,
            naming: Naming::Plain,
            skip: 0,
            root: Node::default(),
            blocks: primary.blocks.min(there),
        };
        let mut sector = [0; SECTOR];
        volume.read_sector(primary.root_extent, &mut sector)?;
        let own = DirectoryRecord::parse(&sector, 0).map_err(|error| broken(primary.root_extent, error))?;
        match own.and_then(|own| susp::skip(own.system_use)) {
            Some(skip) => (volume.naming, volume.skip) = (Naming::RockRidge, skip),
            None => {
                if let Some(joliet) = joliet {
                    (volume.naming, volume.descriptor) = (Naming::Joliet, joliet);
                }
            }
        }
        volume.root = volume.directory_at(volume.descriptor.root_extent)?;
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

    /// Blocks of 2048 bytes that the volume has and the source, too.
    pub const fn blocks(&self) -> u32 {
        self.blocks
    }

    pub(crate) fn read_sector(
        &self,
        sector: u32,
        buffer: &mut [u8; SECTOR],
    ) -> Result<(), ReadError<S::Error>> {
        self.check_extent(sector, SECTOR_SIZE, sector)?;
        self.source.read_at(u64::from(sector) * SECTOR_SIZE, buffer).map_err(ReadError::Source)
    }

    /// Checks that an extent of `bytes` bytes, recorded in `sector`, is in the volume.
    pub(crate) fn check_extent(
        &self,
        block: u32,
        bytes: u64,
        sector: u32,
    ) -> Result<(), ReadError<S::Error>> {
        let end = u64::from(block) + bytes.div_ceil(SECTOR_SIZE);
        if end > u64::from(self.blocks) {
            return Err(broken(sector, FormatError::new("an extent goes on after the image's end")));
        }
        Ok(())
    }
}

/// The primary descriptor, and Joliet's if there is one.
fn descriptors<S: Source>(
    source: &S,
) -> Result<(VolumeDescriptor, Option<VolumeDescriptor>), ReadError<S::Error>> {
    let (mut primary, mut joliet) = (None, None);
    for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MOST_DESCRIPTORS {
        let at = u32::try_from(number).unwrap_or(u32::MAX);
        if (number + 1) * SECTOR_SIZE > source.size() {
            let what =
                if primary.is_none() { "it is too short for an ISO 9660 image" } else { "it ends early" };
            return Err(broken(at, FormatError::new(what)));
        }
        let mut sector = [0; SECTOR];
        source.read_at(number * SECTOR_SIZE, &mut sector).map_err(ReadError::Source)?;
        match Descriptor::parse(&sector).map_err(|error| broken(at, error))? {
            Descriptor::Primary(found) => primary = primary.or(Some(found)),
            Descriptor::Joliet(found) => joliet = joliet.or(Some(found)),
            Descriptor::Terminator => break,
            Descriptor::Other => {}
        }
    }
    let missing = FormatError::new("there is no primary volume descriptor");
    let first = u32::try_from(FIRST_DESCRIPTOR).unwrap_or_default();
    Ok((primary.ok_or(broken(first, missing))?, joliet))
}
