//! Pieces of a heap of names.

/// The place of a name, or of a link's target, in a heap of bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Text {
    pub start: u32,
    pub length: u16,
}

impl Text {
    /// The bytes that it stands for.
    pub fn of(self, heap: &[u8]) -> &[u8] {
        &heap[self.start as usize..][..usize::from(self.length)]
    }
}
