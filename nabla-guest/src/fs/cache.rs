//! A device whose last small pieces are kept.

use alloc::{boxed::Box, vec};
use core::{cell::RefCell, fmt};

use nabla_iso::reader::Source;

use crate::{Block, BlockError};

/// Bytes of a piece: two sectors of an image, and whole blocks of most devices.
const PIECE: usize = 4096;
/// How many pieces are kept, each in the place that its number leads to.
const PIECES: usize = 16;
/// Reads from this size on are not worth keeping.
const LARGE: usize = 4 * PIECE;

/// See the module.
pub struct Cached {
    device: Block,
    kept: RefCell<Kept>,
}

struct Kept {
    /// The number of each piece, if there is one.
    numbers: [Option<u64>; PIECES],
    bytes: Box<[u8]>,
}

impl Cached {
    pub fn new(device: Block) -> Self {
        let kept = Kept { numbers: [None; PIECES], bytes: vec![0; PIECES * PIECE].into_boxed_slice() };
        Self { device, kept: RefCell::new(kept) }
    }
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Source for Cached {
    type Error = BlockError;

    fn size(&self) -> u64 {
        self.device.capacity()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BlockError> {
        if buffer.len() >= LARGE {
            return self.device.read_at(offset, buffer);
        }
        let mut kept = self.kept.borrow_mut();
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let number = at / PIECE as u64;
            let within = usize::try_from(at % PIECE as u64).unwrap_or_default();
            let piece = kept.piece(&self.device, number)?;
            // The last one may be shorter; what is after it is refused by the device.
            let take = rest.len().min(piece.len().saturating_sub(within));
            if take == 0 {
                return self.device.read_at(at, rest);
            }
            rest[..take].copy_from_slice(&piece[within..within + take]);
            at += take as u64;
            rest = &mut rest[take..];
        }
        Ok(())
    }
}

impl Kept {
    fn piece(&mut self, device: &Block, number: u64) -> Result<&[u8], BlockError> {
        let place = usize::try_from(number % PIECES as u64).unwrap_or_default();
        let start = number * PIECE as u64;
        let left = usize::try_from(device.capacity().saturating_sub(start)).unwrap_or(PIECE);
        let bytes = &mut self.bytes[place * PIECE..][..left.min(PIECE)];
        if self.numbers[place] != Some(number) {
            self.numbers[place] = None;
            device.read_at(start, bytes)?;
            self.numbers[place] = Some(number);
        }
        Ok(bytes)
    }
}
