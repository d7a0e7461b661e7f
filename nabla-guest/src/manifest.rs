//! The manifest: which devices the guest wants, encoded at compile time into the note "MFT1".

use nabla_core::abi::{
    MFT1_NOTE_ALIGN, MFT1_NOTE_TYPE, NOTE_HEADER_SIZE, NOTE_NAME, NoteHeader,
    mft::{Entry, Header, MAX_ENTRIES, NAME_MAX, VERSION},
};

/// A device as [`entry!`](crate::entry!) declares it.
#[derive(Debug, Clone, Copy)]
pub struct DeclaredDevice {
    /// `TYPE_BLOCK` or `TYPE_NET`.
    pub kind: u32,
    /// 1 to 67 ASCII letters and digits.
    pub name: &'static str,
}

/// The note "MFT1" (`mft_abi.h`) of a manifest with `N` entries, of which the first is reserved.
///
/// Packed to the alignment that notes have in a file, where every member falls on its own all the same.
#[repr(C, packed(4))]
#[derive(Debug, Clone, Copy)]
pub struct ManifestNote<const N: usize> {
    note: NoteHeader,
    /// Brings what follows to the alignment of the C structure.
    padding: u32,
    header: Header,
    entries: [Entry; N],
}

impl<const N: usize> ManifestNote<N> {
    /// Encodes `devices`, which are `N` - 1.
    ///
    /// # Panics
    ///
    /// That is to say, the compiler reports an error: when there are more than 63 devices, when a name is not
    /// made of 1 to 67 ASCII letters and digits, and when two devices have the same name.
    #[must_use]
    pub const fn new(devices: &[DeclaredDevice]) -> Self {
        assert!(N <= MAX_ENTRIES as usize, "a guest cannot have more than 63 devices");
        assert!(N == devices.len() + 1);
        let mut entries = [Entry::RESERVED; N];
        let mut i = 0;
        while i < devices.len() {
            let device = devices[i];
            check_name(device.name.as_bytes());
            let mut j = 0;
            while j < i {
                assert!(
                    !equal(devices[j].name.as_bytes(), device.name.as_bytes()),
                    "two devices of a guest have the same name"
                );
                j += 1;
            }
            entries[i + 1] = Entry::new(device.kind, device.name);
            i += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "there are at most 64 entries")]
        let (size, count) = ((size_of::<Self>() - NOTE_HEADER_SIZE) as u32, N as u32);
        Self {
            note: NoteHeader::new(NOTE_NAME, MFT1_NOTE_TYPE, size),
            padding: 0,
            header: Header { version: VERSION, entries: count },
            entries,
        }
    }
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(ManifestNote<1>, header) == NOTE_HEADER_SIZE.next_multiple_of(MFT1_NOTE_ALIGN));
    assert!(size_of::<ManifestNote<1>>() == 32 + size_of::<Entry>());
    assert!(offset_of!(ManifestNote<1>, entries) == 32);
};

const fn check_name(name: &[u8]) {
    assert!(!name.is_empty(), "the name of a device is empty");
    assert!(name.len() <= NAME_MAX, "the name of a device is longer than 67 characters");
    let mut i = 0;
    while i < name.len() {
        assert!(
            name[i].is_ascii_alphanumeric(),
            "the name of a device has more in it than ASCII letters and digits"
        );
        i += 1;
    }
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use nabla_core::abi::mft::{TYPE_BLOCK, TYPE_NET, TYPE_RESERVED};

    use super::*;

    const fn block(name: &'static str) -> DeclaredDevice {
        DeclaredDevice { kind: TYPE_BLOCK, name }
    }

    fn words<const N: usize>(note: &ManifestNote<N>) -> Vec<u32> {
        let (start, len) = ((&raw const *note).cast::<u32>(), size_of_val(note) / 4);
        // SAFETY: the note is initialised, has no padding and is aligned to 4 bytes.
        unsafe { core::slice::from_raw_parts(start, len) }.to_vec()
    }

    #[test]
    fn note_without_devices_has_the_reserved_entry() {
        let words = words(&ManifestNote::<1>::new(&[]));
        let name = u32::from_le_bytes(*b"Solo");
        assert_eq!(words[..8], [6, 12 + 104, 0x3154_464d, name, u32::from(b'5'), 0, 1, 1]);
        assert_eq!(words.len() * 4, 20 + 12 + 104);
        assert_eq!(words[8 + 17], TYPE_RESERVED);
        assert!(words[8..].iter().filter(|&&word| word != 0).count() == 1);
    }

    #[test]
    fn devices_follow_in_their_order() {
        let devices = [block("storage"), DeclaredDevice { kind: TYPE_NET, name: "service0" }];
        let note = ManifestNote::<3>::new(&devices);
        let entries = note.entries;
        assert_eq!(entries[0], Entry::RESERVED);
        assert_eq!(entries[1], Entry::new(TYPE_BLOCK, "storage"));
        assert_eq!(entries[2], Entry::new(TYPE_NET, "service0"));
        assert_eq!({ note.note }.descsz, 12 + 3 * 104);
    }

    #[test]
    fn limits_are_met() {
        let names: Vec<String> = (0..63).map(|i| format!("d{i}")).collect();
        let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
        let devices: Vec<_> = names.into_iter().map(block).collect();
        let note = ManifestNote::<64>::new(&devices);
        assert_eq!({ note.header }.entries, 64);
        let longest = "a".repeat(67).leak();
        let note = ManifestNote::<2>::new(&[block(longest)]);
        assert_eq!({ note.entries }[1].name_bytes(), longest.as_bytes());
    }

    #[test]
    #[should_panic(expected = "the name of a device is empty")]
    fn empty_name_is_an_error() {
        let _ = ManifestNote::<2>::new(&[block("")]);
    }

    #[test]
    #[should_panic(expected = "longer than 67 characters")]
    fn long_name_is_an_error() {
        let _ = ManifestNote::<2>::new(&[block("a".repeat(68).leak())]);
    }

    #[test]
    #[should_panic(expected = "more in it than ASCII letters and digits")]
    fn name_with_a_dash_is_an_error() {
        let _ = ManifestNote::<2>::new(&[block("net-0")]);
    }

    #[test]
    #[should_panic(expected = "two devices of a guest have the same name")]
    fn same_name_twice_is_an_error() {
        let _ =
            ManifestNote::<4>::new(&[block("a"), block("b"), DeclaredDevice { kind: TYPE_NET, name: "a" }]);
    }

    #[test]
    #[should_panic(expected = "more than 63 devices")]
    fn too_many_devices_are_an_error() {
        let _ = ManifestNote::<65>::new(&[block("a"); 64]);
    }
}
