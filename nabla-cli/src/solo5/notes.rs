//! The notes of an image, whichever of Solo5's targets it is for.

use nabla_core::{
    Manifest, ManifestError, ReadAt,
    abi::{ABI1_NOTE_TYPE, MFT1_NOTE_TYPE, NOTE_HEADER_SIZE, NOTE_NAME},
    elf::Elf,
};
use nabla_monitor::ImageFile;

/// Most bytes of notes that are looked at in one program header.
const MAX_SIZE: u64 = 64 << 10;
/// Padding between the header of a manifest's note and the manifest.
const MANIFEST_PADDING: usize = NOTE_HEADER_SIZE.next_multiple_of(8) - NOTE_HEADER_SIZE;

/// What the notes say; nothing where there is no such note.
#[derive(Debug, Default)]
pub struct Notes {
    /// Target and version of the ABI.
    pub abi: Option<(u32, u32)>,
    /// The manifest, or what is wrong with it.
    pub manifest: Option<Result<Manifest, ManifestError>>,
}

impl Notes {
    /// Reads the notes in a file. The error is a sentence about the file.
    pub fn read(file: &ImageFile) -> Result<Self, String> {
        let elf = Elf::parse(file).map_err(|error| format!("invalid executable: {error}"))?;
        let mut notes = Self::default();
        for range in &elf.notes {
            let length = usize::try_from(range.size.min(MAX_SIZE)).unwrap_or(0);
            let mut bytes = vec![0; length];
            file.read_at(range.offset, &mut bytes).map_err(|error| error.to_string())?;
            notes.scan(range.index, &bytes)?;
        }
        Ok(notes)
    }

    fn scan(&mut self, index: u16, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(([name_size, size, kind], rest)) = take_words(bytes) {
            let (Some(name), Some(content)) = (padded(name_size), padded(size)) else { return Ok(()) };
            let ours = rest.starts_with(&NOTE_NAME) && name_size as usize == NOTE_NAME.len();
            let descriptor = rest.get(name..).and_then(|rest| rest.get(..size as usize));
            match descriptor {
                Some(descriptor) if ours => self.add(kind, descriptor),
                Some(_) => {}
                None if ours && (kind == ABI1_NOTE_TYPE || kind == MFT1_NOTE_TYPE) => {
                    return Err(format!(
                        "invalid executable: phdr[{index}] note does not fall within valid size ({size} bytes)"
                    ));
                }
                None => return Ok(()),
            }
            bytes = rest.get(name.saturating_add(content)..).unwrap_or_default();
        }
        Ok(())
    }

    fn add(&mut self, kind: u32, descriptor: &[u8]) {
        match kind {
            ABI1_NOTE_TYPE if self.abi.is_none() => {
                self.abi = take_words(descriptor).map(|([target, version, _], _)| (target, version));
            }
            MFT1_NOTE_TYPE if self.manifest.is_none() => {
                let content = descriptor.get(MANIFEST_PADDING..).unwrap_or_default();
                self.manifest = Some(Manifest::parse(content));
            }
            _ => {}
        }
    }
}

/// Three numbers and what follows them.
fn take_words(bytes: &[u8]) -> Option<([u32; 3], &[u8])> {
    let (words, rest) = bytes.split_first_chunk::<12>()?;
    let word = |at: usize| u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
    Some(([word(0), word(4), word(8)], rest))
}

/// Sizes in notes are padded to 4 bytes.
fn padded(size: u32) -> Option<usize> {
    (size as usize).checked_next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(kind: u32, content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(content.len()).unwrap();
        let words = [6, size, kind].map(u32::to_le_bytes).concat();
        [words.as_slice(), b"Solo5\0\0\0", content].concat()
    }

    #[test]
    fn abi_and_manifest_are_found_behind_other_notes() {
        let mut bytes = [[4, 0, 1].map(u32::to_le_bytes).concat().as_slice(), b"GNU\0"].concat();
        bytes.extend(note(ABI1_NOTE_TYPE, &[2, 2, 0, 0].map(u32::to_le_bytes).concat()));
        bytes.extend(note(MFT1_NOTE_TYPE, &[&[0; 4][..], &Manifest::new([]).unwrap().encode()].concat()));
        let mut notes = Notes::default();
        notes.scan(0, &bytes).unwrap();
        assert_eq!(notes.abi, Some((2, 2)));
        assert_eq!(notes.manifest.unwrap().unwrap().devices().count(), 0);
    }

    #[test]
    fn truncated_notes_are_an_error_or_nothing() {
        let bytes = note(ABI1_NOTE_TYPE, &[0; 16]);
        for length in 0..bytes.len() {
            let result = Notes::default().scan(3, &bytes[..length]);
            // 12 bytes of numbers and 6 of the name tell that it is ours.
            assert_eq!(result.is_err(), length >= 18, "{length}: {result:?}");
        }
    }
}
