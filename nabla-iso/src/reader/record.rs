//! What a directory's record says, with its continuation areas.

use super::{
    error::{ReadError, broken},
    node::{Encoding, Kind, Node},
    volume::{Naming, Source, Volume},
};
use crate::format::{
    FormatError, NAME_MAX, SECTOR, SECTOR_SIZE, SYMLINK_MAX,
    directory_record::DirectoryRecord,
    joliet,
    rock_ridge::{self as rr, Attributes, Components},
    susp::{Continuation, Entries, Entry, MAX_AREAS, halves_agree},
};

/// Bytes with a bound.
#[derive(Debug, Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    pub const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Appends; false if there is no room.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        match self.bytes.get_mut(self.length..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.length += bytes.len();
                true
            }
            None => false,
        }
    }

    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Replaces each of these bytes.
    fn replace(&mut self, bytes: &[u8], by: u8) {
        self.bytes[..self.length].iter_mut().filter(|byte| bytes.contains(byte)).for_each(|byte| *byte = by);
    }
}

/// What is known from one record.
#[derive(Debug, Clone, Copy)]
pub struct ParsedRecord {
    pub node: Node,
    pub name: Text<NAME_MAX>,
    /// The directory in whose place this is.
    pub child: Option<u32>,
    /// The directory to which this one really belongs.
    pub parent: Option<u32>,
    /// It is in another place.
    pub relocated: bool,
    /// What is against the standard and does no harm.
    pub oddity: Option<FormatError>,
}

/// A symbolic link as it is put together.
pub struct Link<'a> {
    pub text: &'a mut Text<SYMLINK_MAX>,
    /// The last component goes on.
    continues: bool,
    /// The next component is separated by a slash.
    separated: bool,
}

impl<'a> Link<'a> {
    pub const fn new(text: &'a mut Text<SYMLINK_MAX>) -> Self {
        Self { text, continues: false, separated: false }
    }

    fn add(&mut self, data: &[u8]) -> Result<(), FormatError> {
        const TOO_LONG: FormatError = FormatError::new("a symbolic link is longer than 4095 bytes");
        let (components, _) = Components::parse(data)?;
        for component in components {
            let component = component?;
            let text = match component.flags & !rr::CONTINUE {
                0 => component.text,
                rr::CURRENT => b".",
                rr::PARENT => b"..",
                rr::ROOT if self.text.as_bytes().is_empty() => {
                    (self.separated, self.continues) = (false, false);
                    if !self.text.push(b"/") {
                        return Err(TOO_LONG);
                    }
                    continue;
                }
                // mkisofs and xorriso record the empty component of "a//b" so.
                rr::ROOT => b"",
                _ => {
                    return Err(FormatError::new(
                        "a component of a symbolic link (SL) is of an unknown kind",
                    ));
                }
            };
            if text.contains(&0) {
                return Err(FormatError::new("a symbolic link has a NUL in it"));
            }
            if self.separated && !self.continues && !self.text.push(b"/") {
                return Err(TOO_LONG);
            }
            if !self.text.push(text) {
                return Err(TOO_LONG);
            }
            self.separated = true;
            self.continues = component.flags & rr::CONTINUE != 0;
        }
        Ok(())
    }
}

/// What the entries of a record have said so far.
#[derive(Default)]
struct SystemUseFields {
    attributes: Option<Attributes>,
    device: Option<u64>,
    time: Option<crate::format::Timestamp>,
    has_link: bool,
    named: bool,
    child: Option<u32>,
    parent: Option<u32>,
    relocated: bool,
    compressed: bool,
    next: Option<Continuation>,
    oddity: Option<FormatError>,
}

impl<S: Source> Volume<S> {
    /// Reads a record at `place`, the sector's place and the offset in it. Its symbolic link goes to `link`, if that is wanted.
    pub(super) fn parse_record(
        &self,
        record: &DirectoryRecord<'_>,
        place: (u64, usize),
        link: Option<Link<'_>>,
    ) -> Result<ParsedRecord, ReadError<S::Error>> {
        let fields = record.fields;
        let directory = record.is_directory();
        let mut found = ParsedRecord {
            node: Node {
                kind: if directory { Kind::Directory } else { Kind::File },
                mode: if directory { rr::S_IFDIR | 0o555 } else { rr::S_IFREG | 0o444 },
                links: 1,
                time: fields.time,
                size: fields.length.into(),
                extent: fields.extent,
                sections: 1,
                record: place,
                // Up to the end of the sector at least; who knows the directory's end says it.
                record_end: place.0 + SECTOR_SIZE,
                encoding: if record.interleaved { Encoding::Interleaved } else { Encoding::Plain },
                ..Node::default()
            },
            name: Text::new(),
            child: None,
            parent: None,
            relocated: false,
            oddity: record.oddity,
        };
        match self.naming {
            Naming::RockRidge => self.rock_ridge(record, place.0, &mut found, link)?,
            Naming::Joliet if !record.is_dot() => {
                let mut buffer = [0; 3 * 128];
                if !found.name.push(joliet::decode(record.identifier, &mut buffer)) {
                    return Err(broken(place.0, FormatError::new("a name has more than 255 bytes")));
                }
                found.name.replace(b"/\0", b'_');
            }
            Naming::Plain if !record.is_dot() => plain_name(record.identifier, &mut found.name),
            Naming::Joliet | Naming::Plain => {}
        }
        if !record.is_dot() {
            check_name(found.name.as_bytes()).map_err(|error| broken(place.0, error))?;
        }
        if found.child.is_none()
            && fields.length > 0
            && matches!(found.node.kind, Kind::File | Kind::Directory)
        {
            self.check_extent(fields.extent, fields.length.into(), place.0)?;
        }
        if found.node.is_directory() && fields.length == 0 && found.child.is_none() {
            found.oddity = found.oddity.or(Some(FormatError::new("a directory has no sector")));
        }
        Ok(found)
    }

    fn rock_ridge(
        &self,
        record: &DirectoryRecord<'_>,
        at: u64,
        found: &mut ParsedRecord,
        mut link: Option<Link<'_>>,
    ) -> Result<(), ReadError<S::Error>> {
        let mut seen = SystemUseFields::default();
        let own = record.system_use.get(usize::from(self.skip)..).unwrap_or_default();
        for entry in Entries::new(own) {
            entry
                .and_then(|entry| seen.add(&entry, &mut found.name, link.as_mut()))
                .map_err(|error| broken(at, error))?;
        }
        let mut areas = 0;
        while let Some(area) = seen.next.take() {
            areas += 1;
            if areas > MAX_AREAS {
                return Err(broken(at, FormatError::new("a record has too many continuation areas (CE)")));
            }
            let mut bytes = [0; SECTOR];
            let bytes = bytes.get_mut(..area.length as usize).unwrap_or_default();
            self.check_extent(area.block, u64::from(area.offset + area.length), at)?;
            let offset = self.offset(area.block) + u64::from(area.offset);
            self.source.read_at(offset, bytes).map_err(ReadError::Source)?;
            for entry in Entries::new(bytes) {
                entry
                    .and_then(|entry| seen.add(&entry, &mut found.name, link.as_mut()))
                    .map_err(|error| broken(offset, error))?;
            }
        }
        seen.apply(record, found).map_err(|error| broken(at, error))
    }
}

impl SystemUseFields {
    fn add(
        &mut self,
        entry: &Entry<'_>,
        name: &mut Text<NAME_MAX>,
        link: Option<&mut Link<'_>>,
    ) -> Result<(), FormatError> {
        if !halves_agree(entry) {
            self.oddity = Some(FormatError::new("a number of Rock Ridge differs between byte orders"));
        }
        match &entry.signature {
            b"ZF" => self.compressed = true,
            b"PX" => self.attributes = Some(Attributes::parse(entry.data)?),
            b"PN" => self.device = Some(rr::parse_device(entry.data)?),
            b"TF" => self.time = rr::parse_time(entry.data).or(self.time),
            b"CL" => self.child = Some(rr::parse_link(entry.data)?),
            b"PL" => self.parent = Some(rr::parse_link(entry.data)?),
            b"RE" => self.relocated = true,
            b"CE" if self.next.is_some() => {
                return Err(FormatError::new("a system use area goes on in two places (CE)"));
            }
            b"CE" => self.next = Some(Continuation::parse(entry.data)?),
            b"NM" => {
                let (&flags, text) =
                    entry.data.split_first().ok_or(FormatError::new("a name (NM) is empty"))?;
                // VirtualBox sets a flag that says "this directory" on names; elsewhere there is no text with it.
                if !text.is_empty() {
                    self.named = true;
                    if flags & (rr::CURRENT | rr::PARENT) != 0 {
                        self.oddity = Some(FormatError::new("a name (NM) has flags that say it is none"));
                    }
                    if !name.push(text) {
                        return Err(FormatError::new("a name has more than 255 bytes"));
                    }
                }
            }
            b"SL" => {
                self.has_link = true;
                if let Some(link) = link {
                    link.add(entry.data)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn apply(self, record: &DirectoryRecord<'_>, found: &mut ParsedRecord) -> Result<(), FormatError> {
        let node = &mut found.node;
        if !self.named && !record.is_dot() {
            found.name.clear();
            plain_name(record.identifier, &mut found.name);
        }
        found.oddity = found.oddity.or(self.oddity);
        if self.compressed {
            node.encoding = Encoding::Zisofs;
        }
        if let Some(attributes) = self.attributes {
            // mkisofs leaves the kind out where it does not matter to anybody.
            let kind = Kind::of_mode(attributes.mode);
            if kind.is_none() && attributes.mode & rr::S_IFMT != 0 {
                found.oddity = Some(FormatError::new("a file's mode (PX) is of no kind"));
            }
            node.mode = match kind {
                Some(_) => attributes.mode,
                None => attributes.mode & 0o7777 | node.mode & rr::S_IFMT,
            };
            node.kind = kind.unwrap_or(node.kind);
            node.links = attributes.links;
            (node.uid, node.gid, node.serial) = (attributes.uid, attributes.gid, attributes.serial);
        } else if self.has_link {
            (node.kind, node.mode) = (Kind::Symlink, rr::S_IFLNK | 0o777);
        }
        if node.is_directory() != (record.is_directory() || self.child.is_some()) {
            // The attributes count, as for Linux and libarchive.
            found.oddity = Some(FormatError::new(
                "a record and its attributes (PX) disagree on whether it is a directory",
            ));
        }
        if let Some(device) = self.device {
            node.device = rr::device_parts(device);
        }
        node.time = self.time.or(node.time);
        (found.child, found.parent, found.relocated) = (self.child, self.parent, self.relocated);
        Ok(())
    }
}

/// The name in an identifier of ECMA-119: without a version, and without a dot that nothing follows. A slash, which some
/// programs leave in, becomes a dot, as in Linux.
fn plain_name(identifier: &[u8], name: &mut Text<NAME_MAX>) {
    let end = identifier.iter().position(|&byte| byte == b';').unwrap_or(identifier.len());
    let bytes = &identifier[..end];
    let bytes = bytes.strip_suffix(b".").filter(|rest| !rest.is_empty()).unwrap_or(bytes);
    // An identifier has 221 bytes at most.
    let _ = name.push(bytes);
    name.replace(b"/", b'.');
    name.replace(b"\0", b'_');
}

fn check_name(name: &[u8]) -> Result<(), FormatError> {
    match name {
        b"" => Err(FormatError::new("a file has an empty name")),
        b"." | b".." => Err(FormatError::new("a file is called '.' or '..'")),
        _ if name.contains(&b'/') || name.contains(&0) => {
            Err(FormatError::new("a file's name has a slash or a NUL in it"))
        }
        _ => Ok(()),
    }
}
