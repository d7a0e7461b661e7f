//! Makes tar streams, as the programs make them that are to be read. Used by the tests and for the fuzz target's seeds.

/// Which fields a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    V7,
    Ustar,
    Gnu,
    Star,
}

/// A header, to be changed before it is added.
#[derive(Debug, Clone)]
pub struct Header(pub [u8; 512]);

impl Header {
    pub fn new(format: Format, path: &[u8], kind: u8, size: usize) -> Self {
        let mut bytes = [0; 512];
        bytes[..path.len()].copy_from_slice(path);
        bytes[100..108].copy_from_slice(b"0000644\0");
        bytes[108..116].copy_from_slice(b"0000001\0");
        bytes[116..124].copy_from_slice(b"0000002\0");
        bytes[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        bytes[136..148].copy_from_slice(b"07346545000\0");
        bytes[156] = kind;
        match format {
            Format::V7 => {}
            Format::Ustar => bytes[257..265].copy_from_slice(b"ustar\x0000"),
            Format::Gnu => bytes[257..265].copy_from_slice(b"ustar  \0"),
            Format::Star => {
                bytes[257..265].copy_from_slice(b"ustar\x0000");
                bytes[508..512].copy_from_slice(b"tar\0");
            }
        }
        Self(bytes)
    }

    /// With these bytes at an offset.
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// With the target of a link.
    pub fn link(self, target: &[u8]) -> Self {
        self.put(157, target)
    }

    /// With a checksum of unsigned or of signed bytes.
    pub fn sum(mut self, signed: bool) -> [u8; 512] {
        self.0[148..156].fill(b' ');
        let value = |&byte: &u8| if signed { i32::from(byte.cast_signed()) } else { i32::from(byte) };
        let sum: i32 = self.0.iter().map(value).sum();
        self.0[148..156].copy_from_slice(format!("{:06o}\0 ", sum & 0o777_777).as_bytes());
        self.0
    }
}

/// A stream.
#[derive(Debug, Clone, Default)]
pub struct Archive(pub Vec<u8>);

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header and what follows it, padded to a block.
    pub fn add(mut self, header: Header, contents: &[u8]) -> Self {
        self.0.extend_from_slice(&header.sum(false));
        self.raw(contents)
    }

    /// Adds bytes, padded to a block.
    pub fn raw(mut self, contents: &[u8]) -> Self {
        self.0.extend_from_slice(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Adds a file.
    pub fn file(self, path: &str, contents: &[u8]) -> Self {
        self.add(Header::new(Format::Ustar, path.as_bytes(), b'0', contents.len()), contents)
    }

    /// Adds an extended header, `x` or `g`.
    pub fn pax(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.add(Header::new(Format::Ustar, b"PaxHeaders/x", kind, body.len()), &body)
    }

    /// With two blocks of zeros.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A part of the map of a sparse file in the old formats.
pub fn part(offset: u64, length: u64) -> [u8; 24] {
    let mut part = [0; 24];
    part[..12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
    part[12..].copy_from_slice(format!("{length:011o}\0").as_bytes());
    part
}

/// Small streams that have everything.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let gnu = |path: &[u8], kind, size| Header::new(Format::Gnu, path, kind, size);
    let sparse =
        gnu(b"sparse", b'S', 10).put(386, &part(512, 5)).put(410, &part(4096, 5)).put(483, b"00000010005\0");
    let v7 = Archive::new()
        .add(Header::new(Format::V7, b"d/", 0, 0), b"")
        .add(Header::new(Format::V7, b"d/f", 0, 2), b"x\n")
        .add(Header::new(Format::V7, b"hard", b'1', 0).link(b"d/f"), b"");
    let extended = gnu(b"more", b'S', 1).put(386, &part(0, 1)).put(482, b"\x01").put(483, b"00000010000\0");
    let mut more = [0; 512];
    more[..24].copy_from_slice(&part(4096, 0));
    let pax = Archive::new()
        .pax(b'g', &[("mtime", b"1.5"), ("comment", b"x")])
        .pax(b'x', &[("path", b"long/path"), ("uid", b"70000"), ("SCHILY.xattr.x", b"\x01\n\0")])
        .file("short", b"12345")
        .pax(b'x', &[("linkpath", b"short"), ("size", b"0")])
        .add(Header::new(Format::Ustar, b"link", b'2', 0), b"");
    let maps = Archive::new()
        .pax(b'x', &[("GNU.sparse.size", b"9"), ("GNU.sparse.offset", b"2"), ("GNU.sparse.numbytes", b"3")])
        .file("zero", b"abc")
        .pax(b'x', &[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"0,1,5,2"), ("GNU.sparse.name", b"one")])
        .file("GNUSparseFile/one", b"abc")
        .pax(b'x', &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"99")])
        .file("two", &[&b"1\n50\n3\n"[..], &[0; 505], b"abc"].concat());
    let layer = Archive::new()
        .file(".wh..wh.plnk/1", b"hidden")
        .add(Header::new(Format::Ustar, b"a", b'1', 0).link(b".wh..wh.plnk/1"), b"")
        .file("d/.wh.x", b"")
        .file("d/.wh..wh..opq", b"")
        .add(Header::new(Format::Ustar, b"null", b'3', 0).put(329, b"0000001\0").put(337, b"0000003\0"), b"");
    vec![
        ("v7", v7.end()),
        ("gnu", Archive::new().add(gnu(b"l", b'L', 9), b"long/name").add(gnu(b"x", b'0', 1), b"1").end()),
        ("sparse", Archive::new().add(sparse, b"1234567890").add(extended, &more).raw(b"1").end()),
        ("pax", pax.end()),
        ("maps", maps.end()),
        ("layer", layer.end()),
    ]
}
