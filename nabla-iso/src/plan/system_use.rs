//! What Rock Ridge says about a file, and how that is spread over its record and continuation areas.

use crate::format::{
    SECTOR, Timestamp,
    rock_ridge::{self as rr, Attributes},
    susp::{CE_LENGTH, Continuation},
};

/// The longest entry.
const ENTRY_MAX: usize = 255;

/// The entries of a record, in order. Reused from record to record.
#[derive(Debug, Default)]
pub struct SystemUse {
    bytes: Vec<u8>,
    /// Where each entry ends in `bytes`.
    ends: Vec<usize>,
    /// Where each area's entries end: the record's own, then the continuation areas'.
    areas: Vec<usize>,
}

impl SystemUse {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds a whole entry.
    pub fn push(&mut self, entry: &[u8]) {
        self.bytes.extend_from_slice(entry);
        self.ends.push(self.bytes.len());
    }

    /// Adds `PX` and `TF`.
    pub fn attributes(&mut self, attributes: &Attributes, time: i64) {
        self.push(&attributes.encode());
        let mut entry = [0; rr::TF_MAX];
        let length = rr::encode_time(Timestamp::from_seconds(time), &mut entry);
        self.push(&entry[..length]);
    }

    /// Adds `NM`, for long names in two parts.
    pub fn name(&mut self, name: &[u8]) {
        let mut parts = name.chunks(rr::NM_MAX).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_some() { rr::CONTINUE } else { 0 };
            self.bytes.extend_from_slice(b"NM");
            self.bytes.extend([length(rr::NM_HEADER + part.len()), 1, flags]);
            self.push(part);
        }
    }

    /// Adds `SL`, for long targets in several parts.
    pub fn link(&mut self, target: &[u8]) {
        const HEADER: usize = 5;
        /// Bytes of a component before its text.
        const COMPONENT: usize = 2;
        let mut entry = [0; ENTRY_MAX];
        let mut end = HEADER;
        let finish = |this: &mut Self, entry: &mut [u8; ENTRY_MAX], end: usize, more: bool| {
            entry[..HEADER].copy_from_slice(&[b'S', b'L', length(end), 1, u8::from(more)]);
            this.push(&entry[..end]);
        };
        let (root, rest) = target.strip_prefix(b"/").map_or((false, target), |rest| (true, rest));
        if root {
            entry[end..end + 2].copy_from_slice(&[rr::ROOT, 0]);
            end += 2;
        }
        // The root alone has no component after it.
        let components = rest.split(|&byte| byte == b'/').filter(|_| !(root && rest.is_empty()));
        let mut components = components.peekable();
        while let Some(component) = components.next() {
            let (flags, mut text) = match component {
                b"." => (rr::CURRENT, &b""[..]),
                b".." => (rr::PARENT, &b""[..]),
                _ => (0, component),
            };
            // An entry that another one follows ends within a component, if need be an empty part of one: libarchive puts no
            // slash between entries.
            let kept = if components.peek().is_some() { COMPONENT } else { 0 };
            loop {
                if ENTRY_MAX - end < COMPONENT + usize::from(!text.is_empty()) + kept {
                    if ENTRY_MAX - end >= COMPONENT {
                        entry[end..end + COMPONENT].copy_from_slice(&[rr::CONTINUE, 0]);
                        end += COMPONENT;
                    }
                    finish(self, &mut entry, end, true);
                    end = HEADER;
                }
                let room = ENTRY_MAX - end - COMPONENT;
                let whole = text.len() + kept <= room;
                let (part, rest) = text.split_at(if whole { text.len() } else { room.min(text.len() - 1) });
                let more = if rest.is_empty() { 0 } else { rr::CONTINUE };
                entry[end..end + COMPONENT].copy_from_slice(&[flags | more, length(part.len())]);
                entry[end + COMPONENT..end + COMPONENT + part.len()].copy_from_slice(part);
                end += COMPONENT + part.len();
                text = rest;
                if text.is_empty() {
                    break;
                }
                finish(self, &mut entry, end, true);
                end = HEADER;
            }
        }
        finish(self, &mut entry, end, false);
    }

    /// Spreads the entries: as many as fit into `room` bytes of the record, the others into areas of up to a block.
    /// Returns how many bytes the record gets.
    pub fn spread(&mut self, room: usize) -> usize {
        self.areas.clear();
        let total = self.bytes.len();
        let (mut start, mut room) = (0, room);
        while total - start > room {
            let fits = self.ends.partition_point(|&end| end <= start + room.saturating_sub(CE_LENGTH));
            let end = if fits == 0 { start } else { self.ends[fits - 1].max(start) };
            self.areas.push(end);
            start = end;
            room = SECTOR;
        }
        self.areas.push(total);
        self.area_length(0)
    }

    /// How many bytes an area has, with the entry that leads to the next one.
    fn area_length(&self, index: usize) -> usize {
        let start = index.checked_sub(1).map_or(0, |before| self.areas[before]);
        self.areas[index] - start + if index + 1 < self.areas.len() { CE_LENGTH } else { 0 }
    }

    /// Places the continuation areas from `at` on, an offset in their directory's part for them. Returns the offset
    /// after them.
    pub fn place(&self, at: u64) -> u64 {
        (1..self.areas.len()).fold(at, |at, index| {
            let length = self.area_length(index);
            fit(at, length) + length as u64
        })
    }

    /// Writes the record's entries to `record`, and the others to `continuations`, whose first block is `block`,
    /// from `at` on. Returns the offset after them.
    pub fn write(&self, record: &mut [u8], continuations: &mut [u8], block: u32, at: u64) -> u64 {
        let mut at = at;
        let mut start = 0;
        // Where the current area is: in the record, then in the continuations.
        let mut place = None;
        for (index, &end) in self.areas.iter().enumerate() {
            let mut next = None;
            let mut link = [0; CE_LENGTH];
            if index + 1 < self.areas.len() {
                let length = self.area_length(index + 1);
                at = fit(at, length);
                let area = Continuation {
                    block: block + narrow(at / SECTOR as u64),
                    offset: narrow(at % SECTOR as u64),
                    length: narrow(length as u64),
                };
                link = area.encode();
                next = Some(usize::try_from(at).unwrap_or(usize::MAX));
                at += length as u64;
            }
            let out = match place {
                None => &mut *record,
                Some(offset) => &mut continuations[offset..],
            };
            let bytes = &self.bytes[start..end];
            out[..bytes.len()].copy_from_slice(bytes);
            if next.is_some() {
                out[bytes.len()..bytes.len() + CE_LENGTH].copy_from_slice(&link);
            }
            place = next;
            start = end;
        }
        at
    }
}

/// Where an area goes that must not leave its block.
const fn fit(at: u64, length: usize) -> u64 {
    let sector = SECTOR as u64;
    if at % sector + length as u64 > sector { at.next_multiple_of(sector) } else { at }
}

/// A length that is known to fit.
fn length(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

/// A number of blocks or bytes within a directory, which the plan has checked.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::susp::Entries;

    #[test]
    fn what_fits_stays_in_the_record() {
        let mut system_use = SystemUse::default();
        system_use.name(b"short");
        assert_eq!(system_use.spread(100), 10);
        assert_eq!(system_use.place(7), 7);
        let mut record = [0; 10];
        assert_eq!(system_use.write(&mut record, &mut [], 0, 7), 7);
        assert_eq!(&record, b"NM\x0a\x01\0short");
    }

    #[test]
    fn long_names_and_links_go_on_in_areas_within_blocks() {
        let mut system_use = SystemUse::default();
        let name = [b'n'; 255];
        let target = [b't'; 4095];
        system_use.name(&name);
        system_use.link(&target);
        let record_length = system_use.spread(130);
        assert_eq!(record_length, CE_LENGTH);
        let end = system_use.place(100);
        let mut record = vec![0; record_length];
        let mut continuations = vec![0; usize::try_from(end).unwrap().next_multiple_of(SECTOR)];
        assert_eq!(system_use.write(&mut record, &mut continuations, 50, 100), end);

        // Follow them as a reader does.
        let (mut area, mut found_name, mut found_target) = (record, Vec::new(), Vec::new());
        loop {
            let mut next = None;
            for entry in Entries::new(&area).map(Result::unwrap) {
                match &entry.signature {
                    b"CE" => next = Some(Continuation::parse(entry.data).unwrap()),
                    b"NM" => found_name.extend_from_slice(&entry.data[1..]),
                    b"SL" => {
                        for component in rr::Components::parse(entry.data).unwrap().0 {
                            found_target.extend_from_slice(component.unwrap().text);
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
            let Some(Continuation { block, offset, length }) = next else { break };
            let start = (block as usize - 50) * SECTOR + offset as usize;
            area = continuations[start..start + length as usize].to_vec();
        }
        assert_eq!(found_name, name);
        assert_eq!(found_target, target);
    }
}
