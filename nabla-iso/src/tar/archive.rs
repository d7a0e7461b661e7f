//! The members of a stream.

use super::{
    block::{BLOCK, BLOCK_SIZE, broken, cut_off, padding as padding_of},
    field,
    header::{Dialect, Header, Kind},
    input::Input,
    pax::Extensions,
    sparse::Sparse,
};
use crate::format::{SYMLINK_MAX, Timestamp};
use std::io::{self, Read};

/// The largest header that describes another one, in bytes; libarchive has the same limit.
const MAX_EXTENDED: u64 = 1 << 20;
/// What is read at most after the end of an archive, so that a program that writes to a pipe can write all of it.
const MAX_TRAILER: u64 = 1 << 20;

/// How other files begin that are taken for tar files.
const OTHERS: [(&[u8], &str); 10] = [
    (b"\x1f\x8b", "it is compressed with gzip, and is to be unpacked before"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd, and is to be unpacked before"),
    (b"\xfd7zXZ\0", "it is compressed with xz, and is to be unpacked before"),
    (b"BZh", "it is compressed with bzip2, and is to be unpacked before"),
    (b"\x04\x22\x4d\x18", "it is compressed with lz4, and is to be unpacked before"),
    (b"\x1f\x9d", "it is compressed with compress, and is to be unpacked before"),
    (b"LZIP", "it is compressed with lzip, and is to be unpacked before"),
    (b"PK\x03\x04", "it is a zip file"),
    (b"070701", "it is a cpio archive"),
    (b"!<arch>\n", "it is an archive of ar"),
];

/// A tar stream.
pub struct Archive {
    input: Input,
    global: Extensions,
    /// Bytes of the current member that were not read, and what fills its last block.
    left: u64,
    padding: u64,
    /// A block that was looked at too early.
    ahead: Option<[u8; BLOCK]>,
    members: u64,
}

/// What a stream says about a file.
#[derive(Debug)]
pub struct Member {
    /// Its path, of up to 4095 bytes.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Permissions: the lower twelve bits of `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub time: Timestamp,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Bytes that follow in the stream; only files have some.
    pub stored: u64,
    /// Which parts of a sparse file they are.
    pub sparse: Option<Sparse>,
}

/// A stream, or one of its members, is broken.
#[derive(Debug)]
pub struct Broken {
    /// The path of the member, if it is known.
    pub path: Option<Vec<u8>>,
    pub error: io::Error,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self { path: None, error }
    }
}

/// What the headers before a member say about it.
#[derive(Default)]
struct Prelude {
    local: Extensions,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    is_pax: bool,
    /// There is a header that belongs to a member.
    is_pending: bool,
}

impl Archive {
    pub fn new(input: Input) -> Self {
        Self { input, global: Extensions::default(), left: 0, padding: 0, ahead: None, members: 0 }
    }

    /// Where the contents of the current member are in the stream.
    pub const fn position(&self) -> u64 {
        self.input.position()
    }

    /// The next member; nothing at the end. What was not read of the one before is skipped.
    pub fn next(&mut self) -> Result<Option<Member>, Broken> {
        self.input.skip(std::mem::take(&mut self.left))?;
        // Some archives end before their last block is full.
        let padding = std::mem::take(&mut self.padding);
        self.input.discard(padding)?;
        let mut prelude = Prelude::default();
        loop {
            let Some(header) = self.header()? else {
                if prelude.is_pending {
                    return Err(broken("it ends after a header that describes the next one").into());
                }
                return Ok(None);
            };
            match header.type_flag() {
                b'x' | b'X' => {
                    let body = self.body(&header)?;
                    // The last one counts, alone.
                    prelude.local = Extensions::default();
                    prelude.local.add(&body)?;
                    (prelude.is_pax, prelude.is_pending) = (true, true);
                }
                b'g' => {
                    let body = self.body(&header)?;
                    self.global.add(&body)?;
                }
                b'L' => {
                    prelude.path = Some(field::text(&self.body(&header)?).to_vec());
                    prelude.is_pending = true;
                }
                b'K' => {
                    prelude.link = Some(field::text(&self.body(&header)?).to_vec());
                    prelude.is_pending = true;
                }
                // The name of a volume, of which some programs write a size and no bytes; access control lists.
                b'V' => {}
                b'A' => {
                    let size = header.size()?;
                    self.input.skip(size)?;
                    self.input.discard(padding_of(size))?;
                }
                flag => return self.member(&header, flag, prelude).map(Some),
            }
        }
    }

    /// The next header; nothing at the end.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut block = [0; BLOCK];
        let length = match self.ahead.take() {
            Some(ahead) => {
                block = ahead;
                BLOCK
            }
            None => self.input.read_some(&mut block)?,
        };
        let at = self.input.position() - length as u64;
        if length == 0 {
            return Ok(None);
        }
        if block.iter().all(|&byte| byte == 0) {
            self.input.discard(MAX_TRAILER)?;
            return Ok(None);
        }
        let other = OTHERS.iter().find(|(magic, _)| at == 0 && block.starts_with(magic));
        match Header::parse(&block) {
            Some(header) if length == BLOCK => {
                self.members += 1;
                Ok(Some(header))
            }
            _ => Err(match other {
                Some((_, what)) => broken(*what),
                None if length < BLOCK && at > 0 => cut_off(),
                None if self.members == 0 => broken("it is no tar archive"),
                None => broken(format!("the header at byte {at} has a wrong checksum")),
            }),
        }
    }

    /// The body of a header that describes another one.
    fn body(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = header.size()?;
        if size > MAX_EXTENDED {
            return Err(broken(format!("an extended header has {size} bytes, and may have 1048576")));
        }
        self.input.expect(size)?;
        let mut body = Vec::new();
        self.input.by_ref().take(size).read_to_end(&mut body)?;
        if body.len() as u64 != size {
            return Err(cut_off());
        }
        self.input.discard(padding_of(size))?;
        Ok(body)
    }

    fn member(&mut self, header: &Header, flag: u8, prelude: Prelude) -> Result<Member, Broken> {
        let Prelude { local, path: long_path, link: long_link, is_pax, .. } = prelude;
        let given = local.sparse.name.as_ref().or(local.path.as_ref());
        let path = given
            .cloned()
            .or(long_path)
            .or_else(|| self.global.path.clone())
            .unwrap_or_else(|| header.path());
        if path.len() > SYMLINK_MAX {
            let error = broken(format!("its path has {} bytes, and may have 4095", path.len()));
            return Err(Broken { path: Some(path[..64].to_vec()), error });
        }
        match self.describe(header, flag, &local, is_pax, &path) {
            Ok(mut member) => {
                if matches!(member.kind, Kind::HardLink | Kind::Symlink) {
                    let given = local.link.or(long_link).or_else(|| self.global.link.clone());
                    member.link = given.unwrap_or_else(|| header.link());
                }
                Ok(Member { path, ..member })
            }
            Err(error) => Err(Broken { path: Some(path), error }),
        }
    }

    /// Everything but the names.
    fn describe(
        &mut self,
        header: &Header,
        flag: u8,
        local: &Extensions,
        is_pax: bool,
        path: &[u8],
    ) -> io::Result<Member> {
        let global = &self.global;
        let kind = match flag {
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharacterDevice,
            b'4' => Kind::BlockDevice,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'M' => return Err(broken("it goes on from another volume, which is not there")),
            // Before there was a type for directories, and where it is not used.
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            _ => Kind::Unknown,
        };
        let identity = |what: &str, number: i64| {
            u32::try_from(number)
                .map_err(|_| broken(format!("its {what} is {number}, and has to be from 0 to 4294967295")))
        };
        let uid = identity("owner", local.uid.or(global.uid).unwrap_or_else(|| header.uid()))?;
        let gid = identity("group", local.gid.or(global.gid).unwrap_or_else(|| header.gid()))?;
        let time = local.time.or(global.time).unwrap_or_else(|| Timestamp::from_seconds(header.time()));
        let device = header.device();
        let number =
            |given: Option<u64>, own: i64| u32::try_from(given.map_or(own, u64::cast_signed)).unwrap_or(0);
        let device = (number(local.device.0, device.0), number(local.device.1, device.1));
        let own = header.size();
        let mut stored = match local.size.or(global.size) {
            // libarchive says the size of the file, not of its parts.
            Some(size)
                if local.sparse.size == Some(size)
                    && own.as_ref().is_ok_and(|own| (1..size).contains(own)) =>
            {
                own?
            }
            Some(size) => size,
            None => own?,
        };
        let mut sparse = None;
        if flag == b'S' {
            sparse = Some(Sparse::old(header, &mut self.input)?);
        }
        let has_contents = matches!(kind, Kind::File | Kind::Unknown);
        if has_contents {
            self.input.expect(stored)?;
        }
        // The map of a sparse file is a part of the data, which is padded as a whole.
        self.padding = padding_of(stored);
        if has_contents && sparse.is_none() {
            sparse = Sparse::pax(&local.sparse, &mut self.input, &mut stored)?;
        }
        if sparse.as_ref().is_some_and(|sparse| sparse.stored() > stored) {
            return Err(broken("the map of its parts has more bytes than there are"));
        }
        if has_contents || flag == b'D' {
            self.left = stored;
        } else {
            self.skip_body(header, stored, is_pax)?;
        }
        let stored = if has_contents { stored } else { 0 };
        let (path, link, mode) = (Vec::new(), Vec::new(), header.mode());
        Ok(Member { path, kind, link, mode, uid, gid, time, device, stored, sparse })
    }

    /// Skips what follows a member that has no contents: links of pax may have a body, and others say a size without
    /// having one. Which it is shows from what follows.
    fn skip_body(&mut self, header: &Header, size: u64, is_pax: bool) -> io::Result<()> {
        self.padding = 0;
        if size == 0 || (header.dialect() == Dialect::Gnu && !is_pax) {
            return Ok(());
        }
        let mut block = [0; BLOCK];
        let length = self.input.read_some(&mut block)?;
        if length == BLOCK && (block.iter().all(|&byte| byte == 0) || Header::parse(&block).is_some()) {
            self.ahead = Some(block);
        } else if length > 0 {
            self.left = size.saturating_sub(BLOCK_SIZE);
            self.padding = if size > BLOCK_SIZE { padding_of(size) } else { 0 };
        }
        Ok(())
    }
}

impl Read for Archive {
    /// Reads from the contents of the current member.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if length == 0 {
            return Ok(0);
        }
        let length = self.input.read(&mut buffer[..length])?;
        if length == 0 {
            return Err(cut_off());
        }
        self.left -= length as u64;
        Ok(length)
    }
}
